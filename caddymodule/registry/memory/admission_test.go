package memory_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/registry/memory"
)

func supersede(limit int, unit registry.Unit) registry.Rule {
	return registry.Rule{Policy: registry.Supersede, Limit: limit, Unit: unit}
}

func reject(limit int, unit registry.Unit) registry.Rule {
	return registry.Rule{Policy: registry.Reject, Limit: limit, Unit: unit}
}

func TestAdmission(t *testing.T) {
	const (
		streams = registry.Streams
		clients = registry.Clients
	)
	type list = []*registry.Stream
	tests := []struct {
		name     string
		held     list // before, oldest first
		reserved list
		rule     registry.Rule
		newcomer *registry.Stream
		refused  bool
		ends     []string
		after    []string
	}{
		// Supersede, streams.
		{name: "Supersede_FreeKeyIsTaken",
			rule: supersede(1, streams), newcomer: anon("n"), after: []string{"n"}},
		{name: "Supersede_NewestWins",
			held: list{anon("a")}, rule: supersede(1, streams), newcomer: anon("n"),
			ends: []string{"a superseded"}, after: []string{"n"}},
		{name: "Supersede_BelowTheLimitNobodyGoes",
			held: list{anon("a")}, rule: supersede(2, streams), newcomer: anon("n"),
			after: []string{"a", "n"}},
		{name: "Supersede_OnlyTheOldestGoes",
			held: list{anon("a"), anon("b")}, rule: supersede(2, streams), newcomer: anon("n"),
			ends: []string{"a superseded"}, after: []string{"b", "n"}},
		{name: "Supersede_LoweredLimitEndsSeveral",
			held: list{anon("a"), anon("b"), anon("c")}, rule: supersede(1, streams), newcomer: anon("n"),
			ends: []string{"a superseded", "b superseded", "c superseded"}, after: []string{"n"}},
		{name: "Supersede_ReservationsDoNotCount",
			held: list{anon("a")}, reserved: list{anon("r"), anon("q")}, rule: supersede(2, streams), newcomer: anon("n"),
			after: []string{"a", "n"}},
		{name: "Supersede_IsTheDefault",
			held: list{anon("a")}, rule: registry.Rule{Limit: 1}, newcomer: anon("n"),
			ends: []string{"a superseded"}, after: []string{"n"}},

		// Reject, streams.
		{name: "Reject_FreeKeyIsTaken",
			rule: reject(1, streams), newcomer: anon("n"), after: []string{"n"}},
		{name: "Reject_HolderIsProtected",
			held: list{anon("a")}, rule: reject(1, streams), newcomer: anon("n"),
			refused: true, after: []string{"a"}},
		{name: "Reject_BelowTheLimitIsAdmitted",
			held: list{anon("a")}, rule: reject(2, streams), newcomer: anon("n"),
			after: []string{"a", "n"}},
		{name: "Reject_ReservationIsAPlaceTaken",
			reserved: list{anon("r")}, rule: reject(1, streams), newcomer: anon("n"), refused: true},
		{name: "Reject_HoldersDoNotIncludeReservations",
			held: list{anon("a"), anon("b")}, reserved: list{anon("r")}, rule: reject(3, streams), newcomer: anon("n"),
			refused: true, after: []string{"a", "b"}},
		{name: "Reject_LoweredLimitEndsNobody",
			held: list{anon("a"), anon("b")}, rule: reject(1, streams), newcomer: anon("n"),
			refused: true, after: []string{"a", "b"}},

		// Limit 0.
		{name: "LimitZero_TracksWithoutLimit",
			held: list{anon("a"), device("b", "C")}, rule: supersede(0, streams), newcomer: device("n", "C"),
			after: []string{"a", "b", "n"}},
		{name: "LimitZero_RejectRefusesNobody",
			held: list{anon("a"), anon("b")}, reserved: list{anon("r")}, rule: reject(0, streams), newcomer: anon("n"),
			after: []string{"a", "b", "n"}},
		{name: "LimitZero_ClientsAreNotEvicted",
			held: list{device("a", "A"), device("b", "B")}, rule: supersede(0, clients), newcomer: device("n", "C"),
			after: []string{"a", "b", "n"}},
		{name: "LimitZero_TabStillReplacesItself",
			held: list{anon("a"), tab("b", "T")}, rule: supersede(0, streams), newcomer: tab("n", "T"),
			ends: []string{"b replaced"}, after: []string{"a", "n"}},

		// Tabs.
		{name: "Tab_ReplacesItselfThoughTheKeyIsNotFull",
			held: list{tab("a", "T"), anon("b")}, rule: supersede(5, streams), newcomer: tab("n", "T"),
			ends: []string{"a replaced"}, after: []string{"b", "n"}},
		{name: "Tab_ReplacesItselfBeforeTheOldest",
			held: list{anon("a"), tab("b", "T")}, rule: supersede(2, streams), newcomer: tab("n", "T"),
			ends: []string{"b replaced"}, after: []string{"a", "n"}},
		{name: "Tab_ReplacesItselfAndThenTheOldest",
			held: list{anon("a"), tab("b", "T"), anon("c")}, rule: supersede(2, streams), newcomer: tab("n", "T"),
			ends: []string{"a superseded", "b replaced"}, after: []string{"c", "n"}},
		{name: "Tab_ReplacesAllItsOlderStreams",
			held: list{device("a", "T"), anon("b"), device("c", "T")}, rule: supersede(9, streams), newcomer: tab("n", "T"),
			ends: []string{"a replaced", "c replaced"}, after: []string{"b", "n"}},
		{name: "Tab_OtherTabIsSuperseded",
			held: list{tab("a", "S")}, rule: supersede(1, streams), newcomer: tab("n", "T"),
			ends: []string{"a superseded"}, after: []string{"n"}},
		{name: "Tab_ReplacesItselfUnderReject",
			held: list{tab("a", "T")}, rule: reject(1, streams), newcomer: tab("n", "T"),
			ends: []string{"a replaced"}, after: []string{"n"}},
		{name: "Tab_OwnReservationDoesNotCountUnderReject",
			reserved: list{tab("r", "T")}, rule: reject(1, streams), newcomer: tab("n", "T"), after: []string{"n"}},
		{name: "Tab_OwnDeviceReservationCountsUnderReject", // it would not end the tab's stream
			reserved: list{device("r", "T")}, rule: reject(1, streams), newcomer: tab("n", "T"), refused: true},
		{name: "Tab_OthersCountUnderReject",
			held: list{tab("a", "T"), anon("b")}, rule: reject(1, streams), newcomer: tab("n", "T"),
			refused: true, after: []string{"a", "b"}},
		{name: "Tab_OtherTabIsRefused",
			held: list{tab("a", "S")}, rule: reject(1, streams), newcomer: tab("n", "T"),
			refused: true, after: []string{"a"}},
		{name: "Tab_EndsOnlyItselfUnderReject",
			held: list{anon("a"), tab("b", "T"), anon("c")}, rule: reject(3, streams), newcomer: tab("n", "T"),
			ends: []string{"b replaced"}, after: []string{"a", "c", "n"}},
		{name: "Tab_WithoutClientIDIsLikeAnyStream",
			held: list{tab("a", "")}, rule: supersede(2, streams), newcomer: tab("n", ""),
			after: []string{"a", "n"}},

		// Devices.
		{name: "Device_DoesNotReplaceItselfBelowTheLimit",
			held: list{device("a", "D")}, rule: supersede(2, streams), newcomer: device("n", "D"),
			after: []string{"a", "n"}},
		{name: "Device_ReplacesItselfBeforeTheOldest",
			held: list{anon("a"), device("b", "D")}, rule: supersede(2, streams), newcomer: device("n", "D"),
			ends: []string{"b replaced"}, after: []string{"a", "n"}},
		{name: "Device_ReplacesItsOldestOnly",
			held: list{anon("a"), device("b", "D"), device("c", "D")}, rule: supersede(3, streams), newcomer: device("n", "D"),
			ends: []string{"b replaced"}, after: []string{"a", "c", "n"}},
		{name: "Device_ReplacesItselfAndThenTheOldest",
			held: list{anon("a"), device("b", "D"), anon("c")}, rule: supersede(2, streams), newcomer: device("n", "D"),
			ends: []string{"a superseded", "b replaced"}, after: []string{"c", "n"}},
		{name: "Device_LoweredLimitEndsItsOwnOnce",
			held: list{device("a", "D"), anon("b"), anon("c")}, rule: supersede(1, streams), newcomer: device("n", "D"),
			ends: []string{"a replaced", "b superseded", "c superseded"}, after: []string{"n"}},
		{name: "Device_SecondTabIsLikeAnyNewcomerUnderReject",
			held: list{device("a", "D")}, rule: reject(1, streams), newcomer: device("n", "D"),
			refused: true, after: []string{"a"}},
		{name: "Device_EndsNobodyUnderReject",
			held: list{device("a", "D")}, rule: reject(2, streams), newcomer: device("n", "D"),
			after: []string{"a", "n"}},

		// Clients.
		{name: "Clients_OneClientCountsOnce",
			held: list{device("a", "C"), device("b", "C")}, rule: supersede(1, clients), newcomer: device("n", "C"),
			after: []string{"a", "b", "n"}},
		{name: "Clients_WholeClientGoes",
			held: list{device("a", "C"), device("b", "C")}, rule: supersede(1, clients), newcomer: device("n", "D"),
			ends: []string{"a superseded", "b superseded"}, after: []string{"n"}},
		{name: "Clients_NewestStreamOldestGoesFirst",
			held: list{device("a", "C"), device("b", "D"), device("c", "C")}, rule: supersede(2, clients), newcomer: device("n", "E"),
			ends: []string{"b superseded"}, after: []string{"a", "c", "n"}},
		{name: "Clients_StreamsWithoutClientCountEach",
			held: list{anon("a"), anon("b")}, rule: supersede(2, clients), newcomer: anon("n"),
			ends: []string{"a superseded"}, after: []string{"b", "n"}},
		{name: "Clients_NeverTheNewcomersOwn",
			held: list{device("a", "C"), device("b", "D"), device("c", "E")}, rule: supersede(1, clients), newcomer: device("n", "C"),
			ends: []string{"b superseded", "c superseded"}, after: []string{"a", "n"}},
		{name: "Clients_EndsAreOldestFirstAcrossClients",
			held: list{device("a", "C"), device("b", "D"), device("c", "C"), device("d", "D")}, rule: supersede(1, clients), newcomer: anon("n"),
			ends: []string{"a superseded", "b superseded", "c superseded", "d superseded"}, after: []string{"n"}},
		{name: "Clients_TabReplacesItself",
			held: list{device("a", "T"), device("b", "D")}, rule: supersede(2, clients), newcomer: tab("n", "T"),
			ends: []string{"a replaced"}, after: []string{"b", "n"}},
		{name: "Clients_TabReplacesItselfAndOthersGo",
			held: list{device("a", "T"), device("b", "D")}, rule: supersede(1, clients), newcomer: tab("n", "T"),
			ends: []string{"a replaced", "b superseded"}, after: []string{"n"}},
		{name: "Clients_RejectProtectsClients",
			held: list{device("a", "C"), device("b", "C")}, rule: reject(1, clients), newcomer: device("n", "D"),
			refused: true, after: []string{"a", "b"}},
		{name: "Clients_RejectAdmitsAHoldingClient",
			held: list{device("a", "C")}, rule: reject(1, clients), newcomer: device("n", "C"),
			after: []string{"a", "n"}},
		{name: "Clients_RejectAdmitsAReservingClient",
			reserved: list{device("r", "C")}, rule: reject(1, clients), newcomer: device("n", "C"), after: []string{"n"}},
		{name: "Clients_RejectCountsReservedClientsOnce",
			held: list{device("a", "C")}, reserved: list{device("r", "C")}, rule: reject(2, clients), newcomer: device("n", "D"),
			after: []string{"a", "n"}},
		{name: "Clients_RejectCountsReservedClients",
			held: list{device("a", "C")}, reserved: list{device("r", "D")}, rule: reject(2, clients), newcomer: anon("n"),
			refused: true, after: []string{"a"}},
		{name: "Clients_HoldingClientTakesNoFurtherPlaceUnderALoweredLimit",
			held: list{device("a", "C"), device("b", "D")}, rule: reject(1, clients), newcomer: device("n", "C"),
			after: []string{"a", "b", "n"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := memory.New()
			for _, s := range test.held {
				hold(t, r, s, track)
			}
			for _, s := range test.reserved {
				reserve(t, r, s, track)
			}
			before := names(test.held)

			j := judge(t, r, test.newcomer, test.rule)
			require.Equal(t, !test.refused, j.Admitted)
			require.Equal(t, test.ends, told(j.Ends))
			require.Equal(t, before, names(holders(t, r, id("key"))), "judging changes nothing")

			p, reserved, err := r.Reserve(context.Background(), test.newcomer, test.rule)
			require.NoError(t, err)
			require.Equal(t, j, reserved, "reserving judges alike")
			require.Equal(t, before, names(holders(t, r, id("key"))), "reserving ends nobody")
			if test.refused {
				require.Nil(t, p)
				require.Equal(t, test.after, names(j.Holders))
			} else {
				require.Nil(t, j.Holders)
				require.Equal(t, test.ends, told(commit(t, p)))
			}

			require.Equal(t, test.after, names(holders(t, r, id("key"))))
			var ended []string
			for _, s := range test.held {
				for _, e := range endings(s) {
					require.Equal(t, test.newcomer.Addr, e.By)
					ended = append(ended, s.Addr+" "+string(e.Reason))
				}
			}
			require.Equal(t, test.ends, ended, "each victim is ended once, and nobody else")
			for _, s := range append(test.reserved, test.newcomer) {
				require.Empty(t, endings(s))
			}
			require.Equal(t, len(test.after), r.Len())
		})
	}
}

