// Package reason is the one table of what each ending of a stream means: what
// its client is told, whether it may come back and when, and how loud the log
// is about it. Whoever needs to know looks it up here.
package reason

import (
	"slices"
	"time"
)

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
	// Revoked: an administrator has ended the stream.
	Revoked Reason = "revoked"
	// Expired: the token's life is over.
	Expired Reason = "expired"
	// Dead: nobody is at the other end any more.
	Dead Reason = "dead"
	// MaxAge: the stream has lived as long as one may.
	MaxAge Reason = "max_age"
	// Shutdown: the proxy stops.
	Shutdown Reason = "shutdown"
	// Stalled: the backend hangs.
	Stalled Reason = "stalled"
	// Fenced: the node lost touch with the others, and may not know who holds the key.
	Fenced Reason = "fenced"
)

// Bound is what a tombstone names: whom it keeps away.
type Bound uint8

const (
	// Nobody: there is no tombstone; the client may come back by itself.
	Nobody Bound = iota
	// Key: whoever asks for the same key.
	Key
	// Token: whoever shows the same token.
	Token
)

// Return is when the client is told to come back.
type Return uint8

const (
	// Untold: the client is told nothing.
	Untold Return = iota
	// Soon: within SoonAtMost, at a random moment.
	Soon
	// Drained: within the window of the drain, at a random moment.
	Drained
	// Later: after the time that the guard's retry option gives.
	Later
	// AtOnce: after AtOnceIs, to show the tombstone, whatever time the application
	// had set. Where there is none to show, the client is told nothing.
	AtOnce
)

// AtOnceIs is when AtOnce is.
const AtOnceIs = time.Second

// SoonAtMost is the longest time that Soon means.
const SoonAtMost = 2 * time.Second

// Meaning is what an ending means. The zero Meaning says nothing to anybody.
type Meaning struct {
	// Code is the machine-readable name in the event, and the event's name unless
	// it is renamed. Empty: there is no event.
	Code string
	// Message is what a person may read in the event.
	Message string
	// Tombstone says whom the event's id keeps away.
	Tombstone Bound
	// Return is when the client is told to come back.
	Return Return
	// Cut says that the client is to come back by itself, and so that the response is
	// cut off and not finished, unless the guard is told otherwise.
	Cut bool
	// Quiet endings come in crowds, and nobody caused them: they are logged for
	// debugging only.
	Quiet bool
	// Operator says that an administrator may end streams for this reason. The others
	// say what the guard has seen.
	Operator bool
	// Why and Back are documentation: what happened, and whether the client may come
	// back. README's table says the same.
	Why, Back string
}

// Event reports whether the client is told by an event.
func (m Meaning) Event() bool { return m.Code != "" }

// meanings has the reasons in the order in which users read of them.
var meanings = []struct {
	reason  Reason
	meaning Meaning
}{
	{Superseded, Meaning{
		Code: "DUPLICATED_CONNECTION", Tombstone: Key, Return: AtOnce,
		Message: "A newer connection took over this stream. This one has ended.",
		Why:     "a newer stream took the key",
		Back:    "by a new page load or a new `EventSource`; by itself only if the key is free when it shows its tombstone",
	}},
	{Replaced, Meaning{
		Code: "DUPLICATED_CONNECTION", Tombstone: Key, Return: AtOnce,
		Message: "This client opened a newer connection. This one has ended.",
		Why:     "the same client id opened a newer stream",
		Back:    "as above; a `tab` comes back by itself: it gets no tombstone",
	}},
	{Parked, Meaning{
		Code: "DUPLICATED_CONNECTION", Cut: true,
		Message: "Another connection holds this stream. This one waits until it is free.",
		Why:     "it took the key back again and again",
		Back:    "the stream stays open; when the key is free, it gets a short `retry` and is cut",
	}},
	{Rejected, Meaning{
		Code: "DUPLICATE_SESSION", Return: Later, Cut: true,
		Message: "Another connection holds this stream already. This one was refused.",
		Why:     "the key was full",
		Back:    "yes, after the time that the option `retry` gives; under `on_reject park` when the key is free",
	}},
	{Logout, Meaning{
		Code: "LOGGED_OUT", Tombstone: Token, Return: AtOnce,
		Message: "The user logged out. This stream has ended.",
		Why:     "the user logged out",
		Back:    "after a new login, with the new token",

		Operator: true,
	}},
	{Revoked, Meaning{
		Code: "REVOKED", Tombstone: Token, Return: AtOnce,
		Message: "An administrator has ended this stream.",
		Why:     "an administrator has ended it",
		Back:    "by a new page load or a new `EventSource`, unless the token is denied",

		Operator: true,
	}},
	{Expired, Meaning{
		Code:    "TOKEN_EXPIRED",
		Message: "The token has expired. This stream has ended; a fresh token opens a new one.",
		Why:     "the token's life is over",
		Back:    "with a fresh token; the expired one gets 401",

		Operator: true,
	}},
	{MaxAge, Meaning{Return: Soon, Cut: true, Quiet: true, Operator: true, Why: "it has lived for `max_age`", Back: "yes, within 2 seconds"}},
	{Shutdown, Meaning{Return: Drained, Cut: true, Quiet: true, Why: "Caddy stops", Back: "yes, within the `drain` window"}},
	{Stalled, Meaning{Return: Soon, Cut: true, Why: "the backend has sent nothing for `stall_after`", Back: "yes, within 2 seconds"}},
	{Fenced, Meaning{Return: Soon, Cut: true, Quiet: true, Why: "Redis was away for nine tenths of the lease, or went away while the stream was admitted (`on_error fence`)", Back: "yes, within 2 seconds"}},
	{Dead, Meaning{Cut: true, Why: "the client has acknowledged nothing for `dead_after`", Back: "yes"}},
}

// Meaning is what r means. A reason that the table does not have means nothing.
func (r Reason) Meaning() Meaning {
	for i := range meanings {
		if meanings[i].reason == r {
			return meanings[i].meaning
		}
	}
	return Meaning{}
}

// All lists every reason, in the order in which users read of them.
func All() []Reason {
	all := make([]Reason, len(meanings))
	for i, m := range meanings {
		all[i] = m.reason
	}
	return all
}

// WithEvent lists the reasons of which the client is told by an event.
func WithEvent() []Reason {
	return slices.DeleteFunc(All(), func(r Reason) bool { return !r.Meaning().Event() })
}

// ForOperator lists the reasons for which an administrator may end streams, the usual
// one first.
func ForOperator() []Reason {
	rest := slices.DeleteFunc(All(), func(r Reason) bool { return r == Revoked || !r.Meaning().Operator })
	return append([]Reason{Revoked}, rest...)
}
