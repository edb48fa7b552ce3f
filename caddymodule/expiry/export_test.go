package expiry

import (
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

const (
	MaxSleep = maxSleep
	MaxBatch = maxBatch
)

// NewAt is New with a wall clock of the test's.
func NewAt(end func([]*registry.Stream), now func() time.Time) *Deadlines { return newAt(end, now) }

// Step is one step of a sweep.
func (d *Deadlines) Step() []*registry.Stream { return d.step() }

// Fire is what the timer does, as if it was set again just when it had fired.
func (d *Deadlines) Fire() { d.sweep() }

// Armed reports whether the timer runs.
func (d *Deadlines) Armed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.armed
}

// Sessions returns how many sessions are known.
func (d *Deadlines) Sessions() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.sessions)
}

// HoldSweeps keeps the timer from sweeping, so that only Step does.
func (d *Deadlines) HoldSweeps() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sweeping = true
}
