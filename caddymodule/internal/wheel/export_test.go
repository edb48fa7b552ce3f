package wheel

import (
	"math"
	"time"
)

const (
	MaxBatch   = maxBatch
	Revolution = slotCount * Precision
)

// Ticking reports whether the timer is set.
func (w *Wheel) Ticking() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ticking
}

// NewHeld is New with a timer that does nothing, so that only Step turns the wheel.
func NewHeld() *Wheel {
	w := New()
	w.timer = time.AfterFunc(math.MaxInt64, func() {})
	w.timer.Stop()
	return w
}

// Hold stops the timer, until Step, or who enters first, sets it again.
func (w *Wheel) Hold() { w.timer.Stop() }

// Age has the wheel begun so much earlier, as if its timer were late by that.
func (w *Wheel) Age(by time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.begin = w.begin.Add(-by)
}

// Step does what a turn does while it holds the lock once, each of those visited
// last wanting to be visited again in next. It returns how many are to be visited.
func (w *Wheel) Step(next time.Duration) int {
	var again [maxBatch]time.Duration
	for i := range again {
		again[i] = next
	}
	w.step(again[:])
	return len(w.batch)
}
