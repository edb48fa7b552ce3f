package memory_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/registry/memory"
)

func wait(t require.TestingT, r *memory.Registry, s *registry.Stream, rule registry.Rule) registry.Waiter {
	w, ok := r.Wait(s, rule)
	require.True(t, ok)
	return w
}

func free(w registry.Waiter) bool {
	select {
	case <-w.Free():
		return true
	default:
		return false
	}
}

// freed tells of each waiter whether it was told.
func freed(ws ...registry.Waiter) []bool {
	out := make([]bool, len(ws))
	for i, w := range ws {
		out[i] = free(w)
	}
	return out
}

func TestWait_IsToldWhateverFreesThePlace(t *testing.T) {
	rule := reject(1, registry.Streams)
	tests := []struct {
		name string
		// take takes the only place, and returns what gives it back.
		take func(*memory.Registry) func()
	}{
		{"HolderLeaves", func(r *memory.Registry) func() {
			return hold(t, r, anon("a"), rule).Release
		}},
		{"ReservationIsReleased", func(r *memory.Registry) func() {
			return reserve(t, r, anon("a"), rule).Release
		}},
		{"HolderIsEvicted", func(r *memory.Registry) func() {
			s := anon("a")
			hold(t, r, s, rule)
			return func() {
				_, err := r.Evict(context.Background(), []registry.Victim{{Stream: s}}, "")
				require.NoError(t, err)
			}
		}},
		{"HolderIsEndedByKey", func(r *memory.Registry) func() {
			hold(t, r, anon("a"), rule)
			return func() {
				_, err := r.EndAll(context.Background(), registry.ByKey, id("key"), registry.Ending{})
				require.NoError(t, err)
			}
		}},
		{"HolderIsEndedByToken", func(r *memory.Registry) func() {
			hold(t, r, anon("a"), rule)
			return func() {
				_, err := r.EndAll(context.Background(), registry.ByToken, id("token"), registry.Ending{})
				require.NoError(t, err)
			}
		}},
		{"HolderIsEndedByClient", func(r *memory.Registry) func() {
			hold(t, r, device("a", "D"), rule)
			return func() {
				_, err := r.EndAll(context.Background(), registry.ByClient, id("D"), registry.Ending{})
				require.NoError(t, err)
			}
		}},
		{"HolderIsEndedBySubject", func(r *memory.Registry) func() {
			s := anon("a")
			s.Subject = id("subject")
			hold(t, r, s, rule)
			return func() {
				_, err := r.EndAll(context.Background(), registry.BySubject, s.Subject, registry.Ending{})
				require.NoError(t, err)
			}
		}},
		{"ReservationIsDenied", func(r *memory.Registry) func() {
			s := anon("a")
			s.Token = id("denied token")
			p := reserve(t, r, s, rule)
			deny(t, r, registry.Denial{Token: s.Token, Until: time.Now().Add(time.Hour)})
			return func() {
				_, err := p.Commit(context.Background())
				require.ErrorIs(t, err, registry.ErrDenied)
			}
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := memory.New()
			giveBack := test.take(r)
			first, second := wait(t, r, anon("1"), rule), wait(t, r, anon("2"), rule)
			require.Equal(t, []bool{false, false}, freed(first, second))
			giveBack()
			require.Equal(t, []bool{true, false}, freed(first, second), "the longest waiting, and no other")
			first.Stop()
			second.Stop()
			require.Zero(t, r.Size())
		})
	}
}

func TestWait_IsToldAtOnceIfItWouldBeAdmitted(t *testing.T) {
	r := memory.New()
	require.True(t, free(wait(t, r, anon("1"), reject(1, registry.Streams))))
	hold(t, r, anon("a"), track)
	require.True(t, free(wait(t, r, anon("2"), reject(2, registry.Streams))))
	require.True(t, free(wait(t, r, anon("3"), supersede(1, registry.Streams))))
	require.False(t, free(wait(t, r, anon("4"), reject(1, registry.Streams))))
}

