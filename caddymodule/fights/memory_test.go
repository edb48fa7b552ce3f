package fights_test

import (
	"runtime"
	"testing"
	"time"
	"weak"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/fights"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

func lose(f *fights.Fights, key string) {
	f.Superseded(fights.Loss{Stream: &registry.Stream{Key: id(key)}, By: &registry.Stream{Key: id(key)}, Party: id("a")})
}

func TestFights_KnowAtMostSoManyLossesOfAKey(t *testing.T) {
	inBubble(t, func(t *testing.T, s *site) {
		for range 10 * fights.MaxLosses {
			s.open("a")
			require.LessOrEqual(t, s.Losses(key), fights.MaxLosses)
		}
	})
}

func TestFights_ReachTheMostFlaps(t *testing.T) {
	inBubble(t, func(t *testing.T, s *site) {
		s.rule.Flaps = fights.MaxFlaps
		for _, party := range []string{"a", "b", "c", "a", "b"} {
			s.fight(party, time.Second)
			pass(time.Second / 10)
		}
		s.requireRest(t)
		_, _, parked := s.counts()
		require.Equal(t, 4, parked)
	})
}

func TestFights_ForgetTheKeyFirstWhoseTimeIsOverFirst(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *site) {
		f := fights.NewLimited(2)
		lose(f, "a")
		pass(1)
		lose(f, "b")
		pass(1)
		lose(f, "a")
		lose(f, "c")
		require.Equal(t, 2, f.Keys())
		require.Equal(t, []int{2, 0, 1}, []int{f.Losses(id("a")), f.Losses(id("b")), f.Losses(id("c"))})
	})
}

func TestFights_ForgetWhatIsOfNoAccount(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *site) {
		f := fights.New()
		for _, key := range []string{"a", "b", "c", "d"} {
			lose(f, key)
		}
		pass(time.Minute)
		lose(f, "e")
		require.Equal(t, 3, f.Keys())
		lose(f, "e")
		require.Equal(t, 1, f.Keys())
		require.Equal(t, 2, f.Losses(id("e")))
		pass(time.Minute)
		lose(f, "e")
		require.Equal(t, 1, f.Losses(id("e")))
	})
}

func TestFights_ForgetLossesAfterAMinute(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *site) {
		f := fights.New()
		lose(f, "a")
		pass(time.Minute - 1)
		lose(f, "a")
		require.Equal(t, 2, f.Losses(id("a")))
		pass(1)
		lose(f, "a")
		require.Equal(t, 2, f.Losses(id("a")))
	})
}

func TestFights_RememberFlapsForTheWindow(t *testing.T) {
	inBubble(t, func(t *testing.T, s *site) {
		s.open("a")
		s.open("b")
		s.open("a")
		pass(2*time.Minute - 1)
		lose(s.Fights, "other")
		require.Equal(t, 2, s.Keys())
		pass(1)
		lose(s.Fights, "other")
		require.Equal(t, 1, s.Keys())
	})
}

func TestFights_KeepNoStreamAlive(t *testing.T) {
	f := fights.New()
	var streams []weak.Pointer[registry.Stream]
	func() {
		var last *registry.Stream
		for range 5 {
			s := &registry.Stream{Key: key, Addr: "addr"}
			streams = append(streams, weak.Make(s))
			if last != nil {
				require.False(t, f.Flaps(s, id("a"), func(s *registry.Stream) bool { return s == last }, usual))
				f.Superseded(fights.Loss{Stream: last, By: s, Party: id("a")})
			}
			last = s
		}
	}()
	require.Eventually(t, func() bool {
		runtime.GC()
		for _, s := range streams {
			if s.Value() != nil {
				return false
			}
		}
		return true
	}, 10*time.Second, time.Millisecond)
	require.Equal(t, 4, f.Losses(key))
	runtime.KeepAlive(f)
}
