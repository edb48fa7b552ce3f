// Package event says what happened to streams. Whoever acts on it, or writes it
// down, is an Observer: the log, flap damping, the audit log of contested keys.
// What one of them does never depends on another.
package event

import (
	"net/http"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// Event is one of the types below.
type Event interface{ isEvent() }

// Observer is told what happens.
type Observer interface {
	// Observe is called without any lock, by whoever made it happen, who waits for
	// it: it must not block.
	Observe(Event)
}

// Observers are told one after the other.
type Observers []Observer

// Tell tells all of them.
func (os Observers) Tell(e Event) {
	for _, o := range os {
		o.Observe(e)
	}
}

// Who is a client as a guard knows it.
type Who struct {
	Holder *registry.Holder
	// Sub is the verified user's name; empty: not known.
	Sub string
	// Labels are those of the stream, where it is Admitted or has Ended; of who is Rejected
	// or Damped, those that the stream would have, as far as they are known by then. Other
	// events do not tell them.
	Labels registry.Labels
}

// Admitted is that a stream opened. It holds a key.
type Admitted struct {
	Stream Who
	// Superseding says that an older stream was superseded for it.
	Superseding bool
}

// Refused is that the guard answers a request by itself, in place of the stream that
// it asks for, or would get. It is told once for each such answer.
type Refused struct {
	Client  Who
	Outcome Outcome
}

// Superseded is that a newcomer took the key from a holder. The guard of the
// newcomer tells it.
type Superseded struct {
	Loser    *registry.Holder
	Newcomer Who
}

// Lost is that a stream of this process lost its key to a newcomer. It is told before
// the stream's client is.
type Lost struct {
	Loser *registry.Holder
	// To is the stream that took the key.
	To registry.StreamID
	// Gone tells whether the loser's client had left by itself before it was told.
	// It does not block, and may be kept for minutes.
	Gone func() bool
}

// Rejected is that a newcomer was refused because the key is full. Holders are
// some of those who hold it.
type Rejected struct {
	Newcomer Who
	Holders  []*registry.Holder
}

// Damped is that a newcomer is parked because it flaps.
type Damped struct{ Newcomer Who }

// Shown is that a client showed the tombstone of its key, which was made at the given
// time. Whether it stays away is not yet known.
type Shown struct {
	Client *registry.Holder
	Made   time.Time
}

// Entombed is that a client was told to stay away that showed the tombstone of an
// ended stream.
type Entombed struct {
	Client Who
	Reason reason.Reason
}

// Ended is that a stream is over that was relayed, whoever has ended it. Its guard tells it
// once, when nothing will happen to the stream any more: of a response behind several
// guards, each of them.
type Ended struct {
	Stream Who
	// Held says that it was Admitted. Others passed untracked, or lost the key as they
	// opened.
	Held bool
	// Reason is why the response is over, whichever of its guards has ended it: that
	// guard's reason, or else Left, Finished or reason.Dead.
	Reason reason.Reason
	// Ending is how the guard that tells it ended the stream; nil: it did not. Delivered
	// tells whether the client was sent the event.
	Ending    *registry.Ending
	Delivered bool
	Age       time.Duration
	// Events and Bytes count what was relayed.
	Events uint64
	Bytes  int64
	// LastEventID is the last id that the application sent in a whole event.
	LastEventID string
}

const (
	// Left is the Reason of a stream whose client went away by itself.
	Left reason.Reason = "left"
	// Finished is that of a stream whose upstream has ended it.
	Finished reason.Reason = "finished"
)

// Probed is that a newcomer had a stream's client prove that it lives.
type Probed struct {
	Stream *registry.Holder
	Proof  Proof
}

// Untracked is that a stream passes without holding a key of this guard.
type Untracked struct {
	Stream *registry.Holder
	Cause  UntrackedCause
	// Part is the part of the key that is empty, as it is configured.
	Part string
	// Request is the stream's.
	Request *http.Request
}

// UntrackedCause is why a stream passes untracked.
type UntrackedCause string

const (
	// UntrackedMethod is that requests of its method do not count.
	UntrackedMethod UntrackedCause = "method"
	// UntrackedToken is that it has no token, which the key is made of.
	UntrackedToken UntrackedCause = "token"
	// UntrackedAnonymous is that it has no token, and may be without one.
	UntrackedAnonymous UntrackedCause = "anonymous"
	// UntrackedKey is that a part of the key is empty.
	UntrackedKey UntrackedCause = "key"
	// UntrackedCovered is that a guard further out holds the same key for it.
	UntrackedCovered UntrackedCause = "covered"
)

// UntrackedCauses has all causes.
var UntrackedCauses = []UntrackedCause{
	UntrackedMethod, UntrackedToken, UntrackedAnonymous, UntrackedKey, UntrackedCovered,
}

// LoggedOut is that a logout ended so many streams.
type LoggedOut struct {
	By      Who
	Scope   string
	Streams int
}

func (Admitted) isEvent()   {}
func (Superseded) isEvent() {}
func (Refused) isEvent()    {}
func (Probed) isEvent()     {}
func (Lost) isEvent()       {}
func (Rejected) isEvent()   {}
func (Damped) isEvent()     {}
func (Shown) isEvent()      {}
func (Entombed) isEvent()   {}
func (Ended) isEvent()      {}
func (Untracked) isEvent()  {}
func (LoggedOut) isEvent()  {}