func TestKeys_DoNotMeet(t *testing.T) {
	r := memory.New()
	a, b := tab("a", "T"), tab("b", "T")
	b.Key = id("another key")
	hold(t, r, a, supersede(1, registry.Streams))
	hold(t, r, b, supersede(1, registry.Streams))
	require.Empty(t, endings(a), "the same tab holds both")
	require.Equal(t, []*registry.Stream{a}, holders(t, r, a.Key))
	require.Equal(t, []*registry.Stream{b}, holders(t, r, b.Key))
}

func TestZeroKey_IsRefused(t *testing.T) {
	r := memory.New()
	s := &registry.Stream{}
	_, err := r.Judge(context.Background(), s, track)
	require.ErrorIs(t, err, memory.ErrNoKey)
	p, _, err := r.Reserve(context.Background(), s, track)
	require.ErrorIs(t, err, memory.ErrNoKey)
	require.Nil(t, p)
	_, ok := r.Wait(s, track)
	require.False(t, ok)
}

func TestCommit_LastToCommitIsTheNewest(t *testing.T) {
	r := memory.New()
	rule := supersede(1, registry.Streams)
	a, b := anon("a"), anon("b")
	first, second := reserve(t, r, a, rule), reserve(t, r, b, rule)
	require.Empty(t, commit(t, second))
	require.Equal(t, []string{"b superseded"}, told(commit(t, first)))
	require.Equal(t, []*registry.Stream{a}, holders(t, r, a.Key))
	require.Empty(t, endings(a))
}

