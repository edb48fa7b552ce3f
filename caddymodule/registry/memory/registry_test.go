package memory_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/registry/memory"
	"github.com/sse-guard/sse-guard/caddymodule/registry/registrytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRegistry(t *testing.T) {
	registrytest.Run(t, func(_ testing.TB, node registry.Node) registry.Registry { return memory.New(node) })
}

// site is a registry and the node that has its streams.
type site struct {
	*memory.Registry
	node *registrytest.FakeNode
}

func open(t testing.TB) site {
	node := new(registrytest.FakeNode)
	r := memory.New(node)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	return site{r, node}
}

func (s site) ask(t require.TestingT, phase registry.Phase, h *registry.Holder, rule registry.Rule) registry.Admission {
	as, err := s.Admit(context.Background(), phase, registry.Consent{SameToken: true}, []registry.Ask{{Holder: h, Rule: rule}}, nil)
	require.NoError(t, err)
	return as[0]
}

func (s site) hold(t require.TestingT, h *registry.Holder, rule registry.Rule) registry.Place {
	a := s.ask(t, registry.Header, h, rule)
	require.Equal(t, registry.Admitted, a.Outcome)
	return a.Place
}

func (s site) reserve(t require.TestingT, h *registry.Holder, rule registry.Rule) registry.Place {
	a := s.ask(t, registry.Reserve, h, rule)
	require.Equal(t, registry.Admitted, a.Outcome)
	return a.Place
}

// holders returns who holds key.
func (s site) holders(t require.TestingT, key registry.ID) []*registry.Holder {
	hs, cursor, err := s.Find(context.Background(), registry.Selector{Key: key}, "", 1000)
	require.NoError(t, err)
	require.Empty(t, cursor)
	return hs
}

func leaveAndDepart(p registry.Place) {
	p.Leave(registry.Keep{})
	p.Departed()
}

func TestCommit_OfWhatIsNotReserved(t *testing.T) {
	s := open(t)
	left := s.reserve(t, registrytest.Anon("a"), registrytest.Track)
	left.Leave(registry.Keep{})
	committed := s.reserve(t, registrytest.Anon("b"), registrytest.Track)
	_, err := committed.Commit(context.Background())
	require.NoError(t, err)
	for _, p := range []registry.Place{left, committed, s.hold(t, registrytest.Anon("c"), registrytest.Track)} {
		_, err := p.Commit(context.Background())
		require.ErrorIs(t, err, registry.ErrNotReserved)
	}
	require.Equal(t, 2, s.Len())
}

func TestRegistry_KeepsNothingOfThoseWhoLeft(t *testing.T) {
	s := open(t)
	var places []registry.Place
	for i := range 3000 {
		h := registrytest.Tab("s", string(rune('a'+i%7)))
		h.Tab = i%2 == 0
		h.Key = registry.ID{byte(i), byte(i % 11), 1}
		h.Token = registry.ID{byte(i), 1}
		h.Subject = registry.ID{byte(i), byte(i % 3), 2}
		rule := registrytest.Supersede(1+i%3, registry.Streams)
		if i%2 == 0 {
			rule.Unit = registry.Clients
		}
		phase := registry.Header
		if i%5 == 0 {
			phase = registry.Reserve
		}
		places = append(places, s.ask(t, phase, h, rule).Place)
	}
	require.NotZero(t, s.Size())
	for _, p := range places {
		leaveAndDepart(p)
	}
	require.Zero(t, s.Size())
	require.Zero(t, s.Len())
}

// A stuck upstream departs late, if ever. Meanwhile its client comes again and
// again.
func TestDepartures_OfAStuckStreamDoNotPileUp(t *testing.T) {
	s := open(t)
	h := registrytest.Device("a", "D")
	p := s.hold(t, h, registrytest.Track)
	p.Leave(registry.Keep{})
	var departed []<-chan struct{}
	for range 100 {
		departed = append(departed, s.ask(t, registry.Early, registrytest.Device("n", "D"), registrytest.Track).Departed)
	}
	require.Equal(t, 1, memory.Waiting(p))
	p.Departed()
	for _, c := range departed {
		<-c
	}
	require.Zero(t, s.Size())
}

func TestFind_WhatIsNoPage(t *testing.T) {
	s := open(t)
	all := registry.Selector{All: true}
	for _, cursor := range []string{"x", "zz", fmt.Sprintf("%032x", 1) + "0", fmt.Sprintf("%032s", "g")} {
		_, _, err := s.Find(context.Background(), all, cursor, 1)
		require.ErrorContains(t, err, "is no cursor")
	}
	_, _, err := s.Find(context.Background(), all, "", 0)
	require.ErrorContains(t, err, "the limit is 0")
}

// So many have one token that a page of it is looked for among all.
func TestFind_ManyHoldersOfOneToken(t *testing.T) {
	s := open(t)
	const many = memory.ManyHolders + 100
	want := make(map[*registry.Holder]bool)
	for i := range many + 500 {
		h := registrytest.Anon("s")
		h.Key = registry.ID{byte(i), byte(i >> 8), 1}
		if i < many {
			want[h] = true
		} else {
			h.Token = registrytest.ID("another")
		}
		s.hold(t, h, registrytest.Track)
	}
	cursor, pages := "", 0
	for {
		page, next, err := s.Find(context.Background(), registry.Selector{Token: registrytest.ID("token")}, cursor, 700)
		require.NoError(t, err)
		for _, h := range page {
			require.True(t, want[h], "listed twice, or not to be listed")
			delete(want, h)
		}
		if cursor = next; cursor == "" {
			break
		}
		if pages++; pages == 3 { // from now on the token's own list is short enough
			s.endSome(t, want, 200)
		}
	}
	require.Empty(t, want)
}

// endSome ends n of the holders, and takes them out.
func (s site) endSome(t *testing.T, hs map[*registry.Holder]bool, n int) {
	for h := range hs {
		if n--; n < 0 {
			return
		}
		ended, err := s.End(context.Background(), registry.Selector{ID: h.ID}, registry.Ending{})
		require.NoError(t, err)
		require.Len(t, ended.Holders, 1)
		delete(hs, h)
	}
}
