// Package wheel is a timing wheel: it visits many streams from time to time, each
// when it asked to be, with one timer for all of them.
//
// It is a hashed timing wheel (Varghese and Lauck, 1987, scheme 6): a slot for each
// tick of a revolution, in which an entry waits for its tick, maybe for several
// revolutions. Entering, leaving and being visited cost the same however many there
// are.
package wheel

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// slotCount is the number of ticks in a revolution, 102.4 s. An entry that waits
	// for longer is looked at, in vain, once a revolution.
	slotCount = 1024
	// maxBatch is how many entries are looked at while the lock is held once.
	maxBatch = 256
	// cacheLine is at least the size of a processor's.
	cacheLine = 64
)

// Visitor is something that wants to be visited from time to time.
type Visitor interface {
	// Visit returns when to come again, counted from now; zero or less: never.
	// It is called without any lock, and for the same entry never twice at a time.
	// It must not block, as all others wait for its return.
	Visit(now Tick) (next time.Duration)
}

// Wheel visits those that have entered. All methods may be called concurrently, and
// by a visitor, but for Close.
type Wheel struct {
	// now is read with every event that is relayed, on any processor, and written
	// ten times a second. What is written more often must not lie next to it.
	now atomic.Int64
	_   [cacheLine - 8]byte

	begin time.Time
	// visits is what Close waits for.
	visits sync.WaitGroup

	// mu guards the fields below, but that batch is read without it by the turn under
	// way, and the lists and times of the entries. No visitor is called with it held.
	mu    sync.Mutex
	slots [slotCount]list
	// turned is the tick whose slot was emptied last.
	turned Tick
	// due is what was in that slot and has not been looked at.
	due list
	// batch is being visited. Only the turn under way changes it.
	batch []*Entry
	size  int
	timer *time.Timer
	// ticking says that the timer will fire, or that a turn is under way, which
	// sets it at its end.
	ticking bool
	closed  bool
}

// New returns a Wheel without entries. It costs no goroutine and no running timer
// while there are none.
func New() *Wheel {
	w := &Wheel{begin: time.Now(), batch: make([]*Entry, 0, maxBatch)}
	w.timer = time.AfterFunc(math.MaxInt64, w.turn)
	w.timer.Stop()
	return w
}

// Enter has v visited after the given time, zero or less being the shortest, and
// from then on when it says. The visit comes at that time or up to a Precision
// later. Who enters many at once spreads their times.
//
// The Entry is nil, and v is never visited, if the wheel is closed.
func (w *Wheel) Enter(v Visitor, in time.Duration) *Entry {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil
	}
	elapsed := time.Since(w.begin)
	w.start(elapsed)
	e := &Entry{wheel: w, visitor: v}
	in = min(max(in, 0), math.MaxInt64-elapsed) // or the sum would overflow
	w.plan(e, max(ticks(elapsed+in), w.Now()+1))
	w.size++
	return e
}

// Now is the current tick. It takes no lock and reads no clock, so that what is
// done very often can note its time. It goes on while there are entries, and
// stands still while there are none.
func (w *Wheel) Now() Tick { return Tick(w.now.Load()) }

// Read is the tick that it is by the clock. It is Now that goes on where there are
// no entries, for who is about to enter.
func (w *Wheel) Read() Tick { return Tick(time.Since(w.begin) / Precision) }

// Len returns how many entries there are.
func (w *Wheel) Len() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.size
}

// Close ends the visits for good, and waits for the one that may be under way: none
// runs or starts once Close has returned. So it must not be called by a visitor,
// nor with a lock that a visitor takes. Those entered count in Len until they leave.
// It may be called any number of times.
func (w *Wheel) Close() {
	w.mu.Lock()
	w.closed = true
	w.timer.Stop()
	w.mu.Unlock()
	w.visits.Wait()
}
