// Package fights notices pages that take a key from each other again and again.
//
// A page that builds a new EventSource whenever the old one ends carries no
// tombstone, and takes the key back. The page that loses it does the same, and so
// on. Such a newcomer flaps; one that flaps too often is to be parked instead.
//
// A newcomer without a tombstone flaps if a stream of its party lost the key
// within the last minute, and the present holder is where the key went since:
// the holder took it from that stream, or from who took it from that stream, and
// so on. Otherwise three pages that take turns would not be noticed. It does not
// flap if the client that lost is at rest, that is, if its tombstone came back,
// or it had gone by itself before it was told.
//
// A well-behaved EventSource shows its tombstone only when it reconnects, three
// to five seconds after its end. Until then, tabs of one browser that are opened
// one after the other look like a page that fights. So a flap is held against
// the loss that seems to have caused it, and no longer counts once the client of
// that loss is at rest. One loss accounts for one flap.
//
// Clients that never show a tombstone, as they know no Last-Event-ID or close
// their EventSource when they are told, cannot be told from pages that fight: two
// devices of that kind between which someone moves by hand flap at each move
// that comes within a minute of the loss. With four flaps in two minutes allowed
// for, the first move back is the first flap, and the fourth is parked. It has
// the key when the holder goes, or a minute after it lost it.
//
// Memory is bounded by the number of keys, and of losses of each. A key is
// forgotten some time after its last loss is of no account any more, or earlier
// to make room: the one first whose time is over first.
package fights

import (
	"sync"
	"time"
	"weak"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

const (
	// MaxFlaps is the greatest Rule.Flaps that makes sense: more flaps of a key
	// are not always remembered.
	MaxFlaps = maxLosses / 2

	// maxLosses is how many losses of one key are known at most.
	maxLosses = 32
	// minute is how long after a loss its party may flap.
	minute = time.Minute
	// maxKeys is how many keys are known at most.
	maxKeys = 10_000
	// tellTime is how long after it lost its key a client may be told, and its
	// tombstone made, at most.
	tellTime = 5 * time.Second
)

// Fights remembers who lost a key to whom. All methods may be called
// concurrently.
type Fights struct {
	mu    sync.Mutex
	known feuds
}

// Loss is that a stream lost its key to a newcomer.
type Loss struct {
	// Stream is the one that lost it, By the one that took it. Neither is kept
	// alive.
	Stream, By *registry.Stream
	// Party is the Party of Stream.
	Party registry.ID
	// Gone tells whether the client of Stream had gone by itself before it was
	// told. It is asked when that matters, until it says so; nil: it never does.
	// It is called with a lock held, so it must be quick, and not call Fights.
	// It may be kept for minutes, with all that it refers to.
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

// New returns Fights that know of no loss.
func New() *Fights { return newLimited(maxKeys) }

func newLimited(keys int) *Fights { return &Fights{known: newFeuds(keys)} }

// Superseded notes that a stream lost its key.
func (f *Fights) Superseded(l Loss) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	f.known.forget(now)
	fd := f.known.open(l.Stream.Key, now)
	fd.add(&loss{
		stream: weak.Make(l.Stream),
		by:     weak.Make(l.By),
		party:  l.Party,
		at:     now,
		gone:   l.Gone,
	})
	f.known.extend(fd, now.Add(minute))
}

// Rests notes that a client of party came back with a tombstone of key, made at
// the given time: it stays away, and its loss causes no flap. That is the oldest
// loss of party that it can be about. A client that shows the same tombstone
// again and again thus excuses no other's flaps but those of that moment.
//
// A zero time is not known: the oldest loss of party is meant.
func (f *Fights) Rests(key, party registry.ID, made time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fd := f.known.find(key); fd != nil {
		fd.rest(party, made)
	}
}

// Flaps is asked about a newcomer of party without a tombstone. It reports
// whether the newcomer flaps, and at least rule.Flaps flaps of its key came
// within rule.Window, this one included: it is to be parked. Asked again about
// the same newcomer, it counts no other flap.
//
// holds tells whether a stream holds the key now. It is called with a lock held,
// so it must be quick, and not call Fights.
//
// Guards with different rules may share a key: each newcomer is judged by its
// own.
func (f *Fights) Flaps(newcomer *registry.Stream, party registry.ID, holds func(*registry.Stream) bool, rule Rule) bool {
	if rule.Flaps < 1 || rule.Window <= 0 {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	fd := f.known.find(newcomer.Key)
	if fd == nil {
		return false
	}
	now := time.Now()
	if !fd.flap(newcomer, party, holds, now) {
		return false
	}
	fd.keep = max(fd.keep, rule.Window)
	f.known.extend(fd, now.Add(rule.Window))
	flaps := fd.flaps(now, rule.Window)
	if flaps <= 1 {
		fd.since = now
	}
	return flaps >= rule.Flaps && now.Sub(fd.since) >= rule.Settle
}
