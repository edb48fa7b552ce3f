package redis_test

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/registry/redis"
	"github.com/sse-guard/sse-guard/caddymodule/registry/registrytest"
)

// site is one node of several.
type site struct {
	*redis.Registry
	node *registrytest.FakeNode
}

// openSite opens a node's registry until the test ends.
func openSite(t testing.TB, o redis.Options) site {
	node := new(registrytest.FakeNode)
	s := site{open(t, o, node), node}
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// sites opens so many nodes of one zone.
func sites(t testing.TB, o redis.Options, n int) []site {
	all := make([]site, n)
	for i := range all {
		all[i] = openSite(t, o)
	}
	requireAcquainted(t, all...)
	return all
}

// requireAcquainted requires that the nodes hear of each other.
func requireAcquainted(t testing.TB, all ...site) {
	require.Eventually(t, func() bool {
		for _, s := range all {
			nodes := 0
			_ = s.Each(t.Context(), func(registry.Node) { nodes++ }) // never fails
			if nodes != len(all) {
				return false
			}
		}
		return true
	}, soon, aWhile, "the nodes hear of each other")
}

func (s site) ask(t require.TestingT, phase registry.Phase, h *registry.Holder, rule registry.Rule) registry.Admission {
	as, err := s.Admit(context.Background(), phase, registry.Consent{SameToken: true}, []registry.Ask{{Holder: h, Rule: rule}}, nil)
	require.NoError(t, err)
	return as[0]
}

func (s site) hold(t require.TestingT, h *registry.Holder, rule registry.Rule) registry.Place {
	a := s.ask(t, registry.Header, h, rule)
	require.Equal(t, registry.Admitted, a.Outcome, "%s is refused", h.Addr)
	return a.Place
}

// holders returns the addresses of who holds the suite's key.
func (s site) holders(t require.TestingT) []string {
	hs, _, err := s.Find(context.Background(), registry.Selector{Key: registrytest.ID("key")}, "", 1000)
	require.NoError(t, err)
	out := []string{}
	for _, h := range hs {
		out = append(out, h.Addr)
	}
	return out
}

// requireHolders waits until the addresses of who holds the suite's key are those. Redis
// may be away for a while.
func (s site) requireHolders(t testing.TB, want ...string) {
	t.Helper()
	var got []string
	require.Eventually(t, func() bool {
		hs, _, err := s.Find(context.Background(), registry.Selector{Key: registrytest.ID("key")}, "", 1000)
		got = nil
		for _, h := range hs {
			got = append(got, h.Addr)
		}
		return err == nil && s.Away() == nil && slices.Equal(got, want)
	}, soon, aWhile)
}

// requireSame compares holders but for the reading of the monotonic clock.
func requireSame(t testing.TB, want, got *registry.Holder, what string) {
	t.Helper()
	require.True(t, want.Asked.Equal(got.Asked), what)
	same := *want
	same.Asked = got.Asked
	require.Equal(t, &same, got, what)
}

func device(name, client string) *registry.Holder {
	h := anon(name)
	h.Client = registrytest.ID(client)
	return h
}

// requireTold checks that the node was told when the newcomer asked that a stream was ended
// for. The clocks of all nodes are one here, and Redis is asked for its own in a moment.
func (s site) requireTold(t testing.TB, ended, newcomer *registry.Holder) {
	t.Helper()
	require.WithinDuration(t, newcomer.Asked, s.node.Asked(ended.ID), time.Second)
}

// requireEnded waits until a stream of the node's was ended, and returns how.
func (s site) requireEnded(t testing.TB, h *registry.Holder, within time.Duration) registry.Ending {
	t.Helper()
	require.Eventually(t, func() bool { return len(s.node.Endings(h.ID)) > 0 }, within, aWhile, "%s is not ended", h.Addr)
	require.Len(t, s.node.Endings(h.ID), 1)
	return s.node.Endings(h.ID)[0]
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func requireClosed(t testing.TB, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(soon):
		require.Fail(t, what)
	}
}

func leaveAndDepart(p registry.Place) {
	p.Leave(registry.Keep{})
	p.Departed()
}

const (
	soon   = 20 * time.Second
	aWhile = 2 * time.Millisecond
)

var (
	one       = registrytest.Supersede(1, registry.Streams)
	rejectOne = registrytest.Reject(1, registry.Streams)

	began = time.Now()
	asked atomic.Int64
)

// anon returns a stream that has asked a second after the one before.
func anon(name string) *registry.Holder {
	h := registrytest.Anon(name)
	h.Asked = began.Add(time.Duration(asked.Add(1)) * time.Second)
	return h
}

func TestNodes(t *testing.T) {
	server := harness.StartRedis(t)
	testNodes(t, func(t testing.TB) redis.Options { return options(t, server.Addr) })
}

func testNodes(t *testing.T, options func(testing.TB) redis.Options) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, a, b site)
	}{
		{"TheNewestStreamWinsWhereverItIs", func(t *testing.T, a, b site) {
			older, newer := anon("older"), anon("newer")
			a.hold(t, older, one)
			got := b.ask(t, registry.Header, newer, one)
			require.Equal(t, registry.Admitted, got.Outcome)
			require.Len(t, got.Ends, 1)
			requireSame(t, older, got.Ends[0].Holder, "another node's holder is told whole")
			require.Equal(t, registry.Ending{Reason: reason.Superseded, By: "newer", For: newer.ID}, a.requireEnded(t, older, soon))
			a.requireTold(t, older, newer)
			require.Empty(t, b.node.Ended())
			require.Equal(t, []string{"newer"}, a.holders(t))
			require.Equal(t, []string{"newer"}, b.holders(t))
		}},
		{"AnEndingTellsWhenTheNewcomerAsked", func(t *testing.T, a, b site) {
			first, second, third := anon("first"), anon("second"), anon("third")
			a.hold(t, first, one)
			a.hold(t, second, one)
			a.requireEnded(t, first, soon)
			a.requireTold(t, first, second)
			p := b.ask(t, registry.Reserve, third, one).Place
			_, err := p.Commit(t.Context())
			require.NoError(t, err)
			a.requireEnded(t, second, soon)
			a.requireTold(t, second, third)
		}},
		{"ATakeoverWaitsUntilTheOthersUpstreamIsGone", func(t *testing.T, a, b site) {
			older := anon("older")
			p := a.hold(t, older, one)
			got := b.ask(t, registry.Early, anon("newer"), one)
			require.Len(t, got.Ends, 1)
			a.requireEnded(t, older, soon)
			p.Leave(registry.Keep{})
			a.Settle()
			again := b.ask(t, registry.Early, device("another", "D"), one)
			require.Nil(t, again.Departed, "another client need not wait")
			require.False(t, isClosed(got.Departed), "its upstream is still there")
			p.Departed()
			requireClosed(t, got.Departed, "nobody says that the upstream is gone")
		}},
		{"AStreamOfTheSameClientThatLeftElsewhereIsWaitedFor", func(t *testing.T, a, b site) {
			p := a.hold(t, device("a", "D"), registrytest.Track)
			p.Leave(registry.Keep{})
			a.Settle()
			got := b.ask(t, registry.Early, device("n", "D"), registrytest.Track)
			require.NotNil(t, got.Departed)
			require.False(t, isClosed(got.Departed))
			p.Departed()
			requireClosed(t, got.Departed, "nobody says that the upstream is gone")
		}},
		{"RejectProtectsAHolderOfAnotherNode", func(t *testing.T, a, b site) {
			holder := anon("a")
			p := a.hold(t, holder, rejectOne)
			got := b.ask(t, registry.Header, anon("n"), rejectOne)
			require.Equal(t, registry.Rejected, got.Outcome)
			requireSame(t, holder, got.Holders[0], "another node's holder is told whole")
			require.Equal(t, []registry.StreamID{holder.ID}, got.Suspects)
			leaveAndDepart(p)
			a.Settle()
			require.Equal(t, registry.Admitted, b.ask(t, registry.Header, anon("n"), rejectOne).Outcome)
		}},
		{"AParkedNewcomerIsLetInByAnotherNode", func(t *testing.T, a, b site) {
			p := a.hold(t, anon("a"), rejectOne)
			w, err := b.Wait(t.Context(), registry.Ask{Holder: anon("n"), Rule: rejectOne})
			require.NoError(t, err)
			defer w.Stop()
			require.False(t, isClosed(w.Free()))
			p.Leave(registry.Keep{})
			requireClosed(t, w.Free(), "it is not told")
		}},
		{"SoManyMayWaitForAKeyOnAllNodes", func(t *testing.T, a, b site) {
			a.hold(t, anon("a"), rejectOne)
			ask := registry.Ask{Holder: anon("w"), Rule: rejectOne}
			for i := range registry.MostWaiters {
				w, err := []site{a, b}[i%2].Wait(t.Context(), ask)
				require.NoError(t, err)
				defer w.Stop()
			}
			_, err := a.Wait(t.Context(), ask)
			require.ErrorIs(t, err, registry.ErrManyWaiters)
		}},
		{"AKeptPlaceIsTakenBackOnAnotherNode", func(t *testing.T, a, b site) {
			mine := func(name string) *registry.Holder {
				h := anon(name)
				h.Fingerprint = registrytest.ID("F")
				return h
			}
			p := a.hold(t, mine("a"), rejectOne)
			p.Leave(registry.Keep{For: time.Hour})
			p.Departed()
			a.Settle()
			require.Equal(t, registry.Rejected, b.ask(t, registry.Header, anon("stranger"), rejectOne).Outcome)
			b.hold(t, mine("n"), rejectOne)
			require.Equal(t, []string{"n"}, a.holders(t))
			require.Eventually(t, func() bool { return a.Known() == 0 }, soon, aWhile, "the node forgets what it kept")
		}},
		{"AnEndByTokenReachesAllNodes", func(t *testing.T, a, b site) {
			here, there := anon("here"), anon("there")
			there.Key, there.Asked = registrytest.ID("another key"), there.Asked.Add(-time.Minute)
			p := a.hold(t, there, registrytest.Track)
			b.hold(t, here, registrytest.Track).Departed()
			e := registry.Ending{Reason: reason.Logout, By: "192.0.2.1", Message: "We close at six."}
			ended, err := b.End(t.Context(), registry.Selector{Token: registrytest.ID("token")}, e)
			require.NoError(t, err)
			require.Len(t, ended.Holders, 2)
			require.Equal(t, "there", ended.Holders[0].Addr, "the oldest first")
			require.Equal(t, []registry.Ending{e}, a.node.Endings(there.ID))
			require.Equal(t, []registry.Ending{e}, b.node.Endings(here.ID))
			require.False(t, isClosed(ended.Departed))
			leaveAndDepart(p)
			requireClosed(t, ended.Departed, "nobody says that the upstream is gone")
		}},
		{"AnEndByKeyReachesAllNodes", func(t *testing.T, a, b site) {
			here, there := anon("here"), anon("there")
			p := a.hold(t, there, registrytest.Track)
			b.hold(t, here, registrytest.Track).Departed()
			e := registry.Ending{Reason: reason.Logout, By: "admin", Message: "We close at six."}
			ended, err := b.End(t.Context(), registry.Selector{Key: here.Key}, e)
			require.NoError(t, err)
			require.Len(t, ended.Holders, 2)
			require.Equal(t, e, a.requireEnded(t, there, soon))
			require.Equal(t, e, b.requireEnded(t, here, soon))
			require.False(t, isClosed(ended.Departed))
			leaveAndDepart(p)
			requireClosed(t, ended.Departed, "nobody says that the upstream is gone")
		}},
		{"HoldersOfAllNodesAreFound", func(t *testing.T, a, b site) {
			for _, s := range []site{a, b} {
				for range 10 {
					s.hold(t, anon("h"), registrytest.Track)
				}
			}
			for _, sel := range []registry.Selector{{All: true}, {Token: registrytest.ID("token")}, {Key: registrytest.ID("key")}} {
				seen := make(map[registry.StreamID]bool)
				for cursor := ""; ; {
					page, next, err := b.Find(t.Context(), sel, cursor, 3)
					require.NoError(t, err)
					for _, h := range page {
						require.False(t, seen[h.ID], "listed twice")
						seen[h.ID] = true
					}
					if cursor = next; cursor == "" {
						break
					}
				}
				require.Len(t, seen, 20)
			}
		}},
		{"ADenialIsInForceOnAllNodes", func(t *testing.T, a, b site) {
			there := anon("there")
			a.hold(t, there, registrytest.Track)
			require.NoError(t, b.Deny(t.Context(), registry.Denial{Token: there.Token, Until: time.Now().Add(time.Hour)}))
			require.True(t, b.Denied(there))
			require.Equal(t, reason.Logout, a.requireEnded(t, there, soon).Reason)
			require.True(t, a.Denied(there))
			require.Equal(t, registry.Denied, a.ask(t, registry.Header, anon("n"), one).Outcome)
			require.Empty(t, a.holders(t))
		}},
		{"ANodeIsAskedAboutItsStreams", func(t *testing.T, a, b site) {
			row := registry.Row{
				Holder: anon("a"), State: registry.StateLive, Node: "a:1", Events: 7, LastAck: time.Now().Round(0),
				About: registry.About{Sub: "ann", Path: "/events", Labels: registry.Labels{Names: []string{"room"}, Values: []string{"one"}}},
			}
			a.node.Show(nil, row)
			var nodes []registry.Node
			require.NoError(t, b.Each(t.Context(), func(n registry.Node) { nodes = append(nodes, n) }))
			require.Len(t, nodes, 2)
			require.True(t, nodes[1].Probe(t.Context(), row.Holder.ID, time.Second))
			all := registry.Filter{Selector: registry.Selector{All: true}, KeyPrefix: row.Holder.Key[:8]}
			rows, next, err := nodes[1].List(t.Context(), all, "", 10)
			require.NoError(t, err)
			require.Empty(t, next)
			_, err = nodes[1].Count(t.Context())
			require.NoError(t, err)
			_, err = nodes[1].Notify(t.Context(), all, "HI", "you")
			require.NoError(t, err)
			require.Len(t, rows, 1)
			requireSame(t, row.Holder, rows[0].Holder, "it is told whole")
			require.Equal(t, uint64(7), rows[0].Events)
			require.Equal(t, row.About, rows[0].About)
			require.Equal(t, "a:1", rows[0].Node)
			require.True(t, row.LastAck.Equal(rows[0].LastAck))
			e := registry.Ending{Reason: reason.Revoked, By: "admin", Message: "We close at six."}
			nodes[1].End(row.Holder.ID, e)
			require.Equal(t, e, a.requireEnded(t, row.Holder, soon))
			many := make([]registry.StreamID, 500)
			for i := range many {
				many[i] = registry.NewStreamID()
			}
			require.NoError(t, nodes[1].EndAll(t.Context(), many, e))
			require.Equal(t, many, a.node.Ended()[1:], "it was told when the answer is there")
		}},
		{"WhoTakesAKeyThatCameFreeLatelyIsHeardOfEverywhere", func(t *testing.T, a, b site) {
			leaveAndDepart(a.hold(t, anon("a"), one))
			a.Settle()
			made := time.Now()
			as, err := a.Admit(t.Context(), registry.Early, registry.Consent{}, []registry.Ask{{Holder: anon("a"), Rule: one, Tombstone: &made}}, nil)
			require.NoError(t, err)
			require.Equal(t, registry.Entombed, as[0].Outcome)
			b.hold(t, anon("b"), one)
			requireClosed(t, as[0].Taken, "it is not told")
		}},
		{"GuardsOfOneRequestDecideAsOneInAClusterToo", func(t *testing.T, a, b site) {
			require.NoError(t, b.AsCluster())
			old := anon("old")
			a.hold(t, old, registrytest.Track)
			other := anon("other")
			other.Key = registrytest.ID("user")
			a.hold(t, other, registrytest.Track)
			n, m := anon("n"), anon("m")
			m.ID, m.Key = n.ID.Nth(1), registrytest.ID("user")
			asks := []registry.Ask{{Holder: n, Rule: one}, {Holder: m, Rule: rejectOne}}
			as, err := b.Admit(t.Context(), registry.Reserve, registry.Consent{}, asks, nil)
			require.NoError(t, err)
			require.Equal(t, registry.Undecided, as[0].Outcome)
			require.Equal(t, registry.Rejected, as[1].Outcome)
			asks[1].Rule = one
			for _, phase := range []registry.Phase{registry.Header, registry.Early} {
				as, err = b.Admit(t.Context(), phase, registry.Consent{}, asks, nil)
				require.NoError(t, err)
			}
			require.Equal(t, registry.Undecided, as[0].Outcome, "early nobody is ended without consent")
			require.Equal(t, reason.Superseded, a.requireEnded(t, old, soon).Reason)
			require.Equal(t, reason.Superseded, a.requireEnded(t, other, soon).Reason)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			both := sites(t, options(t), 2)
			test.run(t, both[0], both[1])
		})
	}
}

