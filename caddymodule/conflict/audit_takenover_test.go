package conflict_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/conflict"
)

const window = 10 * time.Minute

func (s *auditSite) takeOver(key, addr string, addrs int) []string {
	return s.TakenOver(id(key), addr, addrs, window)
}

func TestTakenOver_DifferentAddressesWithinTheWindow(t *testing.T) {
	auditInBubble(t, conflict.MaxKeys, func(t *testing.T, s *auditSite) {
		require.Nil(t, s.takeOver("a", "1", 3))
		s.pass(time.Minute)
		require.Nil(t, s.takeOver("a", "2", 3))
		s.pass(time.Minute)
		require.Nil(t, s.takeOver("a", "1", 3), "one that was there already")
		require.Nil(t, s.takeOver("b", "3", 3), "another key")
		s.pass(time.Minute)
		require.Equal(t, []string{"2", "1", "3"}, s.takeOver("a", "3", 3))
	})
}

func TestTakenOver_TheWindowSlides(t *testing.T) {
	tests := []struct {
		name string
		// again is when 1 comes a second time; zero: it does not.
		again, last time.Duration
		want        []string
	}{
		{"InTime", 0, window - 1, []string{"1", "2", "3"}},
		{"TooLate", 0, window, nil},
		{"CameAgain", time.Minute, window, []string{"2", "1", "3"}},
		{"CameAgainTooLongAgo", time.Minute, window + time.Minute, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			auditInBubble(t, conflict.MaxKeys, func(t *testing.T, s *auditSite) {
				require.Nil(t, s.takeOver("a", "1", 3))
				s.pass(time.Second)
				require.Nil(t, s.takeOver("a", "2", 3))
				s.pass(test.again - time.Second)
				if test.again > 0 {
					require.Nil(t, s.takeOver("a", "1", 3))
				}
				s.pass(test.last - max(test.again, time.Second))
				require.Equal(t, test.want, s.takeOver("a", "3", 3))
			})
		})
	}
}

func TestTakenOver_OncePerWindow(t *testing.T) {
	auditInBubble(t, conflict.MaxKeys, func(t *testing.T, s *auditSite) {
		require.Nil(t, s.takeOver("a", "1", 2))
		require.Equal(t, []string{"1", "2"}, s.takeOver("a", "2", 2))
		for i := range 9 {
			s.pass(time.Minute)
			require.Nil(t, s.takeOver("a", fmt.Sprint(i%3), 2))
		}
		s.pass(time.Minute - 1)
		require.Nil(t, s.takeOver("a", "8", 2))
		s.pass(1)
		require.Equal(t, []string{"8", "9"}, s.takeOver("a", "9", 2), "it still goes on")
	})
}

func TestTakenOver_IsForgottenWhenTheWindowIsOver(t *testing.T) {
	auditInBubble(t, conflict.MaxKeys, func(t *testing.T, s *auditSite) {
		s.takeOver("a", "1", 2)
		s.takeOver("b", "1", 2)
		s.pass(window / 2)
		s.takeOver("a", "2", 2)
		s.refuse("a", 1)
		s.requireKeys(t, 1, 2)
		s.pass(time.Minute)
		s.requireKeys(t, 0, 2)
		s.pass(window/2 - time.Minute)
		s.requireKeys(t, 0, 1)
		s.pass(window/2 - 1)
		s.requireKeys(t, 0, 1)
		s.pass(1)
		s.requireKeys(t, 0, 0)
	})
}

func TestTakenOver_MemoryIsBounded(t *testing.T) {
	auditInBubble(t, conflict.MaxKeys, func(t *testing.T, s *auditSite) {
		for i := range 1000 {
			s.takeOver("a", fmt.Sprint(i), 5)
		}
		require.Equal(t, 5, s.Remembered(id("a")))
		for i := range conflict.MaxKeys {
			s.takeOver(fmt.Sprint("key", i), "1", 5)
		}
		s.requireKeys(t, 0, conflict.MaxKeys)
		require.Nil(t, s.takeOver("a", "2", 2), "it was the oldest")
		s.pass(window)
		s.requireKeys(t, 0, 0)
	})
}

// A guard with other settings neither shortens a guard's memory nor is told by
// its measure.
func TestTakenOver_EachCallIsJudgedByItsOwnSettings(t *testing.T) {
	auditInBubble(t, conflict.MaxKeys, func(t *testing.T, s *auditSite) {
		for _, addr := range []string{"1", "2"} {
			require.Nil(t, s.TakenOver(id("a"), addr, 4, window))
			s.pass(time.Minute)
		}
		require.Nil(t, s.TakenOver(id("a"), "3", 2, time.Second))
		s.pass(time.Minute)
		require.Equal(t, []string{"1", "2", "3", "4"}, s.TakenOver(id("a"), "4", 4, window))
	})
}

func TestTakenOver_WithoutSettingsIsNotCounted(t *testing.T) {
	auditInBubble(t, conflict.MaxKeys, func(t *testing.T, s *auditSite) {
		require.Nil(t, s.TakenOver(id("a"), "1", 0, window))
		require.Nil(t, s.TakenOver(id("a"), "1", 1, 0))
		s.requireKeys(t, 0, 0)
		require.Equal(t, []string{"1"}, s.TakenOver(id("a"), "1", 1, window))
	})
}

func TestTakenOver_ConcurrentlyToldOnce(t *testing.T) {
	auditInBubble(t, conflict.MaxKeys, func(t *testing.T, s *auditSite) {
		told := make(chan []string, 20)
		for i := range cap(told) {
			go func() { told <- s.takeOver("a", fmt.Sprint(i), 5) }()
		}
		var contested [][]string
		for range cap(told) {
			if addrs := <-told; addrs != nil {
				contested = append(contested, addrs)
			}
		}
		require.Len(t, contested, 1)
		require.Len(t, contested[0], 5)
	})
}
