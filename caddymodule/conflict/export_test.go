package conflict

import "github.com/sse-guard/sse-guard/caddymodule/registry"

const (
	MaxKeys   = maxKeys
	MaxBatch  = maxBatch
	MaxLosses = maxLosses
)

// NewLimitedDamping is NewDamping with fewer keys.
func NewLimitedDamping(keys int) *Damping { return newDamping(keys) }

// Keys returns how many keys are known.
func (d *Damping) Keys() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.known.Len()
}

// Losses returns how many losses of key are known.
func (d *Damping) Losses(key registry.ID) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if e := d.known.Find(key); e != nil {
		return len(e.Value.losses)
	}
	return 0
}

// NewLimitedAudit is NewAudit with fewer keys.
func NewLimitedAudit(keys int) *Audit { return newAudit(keys) }

// Keys returns how many refused keys are known, and how many that were taken
// over.
func (a *Audit) Keys() (refused, takenOver int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.refusals.Len(), a.takeovers.Len()
}

// Remembered returns how many addresses are remembered of key.
func (a *Audit) Remembered(key registry.ID) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.takeovers.Find(key).Value.from)
}

// Armed reports whether the timer runs.
func (a *Audit) Armed() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.sweeper.Armed()
}
