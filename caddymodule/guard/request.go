package guard

import (
	"net/http"
	"sync/atomic"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/event"
	"github.com/sse-guard/sse-guard/caddymodule/identity"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/stream"
	"github.com/sse-guard/sse-guard/caddymodule/zone"
)

// request is one request's way through one guard. It belongs to the goroutine
// that serves the request, and needs no lock. It is the Gate of its response.
//
// What most requests never need, since their answer is no stream, is made when it
// is needed: who asks, the key, the stream.
type request struct {
	link   // to the request's other guards
	sender // who asks

	arrival arrival // while the request may yet become a stream

	back returning // what is known of a client that was here before

	asking        // what it asks for
	governed bool // its answer may be a stream that counts
	waits    bool // parked
	// takesOver says that it ended, or waited for, streams whose requests are gone by
	// now, as far as the guard knows.
	takesOver bool
	logout    *Logout // what it logs out, if anything
	unlisted  *Logout // what it would log out but for its method
	held      bool    // its stream held a key
	// supersedes says that an older stream was superseded for it.
	supersedes bool
	// refusedAs is what observers were told of its refusal; empty: it was not refused, as
	// far as is known.
	refusedAs event.Outcome
	parked    *stream.Stream // nil: it was not parked

	ahead    *ahead         // what is read of the body to see whether there is one; nil: nothing
	entry    headerSnapshot // as the header was on entry
	response stream.Response
	verdict  verdict
}

// returning is what is known of a client that was here before.
type returning struct {
	// shown is the tombstone of the key that the registry was told of; nil: none.
	shown *shownTombstone
	// asked says that the registry has let it in before the upstream was asked, since
	// the key was free, and departed is what there is to wait for.
	asked    bool
	departed <-chan struct{}
	// flaps says that it takes the key back again and again.
	flaps bool
}

// asking is what a request asks for, as far as that is known before the upstream has
// answered.
type asking struct {
	names    bool // a stream among what it accepts, whatever its method
	only     bool // it accepts nothing else
	asks     bool // only that, and a stream in answer would count
	bodiless bool // all of it has arrived
	readable bool // its page could read a refusal that is given now
	known    bool // whether its stream yields
	yielding bool // nobody can read its stream, as far as that is known by now
	unseen   bool // its page can read the answer only if handlers further out let it
}

// isAsking tells what a request asks for. A stream in answer counts if it is governed.
func isAsking(r *http.Request, governed bool) asking {
	if !identity.AcceptsStream(r) {
		return asking{}
	}
	only := identity.AsksForStream(r)
	return asking{
		names:    true,
		only:     only,
		asks:     only && governed && r.Method != http.MethodOptions && r.Method != http.MethodTrace,
		bodiless: isBodiless(r),
	}
}

type requestKey struct{}

func newRequest(g *Guard, r *http.Request, env Env, governed bool, logout *Logout) *request {
	q := &request{
		sender:   sender{guard: g, r: r, env: env, reader: identity.ReaderOf(r, env)},
		governed: governed,
		logout:   logout,
		asking:   isAsking(r, governed),
	}
	if logout == nil {
		q.unlisted = g.unlistedLogout(r)
	}
	if q.link.join(q); q.outer != nil {
		q.asked = q.outer.asked
	} else {
		q.asked = time.Now()
	}
	q.credentials = g.Identity.Find(r)
	// A key that needs only the request is computed on entry, so that a rewrite
	// further inside does not change it. The default key is of what no rewrite
	// changes.
	if q.names && (governed || g.demandsToken()) || logout != nil || g.Verifier != nil {
		q.identify()
		if g.KeyFromRequest {
			q.findKey()
		}
	} else if g.KeyFromRequest && governed && len(g.Key) > 0 {
		q.findKey()
	}
	return q
}

// identify finds out who asks, unless that is known. Only a request that accepts
// nothing but a stream waits for keys; the others are verified with the keys at hand,
// and once more should their answer prove to be a stream.
func (q *request) identify() {
	if q.holder == nil {
		q.sender.identify(q.streamID(), q.asks || q.only && q.guard.demandsToken())
	}
}

// enter decides what can be decided before the request is forwarded, and readies
// the response. A refusal is to be answered in place of forwarding.
func (q *request) enter(w http.ResponseWriter) *refusal {
	q.arrive()
	if q.asks && isOpenEnded(q.r) && q.guard.Takeover != TakeoverResponse {
		awaitBody(q)
	}
	if q.names {
		q.readable = q.canRead(w.Header(), q.reader.Doubted())
		q.known = q.readable || q.canRead(w.Header(), q.reader)
		q.yields(nil)
	}
	if f := q.decideEarly(); f != nil {
		return f
	}
	if q.names && q.governed {
		// Go's transport would ask for gzip by itself if the field were absent,
		// and in compressed streams events cannot be told apart.
		q.r.Header.Set("Accept-Encoding", "identity")
	}
	if q.governed && !q.asks {
		if f := through(q, whoeverAsks); f != nil {
			return f
		}
	}
	if q.governed {
		watchBody(q)
	}
	q.entry.take(w.Header())
	q.response.Init(w, q.r, q, &q.guard.Stream)
	return nil
}

