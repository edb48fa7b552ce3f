package conflict_test

import (
	"fmt"
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

// It is forgotten when its time is over, also if nothing else happens.
func TestDamping_ForgetsWhatIsOfNoAccount(t *testing.T) {
	dampingInBubble(t, func(t *testing.T, _ *dampingSite) {
		d := conflict.NewDamping()
		defer d.Close()
		for i := range 3 * conflict.MaxBatch { // in more than one step
			lose(d, fmt.Sprint(i))
		}
		pass(time.Second)
		lose(d, "e")
		lose(d, "e")
		pass(19*time.Second - 1)
		require.Equal(t, 3*conflict.MaxBatch+1, d.Keys())
		pass(1)
		require.Equal(t, 1, d.Keys())
		pass(time.Second - 1)
		require.Equal(t, 2, d.Losses(id("e")))
		pass(1)
		require.Zero(t, d.Keys())
	})
}

// Whom a key was taken from is asked whether its client had gone, and so kept with its
// connection. That is over long before the key itself is forgotten.
func TestDamping_LetsGoOfStreamsAlthoughNothingHappens(t *testing.T) {
	dampingInBubble(t, func(t *testing.T, s *dampingSite) {
		s.open("a")
		s.open("b")
		s.open("a") // takes it back: that is remembered for five minutes
		require.Equal(t, 2, s.Losses(key))
		pass(20 * time.Second)
		require.Zero(t, s.Losses(key))
		require.Equal(t, 1, s.Keys())
	})
}

func TestDamping_GivesItsMemoryBack(t *testing.T) {
	dampingInBubble(t, func(t *testing.T, _ *dampingSite) {
		d, r := conflict.NewDamping(), conflict.NewReturns()
		defer d.Close()
		defer r.Close()
		before := heap()
		for i := range conflict.MaxKeys {
			loser := newcomer(numbered(i), "a")
			held := make([]byte, 1<<10) // stands for a connection
			d.Lost(lost(loser, newcomer(numbered(i), "b"), func() bool { return len(held) == 0 }))
			r.Left(loser, 5*time.Second)
		}
		require.Greater(t, heap(), before+8<<20)
		pass(time.Minute)
		require.Less(t, heap(), before+1<<20)
		require.Zero(t, d.Keys())
		runtime.KeepAlive(r)
	})
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestDamping_KnowsNothingOnceItIsClosed(t *testing.T) {
	dampingInBubble(t, func(t *testing.T, _ *dampingSite) {
		d := conflict.NewDamping()
		lose(d, "a")
		d.Close()
		require.Zero(t, d.Keys())
		lose(d, "a")
		require.Zero(t, d.Keys())
		d.Close()
	})
}

func TestDamping_RemembersTakeBacksForFiveHalfLives(t *testing.T) {
	dampingInBubble(t, func(t *testing.T, s *dampingSite) {
		s.open("a")
		s.open("b")
		s.open("a")
		pass(5*time.Minute - 1)
		require.Equal(t, 1, s.Keys())
		pass(1)
		require.Zero(t, s.Keys())
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
