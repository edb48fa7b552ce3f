package contest_test

import (
	"crypto/sha256"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/contest"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// site is a Log in a synctest bubble, with what it told.
type site struct {
	*contest.Log
	mu   sync.Mutex
	told []string
}

// inBubble runs test with a site. It fails if a goroutine outlives the test.
func inBubble(t *testing.T, keys int, test func(t *testing.T, s *site)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &site{Log: contest.NewLimited(keys)}
		defer s.Close()
		test(t, s)
	})
}

// line returns a line that is told as, say, "a 3": name and attempts.
func (s *site) line(name string) func(int) {
	return func(attempts int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.told = append(s.told, fmt.Sprintf("%s %d", name, attempts))
	}
}

// refuse refuses newcomers of key so many times.
func (s *site) refuse(key string, times int) {
	for range times {
		s.Rejected(id(key), s.line(key))
	}
}

// lines returns what was told since it was asked last.
func (s *site) lines() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.told
	s.told = nil
	return out
}

func (s *site) requireTold(t *testing.T, want ...string) {
	t.Helper()
	require.Equal(t, want, s.lines())
}

func (s *site) requireKeys(t *testing.T, refused, takenOver int) {
	t.Helper()
	r, o := s.Keys()
	require.Equal(t, []int{refused, takenOver}, []int{r, o})
	require.Equal(t, refused+takenOver > 0, s.Armed())
}

// pass lets time pass, then everything that is due happen.
func (*site) pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func id(name string) registry.ID { return sha256.Sum256([]byte(name)) }
