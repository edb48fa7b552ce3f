package rounds

import "time"

const (
	MaxBatch   = maxBatch
	Revolution = slots * Precision
)

// Ticking reports whether the timer is set.
func (r *Rounds) Ticking() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ticking
}

// Hold keeps the timer from doing rounds, so that only Step does them.
func (r *Rounds) Hold() { r.timer.Stop() }

// Age has r begun so much earlier, as if its timer were late by that.
func (r *Rounds) Age(by time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.begin = r.begin.Add(-by)
}

// Step does what a round does while it holds the lock once, each of those visited
// last wanting to be visited again in next. It returns how many are to be visited.
func (r *Rounds) Step(next time.Duration) int {
	var again [maxBatch]time.Duration
	for i := range again {
		again[i] = next
	}
	r.step(again[:])
	return len(r.batch)
}
