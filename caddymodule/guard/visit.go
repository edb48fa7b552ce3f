package guard

import (
	"encoding/hex"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/sse-guard/sse-guard/caddymodule/expiry"
	"github.com/sse-guard/sse-guard/caddymodule/identity"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/rounds"
	"github.com/sse-guard/sse-guard/caddymodule/stream"
)

// visit is one request's way through one guard. It is the Gate of its response
// and, once admitted, the Handle by which the registry ends it.
//
// Guards compose: each one finds the visit of the guard outside it in the
// request's context.
type visit struct {
	guard *Guard
	r     *http.Request
	env   Env
	outer *visit

	// innermost is kept on the outermost visit: whose placeholders are shown.
	innermost *visit
	// nested says that another guard, inside this one, sees the request too.
	nested bool
	// bypass says that an inner guard is answering by itself: what it writes
	// is no stream of the upstream's.
	bypass bool

	asks     bool // for a stream
	governed bool
	logout   *Logout // what the request logs out, if anything
	token    identity.Token
	tokenErr error
	// claims is what a verified token says; with claimsErr, what it said once.
	claims    *identity.Claims
	claimsErr error
	arriving  bool // counted among the zone's arrivals, as by arrival
	arrival   arrival
	entry     http.Header     // as it was on entry, until the stream is admitted
	stream    registry.Stream // Key is zero until known
	response  *stream.Response
	refusal   *refusal
	cors      http.Header // of the admitted stream, where its page is cross-origin
	admitted  time.Time

	mu       sync.Mutex
	place    registry.Place
	deadline *expiry.Entry
	rounds   *rounds.Entry
	isOver   bool
	given    bool // the place was given back, or is kept
	returned bool // the handlers behind the guard have returned

	untracked bool // the stream holds nothing
	kept      bool // the client has left, and its place is kept for it

	left  *atomic.Bool // made when the stream is superseded: its client had left
	waits bool         // parked
}

type visitKey struct{}

func (g *Guard) visit(r *http.Request, env Env, governed bool) *visit {
	v := &visit{guard: g, r: r, env: env, governed: governed, asks: governed && identity.AsksForStream(r)}
	if v.outer, _ = r.Context().Value(visitKey{}).(*visit); v.outer != nil {
		v.outer.nested = true
	}
	v.stream.Addr = env.ClientIP()
	v.stream.Handle = v
	v.identify()
	if g.KeyFromRequest {
		v.findKey()
	}
	v.publish()
	return v
}

// publish shows this visit's placeholders to the handlers behind it.
func (v *visit) publish() {
	outermost := v
	for outermost.outer != nil {
		outermost = outermost.outer
	}
	outermost.innermost = v
	if outermost == v {
		v.env.Publish(func(name string) string { return v.innermost.placeholder(name) })
	}
}

// placeholder is the value of {sse_guard.*}: hashes, and what a good token says.
func (v *visit) placeholder(name string) string {
	full := func(id registry.ID) string {
		if id.IsZero() {
			return ""
		}
		return hex.EncodeToString(id[:])
	}
	switch name {
	case "sse_guard.key":
		return v.shortKey()
	case "sse_guard.client":
		return full(v.stream.Client)
	case "sse_guard.token":
		return full(v.stream.Token)
	}
	claim, ok := strings.CutPrefix(name, claimsPlaceholder)
	switch {
	case !ok:
		return ""
	case v.claims != nil && v.claimsErr == nil:
		return v.claims.Text(claim)
	case v.guard.Verifier == nil && v.outer != nil:
		return v.outer.placeholder(name) // a guard further out may know
	default:
		return ""
	}
}

// claimsPlaceholder begins the placeholders of a token's claims.
const claimsPlaceholder = "sse_guard.claims."

func (v *visit) shortKey() string { return identity.Hash(v.stream.Key).Short() }

