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

func TestRejected_FirstIsToldAtOnceTheOthersTogether(t *testing.T) {
	auditInBubble(t, conflict.MaxKeys, func(t *testing.T, s *auditSite) {
		s.refuse("a", 1)
		s.requireTold(t, "a 1")
		s.pass(10 * time.Second)
		s.refuse("a", 41)
		s.pass(50*time.Second - 1)
		s.requireTold(t)
		s.pass(1)
		s.requireTold(t, "a 41")
	})
}

func TestRejected_OneLineAMinuteAsLongAsItGoesOn(t *testing.T) {
	auditInBubble(t, conflict.MaxKeys, func(t *testing.T, s *auditSite) {
		for range 180 {
			s.refuse("a", 1)
			s.pass(time.Second)
		}
		s.requireTold(t, "a 1", "a 59", "a 60", "a 60")
		s.requireKeys(t, 1, 0)
		s.pass(time.Minute)
		s.requireTold(t)
		s.requireKeys(t, 0, 0)
		s.refuse("a", 2)
		s.requireTold(t, "a 1")
	})
}

func TestRejected_KeysHaveTheirOwnMinutes(t *testing.T) {
	auditInBubble(t, conflict.MaxKeys, func(t *testing.T, s *auditSite) {
		s.refuse("a", 2)
		s.pass(20 * time.Second)
		s.refuse("b", 3)
		s.requireTold(t, "a 1", "b 1")
		s.pass(40 * time.Second)
		s.requireTold(t, "a 1")
		s.pass(20 * time.Second)
		s.requireTold(t, "b 2")
		s.pass(40 * time.Second)
		s.requireKeys(t, 1, 0)
		s.pass(20 * time.Second)
		s.requireKeys(t, 0, 0)
	})
}

func TestRejected_TheLatestLineIsTold(t *testing.T) {
	auditInBubble(t, conflict.MaxKeys, func(t *testing.T, s *auditSite) {
		for _, line := range []string{"first", "second", "third"} {
			s.Rejected(id("a"), s.line(line))
		}
		s.pass(time.Minute)
		s.requireTold(t, "first 1", "third 2")
	})
}

func TestRejected_LinesAreCalledWithoutALock(t *testing.T) {
	auditInBubble(t, 1, func(t *testing.T, s *auditSite) {
		nested := func(name string) func(int) {
			return func(attempts int) {
				s.line(name)(attempts)
				s.refuse("a", 1)
				s.TakenOver(id("a"), "addr", 2, time.Minute)
			}
		}
		s.Rejected(id("a"), nested("at once"))
		s.requireTold(t, "at once 1")
		s.pass(time.Minute)
		s.requireTold(t, "a 1")
		s.Rejected(id("a"), nested("later"))
		s.pass(time.Minute)
		s.requireTold(t, "later 1")
		s.Rejected(id("a"), nested("when forgotten"))
		s.refuse("b", 1) // there is room for one only, and it is wanted back
		s.requireTold(t, "b 1", "when forgotten 2", "a 1")
	})
}

func TestRejected_TooManyKeysForgetTheOldestAndTellIt(t *testing.T) {
	auditInBubble(t, 3, func(t *testing.T, s *auditSite) {
		for _, key := range []string{"a", "b", "c"} {
			s.refuse(key, 3)
			s.pass(time.Second)
		}
		s.requireTold(t, "a 1", "b 1", "c 1")
		s.refuse("d", 1)
		s.requireTold(t, "d 1", "a 2")
		s.requireKeys(t, 3, 0)
		s.pass(time.Minute)
		s.requireTold(t, "b 2", "c 2")
	})
}

func TestRejected_AFloodOfKeysIsBounded(t *testing.T) {
	auditInBubble(t, conflict.MaxKeys, func(t *testing.T, s *auditSite) {
		for i := range conflict.MaxKeys + 100 {
			s.refuse(fmt.Sprint(i), 2)
		}
		s.requireKeys(t, conflict.MaxKeys, 0)
		require.Len(t, s.lines(), conflict.MaxKeys+200)
		s.pass(time.Minute) // in more than one step
		require.Len(t, s.lines(), conflict.MaxKeys)
		s.pass(time.Minute)
		s.requireTold(t)
		s.requireKeys(t, 0, 0)
	})
}

