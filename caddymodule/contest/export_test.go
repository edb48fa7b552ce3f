package contest

const (
	MaxKeys  = maxKeys
	MaxBatch = maxBatch
)

// NewLimited is New with fewer keys.
func NewLimited(keys int) *Log { return newLimited(keys) }

// Keys returns how many refused keys are known, and how many that were taken
// over.
func (l *Log) Keys() (refused, takenOver int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.refusals.byKey), len(l.takeovers.byKey)
}

// Remembered returns how many addresses are remembered of key.
func (l *Log) Remembered(key [32]byte) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.takeovers.byKey[key].of.from)
}

// Fire is what the timer does, as if it was set again just when it had fired.
func (l *Log) Fire() { l.sweep() }

// Armed reports whether the timer runs.
func (l *Log) Armed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.alarm.IsZero()
}
