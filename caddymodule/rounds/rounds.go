// Package rounds looks after many streams from time to time: each is visited when
// it asked to be, and all of them have one timer.
//
// The entries lie in a hashed timing wheel (Varghese and Lauck, 1987, scheme 6): a
// slot for each tick of a revolution, in which an entry waits for its tick, maybe
// for several revolutions. Entering, leaving and being visited cost the same
// however many there are.
package rounds

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// slots is the number of ticks in a revolution, 102.4 s. An entry that waits
	// for longer is looked at, in vain, once a revolution.
	slots = 1024
	// maxBatch is how many entries are looked at while the lock is held once.
	maxBatch = 256
	// cacheLine is at least the size of a processor's.
	cacheLine = 64
)

// Visitor is something that wants to be looked after.
type Visitor interface {
	// Visit returns when to come again, counted from now; zero or less: never.
	// It is called without any lock, and for the same entry never twice at a time.
	// It must not block, as all others wait for its return.
	Visit(now Tick) (next time.Duration)
}

// Rounds visits those that have entered. All methods may be called concurrently,
// and by a visitor, but for Close.
type Rounds struct {
	// now is read with every event that is relayed, on any processor, and written
	// ten times a second. What is written more often must not lie next to it.
	now atomic.Int64
	_   [cacheLine - 8]byte

	begin time.Time
	// visits is what Close waits for.
	visits sync.WaitGroup

	mu    sync.Mutex
	wheel [slots]list
	// turned is the tick whose slot was emptied last.
	turned Tick
	// due is what was in that slot and has not been looked at.
	due list
	// batch is being visited, of which only the round under way takes out entries.
	batch []*Entry
	size  int
	timer *time.Timer
	// ticking says that the timer will fire, or that a round is under way, which
	// sets it when it is through.
	ticking bool
	closed  bool
}

// New returns Rounds without entries. It costs no goroutine and no timer while
// there are none.
func New() *Rounds {
	r := &Rounds{begin: time.Now(), batch: make([]*Entry, 0, maxBatch)}
	r.timer = time.AfterFunc(math.MaxInt64, r.round)
	r.timer.Stop()
	return r
}

// Enter has v visited after the given time, zero or less being the shortest, and
// from then on when it says. The visit comes at that time or up to a Precision
// later. Who enters many at once spreads their times.
//
// The Entry is nil, and v is never visited, if r is closed.
func (r *Rounds) Enter(v Visitor, in time.Duration) *Entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	elapsed := time.Since(r.begin)
	r.start(elapsed)
	e := &Entry{in: r, visitor: v}
	in = min(max(in, 0), math.MaxInt64-elapsed) // or the sum would overflow
	r.plan(e, max(ticks(elapsed+in), r.Now()+1))
	r.size++
	return e
}

// Now is the current tick. It takes no lock and reads no clock, so that what is
// done very often can note its time. It goes on while there are entries, and
// stands still while there are none.
func (r *Rounds) Now() Tick { return Tick(r.now.Load()) }

// Read is the tick that it is by the clock. It is Now that goes on where there are
// no entries, for who is about to enter.
func (r *Rounds) Read() Tick { return Tick(time.Since(r.begin) / Precision) }

// Len returns how many entries there are.
func (r *Rounds) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.size
}

// Each calls f with all who are entered now, in no order, until it returns false.
// No lock is held meanwhile: one may have left when f gets it, and who enters
// meanwhile is not among them. They are listed at one go, during which nobody can
// enter or leave, so this is for rare occasions.
func (r *Rounds) Each(f func(Visitor) bool) {
	for _, v := range r.all() {
		if !f(v) {
			return
		}
	}
}

func (r *Rounds) all() []Visitor {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]Visitor, 0, r.size)
	for i := range r.wheel {
		out = r.wheel[i].visitors(out)
	}
	out = r.due.visitors(out)
	for _, e := range r.batch {
		if !e.left() {
			out = append(out, e.visitor)
		}
	}
	return out
}

// Close ends the visits for good, and waits for the one that may be under way: none
// runs or starts once Close has returned. So it must not be called by a visitor,
// nor with a lock that a visitor takes. Those entered stay so, for Each and Len,
// until they leave. It may be called any number of times.
func (r *Rounds) Close() {
	r.mu.Lock()
	r.closed = true
	r.timer.Stop()
	r.mu.Unlock()
	r.visits.Wait()
}
