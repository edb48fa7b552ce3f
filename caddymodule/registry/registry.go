// Package registry is the contract between the guard and the keeper of "who
// holds what". Package memory keeps it for one process.
//
// A stream asks for a key and, once admitted, holds it. How many streams may
// hold one key, and what happens to a newcomer when it is full, is the Rule.
// Admission has two phases, so that several guards on one request can agree
// before anything changes: Reserve takes a Place, Commit makes it held and
// ends the holders that had to go, Release gives it back.
//
// What every implementation promises:
//
//   - At most Rule.Limit holders per key once admissions are quiet: the newest
//     committed under Supersede, the oldest under Reject.
//   - Place.Release removes that place and no other, however often it is called.
//   - A refused Reserve changes nothing.
//   - Handle.End is called at most once per stream, outside of any lock, and
//     only after the stream has stopped counting as a holder.
//   - Ending by key, token, client or subject costs the streams it ends, not the
//     streams there are.
//   - Who is denied holds nothing: Deny, then EndAll, leaves no stream that the
//     denial names, also none that was being admitted meanwhile.
package registry

import (
	"context"
	"errors"
	"time"
)

// ID names a key, a token, a client or a subject: a SHA-256, never the thing
// itself. The zero ID means "none".
type ID [32]byte

// IsZero reports whether id names nothing.
func (id ID) IsZero() bool { return id == ID{} }

// Stream describes a stream that asks for a key or holds it. It is immutable
// once given to a registry, which knows it by its address.
type Stream struct {
	// Key is what is held.
	Key ID
	// Token is the hash of the token that the request carried; zero: none.
	Token ID
	// Subject is the hash of whom the token was verified to be issued to; zero:
	// not known.
	Subject ID
	// IssuedAt is when the token was issued; zero: not known.
	IssuedAt time.Time
	// Client is the hash of the client id within its token or subject; zero:
	// none.
	Client ID
	// Tab says that Client names one browser tab, not a device: a newcomer
	// with the same Client then always replaces the older stream.
	Tab bool
	// Addr is the client's address, for log lines.
	Addr string
	// Handle ends the stream.
	Handle Handle
}

// Handle is how a registry reaches a running stream.
type Handle interface {
	// End asks the stream to end and returns without waiting for it.
	End(Ending)
	// Gone is closed when the stream's upstream request no longer exists.
	Gone() <-chan struct{}
}

// Ending says why a stream ends.
type Ending struct {
	Reason Reason
	// By is the address of the request that caused it, for log lines; empty if
	// no request did.
	By string
}

// Reason is why a stream was ended or refused. Its text appears in events,
// logs and tombstones.
type Reason string

const (
	// Superseded: a newer stream took the key.
	Superseded Reason = "superseded"
	// Replaced: the same client id opened a newer stream.
	Replaced Reason = "replaced"
	// Parked: the client came back again and again; it waits without an upstream.
	Parked Reason = "parked"
	// Rejected: the key was full and the policy protects its holders.
	Rejected Reason = "rejected"
	// Logout: the user logged out.
	Logout Reason = "logout"
	// Expired: the token's life is over.
	Expired Reason = "expired"
	// Dead: nobody is at the other end any more.
	Dead Reason = "dead"
	// MaxAge: the stream has lived as long as one may.
	MaxAge Reason = "max_age"
	// Shutdown: the proxy stops.
	Shutdown Reason = "shutdown"
)

// Policy decides who yields when a key is full.
type Policy string

const (
	// Supersede admits the newcomer and ends the oldest holder.
	Supersede Policy = "supersede"
	// Reject refuses the newcomer.
	Reject Policy = "reject"
)

// Unit is what a limit counts.
type Unit string

const (
	// Streams counts every stream.
	Streams Unit = "streams"
	// Clients counts the streams of one client id once. A stream without a
	// client id counts as a client of its own.
	Clients Unit = "clients"
)

// Rule says how a key may be held. Guards that share a zone may have different
// rules: a newcomer is judged by the rule of the guard it came through.
type Rule struct {
	Policy Policy
	// Limit is the number of holders per key; 0 tracks without limit.
	Limit int
	Unit  Unit
}

