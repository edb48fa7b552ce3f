package conflict_test

import (
	"runtime"
	"testing"
	"time"
	"weak"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/conflict"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

func lose(d *conflict.Damping, key string) {
	d.Lost(lost(newcomer(id(key), "a"), newcomer(id(key), "b"), nil))
}

func TestDamping_KnowsAtMostSoManyLossesOfAKey(t *testing.T) {
	dampingInBubble(t, func(t *testing.T, s *dampingSite) {
		for range 10 * conflict.MaxLosses {
			s.open("a")
			require.LessOrEqual(t, s.Losses(key), conflict.MaxLosses)
		}
	})
}

func TestDamping_ReachesTheGreatestCount(t *testing.T) {
	dampingInBubble(t, func(t *testing.T, s *dampingSite) {
		s.rule.Count = conflict.MaxCount
		for _, token := range []string{"a", "b", "c", "a", "b"} {
			s.flap(token, time.Second)
			pass(time.Second / 10)
		}
		s.requireRest(t, time.Minute, 5)
	})
}

func TestDamping_ForgetsTheKeyFirstWhoseTimeIsOverFirst(t *testing.T) {
	dampingInBubble(t, func(t *testing.T, _ *dampingSite) {
		d := conflict.NewLimitedDamping(2)
		lose(d, "a")
		pass(1)
		lose(d, "b")
		pass(1)
		lose(d, "a")
		lose(d, "c")
		require.Equal(t, 2, d.Keys())
		require.Equal(t, []int{2, 0, 1}, []int{d.Losses(id("a")), d.Losses(id("b")), d.Losses(id("c"))})
	})
}

func TestDamping_ForgetsWhatIsOfNoAccount(t *testing.T) {
	dampingInBubble(t, func(t *testing.T, _ *dampingSite) {
		d := conflict.NewDamping()
		for _, key := range []string{"a", "b", "c", "d"} {
			lose(d, key)
		}
		pass(20 * time.Second)
		lose(d, "e")
		require.Equal(t, 3, d.Keys())
		lose(d, "e")
		require.Equal(t, 1, d.Keys())
		require.Equal(t, 2, d.Losses(id("e")))
		pass(20*time.Second - 1)
		lose(d, "e")
		require.Equal(t, 3, d.Losses(id("e")))
		pass(1)
		lose(d, "e")
		require.Equal(t, 2, d.Losses(id("e")))
	})
}

func TestDamping_RemembersTakeBacksForFiveHalfLives(t *testing.T) {
	dampingInBubble(t, func(t *testing.T, s *dampingSite) {
		s.open("a")
		s.open("b")
		s.open("a")
		pass(5*time.Minute - 1)
		lose(s.Damping, "other")
		require.Equal(t, 2, s.Keys())
		pass(1)
		lose(s.Damping, "other")
		require.Equal(t, 1, s.Keys())
	})
}

func TestDamping_KeepsNoHolderAlive(t *testing.T) {
	d := conflict.NewDamping()
	var holders []weak.Pointer[registry.Holder]
	func() {
		var last *registry.Holder
		for range 5 {
			h := newcomer(key, "a")
			holders = append(holders, weak.Make(h))
			if last != nil {
				require.False(t, d.Flaps(h, false, func(s registry.StreamID) bool { return s == last.ID }, usual))
				d.Lost(lost(last, h, nil))
			}
			last = h
		}
	}()
	require.Eventually(t, func() bool {
		runtime.GC()
		for _, h := range holders {
			if h.Value() != nil {
				return false
			}
		}
		return true
	}, 10*time.Second, time.Millisecond)
	require.Equal(t, 4, d.Losses(key))
	runtime.KeepAlive(d)
}
