// Package checker holds a registry of several nodes to its promise. It gets a history:
// what the clients of a campaign saw, and what the campaign did to the nodes and to
// Redis. It knows nothing of how the registry works.
package checker

import (
	"fmt"
	"math"
	"time"
)

// Time is when something happened, since the campaign began, by the monotonic clock of
// the one process that saw it all.
type Time time.Duration

// Never is the end of what has not ended.
const Never = Time(math.MaxInt64)

// String implements fmt.Stringer.
func (t Time) String() string {
	if t == Never {
		return "never"
	}
	return fmt.Sprintf("%.3fs", time.Duration(t).Seconds())
}

func (t Time) after(d time.Duration) Time {
	if t == Never {
		return Never
	}
	return t + Time(d)
}

// History is what happened.
type History struct {
	Zones   map[string]Zone
	Streams []Stream
	Logouts []Logout
	Faults  []Fault
	// Quiet has moments before which nobody asked or left, and nothing was done to nodes
	// and Redis, for longer than any bound.
	Quiet []Time
	// Until is when the history ends.
	Until Time
}

// Zone is the rule of one zone.
type Zone struct {
	Limit int
	// Rejects says that holders are protected. Else they are superseded.
	Rejects bool
	OnError OnError
	// Reserve is how long a place is kept for a client that went away.
	Reserve time.Duration
	// Deny is how long a token is denied after a logout.
	Deny time.Duration
}

// OnError is what the nodes do while Redis cannot be reached.
type OnError string

const (
	// Allow: they go on with what they know themselves.
	Allow OnError = "allow"
	// Deny: newcomers are refused, streams live on.
	Deny OnError = "deny"
	// Fence: as Deny, and streams end when their node's lease runs out.
	Fence OnError = "fence"
)

// Stream is one request for a stream, and what became of it.
type Stream struct {
	Zone, Key, Node, Client, Token string

	// Asked is when the request was sent, and Answered when its answer was there, or the
	// client gave up. The node got the request between the two.
	Asked, Answered Time
	Outcome         Outcome
	// Status is that of the answer; 0: there was none.
	Status int
	// Ended is when the client heard the end of an admitted stream; Never: it lives.
	Ended  Time
	Ending Ending
}

// Outcome is what was answered.
type Outcome string

const (
	// Admitted: the stream began.
	Admitted Outcome = "admitted"
	// Rejected: others hold the key.
	Rejected Outcome = "rejected"
	// Entombed: the client was to stay away, as its tombstone says.
	Entombed Outcome = "entombed"
	// Unavailable: the node could not tell.
	Unavailable Outcome = "unavailable"
	// Denied: the token is logged out.
	Denied Outcome = "denied"
	// GivenUp: the client did not wait for an answer.
	GivenUp Outcome = "given up"
	// Failed: there was no answer.
	Failed Outcome = "failed"
	// Odd is any other answer.
	Odd Outcome = "odd"
)

// Ending is how a stream ended.
type Ending string

const (
	// Lives: it did not.
	Lives Ending = ""
	// Left: the client closed it.
	Left Ending = "left"
	// Superseded, Replaced and LoggedOut are what the stream's last event said.
	Superseded Ending = "superseded"
	Replaced   Ending = "replaced"
	LoggedOut  Ending = "logout"
	// Cut: it broke off without an event.
	Cut Ending = "cut"
	// Clean: it was finished without an event.
	Clean Ending = "clean"
)

// Logout is one request that logs a token out of a zone.
type Logout struct {
	Zone, Token, Node string
	Asked, Answered   Time
	// Done says that the answer was a good one.
	Done bool
}

// Fault is what the campaign did, or what happened to its machine.
type Fault struct {
	Kind Kind
	// Node is whom it was done to. Empty: all.
	Node     string
	From, To Time
	// Delay is how much later Redis answers.
	Delay time.Duration
}

// Kind is that of a fault.
type Kind string

const (
	// RedisCut: the node cannot reach Redis.
	RedisCut Kind = "redis cut"
	// RedisSlow: it answers late.
	RedisSlow Kind = "redis slow"
	// RedisFlushed: it has lost everything, and no connection.
	RedisFlushed Kind = "redis flushed"
	// RedisRestarted: it was killed, and started without what it had.
	RedisRestarted Kind = "redis restarted"
	// RedisFailedOver: a replica took over that lacks the last writes.
	RedisFailedOver Kind = "redis failed over"
	// PubSubKilled: connections that listen were killed.
	PubSubKilled Kind = "pubsub killed"
	// NodeKilled: by signal 9; until it was started again and answered.
	NodeKilled Kind = "node killed"
	// NodeStopped: by SIGTERM; until it was started again and answered.
	NodeStopped Kind = "node stopped"
	// NodeFrozen: by SIGSTOP, until SIGCONT.
	NodeFrozen Kind = "node frozen"
	// Stalled: the machine did not let the campaign itself run.
	Stalled Kind = "machine stalled"
)

// Promise is what the registry is held to.
type Promise struct {
	// Lease is the nodes' lease.
	Lease time.Duration
	// Slack is what a busy machine may take for what is promised at once.
	Slack time.Duration
	// Skew is how exactly nodes agree on who asked last.
	Skew time.Duration
}

// Violation is a promise that was not kept.
type Violation struct {
	Rule string
	// Streams has those concerned, by their index in the history.
	Streams []int
	Text    string
}

// String implements fmt.Stringer.
func (v Violation) String() string { return v.Rule + ": " + v.Text }