func TestCommit_OfTwoReservedStreamsOfATabOneStays(t *testing.T) {
	for _, rule := range []registry.Rule{reject(1, registry.Streams), reject(1, registry.Clients), supersede(1, registry.Streams)} {
		r := memory.New()
		a, b := tab("a", "T"), tab("b", "T")
		first, second := reserve(t, r, a, rule), reserve(t, r, b, rule)
		commit(t, second)
		require.Equal(t, []string{"b replaced"}, told(commit(t, first)), rule)
		require.Equal(t, []*registry.Stream{a}, holders(t, r, a.Key))
	}
}

func TestCommit_AfterReleaseIsRefused(t *testing.T) {
	r := memory.New()
	a := anon("a")
	hold(t, r, a, track)
	p := reserve(t, r, anon("b"), supersede(1, registry.Streams))
	p.Release()
	victims, err := p.Commit(context.Background())
	require.ErrorIs(t, err, memory.ErrNotReserved)
	require.Empty(t, victims)
	require.Equal(t, []*registry.Stream{a}, holders(t, r, a.Key))
	require.Empty(t, endings(a))
}

func TestCommit_TwiceIsRefused(t *testing.T) {
	r := memory.New()
	p := hold(t, r, anon("a"), track)
	_, err := p.Commit(context.Background())
	require.ErrorIs(t, err, memory.ErrNotReserved)
	require.Equal(t, 1, r.Len())
}

