package wheel_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/internal/wheel"
)

// site is a Wheel in a synctest bubble.
type site struct {
	*wheel.Wheel
	begin time.Time

	mu      sync.Mutex
	visited []string
	// lateUntil is when, at the latest, no visitor blocks any more.
	lateUntil time.Duration
}

// inBubble runs test with a site. It fails if a goroutine outlives the test.
func inBubble(t *testing.T, test func(t *testing.T, s *site)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &site{Wheel: wheel.New(), begin: time.Now()}
		defer s.Close()
		test(t, s)
	})
}

// pass lets time pass, then everything that is due happen.
func (*site) pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// visitor is a function that visits.
type visitor func(now wheel.Tick) time.Duration

func (v visitor) Visit(now wheel.Tick) time.Duration { return v(now) }

// pointer is a visitor that can be compared.
type pointer struct{ visitor }

// named returns a visitor whose visits are noted with their time. It wants to be
// visited again in each of these times, then never.
func (s *site) named(name string, next ...time.Duration) *pointer {
	return &pointer{func(wheel.Tick) time.Duration {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.visited = append(s.visited, fmt.Sprintf("%s at %s", name, time.Since(s.begin)))
		if len(next) == 0 {
			return 0
		}
		in := next[0]
		next = next[1:]
		return in
	}}
}

// always returns a visitor that wants to be visited for ever.
func (s *site) always(name string, every time.Duration) *pointer {
	v := s.named(name)
	return &pointer{func(now wheel.Tick) time.Duration {
		v.Visit(now)
		return every
	}}
}

// enterAll enters so many who are visited at the same time. A visit knows all
// entries, and which is its own.
func (s *site) enterAll(n int, in time.Duration, visit func(all []*wheel.Entry, i int) time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*wheel.Entry, n)
	for i := range all {
		all[i] = s.Enter(visitor(func(wheel.Tick) time.Duration {
			s.mu.Lock()
			defer s.mu.Unlock()
			return visit(all, i)
		}), in)
	}
}

// visits returns the visits since it was asked last.
func (s *site) visits() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.visited
	s.visited = nil
	return out
}

// blocked says that a visitor blocks until then, at the latest, if no other does.
func (s *site) blocked(until time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lateUntil = max(s.lateUntil, time.Since(s.begin)) + until - time.Since(s.begin)
}

// late tells whether visits may be late, as a visitor blocks.
func (s *site) late() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Since(s.begin) < s.lateUntil
}

// settle waits until no visitor blocks any more.
func (s *site) settle() {
	s.mu.Lock()
	late := s.lateUntil - time.Since(s.begin)
	s.mu.Unlock()
	s.pass(max(late, 0))
}
