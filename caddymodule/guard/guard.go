// Package guard takes one request through the guard: who is it, may it open a
// stream, whom does it replace, and what is it told if it may not. It knows
// net/http, but nothing of Caddy.
//
// Start with steps.go: its two lists say what is asked of a request, in which
// order, before it is forwarded and when the upstream has answered.
package guard

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/sse-guard/sse-guard/caddymodule/conflict"
	"github.com/sse-guard/sse-guard/caddymodule/event"
	"github.com/sse-guard/sse-guard/caddymodule/identity"
	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/stream"
	"github.com/sse-guard/sse-guard/caddymodule/tombstone"
	"github.com/sse-guard/sse-guard/caddymodule/zone"
)

// Config says how a guard governs the streams of one route.
type Config struct {
	// Zone is what the guard shares with others.
	Zone *zone.Zone
	// Identity finds token and client id in a request.
	Identity *identity.Extractor
	// Verifier tells what tokens say. Nil: they are known by their hash only.
	Verifier identity.Verifier
	// Unverified says that the Verifier believes every token. Its claims count
	// only once the upstream has authorised the request.
	Unverified bool
	// Optional lets streams without a token through, untracked, although there is
	// a Verifier.
	Optional bool
	// Leeway is how long after its end a token is still accepted.
	Leeway time.Duration
	// OnExpiry says what becomes of a stream at the end of its token.
	OnExpiry OnExpiry
	// Logouts describes the requests that log out.
	Logouts []Logout
	// Methods names the methods of the requests that count.
	Methods identity.Methods
	// Key lists the key's parts, with placeholders. Empty: token, host, path.
	Key []string
	// KeyFromRequest says that Key needs nothing of the response.
	KeyFromRequest bool
	// DenyMissing refuses a stream with an empty key part, else it is untracked.
	DenyMissing bool
	// Rule says how a key may be held.
	Rule registry.Rule
	// Takeover says when to decide.
	Takeover Takeover
	// RetryRefused are the statuses with which the upstream may refuse a newcomer since
	// it still counts a stream that is gone.
	RetryRefused []int
	// AllowOrigin names whose pages can read the streams.
	AllowOrigin Origins
	// RequireToken refuses requests without a token.
	RequireToken bool
	// Probe is how long a holder has to prove that it lives before a newcomer is
	// refused because of it; 0: holders are not asked.
	Probe time.Duration
	// Reserve is how long a place is kept for a client that went away; 0: not.
	Reserve time.Duration
	// Flap says when clients that take a key from each other come to rest.
	Flap conflict.Rule
	// Drain is the time in which all streams end when the server stops.
	Drain zone.Drain
	// OnReject says what a rejected newcomer gets.
	OnReject OnReject
	// Retry is when a rejected newcomer is told to come back.
	Retry time.Duration
	// Names renames events; a missing reason keeps its own name.
	Names map[reason.Reason]string
	// Messages are what events tell a person, with placeholders; a missing reason
	// keeps its own.
	Messages map[reason.Reason]string
	// Labels are those of each stream, registry.MostLabels at most.
	Labels []Label
	// Presence says which labels have their groups told how many streams they are.
	Presence []Presence
	// Stream is how streams are relayed and ended.
	Stream stream.Config

	// Sharing says when takeovers of one key look like a shared account.
	Sharing Sharing

	// Observers are told what happens, besides the guard's own.
	Observers event.Observers

	// Signer signs and verifies tombstones.
	Signer func(context.Context) (*tombstone.Signer, error)
	// Logger gets a line per ended stream, Security one per contested key.
	Logger, Security *zap.Logger
}

// Guard governs the streams of one route.
type Guard struct {
	Config
	// name is the same over reloads, and of guards of one zone and key.
	name       string
	labelNames []string
	observers  event.Observers
	cors       *corsMemory
	sent       *corsMemory // what handlers further out have set in answers that went out

	warnEncoded sync.Once
	lines       seldom // about what many requests may cause
}

// New returns a guard as c says.
func New(c Config) *Guard {
	g := &Guard{Config: c, cors: newCORSMemory(), sent: newCORSMemory(), name: fmt.Sprintf("%q", append([]string{c.Zone.Name}, c.Key...)), labelNames: namesOf(c.Labels)}
	g.observers = event.Observers{
		&eventLog{zone: c.Zone.Name, logger: c.Logger, security: c.Security},
		&auditLog{zone: c.Zone.Name, audit: c.Zone.Audit, sharing: c.Sharing, security: c.Security},
		&untrackedLog{guard: &g.Config},
		c.Zone.Damper(),
		c.Zone.Feed,
		c.Zone.Metrics,
	}
	g.observers = append(g.observers, c.Observers...)
	return g
}

