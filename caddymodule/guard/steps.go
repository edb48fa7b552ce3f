package guard

import (
	"errors"
	"net/http"

	"go.uber.org/zap"

	"github.com/sse-guard/sse-guard/caddymodule/event"
	"github.com/sse-guard/sse-guard/caddymodule/identity"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// step is one question that is asked of a request. It returns why the request does
// not get its stream, or nil if it may go on.
type step func(*request) *refusal

// beforeForward is asked of a request that asks for a stream, before the upstream
// sees it, as far as the request alone tells.
var beforeForward = []step{draining, entombed, identified, keyed, damped, admitEarly}

// atHeader is asked once the upstream has answered with a stream. Those who pass
// then ask their registries, all guards of the request at once (see chain).
var atHeader = []step{identifiedAtHeader, keyedAtHeader, entombed, draining, damped}

// at goes through steps for an answer with that header.
func (q *request) at(header http.Header, steps []step) *refusal {
	q.identify()
	q.noteCORS(header)
	return q.through(steps)
}

func (q *request) through(steps []step) *refusal {
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
	f.retry = q.guard.Zone.DrainReturn()
	return f
}

// identified demands the identity that the guard is told to demand: one token, if
// one is required, which is good and not denied.
func identified(q *request) *refusal {
	g := q.guard
	switch {
	case q.tokenErr != nil:
		return differingTokens()
	case q.holder.Token.IsZero() && (g.RequireToken || g.Verifier != nil && !g.Optional):
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
		return missingKey() // the default key lacks its token
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
			return missingKey()
		}
		return nil
	}
	q.chain.cover(q)
	return nil
}

// entombed turns away a client that was told to stay away and comes back: it shows
// the tombstone of this very token, or, where the key is known, of this very key.
func entombed(q *request) *refusal {
	if q.verdict.judged && !q.tracked() && q.verdict.coveredBy == nil {
		return nil // an untracked stream was never ended for another's sake
	}
	t, shown := q.tombstone()
	if !shown {
		return nil
	}
	q.tell(event.Entombed{Client: q.self(), Reason: t.reason, Made: t.made})
	return stayAway()
}

// damped parks a client that takes the key back from who superseded it, again and
// again.
func damped(q *request) *refusal {
	g := q.guard
	if !q.tracked() || g.Flap.Flaps == 0 || q.rule().Policy != registry.Supersede {
		return nil
	}
	if !q.verdict.judged && !q.decidesEarly() {
		return nil
	}
	if !g.Zone.Damping.Flaps(q.holder, g.Zone.Streams.Holds, g.Flap) {
		return nil
	}
	q.tell(event.Damped{Newcomer: q.self()})
	return parked()
}

// unreachable is the answer where the registry gives none.
func (g *Guard) unreachable(err error) *refusal {
	g.Logger.Error("asking the registry", g.zoneField(), zap.Error(err))
	return unavailable()
}
