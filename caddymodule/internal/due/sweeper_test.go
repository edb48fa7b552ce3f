package due_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/internal/due"
)

const maxBatch = 3

// owner has a Sweeper that acts upon its entries, at most maxBatch at once.
type owner struct {
	*due.Sweeper
	mu    sync.Mutex
	queue due.Queue[string, struct{}]
	begin time.Time

	actMu sync.Mutex
	// acts has the keys of each action, and when it was.
	acts []act
	// slow, if not nil, is what each action waits for.
	slow chan struct{}
}

type act struct {
	Keys []string
	At   time.Duration
}

// inBubble runs test with an owner. It fails if a goroutine outlives the test.
func inBubble(t *testing.T, test func(t *testing.T, o *owner)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		o := &owner{begin: time.Now()}
		o.Sweeper = due.NewSweeper(&o.mu, o.next, o.take)
		defer o.Close()
		test(t, o)
	})
}

func (o *owner) next() time.Time {
	if e := o.queue.First(); e != nil {
		return e.At()
	}
	return time.Time{}
}

func (o *owner) take(now time.Time) func() {
	var keys []string
	for e := o.queue.Due(now); e != nil && len(keys) < maxBatch; e = o.queue.Due(now) {
		o.queue.Remove(e)
		keys = append(keys, e.Key)
	}
	if len(keys) == 0 {
		return nil
	}
	return func() { o.act(keys) }
}

func (o *owner) act(keys []string) {
	if o.slow != nil {
		<-o.slow
	}
	o.actMu.Lock()
	defer o.actMu.Unlock()
	o.acts = append(o.acts, act{keys, time.Since(o.begin)})
}

// put adds an entry that is due after the given time.
func (o *owner) put(key string, in time.Duration) *due.Entry[string, struct{}] {
	o.mu.Lock()
	defer o.mu.Unlock()
	e := &due.Entry[string, struct{}]{Key: key}
	o.queue.Put(e, time.Now().Add(in))
	o.Arm()
	return e
}

func (o *owner) move(e *due.Entry[string, struct{}], in time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.queue.Put(e, time.Now().Add(in))
	o.Arm()
}

func (o *owner) armed() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.Armed()
}

// requireActs requires what was done since it was called last.
func (o *owner) requireActs(t *testing.T, want ...act) {
	t.Helper()
	synctest.Wait()
	o.actMu.Lock()
	defer o.actMu.Unlock()
	require.Equal(t, want, o.acts)
	o.acts = nil
}

func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestSweeper_ActsWhenItIsDue(t *testing.T) {
	inBubble(t, func(t *testing.T, o *owner) {
		require.False(t, o.armed())
		o.put("b", 2*time.Second)
		o.put("a", time.Second) // earlier than the alarm
		o.put("c", time.Hour)
		pass(time.Second - 1)
		o.requireActs(t)
		pass(1)
		o.requireActs(t, act{[]string{"a"}, time.Second})
		pass(time.Minute)
		o.requireActs(t, act{[]string{"b"}, 2 * time.Second})
		require.True(t, o.armed())
		pass(time.Hour)
		o.requireActs(t, act{[]string{"c"}, time.Hour})
		require.False(t, o.armed())
	})
}

func TestSweeper_ActsAtOnceOnWhatIsPast(t *testing.T) {
	inBubble(t, func(t *testing.T, o *owner) {
		o.put("a", -time.Hour)
		o.requireActs(t, act{[]string{"a"}, 0})
	})
}

func TestSweeper_TakesBatches(t *testing.T) {
	inBubble(t, func(t *testing.T, o *owner) {
		o.slow = make(chan struct{})
		for i, key := range []string{"a", "b", "c", "d", "e", "f", "g"} {
			o.put(key, time.Second+time.Duration(i))
		}
		pass(2 * time.Second)
		close(o.slow)
		o.requireActs(t, act{[]string{"a"}, 2 * time.Second},
			act{[]string{"b", "c", "d"}, 2 * time.Second}, act{[]string{"e", "f", "g"}, 2 * time.Second})
	})
}

// A timer that fires too early finds nothing, and is set again.
func TestSweeper_WhatWasDelayedIsDueLater(t *testing.T) {
	inBubble(t, func(t *testing.T, o *owner) {
		o.move(o.put("a", time.Second), time.Minute)
		pass(time.Minute - 1)
		o.requireActs(t)
		pass(1)
		o.requireActs(t, act{[]string{"a"}, time.Minute})
	})
}

func TestSweeper_SlowActionsDoNotOverlapAndHoldNoLock(t *testing.T) {
	inBubble(t, func(t *testing.T, o *owner) {
		o.slow = make(chan struct{})
		o.put("a", time.Second)
		pass(time.Second)
		o.put("b", time.Second) // the lock is free
		pass(time.Minute)
		o.Fire() // the timer may be set again just when it has fired
		o.requireActs(t)
		o.slow <- struct{}{}
		o.requireActs(t, act{[]string{"a"}, 61 * time.Second})
		o.slow <- struct{}{}
		o.requireActs(t, act{[]string{"b"}, 61 * time.Second})
	})
}

func TestClose_WaitsForTheActionAndIsTheEnd(t *testing.T) {
	inBubble(t, func(t *testing.T, o *owner) {
		o.slow = make(chan struct{})
		for _, key := range []string{"a", "b"} {
			o.put(key, time.Second)
		}
		pass(time.Second)
		o.put("c", 0) // due while the action is running
		synctest.Wait()
		closed := make(chan struct{}, 2)
		for range cap(closed) {
			go func() {
				o.Close()
				closed <- struct{}{}
			}()
		}
		synctest.Wait()
		require.Empty(t, closed)
		close(o.slow)
		synctest.Wait()
		require.Len(t, closed, cap(closed))
		require.Len(t, o.acts, 1)
		require.ElementsMatch(t, []string{"a", "b"}, o.acts[0].Keys)
		o.acts = nil

		o.put("d", 0)
		require.False(t, o.armed())
		pass(time.Hour)
		o.requireActs(t)
	})
}

func TestSweeper_ConcurrentlyNothingIsLost(t *testing.T) {
	inBubble(t, func(t *testing.T, o *owner) {
		const users, times = 8, 200
		var wg sync.WaitGroup
		for u := range users {
			wg.Go(func() {
				for i := range times {
					o.put("a", time.Duration((u+i)%7)*time.Second)
					if i%10 == 0 {
						<-time.After(time.Duration(1+(u+i)%3) * time.Second)
					}
				}
			})
		}
		wg.Wait()
		pass(time.Minute)
		acted := 0
		for _, a := range o.acts {
			acted += len(a.Keys)
		}
		require.Equal(t, users*times, acted)
		require.False(t, o.armed())
	})
}
