package fights

import "github.com/sse-guard/sse-guard/caddymodule/registry"

const (
	MaxKeys   = maxKeys
	MaxLosses = maxLosses
)

// NewLimited is New with fewer keys.
func NewLimited(keys int) *Fights { return newLimited(keys) }

// Keys returns how many keys are known.
func (f *Fights) Keys() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.known.byKey)
}

// Losses returns how many losses of key are known.
func (f *Fights) Losses(key registry.ID) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fd := f.known.find(key); fd != nil {
		return len(fd.losses)
	}
	return 0
}
