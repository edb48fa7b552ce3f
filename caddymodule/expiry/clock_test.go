package expiry_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/expiry"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// A suspended machine's monotonic clock stands still: once it is awake, that
// looks like a wall clock which jumped forward.
func TestJumpForward_EndsWhatIsDueWithinMaxSleep(t *testing.T) {
	for _, deadline := range []time.Duration{3 * time.Second, time.Minute, 59 * time.Minute} {
		for _, before := range []time.Duration{0, time.Second, 2999 * time.Millisecond} {
			t.Run(fmt.Sprintf("%s/%s", deadline, before), func(t *testing.T) {
				inBubble(t, func(t *testing.T, s *site) {
					a, b := stream("a"), stream("b")
					s.Add(a, none, s.in(deadline))
					s.Add(b, none, s.in(2*time.Hour))
					s.pass(before)
					s.jump(time.Hour)
					s.pass(expiry.MaxSleep)
					s.requireEnded(t, a)
					s.pass(time.Hour)
					s.requireEnded(t, b)
				})
			})
		}
	}
}

func TestJumpForward_RenewedBeforeTheSweepLivesOn(t *testing.T) {
	inBubble(t, func(t *testing.T, s *site) {
		a := stream("a")
		s.Add(a, id("session"), s.in(time.Minute))
		s.jump(time.Hour)
		require.Equal(t, 1, s.Renew(id("session"), id("new"), s.in(time.Hour)))
		s.pass(time.Hour - 1)
		s.requireEnded(t)
		s.pass(1)
		s.requireEnded(t, a)
	})
}

func TestJumpBackward_EndsNothingEarly(t *testing.T) {
	inBubble(t, func(t *testing.T, s *site) {
		a, b := stream("a"), stream("b")
		at := s.in(10 * time.Second)
		s.Add(a, none, at)
		s.Add(b, none, at.Add(time.Second))
		s.pass(9 * time.Second)
		s.jump(-time.Hour)
		s.pass(time.Hour + time.Second - 1)
		s.requireEnded(t)
		s.pass(1)
		require.Equal(t, at, s.now())
		s.requireEnded(t, a)
		s.pass(time.Second)
		s.requireEnded(t, b)
	})
}

func TestJump_ThereAndBackBetweenTwoLooks(t *testing.T) {
	inBubble(t, func(t *testing.T, s *site) {
		a := stream("a")
		s.Add(a, none, s.in(time.Minute))
		s.pass(time.Second)
		s.jump(time.Hour)
		s.pass(time.Second)
		s.jump(-time.Hour)
		s.pass(58*time.Second - 1)
		s.requireEnded(t)
		s.pass(1)
		s.requireEnded(t, a)
	})
}

func TestSweep_TenThousandAtOnceInBoundedBatches(t *testing.T) {
	inBubble(t, func(t *testing.T, s *site) {
		const n = 10_000
		var last *expiry.Entry
		want := make(map[*registry.Stream]bool)
		for i := range n {
			a := stream("a")
			want[a] = true
			last = s.Add(a, id(fmt.Sprint(i%100)), s.in(time.Minute+time.Duration(i)))
		}
		// The lock is free between two batches: others need not wait for all.
		s.meanwhile(func() {
			s.meanwhile(nil)
			last.Stop()
			require.Equal(t, n-expiry.MaxBatch-1, s.Len())
		})
		s.jump(time.Hour)
		s.pass(expiry.MaxSleep)

		require.Len(t, s.batches, (n-1+expiry.MaxBatch-1)/expiry.MaxBatch)
		for _, b := range s.batches {
			require.LessOrEqual(t, len(b), expiry.MaxBatch)
		}
		for _, a := range s.ended() {
			delete(want, a)
		}
		require.Len(t, want, 1)
		require.Zero(t, s.Len())
		require.Zero(t, s.Sessions())
		require.False(t, s.Armed())
	})
}
