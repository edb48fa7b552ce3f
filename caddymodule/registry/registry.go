// Package registry is the contract between the guard and the keeper of "who
// holds what". Package memory keeps it for one process.
//
// A stream asks for a key and, once admitted, holds it. How many streams may
// hold one key, and what happens to a newcomer when it is full, is the Rule.
//
// The contract carries values only, so that a registry may keep them in another
// process. Streams are named by their StreamID; the Node that has a stream ends
// it, and looks after it.
//
// What every implementation promises:
//
//   - At most Rule.Limit holders per key once admissions are quiet: those that asked
//     last under Supersede (see Holder.Asked), those admitted first under Reject; and
//     under either, all who do not yield before any who does.
//   - Place.Leave gives back that place and no other, however often it is called.
//   - Who is not Admitted has changed nothing.
//   - Node.End is called outside of any lock, and only after the stream has
//     stopped counting as a holder.
//   - Ending by stream, key, token, client or subject costs the streams it ends,
//     not the streams there are.
//   - Who is denied holds nothing: Deny, then End, leaves no stream that the
//     denial names, also none that was being admitted meanwhile.
package registry

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/reason"
)

// ID names a key, a token, a client or a subject: a SHA-256, never the thing
// itself. The zero ID means "none".
type ID [32]byte

// IsZero reports whether id names nothing.
func (id ID) IsZero() bool { return id == ID{} }

// MarshalText implements encoding.TextMarshaler: nodes tell each other of holders in
// JSON, in which an array of bytes is a list of numbers, and takes several times as long.
func (id ID) MarshalText() ([]byte, error) {
	if id.IsZero() {
		return nil, nil
	}
	return base64.RawStdEncoding.AppendEncode(nil, id[:]), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *ID) UnmarshalText(text []byte) error {
	*id = ID{}
	if len(text) == 0 {
		return nil
	}
	if len(text) != base64.RawStdEncoding.EncodedLen(len(id)) {
		return fmt.Errorf("a hash of %d bytes cannot be read", len(text))
	}
	_, err := base64.RawStdEncoding.Decode(id[:], text)
	return err
}

// StreamID names a stream on all nodes. Each guard of a request has a stream of
// its own; their IDs differ in the last byte only. The zero StreamID means "none".
type StreamID [16]byte

// NewStreamID returns an ID that no other response has.
func NewStreamID() (id StreamID) {
	for {
		binary.NativeEndian.PutUint64(id[:8], rand.Uint64()) //nolint:gosec // unique, not secret
		binary.NativeEndian.PutUint64(id[8:], rand.Uint64()) //nolint:gosec // unique, not secret
		id[len(id)-1] = 0
		if !id.IsZero() {
			return id
		}
	}
}

// Nth returns the ID of the same response's stream of the n-th guard.
func (id StreamID) Nth(n int) StreamID {
	id[len(id)-1] = byte(n)
	return id
}

// SameResponse reports whether id and other name streams of one response.
func (id StreamID) SameResponse(other StreamID) bool { return id.Nth(0) == other.Nth(0) }

// IsZero reports whether id names nothing.
func (id StreamID) IsZero() bool { return id == StreamID{} }