// Times that a node asks for, and is told, are by its own clock.
func TestNodes_WhoseClocksDiffer(t *testing.T) {
	server := harness.StartRedis(t)
	o := options(t, server.Addr)
	both := sites(t, o, 2)
	a, b := both[0], both[1]
	b.Advance(time.Hour)
	now := time.Now().Round(0)
	old, young := anon("old"), anon("young")
	for h, age := range map[*registry.Holder]time.Duration{old: 10 * time.Minute, young: time.Minute} {
		h.Asked, h.Since, h.Expires = now.Add(-age), now.Add(-age), now.Add(time.Hour)
	}
	a.node.Show(nil, registry.Row{Holder: old, LastEvent: now, LastAck: now}, registry.Row{Holder: young})
	require.NoError(t, b.Each(t.Context(), func(n registry.Node) {
		if n == b.node {
			return
		}
		rows, _, err := n.List(t.Context(), registry.Filter{Before: now.Add(time.Hour - 5*time.Minute)}, "", 10)
		require.NoError(t, err)
		require.Len(t, rows, 1)
		require.Equal(t, "old", rows[0].Holder.Addr)
		for _, got := range []time.Time{rows[0].LastEvent, rows[0].LastAck, rows[0].Opened().Add(10 * time.Minute), rows[0].Holder.Asked.Add(10 * time.Minute)} {
			require.WithinDuration(t, now.Add(time.Hour), got, time.Minute)
		}
		require.True(t, old.Expires.Equal(rows[0].Holder.Expires), "that is by the clock of who issued the token")
	}))
}

// A node that is asked to end streams waits until Redis knows of those, not until nothing is
// under way: where much is, that may never be.
func TestEnd_OnAnotherNodeDoesNotWaitForWhatElseIsUnderWay(t *testing.T) {
	s := sites(t, options(t, harness.StartRedis(t).Addr), 2)
	a, b := s[0], s[1]
	for _, name := range []string{"its bucket", "another bucket"} {
		h := anon(name)
		h.Subject = registrytest.ID("subject")
		a.hold(t, h, rejectOne)
		busy := int(h.Key[0]) % 64
		if name == "another bucket" {
			busy = (busy + 1) % 64
		}
		require.NoError(t, a.WhileBusy(busy, func() error {
			ended, err := b.End(t.Context(), registry.Selector{Subject: h.Subject}, registry.Ending{Reason: reason.Revoked})
			require.Len(t, ended.Holders, 1, name)
			return err
		}), name)
		require.Empty(t, b.holders(t), name)
	}
}
