package memory

import (
	"slices"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// waiter is a refused newcomer that waits for a place.
type waiter struct {
	in     *Registry
	stream *registry.Stream
	terms  terms
	free   chan struct{}
}

// MaxWaiters is how many may wait for one key.
const MaxWaiters = 8

// Wait enlists s until it is told, or stops. If s would be admitted now, it is
// told at once. It reports false if MaxWaiters already wait for the key, or if
// s has none.
func (r *Registry) Wait(s *registry.Stream, rule registry.Rule) (registry.Waiter, bool) {
	if s.Key.IsZero() {
		return nil, false
	}
	sh := r.shard(s.Key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	w := &waiter{in: r, stream: s, terms: termsOf(rule), free: make(chan struct{})}
	n := sh.newcomer(s, w.terms)
	switch {
	case n.admitted():
		close(w.free)
	case len(n.slot.waiters) == MaxWaiters:
		return nil, false
	default:
		n.slot.waiters = append(n.slot.waiters, w)
	}
	return w, true
}

// Free is closed when the waiter would be admitted. It is a hint, not a
// promise: another newcomer may be faster.
func (w *waiter) Free() <-chan struct{} { return w.free }

// Stop ends the waiting. Free then stays as it is.
func (w *waiter) Stop() {
	key := w.stream.Key
	sh := w.in.shard(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sl := sh.slots[key]
	if sl == nil {
		return
	}
	if i := slices.Index(sl.waiters, w); i >= 0 {
		sl.waiters = slices.Delete(sl.waiters, i, i+1)
		sh.tidy(key, sl)
	}
}

// tell tells waiters that would be admitted now, the longest waiting first: all
// that take no further place, since their client has one, and as many others as
// places came free.
func (sl *slot) tell(places int) {
	if len(sl.waiters) == 0 {
		return
	}
	sl.waiters = slices.DeleteFunc(sl.waiters, func(w *waiter) bool {
		n := w.in.shard(w.stream.Key).newcomer(w.stream, w.terms)
		if !n.admitted() {
			return false
		}
		if n.takesPlace() {
			if places == 0 {
				return false
			}
			places--
		}
		close(w.free)
		return true
	})
}

var _ registry.Waiter = (*waiter)(nil)
