package redis

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// waiter is a refused newcomer of this node that waits for a place.
type waiter struct {
	b      *bucket
	ticket ticket
	holder *registry.Holder
	rule   registry.Rule
	free   chan struct{}

	// These are guarded by the bucket's lock.

	told, stopped bool
	// known says that Redis has it among those who wait, and again that it was registered
	// there once more: maybe after it was told.
	known, again bool
}

// Wait implements registry.Registry. So many may wait for a key on all nodes together.
func (r *Registry) Wait(ctx context.Context, ask registry.Ask) (registry.Waiter, error) {
	if ask.Holder.Key.IsZero() {
		return nil, fmt.Errorf("waiting for a place: %w", registry.ErrNoKey)
	}
	if !r.link.isUp() {
		return r.waitAway(ctx, ask)
	}
	w := r.enterWaiter(ask)
	b := w.b
	re, err := r.call(ctx, r.scripts.wait, w.args(), b)
	if err != nil {
		b.forget(w, true)
		if r.options.OnError == Allow && !r.link.isUp() {
			return r.waitAway(ctx, ask)
		}
		return nil, fmt.Errorf("waiting for a place: %w", r.link.since(err))
	}
	ns, err := numbers(re.out, 1)
	if err != nil {
		re.finish()
		b.forget(w, true)
		return nil, err
	}
	switch ns[0] {
	case 0:
		b.forget(w, false)
		err = fmt.Errorf("waiting for a place beside %d others: %w", registry.MostWaiters, registry.ErrManyWaiters)
	case 1:
		b.forget(w, false)
		close(w.free)
	default:
		b.mu.Lock()
		delete(b.pending, w.ticket)
		w.known = !w.told
		b.mu.Unlock()
	}
	re.finish()
	if err != nil {
		return nil, err
	}
	return w, nil
}

// enterWaiter makes a waiter, which a comparison leaves alone until Redis has answered.
func (r *Registry) enterWaiter(ask registry.Ask) *waiter {
	b := r.bucketOf(ask.Holder.Key)
	b.mu.Lock()
	defer b.mu.Unlock()
	w := &waiter{b: b, ticket: r.newTicket(b), holder: ask.Holder, rule: ask.Rule, free: make(chan struct{})}
	b.pending[w.ticket] = nil
	b.waiters[w.ticket] = w
	return w
}

// args are what the script that enlists a waiter reads.
func (w *waiter) args() (a args) {
	a.add(string(w.holder.Key[:]))
	a.ticket(w.ticket)
	a.add(encodeRule(w.rule), encodeHolder(w.holder))
	return a
}

func (r *Registry) waitAway(ctx context.Context, ask registry.Ask) (registry.Waiter, error) {
	if r.options.OnError != Allow {
		return nil, fmt.Errorf("waiting for a place: %w", ErrAway)
	}
	return r.local.Wait(ctx, ask)
}

// forget forgets a waiter that does not wait; if so wanted, Redis is told to.
func (b *bucket) forget(w *waiter, cancel bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.pending, w.ticket)
	delete(b.waiters, w.ticket)
	if cancel {
		b.enqueue(op{kind: opCancel, key: w.holder.Key, ticket: w.ticket})
	}
}

// tell tells the waiter that it would be admitted.
func (w *waiter) tell() {
	w.b.mu.Lock()
	defer w.b.mu.Unlock()
	w.known = false
	delete(w.b.waiters, w.ticket)
	if w.again && w.b.r.link.isUp() {
		w.b.enqueue(op{kind: opStop, waiter: w})
	}
	if !w.told && !w.stopped {
		w.told = true
		close(w.free)
	}
}

// Free implements registry.Waiter.
func (w *waiter) Free() <-chan struct{} { return w.free }

// Stop implements registry.Waiter.
func (w *waiter) Stop() {
	w.b.mu.Lock()
	defer w.b.mu.Unlock()
	if w.stopped || w.told {
		return
	}
	w.stopped = true
	delete(w.b.waiters, w.ticket)
	if w.b.r.link.isUp() {
		w.b.enqueue(op{kind: opStop, waiter: w})
	}
}

// takenKeys knows who waits for a key that came free lately to be taken.
type takenKeys struct {
	// mu guards byKey.
	mu    sync.Mutex
	byKey map[registry.ID]takenKey
}

type takenKey struct {
	taken chan struct{}
	// until is when all who wait have waited long enough.
	until time.Time
}

// await returns what is closed when somebody gets a place of key.
func (ts *takenKeys) await(key registry.ID, until time.Time) <-chan struct{} {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.byKey == nil {
		ts.byKey = make(map[registry.ID]takenKey)
	}
	t, known := ts.byKey[key]
	if !known {
		now := time.Now()
		for k, other := range ts.byKey {
			if now.After(other.until) {
				close(other.taken)
				delete(ts.byKey, k)
			}
		}
		t.taken = make(chan struct{})
	}
	if until.After(t.until) {
		t.until = until
	}
	ts.byKey[key] = t
	return t.taken
}

// tell tells those who wait.
func (ts *takenKeys) tell(key registry.ID) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if t, known := ts.byKey[key]; known {
		close(t.taken)
		delete(ts.byKey, key)
	}
}

var _ registry.Waiter = (*waiter)(nil)