// findKey computes the key from what is known by now.
func (v *visit) findKey() {
	var key identity.Hash
	if len(v.guard.Key) == 0 {
		key, _ = identity.DefaultKey(v.token.Hash, v.r.Host, v.env.Path())
	} else {
		parts := make([]string, len(v.guard.Key))
		for i, template := range v.guard.Key {
			parts[i] = v.env.Expand(template, v.placeholder)
		}
		key, _ = identity.Key(parts...)
	}
	v.stream.Key = registry.ID(key)
}

// keyed reports whether the key is known.
func (v *visit) keyed() bool { return !v.stream.Key.IsZero() }

// rule is the guard's rule. A navigation, or an image, that another site may
// have caused, never supersedes; nor does who waits.
func (v *visit) rule() registry.Rule {
	rule := v.guard.Rule
	if v.waits || identity.Navigation(v.r) {
		rule.Policy = registry.Reject
	}
	return rule
}

// arrive counts the request among those that may become streams, until it does
// or is over. A logout does not become one, nor does a token that is not good.
func (v *visit) arrive() {
	hopeless := v.claimsErr != nil && !errors.Is(v.claimsErr, identity.ErrNoKeys)
	if !v.governed || v.logout != nil || v.token.IsZero() || hopeless {
		return
	}
	v.arriving, v.arrival = true, arrival{v.stream.Token, v.stream.Client}
	v.guard.Zone.arrivals.enter(v.arrival)
}

func (v *visit) arrived() {
	if v.arriving {
		v.arriving = false
		v.guard.Zone.arrivals.leave(v.arrival)
	}
}

// Judge implements stream.Gate. The upstream has by now authorised the request.
func (v *visit) Judge(status int, header http.Header) stream.Verdict {
	if v.bypass {
		return stream.Pass
	}
	if v.logout != nil && v.logout.Success(status) {
		v.logOut(v.logout)
	}
	if !v.governed || status != http.StatusOK || !identity.IsEventStream(header) {
		return stream.Pass
	}
	if f := v.admissibleAtHeader(); f != nil {
		return v.refuse(f)
	}
	if v.anonymous() {
		return v.track()
	}
	if !v.keyed() {
		v.findKey()
	}
	switch {
	case !v.keyed() && v.guard.DenyMissing:
		return v.refuse(missingKey())
	case !v.keyed():
		return v.track()
	case v.entombed():
		return v.refuse(entombed())
	}
	if o := v.heldOutside(); o != nil {
		o.adopt(v)
		return stream.Pass
	}
	v.warnIfEncoded(header)
	if v.r.Header.Get("Origin") != "" {
		v.cors = corsHeader(header)
	}
	return v.reserve()
}

// track has a stream that holds nothing end with the others when the server stops.
func (v *visit) track() stream.Verdict {
	if v.guard.Zone.draining.is() {
		return v.refuse(v.guard.Zone.refusal())
	}
	v.untracked, v.admitted, v.entry = true, time.Now(), nil
	v.enterRounds()
	return stream.Untracked
}

// heldOutside returns the visit of a guard further out that holds the same key of
// the same zone for this very request: a second place would end, or refuse,
// itself. It is nil if there is none.
func (v *visit) heldOutside() *visit {
	for o := v.outer; o != nil; o = o.outer {
		if o.governed && o.guard.Zone.Name == v.guard.Zone.Name && o.stream.Key == v.stream.Key {
			return o
		}
	}
	return nil
}

// adopt takes over what an inner guard has verified and this one, which holds the
// key for it, has not: the stream expires, and is found by its user.
func (v *visit) adopt(inner *visit) {
	if v.claims != nil || !inner.verified() {
		return
	}
	v.claims = inner.claims
	v.stream.Subject, v.stream.IssuedAt = inner.stream.Subject, inner.stream.IssuedAt
	v.stream.Client, v.stream.Tab = inner.stream.Client, inner.stream.Tab
}

