package conflict_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/conflict"
)

// auditSite is an Audit in a synctest bubble, with what it told.
type auditSite struct {
	*conflict.Audit
	mu   sync.Mutex
	told []string
}

// auditInBubble runs test with an auditSite. It fails if a goroutine outlives the test.
func auditInBubble(t *testing.T, keys int, test func(t *testing.T, s *auditSite)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &auditSite{Audit: conflict.NewLimitedAudit(keys)}
		defer s.Close()
		test(t, s)
	})
}

// line returns a line that is told as, say, "a 3": name and attempts.
func (s *auditSite) line(name string) func(int) {
	return func(attempts int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.told = append(s.told, fmt.Sprintf("%s %d", name, attempts))
	}
}

// refuse refuses newcomers of key so many times.
func (s *auditSite) refuse(key string, times int) {
	for range times {
		s.Rejected(id(key), s.line(key))
	}
}

// lines returns what was told since it was asked last.
func (s *auditSite) lines() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.told
	s.told = nil
	return out
}

func (s *auditSite) requireTold(t *testing.T, want ...string) {
	t.Helper()
	require.Equal(t, want, s.lines())
}

func (s *auditSite) requireKeys(t *testing.T, refused, takenOver int) {
	t.Helper()
	r, o := s.Keys()
	require.Equal(t, []int{refused, takenOver}, []int{r, o})
	require.Equal(t, refused+takenOver > 0, s.Armed())
}

// pass lets time pass, then everything that is due happen.
func (*auditSite) pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}
