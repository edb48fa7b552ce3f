package guard

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/sse-guard/sse-guard/caddymodule/event"
	"github.com/sse-guard/sse-guard/caddymodule/identity"
	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/tombstone"
)

// step is one question that is asked of a request. It returns why the request does
// not get its stream, or nil if it may go on.
type step func(*request) *refusal

// beforeForward is asked of a request that asks for a stream, before the upstream
// sees it, as far as the request alone tells.
var beforeForward = []step{draining, staysLoggedOut, entombed, identified, keyed, damped, admitEarly}

// atHeader is asked once the upstream has answered with a stream. Those who pass
// then ask their registries, all guards of the request at once (see chain). The
// registries also answer who shows a tombstone of a full key.
var atHeader = []step{staysLoggedOut, identifiedAtHeader, keyedAtHeader, draining, damped}

// uncounted is asked of a stream that does not count, once the upstream has answered
// with it.
var uncounted = []step{identifiedAtHeader}

// whoeverAsks is asked of a request that does not ask for a stream, before the
// upstream sees it.
var whoeverAsks = []step{staysLoggedOut, entombed}

// through has q go through steps until one of them refuses it.
func through(q *request, steps []step) *refusal {
	for _, s := range steps {
		if f := s(q); f != nil {
			return f
		}
	}
	return nil
}

// draining turns everybody away while the server stops.
func draining(q *request) *refusal {
	if !q.guard.Zone.IsDraining() {
		return nil
	}
	f := unavailable()
	f.outcome = event.OutcomeDraining
	f.retry = q.guard.Zone.DrainReturn()
	return f
}

// identified demands the identity that the guard is told to demand: one token, if
// one is required, which is good and not denied.
func identified(q *request) *refusal {
	g := q.guard
	switch {
	case q.tokenErr != nil:
		q.tellTwoTokens()
		return differingTokens()
	case q.holder.Token.IsZero() && g.demandsToken():
		return missingToken()
	case q.claimsErr != nil:
		return q.guard.unverifiable(q.claimsErr)
	case q.denied():
		return q.guard.unverifiable(errLoggedOut)
	default:
		return nil
	}
}

// identifiedAtHeader is identified for a stream that nobody asked for, or that was
// asked for long ago: its token is judged now.
func identifiedAtHeader(q *request) *refusal {
	if errors.Is(q.claimsErr, identity.ErrNoKeys) && !q.asks {
		q.verify(true)
		if len(q.guard.Key) > 0 {
			q.holder.Key = registry.ID{} // it may have parts that were not known yet
		}
	}
	if q.guard.Unverified && !q.holder.Token.IsZero() {
		q.believe()
	}
	return identified(q)
}

// keyed refuses a stream whose key is missing, now and later.
func keyed(q *request) *refusal {
	if !q.anonymous() && !q.keyed() && len(q.guard.Key) == 0 && q.guard.DenyMissing {
		return q.missingKey() // the default key lacks its token
	}
	return nil
}

// keyedAtHeader computes the key, where that needs what the upstream has answered.
// One that is missing is refused, or makes the stream an untracked one.
func keyedAtHeader(q *request) *refusal {
	if q.anonymous() {
		return nil
	}
	if !q.keyed() {
		q.findKey()
	}
	if !q.keyed() {
		if q.guard.DenyMissing {
			return q.missingKey()
		}
		return nil
	}
	q.chain.cover(q)
	return nil
}

// revokedFor is how long a client stays away whose stream an administrator has ended,
// although its token is not denied. Its EventSource shows the tombstone by itself within
// seconds, and is closed by the answer. A page that is loaded again shows none.
const revokedFor = 30 * time.Second

// staysLoggedOut turns away a client that shows the tombstone of this very token, as
// long as the token is denied, and, where it was revoked, for revokedFor in any case.
func staysLoggedOut(q *request) *refusal {
	if len(tombstones(q.r)) == 0 {
		return nil
	}
	q.identify()
	t := q.shown(tombstone.Token)
	switch {
	case t == nil:
		return nil
	case q.denied():
	case t.reason != reason.Revoked || time.Since(t.made) >= revokedFor:
		return nil
	}
	return sentAway(q, t)
}

// entombed turns away a client that was told to stay away, and comes back while the
// key is full, before the upstream sees it. If a place of the key came free lately,
// the request is held until that is clear. A key that is free is anybody's: then the
// client is a newcomer without a tombstone, and admitEarly need not ask again.
func entombed(q *request) *refusal {
	if len(tombstones(q.r)) == 0 {
		return nil
	}
	q.identify()
	if !q.keyed() && q.guard.KeyFromRequest {
		q.findKey()
	}
	if !q.tracked() {
		return nil
	}
	t := q.shown(tombstone.Key)
	if t == nil {
		return nil
	}
	for {
		a, err := q.askEarly(registry.Consent{})
		switch {
		case err != nil:
			return q.guard.unreachable(err)
		case a.Outcome != registry.Entombed:
			q.back.asked, q.back.departed = a.Outcome == registry.Admitted, a.Departed
			return nil
		case a.Until.IsZero():
			return sentAway(q, t)
		}
		if f := heldUp(q, a); f != nil {
			return f
		}
	}
}

// heldUp holds a client that shows a tombstone until it is to ask again. It returns
// what it is told if it leaves, or the server stops, meanwhile.
func heldUp(q *request, a registry.Admission) *refusal {
	if q.guard.hold(q.r.Context(), a.Until, a.Taken) {
		return unheard(stayAway()) // and the upstream is not asked
	}
	return draining(q)
}

// hold holds a request, without an answer, until then, or until hint is closed, or the
// server stops. It reports whether the client has left instead.
func (g *Guard) hold(ctx context.Context, until time.Time, hint <-chan struct{}) (left bool) {
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-hint:
	case <-g.Zone.DrainBegan():
	case <-ctx.Done():
		return true
	}
	return false
}

// sentAway is the answer to a client that shows t.
func sentAway(q *request, t *shownTombstone) *refusal {
	q.tell(event.Entombed{Client: q.self(), Reason: t.reason})
	return stayAway()
}

// damped finds out whether a client takes the key back again and again from who
// superseded it. The registry then has it end nobody.
func damped(q *request) *refusal {
	g := q.guard
	q.back.flaps = false
	if !q.tracked() || g.Flap.Count == 0 || q.rule().Policy != registry.Supersede {
		return nil
	}
	if q.verdict.judged || q.decidesEarly() {
		q.back.flaps = g.Zone.Damping.Flaps(q.holder, q.takes(), g.Zone.HolderOf(q.r.Context(), q.holder.Key), g.Flap)
	}
	return nil
}

// question is what the registry is asked of the newcomer.
func question(q *request) registry.Ask {
	ask := registry.Ask{Holder: q.holder, Rule: q.rule(), Damped: q.back.flaps}
	t := q.shown(tombstone.Key)
	if t == nil {
		return ask
	}
	ask.Tombstone = &t.made
	if q.back.shown == nil {
		q.back.shown = t
		q.tell(event.Shown{Client: q.holder, Made: t.made})
	}
	return ask
}

// unreachable is the answer where the registry gives none.
func (g *Guard) unreachable(err error) *refusal {
	g.Logger.Log(registryFailed(err), "asking the registry", g.zoneField(), zap.Error(err))
	return unavailable()
}

// registryFailed is how loud a newcomer's line is about a registry that gives no answer.
// One that is away has told so itself, once for all newcomers.
func registryFailed(err error) zapcore.Level {
	if errors.Is(err, registry.ErrAway) {
		return zapcore.DebugLevel
	}
	return zapcore.ErrorLevel
}