func TestWait_OneIsToldPerPlace(t *testing.T) {
	r := memory.New()
	rule := reject(2, registry.Streams)
	a, b := hold(t, r, anon("a"), rule), hold(t, r, anon("b"), rule)
	first, second, third := wait(t, r, anon("1"), rule), wait(t, r, anon("2"), rule), wait(t, r, anon("3"), rule)
	a.Release()
	require.Equal(t, []bool{true, false, false}, freed(first, second, third))
	c := hold(t, r, anon("1"), rule)
	b.Release()
	require.Equal(t, []bool{true, true, false}, freed(first, second, third))
	c.Release()
	require.Equal(t, []bool{true, true, true}, freed(first, second, third))
}

func TestWait_EndingAllTellsOnePerPlace(t *testing.T) {
	r := memory.New()
	for _, name := range []string{"a", "b", "c"} { // one more than the waiters' limit
		hold(t, r, anon(name), track)
	}
	rule := reject(2, registry.Streams)
	first, second, third := wait(t, r, anon("1"), rule), wait(t, r, anon("2"), rule), wait(t, r, anon("3"), rule)
	ended, err := r.EndAll(context.Background(), registry.ByKey, id("key"), registry.Ending{})
	require.NoError(t, err)
	require.Len(t, ended, 3)
	require.Equal(t, []bool{true, true, false}, freed(first, second, third))
}

func TestWait_TakeoverFreesNoPlace(t *testing.T) {
	r := memory.New()
	hold(t, r, anon("a"), track)
	w := wait(t, r, anon("1"), reject(1, registry.Streams))
	p := hold(t, r, anon("b"), supersede(1, registry.Streams))
	require.False(t, free(w))
	p.Release()
	require.True(t, free(w))
}

func TestWait_EachIsJudgedByItsOwnRule(t *testing.T) {
	r := memory.New()
	a, b := hold(t, r, anon("a"), track), hold(t, r, anon("b"), track)
	one, two := wait(t, r, anon("1"), reject(1, registry.Streams)), wait(t, r, anon("2"), reject(2, registry.Streams))
	a.Release()
	require.Equal(t, []bool{false, true}, freed(one, two), "the longest waiting would not be admitted yet")
	b.Release()
	require.Equal(t, []bool{true, true}, freed(one, two))
}

func TestWait_ClientThatHoldsNowIsTold(t *testing.T) {
	r := memory.New()
	hold(t, r, device("a", "C"), track)
	rule := reject(1, registry.Clients)
	x, y, z := wait(t, r, device("1", "D"), rule), wait(t, r, device("2", "D"), rule), wait(t, r, device("3", "E"), rule)
	hold(t, r, device("b", "D"), track)
	require.Equal(t, []bool{true, true, false}, freed(x, y, z), "they take no further place")
}

func TestWait_AtMostMaxWaitersPerKey(t *testing.T) {
	r := memory.New()
	rule := reject(1, registry.Streams)
	hold(t, r, anon("a"), rule)
	var ws []registry.Waiter
	for range memory.MaxWaiters {
		ws = append(ws, wait(t, r, anon("w"), rule))
	}
	_, ok := r.Wait(anon("w"), rule)
	require.False(t, ok)

	other := anon("w")
	other.Key = id("another key")
	wait(t, r, other, rule)

	for range 3 { // stopping again frees no second seat
		ws[3].Stop()
	}
	wait(t, r, anon("w"), rule)
	_, ok = r.Wait(anon("w"), rule)
	require.False(t, ok)
}

func TestStop_IsNotToldAnyMore(t *testing.T) {
	r := memory.New()
	rule := reject(1, registry.Streams)
	p := hold(t, r, anon("a"), rule)
	first, second := wait(t, r, anon("1"), rule), wait(t, r, anon("2"), rule)
	first.Stop()
	p.Release()
	require.Equal(t, []bool{false, true}, freed(first, second))
	first.Stop()
	second.Stop()
	require.Zero(t, r.Size())
}

func TestStop_OfTheLastWaiterForgetsTheKey(t *testing.T) {
	r := memory.New()
	rule := reject(1, registry.Streams)
	p := hold(t, r, anon("a"), rule)
	wait(t, r, anon("1"), rule)
	second := wait(t, r, anon("2"), rule)
	p.Release() // tells the first only
	require.NotZero(t, r.Size())
	second.Stop()
	require.Zero(t, r.Size())

	hold(t, r, anon("b"), rule)
	third := wait(t, r, anon("3"), rule)
	second.Stop()
	require.False(t, free(third))
	third.Stop()
}