// String is the hexadecimal spelling.
func (id StreamID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText implements encoding.TextMarshaler.
func (id StreamID) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, id[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *StreamID) UnmarshalText(text []byte) error {
	read, ok := ParseStreamID(string(text))
	if !ok {
		return fmt.Errorf("a stream ID of %d bytes cannot be read", len(text))
	}
	*id = read
	return nil
}

// Compare orders IDs, as lists have them.
func (id StreamID) Compare(other StreamID) int { return bytes.Compare(id[:], other[:]) }

// ParseStreamID reads what String has spelled.
func ParseStreamID(text string) (id StreamID, ok bool) {
	if len(text) != hex.EncodedLen(len(id)) {
		return id, false
	}
	_, err := hex.Decode(id[:], []byte(text))
	return id, err == nil
}

// ParseCursor reads a cursor of lists in the order of IDs: the ID that the page before
// ended with. It returns zero for the first page, whose cursor is empty.
func ParseCursor(cursor string) (after StreamID, err error) {
	if cursor == "" {
		return after, nil
	}
	after, ok := ParseStreamID(cursor)
	if !ok {
		return after, fmt.Errorf("%q is no cursor; give what the page before came with", cursor)
	}
	return after, nil
}

// Holder describes a stream that asks for a key or holds it. It is a value that is
// not changed once it was given away: whoever gets a pointer to one may keep it.
type Holder struct {
	// ID names the stream.
	ID StreamID
	// Key is what is held.
	Key ID
	// Token is the hash of the token that the request carried; zero: none.
	Token ID
	// Subject is the hash of whom the token was verified to be issued to; zero:
	// not known.
	Subject ID
	// Client is the hash of the client id within its token or subject; zero:
	// none.
	Client ID
	// Session is what a later token must share to move the stream's end; zero:
	// none does.
	Session ID
	// Fingerprint is who is taken for the same client where nothing better is
	// known; zero: not known.
	Fingerprint ID
	// Tab says that Client names one browser tab, not a device: a newcomer
	// with the same Client then always replaces the older stream.
	Tab bool
	// IssuedAt is when the token was issued; zero: not known.
	IssuedAt time.Time
	// Expires is when the token is not accepted any more; zero: not known.
	Expires time.Time
	// Asked is when the request came, whichever way it took since: who asked later is
	// the newer of two holders. It has the reading of this process's monotonic clock; a
	// registry in another process is told for how long the request has been asking. Of
	// two that asked at the same time, or that do not say when, the one that was
	// admitted later is the newer.
	Asked time.Time
	// Since is when the stream's header came, and it asked for the key; zero: not yet.
	Since time.Time
	// Addr is the client's address, for log lines.
	Addr string
	// Yields says that no page can read the stream, so that any site can ask for it in
	// a user's name. Under either policy it gets a free place and no other: it ends
	// nobody, also not its own client's streams, and takes no kept place back. Once it
	// holds, it counts as older than all who do not yield, and is superseded before
	// anybody else makes room; under Reject it counts as no holder. No place is kept
	// for it.
	Yields bool
}

// SameClient reports whether h and other are taken for streams of one client: by
// its client id if it has one, else by its fingerprint.
func (h *Holder) SameClient(other *Holder) bool {
	if !h.Client.IsZero() || !other.Client.IsZero() {
		return h.Client == other.Client
	}
	return !h.Fingerprint.IsZero() && h.Fingerprint == other.Fingerprint
}

// Ending says why a stream ends.
type Ending struct {
	Reason reason.Reason
	// By is the address of the request that caused it, for log lines; empty if
	// no request did.
	By string
	// For is the stream that took the key; zero if none did.
	For StreamID
	// Message is what the client is told in place of the reason's own message; empty:
	// that one.
	Message string `json:",omitempty"`
	// Asked is when the request of that stream came; zero: not known. It says how long
	// the takeover took, and nothing else depends on it.
	Asked time.Time
}

// Policy decides who yields when a key is full.
type Policy string

const (
	// Supersede admits the newcomer and ends the oldest holder, by Holder.Asked. A
	// newcomer that asked before all holders is itself the oldest: it is Outasked.
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

// Ask is a newcomer's question for one key.
type Ask struct {
	Holder *Holder
	Rule   Rule
	// Tombstone is when the key's tombstone was made that the newcomer shows; nil:
	// it shows none. Such a newcomer gets a key that is free, and ends nobody: while
	// the key is full, and for FreeLately after, it is Entombed.
	Tombstone *time.Time
	// Damped says that the newcomer flaps: it gets a key that is free, and ends
	// nobody.
	Damped bool
	// Prefer names, by streams of their responses, holders that another guard of the
	// request has to end, as the registry of that guard has said. If somebody has to make
	// room for this newcomer, they do, before others.
	Prefer []StreamID
}

// FreeLately is how long after a place of its key came free a newcomer that shows a
// tombstone is held up. The client that had the place may be back by then: a page
// that is loaded again, or a newcomer whose upstream has yet to answer.
const FreeLately = 3 * time.Second

// Phase is how far a request is when its guards ask.
type Phase uint8

const (
	// Early: the upstream has not been asked. Those are ended whom the Consent
	// allows to end, and nobody is admitted. With the zero Consent nobody is ended: it
	// only asks what would be.
	Early Phase = iota
	// Header: the upstream has answered with a stream. The newcomer is admitted.
	Header
	// Reserve: as Header, but other registries are yet to be asked. Nobody is ended
	// before Place.Commit.
	Reserve
)

// Consent is whom an Early question may end: none but holders of the newcomer's
// own token, or of its own subject. The registry ends all that must go, or none.
type Consent struct{ SameToken, SameSubject bool }

// Allows reports whether the newcomer may end h early.
func (c Consent) Allows(newcomer, h *Holder) bool {
	return c.SameToken && !h.Token.IsZero() && h.Token == newcomer.Token ||
		c.SameSubject && !h.Subject.IsZero() && h.Subject == newcomer.Subject
}

// Outcome is what became of an Ask.
type Outcome uint8

const (
	// Undecided: another Ask of the same call was not admitted, or, Early, Consent
	// does not cover all that had to go. Nothing has changed.
	Undecided Outcome = iota
	// Admitted: the newcomer has a place, or, Early, would have one.
	Admitted
	// Rejected: the key is full and the rule protects its holders.
	Rejected
	// Denied: a denial names the newcomer. It goes before Rejected, Outasked and Damped.
	Denied
	// Entombed: the newcomer shows a tombstone, and the key is full: the rule would
	// refuse it, or end somebody for it who does not yield. It goes before Denied. With
	// a limit of 0 no key is full.
	Entombed
	// Damped: the newcomer flaps, and the rule would end somebody for it who does not
	// yield. Outasked goes before it.
	Damped
	// Outasked: the key is full, and all who would have to make room asked later than
	// the newcomer, which is a request that was answered late. A tab's newcomer is also
	// Outasked by its own stream that asked later.
	Outasked
)

// Admission is the answer to an Ask.
type Admission struct {
	Outcome Outcome
	// Ends lists, oldest first, the holders that were ended, or, for a Reserve, will
	// be as things stand. Where all asks of an Early call are Undecided, it lists those
	// that would have to go, which Consent does not cover.
	Ends []Victim
	// Holders lists, where Rejected, some of those who hold the key: those of the
	// newcomer's own token first, then the oldest; MostHolders at most.
	Holders []*Holder
	// Suspects lists, where Rejected, those of the holders whose clients may be dead,
	// the longest silent first as far as that is known; MostSuspects at most. Probe
	// them and ask again.
	Suspects []StreamID
	// Until is set where Entombed, if the key is not full but was less than FreeLately
	// ago, as far as the places that came free since tell: the newcomer is to ask again then, or when Taken is closed,
	// since somebody has got a place. Taken is a hint. Places of those that yield count for none of this.
	Until time.Time
	Taken <-chan struct{}
	// Place is the newcomer's place, where Admitted and not Early.
	Place Place
	// Departed is closed once the upstream requests are gone of Ends, and of those
	// streams of the same client that have left the key. Nil: there are none. It is
	// for Early questions.
	Departed <-chan struct{}
}

const (
	// MostHolders bounds Admission.Holders.
	MostHolders = 5
	// MostSuspects bounds Admission.Suspects.
	MostSuspects = 4
	// MostWaiters is how many may wait for one key.
	MostWaiters = 8
)

// Victim is a holder that must go, and why.
type Victim struct {
	Holder *Holder
	Reason reason.Reason
}

// Place is a newcomer's reserved, then held, place. Its methods do not block.
type Place interface {
	// Commit makes a reserved place a held one, ends the holders that are now
	// too many and returns them, oldest first. It is called at most once, and
	// not after Leave: then it changes nothing and returns ErrNotReserved. If the
	// stream is denied, or Outasked by now, or yields where there is no free place any
	// more, the place is given back, nobody is ended, and the error is ErrDenied or
	// ErrOutasked. So it is, with another error, where the registry cannot tell.
	Commit(ctx context.Context) ([]Victim, error)
	// Leave gives the place back, whether reserved, held or already taken away by
	// another's admission. It may be called any number of times; the first call
	// counts.
	Leave(Keep)
	// Departed says that the stream's upstream request is gone. It may be called any
	// number of times, before and after Leave.
	Departed()
}

// Keep says that a place is still to count as held for so long after its client has
// left, for the case that the same client (Holder.SameClient) comes back. The zero
// Keep gives the place back at once.
type Keep struct{ For time.Duration }

// Selector names streams: those that match all of its fields that are not zero.
// The zero Selector names none.
type Selector struct {
	ID                                   StreamID
	Key, Token, Client, Subject, Session ID
	// All names all streams that the other fields do not leave out.
	All bool
}

// IsZero reports whether sel names no stream.
func (sel Selector) IsZero() bool { return sel == Selector{} }

// Matches reports whether sel names h.
func (sel *Selector) Matches(h *Holder) bool {
	if sel.IsZero() {
		return false
	}
	match := func(want, got ID) bool { return want.IsZero() || want == got }
	return (sel.ID.IsZero() || sel.ID == h.ID) &&
		match(sel.Key, h.Key) && match(sel.Token, h.Token) && match(sel.Client, h.Client) &&
		match(sel.Subject, h.Subject) && match(sel.Session, h.Session)
}

// Ended is who was ended.
type Ended struct {
	// Holders lists them, oldest first, and those whose client has left and whose
	// kept place was given up: they are holders like any other, but there is no stream
	// to end.
	Holders []*Holder
	// Departed is closed once the upstream requests are gone of those that had a
	// stream; nil if there are none.
	Departed <-chan struct{}
}

// Denial says who is no longer welcome: one token, one token with one client id,
// or a subject's older tokens.
type Denial struct {
	// Token is denied; with a Client, only where it comes with that client id.
	Token, Client ID
	// Subject is denied with all its tokens that were issued before IssuedBefore.
	// A token that does not tell when is denied by this only while that is yet to
	// come: it was issued before, then. Either Token or Subject is set.
	Subject      ID
	IssuedBefore time.Time
	// Until is when the denial may be forgotten: no such token is valid any more.
	Until time.Time
}

var (
	// ErrDenied is returned for a stream that a Denial names.
	ErrDenied = errors.New("the stream's token is no longer welcome")
	// ErrOutasked is returned by Commit for a stream that is Outasked by now.
	ErrOutasked = errors.New("a newer request has the key")
	// ErrNotReserved is returned by Commit for a place that was given back, or that is
	// held by now.
	ErrNotReserved = errors.New("the place is not reserved any more; ask for another")
	// ErrManyDenials is returned by Deny when it had to forget denials before their
	// time, those first that would have been forgotten soonest.
	ErrManyDenials = errors.New("too many denials: the oldest were forgotten")
	// ErrManyWaiters is returned by Wait when MostWaiters wait for the key, and to a
	// newcomer that yields: it takes nobody's turn.
	ErrManyWaiters = errors.New("too many newcomers wait for this key")
	// ErrAway is returned by a registry that cannot tell for the time being, and that has
	// said so in its own log line: it is not one of the newcomer's.
	ErrAway = errors.New("the registry cannot be reached")
	// ErrNoKey is returned for a newcomer whose Key is zero. Were it admitted, all
	// streams without a key would end each other.
	ErrNoKey = errors.New("the stream has no key to hold; let it pass untracked")
)

// Denials is who is no longer welcome, as far as this node knows.
type Denials interface {
	// Deny keeps whom the denials name from being admitted on any node, from now
	// on here. It ends no stream of this node: that is for End, afterwards; another
	// node that hears of a denial ends its own streams that it names. The error is
	// ErrManyDenials if room had to be made; the denials given are in force all
	// the same.
	Deny(ctx context.Context, denials ...Denial) error
	// Denied reports whether a denial in force names h. It does not leave the
	// process. Admit asks the same once the newcomer's entry is made, so this only
	// spares a newcomer the way to there.
	Denied(h *Holder) bool
}

// Registry keeps who holds what, for one zone. All methods may be called
// concurrently.
type Registry interface {
	Denials
	// Admit answers for all guards of one request that share the registry, the
	// innermost first: all are admitted, or none. What one of them is about to end
	// counts as gone for those after it, and so do, for all, the leaving: streams that
	// the request has ended, or its guards of other registries are about to. Under
	// Reject nothing does: a holder is protected from the request's other guards too.
	// Nobody ends for room that is made anyway: of those who would have to end, whoever
	// can stay does, and an ask prefers to end whom another one has to.
	Admit(ctx context.Context, phase Phase, consent Consent, asks []Ask, leaving []StreamID) ([]Admission, error)
	// End ends every holder that the selector names, on any node, and gives up the
	// kept places that it names. It does not end reserved places: Commit asks once
	// more whether its stream is denied.
	End(ctx context.Context, sel Selector, e Ending) (Ended, error)
	// Find lists holders that the selector names, at most limit of them, from where
	// the cursor of an earlier answer says. The returned cursor is empty at the end.
	// Who holds all the while is listed once. Kept places are listed too. They come
	// in any order.
	Find(ctx context.Context, sel Selector, cursor string, limit int) ([]*Holder, string, error)
	// Wait enlists a refused newcomer to be told when it would be admitted; at once
	// if that is now. One waiter is told per place that comes free, the longest
	// waiting first. A newcomer that yields does not wait.
	Wait(ctx context.Context, ask Ask) (Waiter, error)
	// Each calls f with every node that has streams, this one first.
	Each(ctx context.Context, f func(Node)) error
}

// Reachable is a Registry that may lose touch with where it keeps who holds what.
type Reachable interface {
	// Away is why it has; nil: it has not.
	Away() error
	// Missing reports whether there may be streams that Find and End do not know of for
	// now: those of a node that has gone lately. It may live on, cut off from the others.
	Missing() bool
}

// Sharing is a Registry by which the nodes of a zone tell each other what happens, while
// somebody listens. What is told may be lost; nobody waits for it.
type Sharing interface {
	// Hear has hear called, one call at a time, with what other nodes have told and when it
	// happened, and with how many were missed before that, as far as that is known: b is
	// nil where there is no more than that to say. It is called once, before all others.
	Hear(hear func(at time.Time, b []byte, missed int))
	// Listen adds to how many listen on this node. It is told while there are any.
	Listen(more int)
	// Heard reports whether other nodes listen.
	Heard() bool
	// Tell tells them what happened here.
	Tell(at time.Time, b []byte)
}

// Grouping is a Registry by which the nodes of a zone know how many streams of a group
// others have. A hash names a group. What is known of others may be a moment old.
type Grouping interface {
	// Group has count called for how many streams of a group this node has, and changed
	// when other nodes have more or fewer of groups that this node has streams of. It is
	// called once, before all others. Both may be called at any time, and do not block.
	Group(count func(group ID) int, changed func(groups []ID))
	// GroupChanged says that count may return another number for the groups. It does not
	// block.
	GroupChanged(groups ...ID)
	// Elsewhere is how many streams of a group other nodes have, as far as is known: where
	// this node has had none of it lately, nothing is.
	Elsewhere(group ID) int
}

// Announcing is a Registry by which a node tells all others of the zone what they are to
// know. What is told may be lost, or told in another order; nobody waits for it.
type Announcing interface {
	// HearAll has hear called, one call at a time, with what other nodes have told and when
	// it happened. It is called once, before all others.
	HearAll(hear func(at time.Time, b []byte))
	// TellAll tells them what happened here.
	TellAll(at time.Time, b []byte)
}

// As returns r as a T, or the registry that r wraps, if that is one. A wrapper has a
// method Unwrap that returns what it wraps.
func As[T any](r Registry) (t T, ok bool) {
	for {
		if t, ok = r.(T); ok {
			return t, true
		}
		w, wraps := r.(interface{ Unwrap() Registry })
		if !wraps {
			return t, false
		}
		r = w.Unwrap()
	}
}

// Waiter is a refused newcomer that waits for a place.
type Waiter interface {
	// Free is closed when the waiter would be admitted. It is a hint: another
	// newcomer may be faster, so the waiter asks again.
	Free() <-chan struct{}
	// Stop ends the waiting. It may be called any number of times.
	Stop()
}

// State is how a stream stands that a Node has.
type State string

const (
	// StateLive: it holds a key, or asks for it at this moment.
	StateLive State = "live"
	// StateUntracked: it holds none.
	StateUntracked State = "untracked"
	// StateParked: it waits for a key.
	StateParked State = "parked"
	// StateEnding: it was told to end.
	StateEnding State = "ending"
)

// States has all states.
var States = []State{StateLive, StateUntracked, StateParked, StateEnding}

// Row is a stream as the Node that has it knows it.
type Row struct {
	Holder *Holder
	About  About
	State  State
	// Node is the Name of the node.
	Node string
	// Events and Bytes count what was relayed.
	Events uint64
	Bytes  int64
	// LastEvent is when the upstream last sent something, and LastAck when the
	// client last acknowledged anything; zero: not known.
	LastEvent, LastAck time.Time
}

// Opened is when the stream's header came, or, where it has not come, as for those that
// are parked, when the request did.
func (r *Row) Opened() time.Time { return r.Holder.opened() }

func (h *Holder) opened() time.Time {
	if h.Since.IsZero() {
		return h.Asked
	}
	return h.Since
}

// About is what is known of a stream besides who holds it, for whoever looks at it. It
// is not changed once it was given away.
type About struct {
	// Sub is the name of the verified user; empty: not known.
	Sub string `json:",omitempty"`
	// Protocol is the request's, such as HTTP/2.0.
	Protocol string `json:",omitempty"`
	// Path is what was asked for, without the query and without parameters of the path:
	// tokens may be there.
	Path string `json:",omitempty"`
	// Labels are those that the guard gives it.
	Labels Labels `json:",omitzero"`
}

// Labels are names with values, which have the same index. The streams of a guard share
// the names.
type Labels struct{ Names, Values []string }

// Map has the labels that have a value.
func (l *Labels) Map() map[string]string {
	labels := make(map[string]string)
	for i, value := range l.Values {
		if value != "" {
			labels[l.Names[i]] = value
		}
	}
	return labels
}

// MostLabels is how many labels a stream has at most.
const MostLabels = 8

// Value is the value of the label of that name; empty: there is none.
func (l *Labels) Value(name string) string {
	if i := slices.Index(l.Names, name); i >= 0 && i < len(l.Values) {
		return l.Values[i]
	}
	return ""
}

// LabelValue is the value of a label as streams keep it.
func LabelValue(text string) string { return Shorten(text, longestLabel) }

// longestLabel is how many bytes a value of a label has at most.
const longestLabel = 64

// Shorten returns text, or, if it has more than most bytes, its beginning with a hash of
// it all: texts that differ stay different.
func Shorten(text string, most int) string {
	if len(text) <= most {
		return text
	}
	const hashed = 8
	sum := sha256.Sum256([]byte(text))
	cut := most - len("~") - hex.EncodedLen(hashed)
	return strings.ToValidUTF8(text[:cut], "") + "~" + hex.EncodeToString(sum[:hashed])
}

// Filter names streams by what their Rows show: those that match all of its fields that
// are not zero. The zero Filter names none.
type Filter struct {
	Selector
	// KeyPrefix, TokenPrefix and ClientPrefix are what the IDs begin with: log lines and
	// lists show no more.
	KeyPrefix    []byte `json:",omitempty"`
	TokenPrefix  []byte `json:",omitempty"`
	ClientPrefix []byte `json:",omitempty"`
	State        State  `json:",omitempty"`
	// Sub is the name of the verified user.
	Sub string `json:",omitempty"`
	// Labels have these values.
	Labels map[string]string `json:",omitempty"`
	// Before is later than when they were opened.
	Before time.Time `json:",omitzero"`
}

// IsZero reports whether f names no stream.
func (f *Filter) IsZero() bool {
	return f.Selector.IsZero() && f.State == "" && f.Sub == "" && f.Before.IsZero() && len(f.Labels) == 0 &&
		len(f.KeyPrefix) == 0 && len(f.TokenPrefix) == 0 && len(f.ClientPrefix) == 0
}

// Names reports whether f names a stream of h, as far as h tells. Shows tells the rest.
func (f *Filter) Names(h *Holder) bool {
	if f.IsZero() || !f.Selector.IsZero() && !f.Matches(h) {
		return false
	}
	return bytes.HasPrefix(h.Key[:], f.KeyPrefix) && bytes.HasPrefix(h.Token[:], f.TokenPrefix) &&
		bytes.HasPrefix(h.Client[:], f.ClientPrefix) && (f.Before.IsZero() || h.opened().Before(f.Before))
}

// Shows reports whether f names a stream of this state that is known so, as far as
// these tell.
func (f *Filter) Shows(state State, about *About) bool {
	if f.State != "" && f.State != state || f.Sub != "" && f.Sub != about.Sub {
		return false
	}
	for name, value := range f.Labels {
		if about.Labels.Value(name) != value {
			return false
		}
	}
	return true
}

// Counts is how many streams there are.
type Counts struct {
	// Node is the Name of the node that has them.
	Node string
	// States counts them by their states.
	States map[State]int
	// Labels counts those that are live by the values of each label: of the
	// MostValues that most have.
	Labels map[string]map[string]int `json:",omitempty"`
	// Others counts those that are live, and have other values of the label.
	Others map[string]int `json:",omitempty"`
}

// MostValues is of how many values of a label streams are counted one by one.
const MostValues = 1000

// Node is what a registry, or an administrator, asks of the process that has the
// streams. A StreamID that it does not have is ignored. The errors of a node in this
// process are about what is asked; others may not answer.
type Node interface {
	// End asks a stream to end and returns without waiting for it.
	End(id StreamID, e Ending)
	// EndAll is End for many streams, for whoever must know whether the node was asked.
	EndAll(ctx context.Context, ids []StreamID, e Ending) error
	// Probe asks a stream's client to prove within the given time that it lives, and
	// ends the stream if it does not. It reports whether the stream lives on: true
	// where that cannot be told, false where the node does not have it.
	Probe(ctx context.Context, id StreamID, within time.Duration) (lives bool)
	// List lists streams that the filter names, in the order of their IDs, limit of them
	// at most. A cursor is the spelling of an ID: those behind it are listed. The returned
	// one is empty at the end. A stream that is there all the while is listed once.
	List(ctx context.Context, f Filter, cursor string, limit int) ([]Row, string, error)
	// Count counts the streams.
	Count(ctx context.Context) (Counts, error)
	// Notify sends an event to streams that the filter names, between two of their own,
	// and returns to how many. It does not wait until they are sent.
	Notify(ctx context.Context, f Filter, name, data string) (int, error)
}

// Opener opens the registry of a zone, which ends streams by node. Caddy guest
// modules in the namespace sse_guard.registries implement it. Guards that name
// the same zone and the same module configuration share one Registry, over
// configuration reloads too; if it implements io.Closer it is closed when the
// last of them is gone.
//
// A registry that is a Starter too is at work only once the configuration starts, or
// earlier if it is asked for anything.
type Opener interface {
	Open(zone string, node Node) (Registry, error)
}

// Renewer is an Opener whose configuration may read as before and stand for something else,
// such as the password in a file. It has a registry that another one of the same
// configuration has opened do as it would itself. It is called when the configuration
// starts.
type Renewer interface{ Renew(opened Registry) }

// Starter is a registry that has something to start: Open is called, too, for a
// configuration that is only validated, and should not reach anything outside.
type Starter interface {
	// Start fails if the configuration is not to start. It may be called again.
	Start() error
}
