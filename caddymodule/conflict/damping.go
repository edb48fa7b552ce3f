package conflict

import (
	"slices"
	"sync"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/internal/due"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

const (
	// MaxCount is the greatest Rule.Count that makes sense: more take-backs of a key
	// are not always remembered.
	MaxCount = 16
	// MaxTakes is how many newcomers of a key within a minute may take it back since
	// a person asked for it.
	MaxTakes = 3

	// takeBackTime is how long after its loss a client that comes again takes the
	// key back, and how long nobody may lose it for the key to be at rest.
	takeBackTime = 10 * time.Second
	// showTime is how long a client may take to show its tombstone. It is told to
	// come back after a second.
	showTime = 3 * time.Second
	// excuseTime is how long a loss whose tombstone was shown does not count.
	excuseTime = 20 * time.Second
	// askTime is how long after its loss other nodes are told whether a client had gone,
	// which they cannot ask: before its loss counts, and when that has turned out.
	askTime = 2 * time.Second
	// excused is how many such losses in a row do not count at all: those of a dozen
	// tabs that are opened beside one.
	excused = 11
	// tellTime is how long after it lost its key a client may be told, and its
	// tombstone made, at most.
	tellTime = 5 * time.Second
	// halfLives is how many half-lives a take-back is remembered.
	halfLives = 5

	// maxLosses is how many losses of one key are known at most.
	maxLosses = 128
	// minute is how long takes, and the refusals of a key, are counted.
	minute = time.Minute
	// maxKeys is how many keys are known at most: lost ones, refused ones, and ones
	// that were taken over.
	maxKeys = 10_000
)

// Damping notices clients that take a key from each other again and again. It is
// flap damping as of RFC 2439: who flaps too often has to wait. All methods may be
// called concurrently.
//
// A newcomer takes the key back if a stream of its token, or subject, lost the key
// less than 10 s ago, and the present holder is where the key went since: the
// holder took it from that stream, or from who took it from that stream, and so on.
// Otherwise three pages that take turns would not be noticed. Client ids and
// User-Agents do not matter, since clients change them.
//
// So a tab that a person opens beside another takes the key back too. What tells it
// from a page that flaps is what becomes of the loser: a well-behaved EventSource
// shows its tombstone a second later, and stays away. Therefore each take-back is
// held against one loss, the one that seems to have caused it, and counts as long as
// that loss does. A loss counts
//
//   - not, if the client had gone by itself before it was told: its page was loaded
//     again;
//   - not for the first 3 s, in which its tombstone may yet be shown;
//   - from then on, if it was not shown;
//   - after 20 s, if it was, and more than 11 were: pages that build a new EventSource
//     after their tombstone was answered look like tabs that are opened one after the
//     other, but for going on for ever. If nobody loses the key for 10 s, all pages are
//     at rest, and those losses are forgotten.
//
// The count halves with each half-life. A newcomer that takes the key back, and finds
// it at the rule's count, is to be parked.
//
// What remains: more than a dozen tabs that are opened one after the other for longer
// than 20 s, each less than 10 s after the one before, are taken for flapping; so are
// clients that close their EventSource when they are told, and never show their
// tombstone, if they are used in turn, each within 10 s of its loss.
//
// Nodes that have holders in common tell each other what they learn; see Share. What is
// told may be lost: then a take-back counts less, or later.
type Damping struct {
	// tellOthers tells other nodes; nil: there are none. It is set by Share.
	tellOthers func(at time.Time, b []byte)
	// sweeper forgets what is of no account any more, also if nothing else happens.
	// Its lock is mu.
	sweeper *due.Sweeper

	// mu guards the fields below and all that they have. Nothing is called with it
	// held that was given from outside.
	mu    sync.Mutex
	known *due.Map[registry.ID, history]
	// aging has the keys by when their oldest loss is one no more. A loss refers to
	// its stream.
	aging due.Queue[registry.ID, struct{}]
	// asking has the keys by when it is asked, for the other nodes, whether a client had
	// gone.
	asking due.Queue[registry.ID, struct{}]
	closed bool
}

// Loss is that a stream lost its key to a newcomer.
type Loss struct {
	// Stream is the one that lost it, By the one that took it.
	Stream, By registry.StreamID
	// Key is what was lost.
	Key registry.ID
	// Token and Subject are those of Stream.
	Token, Subject registry.ID
	// Gone tells whether the client of Stream had gone by itself before it was
	// told. It is asked when that matters, until it says so; nil: it never does.
	// No lock is held meanwhile. It may be asked concurrently, and kept for minutes
	// with all that it refers to.
	Gone func() bool
}

// of reports whether l is of who asks for h.
func (l *Loss) of(h *registry.Holder) bool {
	return l.Token == h.Token || !h.Subject.IsZero() && l.Subject == h.Subject
}

// Rule says that a newcomer is to be parked from so many take-backs on, whose count
// halves with each HalfLife. The zero Rule parks nobody.
type Rule struct {
	Count    int
	HalfLife time.Duration
}

// NewDamping returns a Damping that knows of no loss.
func NewDamping() *Damping { return newDamping(maxKeys) }

func newDamping(keys int) *Damping {
	d := &Damping{known: due.NewMap[registry.ID, history](keys)}
	d.sweeper = due.NewSweeper(&d.mu, d.next, d.take)
	return d
}

// Close forgets everything, and stops the timer for good.
func (d *Damping) Close() {
	d.sweeper.Close()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	for e := d.known.First(); e != nil; e = d.known.First() {
		d.remove(e)
	}
}

// Lost notes that a stream of this node lost its key.
func (d *Damping) Lost(l Loss) {
	now := time.Now()
	d.lost(l, now)
	d.tell(now, note{What: noteLost, Key: l.Key, Token: l.Token, Subject: l.Subject, Stream: l.Stream, By: l.By})
}

// lost notes a loss at the given time, a moment ago.
func (d *Damping) lost(l Loss, at time.Time) {
	if d.full(l.Key) {
		d.askGone(l.Key) // which loss makes room for another depends on it
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	now := time.Now()
	over := now.Add(excuseTime)
	e := d.known.Find(l.Key)
	if e == nil {
		var forgotten *due.Entry[registry.ID, history]
		e, forgotten = d.known.Add(l.Key, over)
		if forgotten != nil {
			d.unqueue(forgotten)
		}
		e.Value.aging.Key, e.Value.asking.Key = l.Key, l.Key
	}
	e.Value.advance(now)
	e.Value.add(&loss{Loss: l, at: at})
	d.known.Extend(e, over)
	d.age(e)
	d.plan(e)
	d.sweeper.Arm()
}

// Shown notes that a client showed a tombstone of its key, made at the given time.
// That is the oldest loss of its token, or subject, that it can be about. A client
// that shows the same tombstone again and again thus excuses no other losses but
// those of that moment.
//
// A zero time is not known: the oldest loss is meant.
func (d *Damping) Shown(client *registry.Holder, made time.Time) {
	d.askGone(client.Key)
	if !d.shown(client, made) {
		return
	}
	n := note{What: noteShown, Key: client.Key, Token: client.Token, Subject: client.Subject}
	if !made.IsZero() {
		n.Made = made.Unix()
	}
	d.tell(time.Now(), n)
}

// shown reports whether the tombstone is of a loss that is known.
func (d *Damping) shown(client *registry.Holder, made time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.known.Find(client.Key)
	return e != nil && e.Value.show(client, made)
}

// Flaps is asked about a newcomer that shows no tombstone. It reports whether the
// newcomer takes the key back, and finds at least rule.Count take-backs: it is to be
// parked. Asked again about the same newcomer, by its ID, it counts no other one.
//
// With take, a person asked for it: that is no take-back, MaxTakes times a minute.
//
// holds tells whether a stream holds the key now. No lock is held meanwhile. A
// takeover during the call may be overlooked: then the answer is that of the moment
// before.
//
// Guards with different rules may share a key: each newcomer is judged by its own.
func (d *Damping) Flaps(newcomer *registry.Holder, take bool, holds func(registry.StreamID) bool, rule Rule) bool {
	if rule.Count < 1 || rule.HalfLife <= 0 || !d.suspects(newcomer) {
		return false
	}
	d.askGone(newcomer.Key)
	held := slices.DeleteFunc(d.takers(newcomer), func(id registry.StreamID) bool { return !holds(id) })
	if len(held) == 0 {
		return false
	}
	flaps, learned := d.flaps(newcomer, take, held, rule)
	d.tell(time.Now(), learned...)
	return flaps
}

// suspects reports whether the newcomer takes its key back, whoever holds it.
func (d *Damping) suspects(newcomer *registry.Holder) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.known.Find(newcomer.Key)
	return e != nil && e.Value.suspects(newcomer, time.Now())
}

// takers returns who took the newcomer's key from others lately, if the newcomer may
// be taking it back; else none.
func (d *Damping) takers(newcomer *registry.Holder) []registry.StreamID {
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.known.Find(newcomer.Key)
	if e == nil || !e.Value.suspects(newcomer, time.Now()) {
		return nil
	}
	return e.Value.takers()
}

// flaps is Flaps, given who of the takers holds the key. It returns what the other nodes
// are to be told.
func (d *Damping) flaps(newcomer *registry.Holder, take bool, held []registry.StreamID, rule Rule) (flaps bool, learned []note) {
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.known.Find(newcomer.Key)
	if e == nil {
		return false, nil
	}
	now, h := time.Now(), &e.Value
	h.advance(now)
	isBack, cause := h.cause(newcomer, held, now)
	if !isBack {
		return false, nil
	}
	if take {
		may, isNew := h.take(newcomer.ID, now)
		if isNew {
			learned = []note{{What: noteTaken, Key: newcomer.Key, Stream: newcomer.ID}}
		}
		if may {
			return false, learned
		}
	}
	n := note{What: noteBack, Key: newcomer.Key, By: newcomer.ID, HalfLife: rule.HalfLife}
	isNew := h.hold(newcomer.ID, cause, now)
	if isNew {
		n.Stream = cause.Stream
	}
	d.remember(e, rule.HalfLife, now)
	if h.count(now, rule.HalfLife) >= float64(rule.Count) {
		isNew = isNew || !h.parked
		h.parked, n.Parked = true, true
	}
	if isNew {
		learned = []note{n}
	}
	return n.Parked, learned
}

// remember keeps what is known of the key for as long as take-backs count by that
// half-life. mu is held.
func (d *Damping) remember(e *due.Entry[registry.ID, history], halfLife time.Duration, now time.Time) {
	h := &e.Value
	h.keep = max(h.keep, halfLives*halfLife)
	d.known.Extend(e, now.Add(max(h.keep, excuseTime)))
}

// full reports whether another loss of key needs room.
func (d *Damping) full(key registry.ID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.known.Find(key)
	return e != nil && len(e.Value.losses) == maxLosses
}

// askGone asks the clients that lost key, and have not shown their tombstone, whether
// they had gone before they were told.
func (d *Damping) askGone(key registry.ID) {
	d.ask(key, d.unasked(key))
}

// ask asks the clients of the losses, and tells the other nodes of those that had gone.
func (d *Damping) ask(key registry.ID, losses []unasked) {
	gone := slices.DeleteFunc(losses, func(l unasked) bool { return !l.gone() })
	for _, l := range gone {
		d.forgive(l.loss)
		d.tell(time.Now(), note{What: noteGone, Key: key, Stream: l.stream})
	}
}

func (d *Damping) forgive(l *loss) {
	d.mu.Lock()
	defer d.mu.Unlock()
	l.forgive()
}

// unasked is a loss with what to ask about it while no lock is held.
type unasked struct {
	*loss
	stream registry.StreamID
	gone   func() bool
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
			out = append(out, unasked{l, l.Stream, l.Gone})
		}
	}
	return out
}
