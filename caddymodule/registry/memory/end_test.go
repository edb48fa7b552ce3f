package memory_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/registry/memory"
)

func TestEndAll_EndsTheStreamsOfOneID(t *testing.T) {
	mine := func(s *registry.Stream) {
		s.Key, s.Token, s.Client, s.Subject = id("my key"), id("my token"), id("my client"), id("my subject")
	}
	tests := []struct {
		index registry.Index
		id    registry.ID
		// other makes a stream of mine one that the index does not find.
		other func(*registry.Stream)
	}{
		{registry.ByKey, id("my key"), func(s *registry.Stream) { s.Key = id("another") }},
		{registry.ByToken, id("my token"), func(s *registry.Stream) { s.Token = id("another") }},
		{registry.ByToken, id("my token"), func(s *registry.Stream) { s.Token = registry.ID{} }},
		{registry.ByClient, id("my client"), func(s *registry.Stream) { s.Client = id("another") }},
		{registry.ByClient, id("my client"), func(s *registry.Stream) { s.Client = registry.ID{} }},
		{registry.BySubject, id("my subject"), func(s *registry.Stream) { s.Subject = id("another") }},
		{registry.BySubject, id("my subject"), func(s *registry.Stream) { s.Subject = registry.ID{} }},
	}
	logout := registry.Ending{Reason: registry.Logout, By: "192.0.2.1"}
	for _, test := range tests {
		t.Run(string(test.index), func(t *testing.T) {
			r := memory.New()
			var ours, others []*registry.Stream
			for range 3 {
				a, b := anon("a"), anon("b")
				mine(a)
				mine(b)
				test.other(b)
				hold(t, r, a, track)
				hold(t, r, b, track)
				ours, others = append(ours, a), append(others, b)
			}
			reserved := anon("r")
			mine(reserved)
			p := reserve(t, r, reserved, track)
			leftBefore := anon("l")
			mine(leftBefore)
			hold(t, r, leftBefore, track).Release()

			require.True(t, holds(t, r, test.index, test.id))
			ended, err := r.EndAll(context.Background(), test.index, test.id, logout)
			require.NoError(t, err)
			require.Equal(t, ours, ended, "oldest first")
			for _, s := range ours {
				require.Equal(t, []registry.Ending{logout}, endings(s))
			}
			for _, s := range append(others, reserved, leftBefore) {
				require.Empty(t, endings(s))
			}
			require.Equal(t, 3, r.Len())

			require.False(t, holds(t, r, test.index, test.id), "a reservation holds nothing")
			ended, err = r.EndAll(context.Background(), test.index, test.id, logout)
			require.NoError(t, err)
			require.Empty(t, ended, "nobody is ended twice")

			commit(t, p)
			require.True(t, holds(t, r, test.index, test.id))
			ended, err = r.EndAll(context.Background(), test.index, test.id, logout)
			require.NoError(t, err)
			require.Equal(t, []*registry.Stream{reserved}, ended, "a reservation is found once it is held")
		})
	}
}

func TestEndAll_EndsOldestFirstAcrossKeys(t *testing.T) {
	for _, index := range []registry.Index{registry.ByToken, registry.ByClient, registry.BySubject} {
		t.Run(string(index), func(t *testing.T) {
			r := memory.New()
			var want, told []string
			for i := range 20 {
				s := device(fmt.Sprint(i), "my client")
				s.Key, s.Subject = id(fmt.Sprint("key", i%7)), id("my subject")
				s.Handle.(*spy).onEnd = func() { told = append(told, s.Addr) }
				p := hold(t, r, s, track)
				if i%3 == 0 {
					p.Release()
				} else {
					want = append(want, s.Addr)
				}
			}
			ids := map[registry.Index]registry.ID{
				registry.ByToken: id("token"), registry.ByClient: id("my client"), registry.BySubject: id("my subject"),
			}
			ended, err := r.EndAll(context.Background(), index, ids[index], registry.Ending{})
			require.NoError(t, err)
			require.Equal(t, want, names(ended))
			require.Equal(t, want, told)
		})
	}
}

func TestEndAll_ZeroIDNamesNobody(t *testing.T) {
	r := memory.New()
	s := anon("a")
	s.Token = registry.ID{}
	hold(t, r, s, track)
	for _, index := range someIndices {
		ended, err := r.EndAll(context.Background(), index, registry.ID{}, registry.Ending{})
		require.NoError(t, err)
		require.Empty(t, ended)
		require.False(t, holds(t, r, index, registry.ID{}))
	}
	require.Empty(t, endings(s))
}

func TestUnknownIndex_IsAnError(t *testing.T) {
	r := memory.New()
	_, err := r.EndAll(context.Background(), "colour", id("x"), registry.Ending{})
	require.ErrorContains(t, err, `ending streams: unknown index "colour"`)
	_, err = r.Holds(context.Background(), "colour", id("x"))
	require.ErrorContains(t, err, `looking for holders: unknown index "colour"`)
}

func TestEvict_EndsThoseWhoStillHold(t *testing.T) {
	r := memory.New()
	holding, client, left, reserved, never := anon("holding"), device("client", "D"), anon("left"), anon("reserved"), anon("never")
	peer := device("peer", "D")
	hold(t, r, holding, track)
	hold(t, r, peer, track)
	hold(t, r, client, track)
	hold(t, r, left, track).Release()
	reserve(t, r, reserved, track)

	victims := []registry.Victim{
		{Stream: left, Reason: registry.Superseded},
		{Stream: client, Reason: registry.Replaced},
		{Stream: reserved, Reason: registry.Superseded},
		{Stream: holding, Reason: registry.Superseded},
		{Stream: never, Reason: registry.Superseded},
		{Stream: holding, Reason: registry.Superseded},
	}
	evicted, err := r.Evict(context.Background(), victims, "192.0.2.1")
	require.NoError(t, err)
	require.Equal(t, []registry.Victim{victims[1], victims[3]}, evicted)
	require.Equal(t, []registry.Ending{{Reason: registry.Replaced, By: "192.0.2.1"}}, endings(client))
	require.Equal(t, []registry.Ending{{Reason: registry.Superseded, By: "192.0.2.1"}}, endings(holding))
	for _, s := range []*registry.Stream{left, reserved, never, peer} {
		require.Empty(t, endings(s))
	}
	require.Equal(t, []*registry.Stream{peer}, holders(t, r, id("key")))

	evicted, err = r.Evict(context.Background(), victims, "192.0.2.1")
	require.NoError(t, err)
	require.Empty(t, evicted)
}

func TestEvict_OfAKeyNobodyHolds(t *testing.T) {
	r := memory.New()
	evicted, err := r.Evict(context.Background(), []registry.Victim{{Stream: anon("a")}, {Stream: device("b", "D")}}, "")
	require.NoError(t, err)
	require.Empty(t, evicted)
}