func (v *visit) reserve() stream.Verdict {
	if v.guard.Zone.draining.is() {
		return v.refuse(v.guard.Zone.refusal())
	}
	if f := v.fights(); f != nil {
		return v.refuse(f)
	}
	reg := v.guard.Zone.Registry
	place, judgement, err := reg.Reserve(v.r.Context(), &v.stream, v.rule())
	for tries := 0; err == nil && place == nil && tries < mostProbes && v.makeRoom(judgement.Holders); tries++ {
		place, judgement, err = reg.Reserve(v.r.Context(), &v.stream, v.rule())
	}
	switch {
	case err != nil:
		return v.refuse(v.unreachable(err))
	case place == nil:
		v.logRejected(judgement.Holders)
		return v.refuse(rejected())
	}
	v.mu.Lock()
	v.place = place
	v.mu.Unlock()
	return stream.Admit
}

func (v *visit) refuse(f *refusal) stream.Verdict {
	v.refusal = f
	return stream.Refuse
}

// Commit implements stream.Gate.
func (v *visit) Commit() bool {
	for o := v.outer; o != nil; o = o.outer {
		if o.refusal != nil {
			v.Over(false)
			return false
		}
	}
	v.admitted, v.entry = time.Now(), nil
	ended, err := v.place.Commit(v.r.Context())
	v.arrived() // whoever logs the token out from now on finds the holder
	if errors.Is(err, registry.ErrDenied) {
		v.End(registry.Ending{Reason: registry.Logout})
		return true
	}
	if err != nil {
		v.guard.Logger.Debug("stream was over before it was admitted", v.zone(), zap.Error(err))
		return true
	}
	v.expire()
	v.enterRounds()
	if v.guard.Zone.draining.is() {
		go v.evict(registry.Shutdown) // the drain may not have seen it
	}
	v.logSuperseded(ended)
	if c := v.guard.Logger.Check(zap.DebugLevel, "stream admitted"); c != nil {
		c.Write(v.zone(), v.key(), zap.String("client_ip", v.stream.Addr))
	}
	return true
}

// expire arranges for the stream's end at that of its token.
func (v *visit) expire() {
	if v.claims == nil {
		return
	}
	at := v.guard.deadline(v.claims)
	if at.IsZero() {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.isOver {
		v.deadline = v.guard.Zone.deadlines.Add(&v.stream, v.session(), at)
	}
}

// session is what a later token of the same user must share to move the deadline.
func (v *visit) session() registry.ID {
	if !v.verified() || v.guard.OnExpiry != ExpiryRenew {
		return registry.ID{}
	}
	return registry.ID(v.claims.Session)
}

// Over implements stream.Gate: the key is given back, at once or, if the client
// has left and may come back, after a while.
func (v *visit) Over(left bool) {
	v.mu.Lock()
	v.isOver = true
	place, deadline, entry := v.place, v.deadline, v.rounds
	first := place != nil && !v.given
	v.given = v.given || first
	if first && !v.returned {
		v.guard.Zone.leaving.enter(&v.stream)
	}
	v.mu.Unlock()
	deadline.Stop()
	entry.Leave()
	switch {
	case first && left:
		v.keep(place)
	case first:
		place.Release()
	}
}

// enterRounds has the stream looked after, beginning at a random moment, so that
// many that open at once are not looked after at once.
func (v *visit) enterRounds() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.isOver {
		v.rounds = v.guard.Zone.rounds.Enter(v, spread(v.guard.firstVisit()))
	}
}

// End implements registry.Handle.
func (v *visit) End(e registry.Ending) { v.response.End(e) }

// Gone implements registry.Handle.
func (v *visit) Gone() <-chan struct{} { return v.response.Gone() }

// crossOrigin reports whether the page that asks is of another origin than
// the one it asks, so that it reads only answers that CORS allows.
func (v *visit) crossOrigin() bool {
	origin := v.r.Header.Get("Origin")
	if origin == "" {
		return false
	}
	u, err := url.Parse(origin)
	return err != nil || !strings.EqualFold(u.Host, v.r.Host)
}

// corsHeader picks the fields that let a cross-origin page read a response.
func corsHeader(h http.Header) http.Header {
	kept := http.Header{}
	for name, values := range h {
		if name == "Vary" || strings.HasPrefix(name, "Access-Control-") {
			kept[name] = values
		}
	}
	return kept
}
