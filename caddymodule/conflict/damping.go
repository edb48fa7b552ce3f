package conflict

import (
	"slices"
	"sync"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/internal/due"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

const (
	// MaxFlaps is the greatest Rule.Flaps that makes sense: more flaps of a key
	// are not always remembered.
	MaxFlaps = maxLosses / 2

	// maxLosses is how many losses of one key are known at most.
	maxLosses = 32
	// minute is how long after a loss its client may flap, and how long the
	// refusals of a key are counted before they are told.
	minute = time.Minute
	// maxKeys is how many keys are known at most: lost ones, refused ones, and ones
	// that were taken over.
	maxKeys = 10_000
	// tellTime is how long after it lost its key a client may be told, and its
	// tombstone made, at most.
	tellTime = 5 * time.Second
)

// Damping notices clients that take a key from each other again and again. It
// follows the idea of route flap damping (RFC 2439): who flaps too often has to
// wait. All methods may be called concurrently.
//
// A page that builds a new EventSource whenever the old one ends carries no
// tombstone, and takes the key back. The page that loses it does the same, and so
// on. Such a newcomer flaps; one that flaps too often is to be parked instead.
//
// A newcomer without a tombstone flaps if a stream of its fingerprint lost the key
// within the last minute, and the present holder is where the key went since: the
// holder took it from that stream, or from who took it from that stream, and so on.
// Otherwise three pages that take turns would not be noticed. It does not flap if
// the client that lost is at rest, that is, if its tombstone came back, or it had
// gone by itself before it was told.
//
// A well-behaved EventSource shows its tombstone only when it reconnects, three to
// five seconds after its end. Until then, tabs of one browser that are opened one
// after the other look like a page that flaps. So a flap is held against the loss
// that seems to have caused it, and no longer counts once the client of that loss
// is at rest. One loss accounts for one flap.
//
// Clients that never show a tombstone, as they know no Last-Event-ID or close their
// EventSource when they are told, cannot be told from pages that flap: two devices
// of that kind between which someone moves by hand flap at each move that comes
// within a minute of the loss. With four flaps in two minutes allowed for, the
// first move back is the first flap, and the fourth is parked. It has the key when
// the holder goes, or a minute after it lost it.
type Damping struct {
	// mu guards known and all that it has. Nothing is called with it held that was
	// given from outside.
	mu    sync.Mutex
	known *due.Map[registry.ID, history]
}

// Loss is that a stream lost its key to a newcomer.
type Loss struct {
	// Stream is the one that lost it, By the one that took it.
	Stream, By registry.StreamID
	// Key is what was lost.
	Key registry.ID
	// Fingerprint is that of the client of Stream.
	Fingerprint registry.ID
	// Gone tells whether the client of Stream had gone by itself before it was
	// told. It is asked when that matters, until it says so; nil: it never does.
	// No lock is held meanwhile. It may be asked concurrently, and kept for minutes
	// with all that it refers to.
	Gone func() bool
}

// Rule says that a newcomer is to be parked from so many flaps within Window on.
// The zero Rule parks nobody.
type Rule struct {
	Flaps  int
	Window time.Duration
	// Settle is how long there must have been flaps. A browser that restores many
	// tabs opens their streams within a second, when none of them has shown its
	// tombstone yet.
	Settle time.Duration
}

// NewDamping returns a Damping that knows of no loss.
func NewDamping() *Damping { return newDamping(maxKeys) }

func newDamping(keys int) *Damping { return &Damping{known: due.NewMap[registry.ID, history](keys)} }

// Lost notes that a stream lost its key.
func (d *Damping) Lost(l Loss) {
	d.askGone(l.Key) // which loss makes room for another depends on it
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	d.forget(now)
	over := now.Add(minute)
	e := d.known.Find(l.Key)
	if e == nil {
		e, _ = d.known.Add(l.Key, over)
	}
	e.Value.add(&loss{Loss: l, at: now})
	d.known.Extend(e, over)
}

// Rests notes that a client came back with a tombstone of key, made at the given
// time: it stays away, and its loss causes no flap. That is the oldest loss of its
// fingerprint that it can be about. A client that shows the same tombstone again and
// again thus excuses no other's flaps but those of that moment.
//
// A zero time is not known: the oldest loss of the fingerprint is meant.
func (d *Damping) Rests(key, fingerprint registry.ID, made time.Time) {
	d.askGone(key)
	d.mu.Lock()
	defer d.mu.Unlock()
	if e := d.known.Find(key); e != nil {
		e.Value.rest(fingerprint, made)
	}
}

// Flaps is asked about a newcomer without a tombstone. It reports whether the
// newcomer flaps, and at least rule.Flaps flaps of its key came within rule.Window,
// this one included: it is to be parked. Asked again about the same newcomer, by its
// ID, it counts no other flap.
//
// holds tells whether a stream holds the key now. No lock is held meanwhile. A
// takeover during the call may be overlooked: then the answer is that of the moment
// before.
//
// Guards with different rules may share a key: each newcomer is judged by its own.
func (d *Damping) Flaps(newcomer *registry.Holder, holds func(registry.StreamID) bool, rule Rule) bool {
	if rule.Flaps < 1 || rule.Window <= 0 || !d.suspects(newcomer) {
		return false
	}
	d.askGone(newcomer.Key)
	held := slices.DeleteFunc(d.takers(newcomer), func(id registry.StreamID) bool { return !holds(id) })
	return len(held) > 0 && d.flaps(newcomer, held, rule)
}

// suspects reports whether the newcomer may flap, whoever holds its key.
func (d *Damping) suspects(newcomer *registry.Holder) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.known.Find(newcomer.Key)
	return e != nil && e.Value.suspects(newcomer.Fingerprint, time.Now())
}