// Takeover is when a guard decides about a newcomer.
type Takeover string

const (
	// TakeoverAuto decides before the upstream is asked where that is safe: the
	// holder carries the same token, which the upstream has authorised before, or
	// the newcomer's was verified here and it is to be refused.
	TakeoverAuto Takeover = "auto"
	// TakeoverResponse decides when the upstream has answered.
	TakeoverResponse Takeover = "response"
	// TakeoverRequest is TakeoverAuto, and ends a verified user's older streams
	// before the upstream is asked even if they carry another token.
	TakeoverRequest Takeover = "request"
)

// OnExpiry is what becomes of a stream at the end of its token's life.
type OnExpiry string

const (
	// ExpiryRenew ends it, unless the same user and session has shown a token with
	// a later end by then.
	ExpiryRenew OnExpiry = "renew"
	// ExpiryEnd ends it.
	ExpiryEnd OnExpiry = "end"
	// ExpiryKeep leaves it.
	ExpiryKeep OnExpiry = "keep"
)

// Sharing says that takeovers of one key from Addrs addresses within Window look
// like a shared account. Addrs 0: nothing does.
type Sharing struct {
	Addrs  int
	Window time.Duration
}

// OnReject is what a rejected newcomer gets.
type OnReject string

const (
	// RejectEvent answers a request that asks for a stream with a stream of
	// one event, and others with a status.
	RejectEvent OnReject = "event"
	// RejectPark answers a request that asks for a stream with one that stays
	// open until the key is free.
	RejectPark OnReject = "park"
	// RejectStatus answers with a status, which is final for an EventSource.
	RejectStatus OnReject = "status"
)

// Env is what the guard needs to know of the server around it, for one request.
type Env interface {
	// Expand replaces the placeholders in template, empty where unknown. Those
	// that begin with "sse_guard." are asked of own.
	Expand(template string, own func(name string) string) string
	// Publish offers own's placeholders to the handlers behind the guard.
	Publish(own func(name string) string)
	// Path is the path that the client asked for, before any rewrite.
	Path() string
	// Original is the URL that the client asked for, before any rewrite, as handlers
	// find it; nil: that is not known. The guard removes from its query what is meant
	// for guards.
	Original() *url.URL
	// Snapshot notes what the server keeps of the request while handlers work on it,
	// and returns what puts that back, any number of times.
	Snapshot() (restore func())
	// WriteDeadline is when the server cuts the response off; zero: never.
	WriteDeadline() time.Time
	// FullDuplex reports whether the server sends the header of an answer to an HTTP/1
	// request that is not all there yet.
	FullDuplex() bool
	// ClientIP is the client's address, trusted proxies considered.
	ClientIP() string
	// ForwardedHosts are the hosts that the client asked for as a trusted proxy says, if
	// the request came from one: fields with one or several, separated by commas.
	ForwardedHosts() []string
	// Connection is the client's connection.
	Connection() stream.Connection
	// Users counts the requests that use the client's connection; nil: that is not known.
	Users() *stream.Users
}

// Next is the handlers behind the guard.
type Next func(http.ResponseWriter, *http.Request) error

// Serve takes r through the guard. It panics with http.ErrAbortHandler where the
// response is to be aborted.
func (g *Guard) Serve(w http.ResponseWriter, r *http.Request, next Next, env Env) error {
	original := env.Original()
	r = takeWish(takeTombstones(r, original), original)
	head := r.Method == http.MethodHead // its answer has no body
	if head && g.Verifier == nil && (!g.RequireToken || !identity.AcceptsStream(r)) {
		return next(w, r)
	}
	logout := g.logoutOf(r)
	if logout != nil {
		var done func()
		r, done = g.outlast(r)
		defer done()
	}
	q := newRequest(g, r, env, !head && g.Methods.Count(r.Method), logout)
	ctx := context.WithValue(r.Context(), requestKey{}, q)
	if head {
		if f := q.decideHead(w); f != nil {
			return f.answer(q, w)
		}
		return next(w, r.WithContext(ctx)) // for its placeholders
	}
	q.useConnection()
	defer func() {
		q.chain.leaveConnection(q)
		q.leaveArrivals()
		q.noteHeld()
		q.ahead.stop()
	}()
	if f := q.enter(w); f != nil {
		return f.answer(q, w)
	}
	if asksAgain(q) {
		next = askingAgain(q, next)
	}
	sum, err := q.response.Relay(ctx, next)
	return q.conclude(w, sum, err)
}