func TestRelease_RemovesItsOwnPlaceOnly(t *testing.T) {
	r := memory.New()
	rule := supersede(1, registry.Streams)
	a, b := anon("a"), anon("b")
	old := hold(t, r, a, rule)
	fresh := hold(t, r, b, rule)

	old.Release()
	old.Release()
	require.Equal(t, []*registry.Stream{b}, holders(t, r, b.Key), "a superseded stream leaves its successor alone")

	fresh.Release()
	fresh.Release()
	require.Empty(t, holders(t, r, b.Key))
	require.Empty(t, endings(b), "who leaves by itself is not ended")
	require.Zero(t, r.Size())
}

func TestRelease_OfAReservationFreesThePlace(t *testing.T) {
	r := memory.New()
	rule := reject(1, registry.Streams)
	p := reserve(t, r, anon("a"), rule)
	require.False(t, judge(t, r, anon("b"), rule).Admitted)
	p.Release()
	require.True(t, judge(t, r, anon("b"), rule).Admitted)
	require.Zero(t, r.Size())
}

func TestHandle_MayCallBack(t *testing.T) {
	r := memory.New()
	rule := supersede(1, registry.Streams)
	a := device("a", "D")
	var p registry.Place
	var during []*registry.Stream
	a.Handle.(*spy).onEnd = func() {
		during = holders(t, r, a.Key)
		_, err := r.EndAll(context.Background(), registry.ByToken, id("nobody's token"), registry.Ending{})
		require.NoError(t, err)
		p.Release()
	}
	p = hold(t, r, a, rule)
	b := device("b", "D")
	hold(t, r, b, rule)
	require.Equal(t, []*registry.Stream{b}, during, "no lock is held, and the ended stream counts no more")
}

func TestRegistry_KeepsNothingOfThoseWhoLeft(t *testing.T) {
	r := memory.New()
	var places []registry.Place
	for i := range 3000 {
		s := tab("s", string(rune('a'+i%7)))
		s.Tab = i%2 == 0
		s.Key = registry.ID{byte(i), byte(i % 11), 1}
		s.Token = registry.ID{byte(i), 1}
		s.Subject = registry.ID{byte(i), byte(i % 3), 2}
		rule := supersede(1+i%3, registry.Streams)
		if i%2 == 0 {
			rule.Unit = registry.Clients
		}
		p := reserve(t, r, s, rule)
		if i%5 != 0 {
			commit(t, p)
		}
		places = append(places, p)
	}
	require.NotZero(t, r.Size())
	for _, p := range places {
		p.Release()
	}
	require.Zero(t, r.Size())
	require.Zero(t, r.Len())
}