// takers returns who took the newcomer's key from others lately, if the newcomer may
// flap; else none.
func (d *Damping) takers(newcomer *registry.Holder) []registry.StreamID {
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.known.Find(newcomer.Key)
	if e == nil || !e.Value.suspects(newcomer.Fingerprint, time.Now()) {
		return nil
	}
	return e.Value.takers()
}

// flaps is Flaps, given who of the takers holds the key.
func (d *Damping) flaps(newcomer *registry.Holder, held []registry.StreamID, rule Rule) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.known.Find(newcomer.Key)
	if e == nil {
		return false
	}
	now, h := time.Now(), &e.Value
	if !h.flap(newcomer, held, now) {
		return false
	}
	h.keep = max(h.keep, rule.Window)
	d.known.Extend(e, now.Add(rule.Window))
	flaps := h.flaps(now, rule.Window)
	if flaps <= 1 {
		h.since = now
	}
	return flaps >= rule.Flaps && now.Sub(h.since) >= rule.Settle
}

// askGone asks the clients that lost key, and are not at rest, whether they had gone
// before they were told, and puts those to rest that say so.
func (d *Damping) askGone(key registry.ID) {
	gone := slices.DeleteFunc(d.unasked(key), func(l unasked) bool { return !l.gone() })
	if len(gone) == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range gone {
		l.restNow()
	}
}

// unasked is a loss with what to ask about it while no lock is held.
type unasked struct {
	*loss
	gone func() bool
}

func (d *Damping) unasked(key registry.ID) []unasked {
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.known.Find(key)
	if e == nil {
		return nil
	}
	out := make([]unasked, 0, len(e.Value.losses))
	for _, l := range e.Value.losses {
		if l.Gone != nil {
			out = append(out, unasked{l, l.Gone})
		}
	}
	return out
}

// forget forgets the first keys if their time is over. It is called before one is
// added, so two at once are enough for their number to fall.
func (d *Damping) forget(now time.Time) {
	for range 2 {
		e := d.known.Due(now)
		if e == nil {
			return
		}
		d.known.Remove(e)
	}
}