// decideHead refuses a HEAD that the upstream would do the work of a stream for, like
// any request that names the type.
func (q *request) decideHead(w http.ResponseWriter) *refusal {
	if !q.names {
		return nil
	}
	q.readable = q.canRead(w.Header(), q.reader.Doubted())
	return q.decideEarly()
}

// conclude ends the way of a request whose handlers have returned.
func (q *request) conclude(w http.ResponseWriter, sum stream.Summary, err error) error {
	if sum.Ending == nil && !sum.Refused && !sum.Passed && !sum.Left && q.response.Stream() != nil {
		q.tellWriteTimeout()
	}
	if sum.Cut {
		panic(http.ErrAbortHandler)
	}
	if f := q.verdict.refusal; f != nil && !sum.Left && !sum.Passed {
		q.entry.restore(w.Header())
		return f.answer(q, w)
	}
	return err
}

// tell tells the guard's observers.
func (q *request) tell(e event.Event) { q.guard.observers.Tell(e) }

// useConnection counts the request among those that use the client's connection, if
// others may do so at the same time, and no guard further out has.
func (q *request) useConnection() {
	if q.r.ProtoMajor != 1 && q.outer == nil {
		q.chain.user.Enter(q.env.Users())
	}
}

// leaveConnection is for the request of the outermost guard, which has counted it.
func (c *chain) leaveConnection(q *request) {
	if q.outer == nil {
		c.user.Leave()
	}
}

// connection is the client's connection.
func (q *request) connection() stream.Connection {
	c := q.env.Connection()
	c.User = &q.chain.user
	return c
}

// rule is the guard's rule. Who yields, or waits, never supersedes.
func (q *request) rule() registry.Rule {
	rule := q.guard.Rule
	if q.waits || q.yielding {
		rule.Policy = registry.Reject
	}
	return rule
}

// tracked reports whether the stream is to hold a key: it has one, and no guard
// further out holds the same one for it.
func (q *request) tracked() bool {
	return q.governed && q.keyed() && !q.anonymous() && q.verdict.coveredBy == nil
}

// arrival is the request's place among those that may become streams. Others ask
// it who that is, so what it points to is not changed while it is there.
type arrival struct {
	place zone.Arrival
	// holder says who asks. Where nobody has looked yet, or who it is is not yet sure,
	// it is nil, and the credentials say.
	holder      *registry.Holder
	credentials *identity.Credentials
	// loggedOut says that somebody logged the token, or the client, out meanwhile.
	loggedOut atomic.Bool
}

// LogOut implements zone.Arriving.
func (a *arrival) LogOut() { a.loggedOut.Store(true) }

// denied reports whether the token was logged out, before or meanwhile.
func (q *request) denied() bool { return q.arrival.loggedOut.Load() || q.sender.denied() }

// Who implements zone.Arriving.
func (a *arrival) Who() (token, client registry.ID) {
	if a.holder != nil {
		return a.holder.Token, a.holder.Client
	}
	found, err := a.credentials.Token()
	if err != nil {
		return registry.ID{}, registry.ID{}
	}
	id, _ := a.credentials.Client(found.Hash)
	return registry.ID(found.Hash), registry.ID(id)
}

// arrive counts the request among those that may become streams, until it does
// or is over. A logout does not become one, nor does a token that is not good.
func (q *request) arrive() {
	if !q.governed || q.logout != nil || q.credentials.Tokenless() || q.hopeless() {
		return
	}
	q.arrival.credentials = &q.credentials
	if q.holder != nil && q.claimsErr == nil {
		q.arrival.holder = q.holder
	}
	q.guard.Zone.Arrivals.Enter(&q.arrival.place, &q.arrival)
}

func (q *request) leaveArrivals() { q.guard.Zone.Arrivals.Leave(&q.arrival.place) }

// noteHeld has a later logout know the token of a stream that held a key.
func (q *request) noteHeld() {
	if q.held {
		q.guard.Zone.NoteHeld(q.holder.Token)
	}
}

// Interface guards
var (
	_ stream.Gate   = (*request)(nil)
	_ zone.Arriving = (*arrival)(nil)
)