// Judgement is what a registry thinks of a newcomer.
type Judgement struct {
	// Admitted tells whether the newcomer gets a place.
	Admitted bool
	// Ends lists, oldest first, the holders that its commit would end now.
	Ends []Victim
	// Holders lists, oldest first, who holds the key; filled when not Admitted.
	Holders []*Stream
}

// Victim is a holder that must go, and why.
type Victim struct {
	Stream *Stream
	Reason Reason
}

// Denial says who is no longer welcome: one token, one token with one client id,
// or a subject's older tokens.
type Denial struct {
	// Token is denied; with a Client, only where it comes with that client id.
	Token, Client ID
	// Subject is denied with all its tokens that were issued before IssuedBefore.
	// A token that does not tell when is not denied by this. Either Token or
	// Subject is set.
	Subject      ID
	IssuedBefore time.Time
	// Until is when the denial may be forgotten: no such token is valid any more.
	Until time.Time
}

// ErrDenied is returned for a stream that a Denial names.
var ErrDenied = errors.New("the stream's token is no longer welcome")

// ErrManyDenials is returned by Deny when it had to forget denials before their
// time, those first that would have been forgotten soonest.
var ErrManyDenials = errors.New("too many denials: the oldest were forgotten")

// Place is a newcomer's reserved, then held, place.
type Place interface {
	// Commit makes the reserved place a held one, ends the holders that are now
	// too many and returns them, oldest first. It is called at most once, and
	// not after Release: then it changes nothing and returns an error. If the
	// stream is denied, the place is given back, nobody is ended, and the error is
	// ErrDenied.
	Commit(ctx context.Context) ([]Victim, error)
	// Release gives the place back, whether reserved, held or already taken
	// away by another's commit. It may be called any number of times.
	Release()
}

// Index names one of the indices that streams can be ended by.
type Index string

const (
	ByKey     Index = "key"
	ByToken   Index = "token"
	ByClient  Index = "client"
	BySubject Index = "subject"
)

// Registry keeps who holds what, for one zone. All methods may be called
// concurrently.
type Registry interface {
	// Judge tells what would happen to s if it were reserved and committed now.
	// It changes nothing.
	Judge(ctx context.Context, s *Stream, rule Rule) (Judgement, error)
	// Reserve asks for a place for s. The Place is nil if the judgement is not
	// Admitted.
	Reserve(ctx context.Context, s *Stream, rule Rule) (Place, Judgement, error)
	// Evict ends those victims that still hold their key, and returns them. The
	// address by goes into their Ending.
	Evict(ctx context.Context, victims []Victim, by string) ([]Victim, error)
	// EndAll ends every holder that index knows under id, and returns them, oldest
	// first. It does not end reserved places: Commit asks once more whether its
	// stream is denied.
	EndAll(ctx context.Context, index Index, id ID, e Ending) ([]*Stream, error)
	// Holds reports whether index knows a holder under id.
	Holds(ctx context.Context, index Index, id ID) (bool, error)
	// Deny keeps whom the denials name from being admitted, from now on. It ends
	// nobody: that is for EndAll, afterwards. The error is ErrManyDenials if room
	// had to be made; the denials given are in force all the same.
	Deny(ctx context.Context, denials ...Denial) error
	// Denied reports whether a denial in force names s. Commit asks the same, so
	// this only spares a newcomer the way to there.
	Denied(ctx context.Context, s *Stream) (bool, error)
	// Wait enlists s, a refused newcomer, to be told when it would be admitted
	// under rule; at once if that is now. It reports false if too many already
	// wait for the key. One waiter is told per place that comes free, the longest
	// waiting first.
	Wait(s *Stream, rule Rule) (Waiter, bool)
}

// Waiter is a refused newcomer that waits for a place.
type Waiter interface {
	// Free is closed when the waiter would be admitted.
	Free() <-chan struct{}
	// Stop ends the waiting. It may be called any number of times.
	Stop()
}

// Opener opens the registry of a zone. Caddy guest modules in the namespace
// sse_guard.registries implement it. Guards that name the same zone and the
// same module configuration share one Registry, over configuration reloads
// too; if it implements io.Closer it is closed when the last of them is gone.
type Opener interface {
	Open(zone string) (Registry, error)
}
