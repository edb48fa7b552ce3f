package registrytest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// limited fills the key to a limit under Reject.
func (s site) limited(t *testing.T, holders ...*registry.Holder) registry.Rule {
	s.holdAll(t, holders...)
	return Reject(len(holders), registry.Streams)
}

func testRejected(t *testing.T, open Open) {
	of := func(name, token string) *registry.Holder { return withToken(Anon(name), token) }
	runSpecs(t, open, []spec{
		{"HoldersAreTheNearestFirst", func(t *testing.T, s site) {
			rule := s.limited(t, of("a", "x"), of("b", "t"), of("c", "x"), of("d", "t"), of("e", "x"), of("f", "t"), of("g", "x"))
			got := s.ask(t, registry.Header, of("n", "t"), rule).Holders
			require.Equal(t, []string{"b", "d", "f", "a", "c"}, names(got))
			got = s.ask(t, registry.Early, of("n", ""), rule).Holders
			require.Equal(t, []string{"a", "b", "c", "d", "e"}, names(got), "no token is nobody's own")
		}},
		{"FewHoldersAreAllSuspects", func(t *testing.T, s site) {
			hs := []*registry.Holder{Anon("a"), Anon("b"), Anon("c"), Anon("d")}
			rule := s.limited(t, hs...)
			s.node.Show(func() { require.Fail(t, "there is nothing to choose") })
			require.Equal(t, ids(hs), s.ask(t, registry.Early, Anon("n"), rule).Suspects, "oldest first")
		}},
		{"SuspectsAreTheLongestSilent", testSuspects},
		{"SuspectsAreHolders", func(t *testing.T, s site) {
			hs := manyHolders(6)
			rule := s.limited(t, hs...)
			now := time.Now()
			rows := make([]registry.Row, 0, 10)
			for i, state := range []registry.State{registry.StateEnding, registry.StateParked, registry.StateUntracked, registry.StateLive} {
				rows = append(rows, registry.Row{Holder: Anon(fmt.Sprint("no holder ", i)), State: state, LastAck: now.Add(-time.Hour)})
			}
			for i, h := range hs {
				rows = append(rows, registry.Row{Holder: h, State: registry.StateLive, LastAck: now.Add(-time.Duration(i))})
			}
			s.node.Show(nil, rows...)
			want := []registry.StreamID{hs[5].ID, hs[4].ID, hs[3].ID, hs[2].ID}
			require.Equal(t, want, s.ask(t, registry.Header, Anon("n"), rule).Suspects)
		}},
		{"OfTwoThousandHoldersFourAreSuspectsUnderEitherPolicy", func(t *testing.T, s site) {
			many := s.rounds(2000)
			s.limited(t, manyHolders(many)...)
			n := Anon("n")
			a := s.ask(t, registry.Header, n, Reject(many, registry.Streams))
			require.Equal(t, registry.Rejected, a.Outcome)
			require.Len(t, a.Suspects, registry.MostSuspects)
			require.Len(t, a.Holders, registry.MostHolders)
			require.Len(t, s.ask(t, registry.Header, n, Supersede(many, registry.Streams)).Ends, 1)
			require.Len(t, s.node.Ended(), 1)
		}},
		{"NodeThatKnowsNothingLeavesTheOldest", func(t *testing.T, s site) {
			hs := manyHolders(6)
			rule := s.limited(t, hs...)
			require.Equal(t, ids(hs[:4]), s.ask(t, registry.Header, Anon("n"), rule).Suspects)
		}},
	})
}

func manyHolders(n int) []*registry.Holder {
	hs := make([]*registry.Holder, n)
	for i := range hs {
		hs[i] = Anon(fmt.Sprintf("h%d", i))
	}
	return hs
}

func ids(hs []*registry.Holder) []registry.StreamID {
	out := make([]registry.StreamID, len(hs))
	for i, h := range hs {
		out[i] = h.ID
	}
	return out
}

func testSuspects(t *testing.T, s site) {
	hs := manyHolders(8)
	rule := s.limited(t, hs...)
	now := time.Now()
	silent := map[int]time.Duration{1: time.Second, 6: 5 * time.Second, 4: 3 * time.Second}
	var rows []registry.Row
	for i, h := range hs {
		row := registry.Row{Holder: h, State: registry.StateLive}
		if d, ok := silent[i]; ok {
			row.LastAck = now.Add(-d)
		}
		rows = append(rows, row)
	}
	asked := false
	s.node.Show(func() {
		asked = true
		require.Len(t, s.holders(t, "key"), len(hs), "no lock is held")
	}, rows...)
	got := s.ask(t, registry.Header, Anon("n"), rule).Suspects
	require.True(t, asked)
	require.Equal(t, []registry.StreamID{hs[6].ID, hs[4].ID, hs[1].ID}, got[:3])
	require.Len(t, got, 4)
	require.True(t, slices.Contains(ids(hs), got[3]), "one of those that nothing is known of")
	require.False(t, slices.Contains(got[:3], got[3]))
}