func TestRejected_ASlowLineLosesNothingAndHoldsNoNewcomerUp(t *testing.T) {
	auditInBubble(t, conflict.MaxKeys, func(t *testing.T, s *auditSite) {
		release := make(chan struct{})
		s.refuse("a", 1)
		s.Rejected(id("a"), func(int) { <-release })
		s.pass(time.Minute)
		s.refuse("b", 3)
		s.TakenOver(id("b"), "1", 2, time.Second)
		s.pass(2 * time.Minute)
		s.refuse("b", 1)
		s.requireTold(t, "a 1", "b 1")

		close(release)
		s.pass(0)
		s.requireTold(t, "b 3")
		s.refuse("b", 1)
		s.pass(time.Minute)
		s.requireTold(t, "b 1")
		s.pass(time.Minute)
		s.requireKeys(t, 0, 0)
	})
}

func TestAuditClose_TellsWhatIsUntold(t *testing.T) {
	auditInBubble(t, conflict.MaxKeys, func(t *testing.T, s *auditSite) {
		s.refuse("a", 3)
		s.pass(time.Second)
		s.refuse("b", 1)
		s.pass(time.Second)
		s.refuse("c", 2)
		s.TakenOver(id("a"), "addr", 2, time.Minute)
		s.lines()
		s.Close()
		s.requireTold(t, "a 2", "c 1")
		s.Close()
		s.requireTold(t)
		r, o := s.Keys()
		require.Zero(t, r+o)

		s.refuse("a", 2)
		s.requireTold(t, "a 1", "a 1")
		require.Nil(t, s.TakenOver(id("a"), "another addr", 1, time.Minute))
		s.pass(time.Hour)
		s.requireTold(t)
	})
}

func TestAuditClose_WaitsForTheRunningLine(t *testing.T) {
	auditInBubble(t, conflict.MaxKeys, func(t *testing.T, s *auditSite) {
		release := make(chan struct{})
		for i := range 2 * conflict.MaxBatch {
			s.refuse(fmt.Sprint(i), 1)
			s.Rejected(id(fmt.Sprint(i)), func(int) {
				<-release
				s.line("late")(1)
			})
		}
		s.pass(time.Minute)
		s.lines()
		closed := make(chan struct{}, 2)
		for range cap(closed) {
			go func() {
				s.Close()
				closed <- struct{}{}
			}()
		}
		synctest.Wait()
		require.Empty(t, closed)
		close(release)
		synctest.Wait()
		require.Len(t, closed, cap(closed))
		require.Len(t, s.lines(), 2*conflict.MaxBatch, "each once")
	})
}

// Whatever the interleaving, nothing is lost and nothing is told twice.
func TestRejected_ConcurrentlyNothingIsLost(t *testing.T) {
	auditInBubble(t, 5, func(t *testing.T, s *auditSite) {
		const users, times, keys = 8, 300, 9
		var mu sync.Mutex
		told := 0
		line := func(attempts int) {
			mu.Lock()
			defer mu.Unlock()
			told += attempts
		}
		var wg sync.WaitGroup
		for u := range users {
			wg.Go(func() {
				for i := range times {
					s.Rejected(id(fmt.Sprint(i%keys)), line)
					s.TakenOver(id(fmt.Sprint(i%keys)), fmt.Sprint(u), 3, time.Second)
					if i%10 == 0 {
						<-time.After(time.Duration(1+(u+i)%7) * time.Second)
					}
					if u == 0 && i == times*9/10 {
						s.Close()
					}
				}
			})
		}
		wg.Wait()
		require.Equal(t, users*times, told)
	})
}

func TestParked_IsToldAsRejectedIsAndApart(t *testing.T) {
	auditInBubble(t, conflict.MaxKeys, func(t *testing.T, s *auditSite) {
		s.refuse("a", 3)
		for range 5 {
			s.Parked(id("a"), s.line("parked"))
		}
		s.requireTold(t, "a 1", "parked 1")
		s.pass(time.Minute)
		require.ElementsMatch(t, []string{"a 2", "parked 4"}, s.lines())
	})
}
