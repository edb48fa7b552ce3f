package memory

import (
	"context"
	"fmt"
	"slices"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// waiter is a refused newcomer that waits for a place.
type waiter struct {
	in     *Registry
	holder *registry.Holder
	terms  terms
	free   chan struct{}
}

// Wait enlists a newcomer until it is told, or stops. If it would be admitted now,
// it is told at once. Its error is registry.ErrManyWaiters if registry.MostWaiters
// already wait for the key, or the newcomer yields, registry.ErrNoKey, or nil.
func (r *Registry) Wait(_ context.Context, ask registry.Ask) (registry.Waiter, error) {
	if ask.Holder.Key.IsZero() {
		return nil, fmt.Errorf("waiting for a place: %w", registry.ErrNoKey)
	}
	sh := r.shard(ask.Holder.Key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	w := &waiter{in: r, holder: ask.Holder, terms: termsOf(ask.Rule), free: make(chan struct{})}
	n := sh.newcomer(w.holder, w.terms)
	switch {
	case n.admitted():
		close(w.free)
	case w.holder.Yields:
		return nil, fmt.Errorf("waiting for a place as one that yields: %w", registry.ErrManyWaiters)
	case len(n.slot.waiters) == registry.MostWaiters:
		return nil, fmt.Errorf("waiting for a place beside %d others: %w", registry.MostWaiters, registry.ErrManyWaiters)
	default:
		n.slot.waiters = append(n.slot.waiters, w)
	}
	return w, nil
}

// Free is closed when the waiter would be admitted. It is a hint, not a
// promise: another newcomer may be faster.
func (w *waiter) Free() <-chan struct{} { return w.free }

// Stop ends the waiting. Free then stays as it is.
func (w *waiter) Stop() {
	key := w.holder.Key
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
		n := w.in.shard(w.holder.Key).newcomer(w.holder, w.terms)
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
