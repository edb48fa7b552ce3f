package registrytest

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// admissionCase is what a newcomer finds, and what becomes of it.
type admissionCase struct {
	name     string
	held     []*registry.Holder // before, oldest first
	reserved []*registry.Holder
	rule     registry.Rule
	newcomer *registry.Holder
	refused  bool
	ends     []string
	after    []string // in alphabetical order
}

func admissionCases() []admissionCase {
	const (
		streams = registry.Streams
		clients = registry.Clients
	)
	type list = []*registry.Holder
	return []admissionCase{
		// Supersede, streams.
		{name: "Supersede_FreeKeyIsTaken",
			rule: Supersede(1, streams), newcomer: Anon("n"), after: []string{"n"}},
		{name: "Supersede_NewestWins",
			held: list{Anon("a")}, rule: Supersede(1, streams), newcomer: Anon("n"),
			ends: []string{"a superseded"}, after: []string{"n"}},
		{name: "Supersede_BelowTheLimitNobodyGoes",
			held: list{Anon("a")}, rule: Supersede(2, streams), newcomer: Anon("n"),
			after: []string{"a", "n"}},
		{name: "Supersede_OnlyTheOldestGoes",
			held: list{Anon("a"), Anon("b")}, rule: Supersede(2, streams), newcomer: Anon("n"),
			ends: []string{"a superseded"}, after: []string{"b", "n"}},
		{name: "Supersede_LoweredLimitEndsSeveral",
			held: list{Anon("a"), Anon("b"), Anon("c")}, rule: Supersede(1, streams), newcomer: Anon("n"),
			ends: []string{"a superseded", "b superseded", "c superseded"}, after: []string{"n"}},
		{name: "Supersede_ReservationsDoNotCount",
			held: list{Anon("a")}, reserved: list{Anon("r"), Anon("q")}, rule: Supersede(2, streams), newcomer: Anon("n"),
			after: []string{"a", "n"}},
		{name: "Supersede_IsTheDefault",
			held: list{Anon("a")}, rule: registry.Rule{Limit: 1}, newcomer: Anon("n"),
			ends: []string{"a superseded"}, after: []string{"n"}},

		// Reject, streams.
		{name: "Reject_FreeKeyIsTaken",
			rule: Reject(1, streams), newcomer: Anon("n"), after: []string{"n"}},
		{name: "Reject_HolderIsProtected",
			held: list{Anon("a")}, rule: Reject(1, streams), newcomer: Anon("n"),
			refused: true, after: []string{"a"}},
		{name: "Reject_BelowTheLimitIsAdmitted",
			held: list{Anon("a")}, rule: Reject(2, streams), newcomer: Anon("n"),
			after: []string{"a", "n"}},
		{name: "Reject_ReservationIsAPlaceTaken",
			reserved: list{Anon("r")}, rule: Reject(1, streams), newcomer: Anon("n"), refused: true},
		{name: "Reject_HoldersDoNotIncludeReservations",
			held: list{Anon("a"), Anon("b")}, reserved: list{Anon("r")}, rule: Reject(3, streams), newcomer: Anon("n"),
			refused: true, after: []string{"a", "b"}},
		{name: "Reject_LoweredLimitEndsNobody",
			held: list{Anon("a"), Anon("b")}, rule: Reject(1, streams), newcomer: Anon("n"),
			refused: true, after: []string{"a", "b"}},

		// Limit 0.
		{name: "LimitZero_TracksWithoutLimit",
			held: list{Anon("a"), Device("b", "C")}, rule: Supersede(0, streams), newcomer: Device("n", "C"),
			after: []string{"a", "b", "n"}},
		{name: "LimitZero_RejectRefusesNobody",
			held: list{Anon("a"), Anon("b")}, reserved: list{Anon("r")}, rule: Reject(0, streams), newcomer: Anon("n"),
			after: []string{"a", "b", "n"}},
		{name: "LimitZero_ClientsAreNotEvicted",
			held: list{Device("a", "A"), Device("b", "B")}, rule: Supersede(0, clients), newcomer: Device("n", "C"),
			after: []string{"a", "b", "n"}},
		{name: "LimitZero_TabStillReplacesItself",
			held: list{Anon("a"), Tab("b", "T")}, rule: Supersede(0, streams), newcomer: Tab("n", "T"),
			ends: []string{"b replaced"}, after: []string{"a", "n"}},

		// Tabs.
		{name: "Tab_ReplacesItselfThoughTheKeyIsNotFull",
			held: list{Tab("a", "T"), Anon("b")}, rule: Supersede(5, streams), newcomer: Tab("n", "T"),
			ends: []string{"a replaced"}, after: []string{"b", "n"}},
		{name: "Tab_ReplacesItselfBeforeTheOldest",
			held: list{Anon("a"), Tab("b", "T")}, rule: Supersede(2, streams), newcomer: Tab("n", "T"),
			ends: []string{"b replaced"}, after: []string{"a", "n"}},
		{name: "Tab_ReplacesItselfAndThenTheOldest",
			held: list{Anon("a"), Tab("b", "T"), Anon("c")}, rule: Supersede(2, streams), newcomer: Tab("n", "T"),
			ends: []string{"a superseded", "b replaced"}, after: []string{"c", "n"}},
		{name: "Tab_ReplacesAllItsOlderStreams",
			held: list{Device("a", "T"), Anon("b"), Device("c", "T")}, rule: Supersede(9, streams), newcomer: Tab("n", "T"),
			ends: []string{"a replaced", "c replaced"}, after: []string{"b", "n"}},
		{name: "Tab_OtherTabIsSuperseded",
			held: list{Tab("a", "S")}, rule: Supersede(1, streams), newcomer: Tab("n", "T"),
			ends: []string{"a superseded"}, after: []string{"n"}},
		{name: "Tab_ReplacesItselfUnderReject",
			held: list{Tab("a", "T")}, rule: Reject(1, streams), newcomer: Tab("n", "T"),
			ends: []string{"a replaced"}, after: []string{"n"}},
		{name: "Tab_OwnReservationDoesNotCountUnderReject",
			reserved: list{Tab("r", "T")}, rule: Reject(1, streams), newcomer: Tab("n", "T"), after: []string{"n"}},
		{name: "Tab_OwnDeviceReservationCountsUnderReject", // it would not end the tab's stream
			reserved: list{Device("r", "T")}, rule: Reject(1, streams), newcomer: Tab("n", "T"), refused: true},
		{name: "Tab_OthersCountUnderReject",
			held: list{Tab("a", "T"), Anon("b")}, rule: Reject(1, streams), newcomer: Tab("n", "T"),
			refused: true, after: []string{"a", "b"}},
		{name: "Tab_OtherTabIsRefused",
			held: list{Tab("a", "S")}, rule: Reject(1, streams), newcomer: Tab("n", "T"),
			refused: true, after: []string{"a"}},
		{name: "Tab_EndsOnlyItselfUnderReject",
			held: list{Anon("a"), Tab("b", "T"), Anon("c")}, rule: Reject(3, streams), newcomer: Tab("n", "T"),
			ends: []string{"b replaced"}, after: []string{"a", "c", "n"}},
		{name: "Tab_WithoutClientIDIsLikeAnyStream",
			held: list{Tab("a", "")}, rule: Supersede(2, streams), newcomer: Tab("n", ""),
			after: []string{"a", "n"}},

		// Devices.
		{name: "Device_DoesNotReplaceItselfBelowTheLimit",
			held: list{Device("a", "D")}, rule: Supersede(2, streams), newcomer: Device("n", "D"),
			after: []string{"a", "n"}},
		{name: "Device_ReplacesItselfBeforeTheOldest",
			held: list{Anon("a"), Device("b", "D")}, rule: Supersede(2, streams), newcomer: Device("n", "D"),
			ends: []string{"b replaced"}, after: []string{"a", "n"}},
		{name: "Device_ReplacesItsOldestOnly",
			held: list{Anon("a"), Device("b", "D"), Device("c", "D")}, rule: Supersede(3, streams), newcomer: Device("n", "D"),
			ends: []string{"b replaced"}, after: []string{"a", "c", "n"}},
		{name: "Device_ReplacesItselfAndThenTheOldest",
			held: list{Anon("a"), Device("b", "D"), Anon("c")}, rule: Supersede(2, streams), newcomer: Device("n", "D"),
			ends: []string{"a superseded", "b replaced"}, after: []string{"c", "n"}},
		{name: "Device_LoweredLimitEndsItsOwnOnce",
			held: list{Device("a", "D"), Anon("b"), Anon("c")}, rule: Supersede(1, streams), newcomer: Device("n", "D"),
			ends: []string{"a replaced", "b superseded", "c superseded"}, after: []string{"n"}},
		{name: "Device_SecondTabIsLikeAnyNewcomerUnderReject",
			held: list{Device("a", "D")}, rule: Reject(1, streams), newcomer: Device("n", "D"),
			refused: true, after: []string{"a"}},
		{name: "Device_EndsNobodyUnderReject",
			held: list{Device("a", "D")}, rule: Reject(2, streams), newcomer: Device("n", "D"),
			after: []string{"a", "n"}},

		// Clients.
		{name: "Clients_OneClientCountsOnce",
			held: list{Device("a", "C"), Device("b", "C")}, rule: Supersede(1, clients), newcomer: Device("n", "C"),
			after: []string{"a", "b", "n"}},
		{name: "Clients_WholeClientGoes",
			held: list{Device("a", "C"), Device("b", "C")}, rule: Supersede(1, clients), newcomer: Device("n", "D"),
			ends: []string{"a superseded", "b superseded"}, after: []string{"n"}},
		{name: "Clients_NewestStreamOldestGoesFirst",
			held: list{Device("a", "C"), Device("b", "D"), Device("c", "C")}, rule: Supersede(2, clients), newcomer: Device("n", "E"),
			ends: []string{"b superseded"}, after: []string{"a", "c", "n"}},
		{name: "Clients_StreamsWithoutClientCountEach",
			held: list{Anon("a"), Anon("b")}, rule: Supersede(2, clients), newcomer: Anon("n"),
			ends: []string{"a superseded"}, after: []string{"b", "n"}},
		{name: "Clients_NeverTheNewcomersOwn",
			held: list{Device("a", "C"), Device("b", "D"), Device("c", "E")}, rule: Supersede(1, clients), newcomer: Device("n", "C"),
			ends: []string{"b superseded", "c superseded"}, after: []string{"a", "n"}},
		{name: "Clients_EndsAreOldestFirstAcrossClients",
			held: list{Device("a", "C"), Device("b", "D"), Device("c", "C"), Device("d", "D")}, rule: Supersede(1, clients), newcomer: Anon("n"),
			ends: []string{"a superseded", "b superseded", "c superseded", "d superseded"}, after: []string{"n"}},
		{name: "Clients_TabReplacesItself",
			held: list{Device("a", "T"), Device("b", "D")}, rule: Supersede(2, clients), newcomer: Tab("n", "T"),
			ends: []string{"a replaced"}, after: []string{"b", "n"}},
		{name: "Clients_TabReplacesItselfAndOthersGo",
			held: list{Device("a", "T"), Device("b", "D")}, rule: Supersede(1, clients), newcomer: Tab("n", "T"),
			ends: []string{"a replaced", "b superseded"}, after: []string{"n"}},
		{name: "Clients_RejectProtectsClients",
			held: list{Device("a", "C"), Device("b", "C")}, rule: Reject(1, clients), newcomer: Device("n", "D"),
			refused: true, after: []string{"a", "b"}},
		{name: "Clients_RejectAdmitsAHoldingClient",
			held: list{Device("a", "C")}, rule: Reject(1, clients), newcomer: Device("n", "C"),
			after: []string{"a", "n"}},
		{name: "Clients_RejectAdmitsAReservingClient",
			reserved: list{Device("r", "C")}, rule: Reject(1, clients), newcomer: Device("n", "C"), after: []string{"n"}},
		{name: "Clients_RejectCountsReservedClientsOnce",
			held: list{Device("a", "C")}, reserved: list{Device("r", "C")}, rule: Reject(2, clients), newcomer: Device("n", "D"),
			after: []string{"a", "n"}},
		{name: "Clients_RejectCountsReservedClients",
			held: list{Device("a", "C")}, reserved: list{Device("r", "D")}, rule: Reject(2, clients), newcomer: Anon("n"),
			refused: true, after: []string{"a"}},
		{name: "Clients_HoldingClientTakesNoFurtherPlaceUnderALoweredLimit",
			held: list{Device("a", "C"), Device("b", "D")}, rule: Reject(1, clients), newcomer: Device("n", "C"),
			after: []string{"a", "b", "n"}},
	}
}

// testAdmission asks for each case in all three ways.
func testAdmission(t *testing.T, open Open) {
	for _, test := range admissionCases() {
		t.Run(test.name, func(t *testing.T) {
			t.Run("Early", func(t *testing.T) { test.early(t, open.site(t)) })
			t.Run("Header", func(t *testing.T) { test.header(t, open.site(t)) })
			t.Run("Reserve", func(t *testing.T) { test.reserve(t, open.site(t)) })
		})
	}
	t.Run("KeysDoNotMeet", func(t *testing.T) {
		s := open.site(t)
		a, b := Tab("a", "T"), withKey(Tab("b", "T"), "another key")
		s.hold(t, a, Supersede(1, registry.Streams))
		s.hold(t, b, Supersede(1, registry.Streams))
		require.Empty(t, s.node.Ended(), "the same tab holds both")
		require.Equal(t, []string{"a"}, s.holders(t, "key"))
		require.Equal(t, []string{"b"}, s.holders(t, "another key"))
	})
	t.Run("ZeroKeyIsRefused", func(t *testing.T) { testZeroKey(t, open.site(t)) })
}

// prepare opens the streams that are there before.
func (c admissionCase) prepare(t *testing.T, s site) {
	s.holdAll(t, c.held...)
	for _, h := range c.reserved {
		s.reserve(t, h, Track)
	}
}

// outcome is that of the case's question.
func (c admissionCase) outcome() registry.Outcome {
	if c.refused {
		return registry.Rejected
	}
	return registry.Admitted
}

func (c admissionCase) early(t *testing.T, s site) {
	c.prepare(t, s)
	a := s.ask(t, registry.Early, c.newcomer, c.rule)
	require.Equal(t, c.refused, a.Outcome == registry.Rejected)
	require.Equal(t, len(c.ends) == 0 && !c.refused, a.Outcome == registry.Admitted, "without consent nobody is ended")
	require.Equal(t, sorted(c.held), s.holders(t, "key"), "nothing has changed")

	a = s.askWith(t, registry.Early, anyToken, c.newcomer, c.rule)
	require.Equal(t, c.outcome(), a.Outcome)
	require.Equal(t, c.ends, told(a.Ends))
	c.requireEnded(t, s)
	var after []string
	for _, name := range c.after {
		if name != c.newcomer.Addr {
			after = append(after, name)
		}
	}
	require.Equal(t, after, s.holders(t, "key"), "an early question has no place")
	s.hold(t, Anon("z"), Track)
}

func (c admissionCase) header(t *testing.T, s site) {
	c.prepare(t, s)
	a := s.ask(t, registry.Header, c.newcomer, c.rule)
	require.Equal(t, c.outcome(), a.Outcome)
	require.Equal(t, c.ends, told(a.Ends))
	if c.refused {
		require.Equal(t, c.after, names(a.Holders))
	}
	c.requireEnded(t, s)
	require.Equal(t, c.after, s.holders(t, "key"))
}

func (c admissionCase) reserve(t *testing.T, s site) {
	c.prepare(t, s)
	a := s.ask(t, registry.Reserve, c.newcomer, c.rule)
	require.Equal(t, c.outcome(), a.Outcome)
	require.Equal(t, c.ends, told(a.Ends), "it tells whom the commit would end")
	require.Equal(t, sorted(c.held), s.holders(t, "key"), "reserving ends nobody")
	require.Empty(t, s.node.Ended())
	if c.refused {
		require.Equal(t, c.after, names(a.Holders))
		return
	}
	require.Equal(t, c.ends, told(commit(t, a.Place)))
	c.requireEnded(t, s)
	require.Equal(t, c.after, s.holders(t, "key"))
}

// requireEnded checks that each victim was ended once, and nobody else.
func (c admissionCase) requireEnded(t *testing.T, s site) {
	var ended []string
	for _, h := range c.held {
		for _, e := range s.node.Endings(h.ID) {
			require.Equal(t, c.newcomer.Addr, e.By)
			require.Equal(t, c.newcomer.ID, e.For)
			ended = append(ended, h.Addr+" "+string(e.Reason))
		}
	}
	require.Equal(t, c.ends, ended, "each victim is ended once")
	require.Len(t, s.node.Ended(), len(c.ends), "and nobody else")
}

func testZeroKey(t *testing.T, s site) {
	nameless := withKey(Anon("a"), "")
	for _, phase := range []registry.Phase{registry.Early, registry.Header, registry.Reserve} {
		asks := []registry.Ask{{Holder: Anon("b"), Rule: Track}, {Holder: nameless, Rule: Track}}
		as, err := s.Admit(context.Background(), phase, anyToken, asks, nil)
		require.ErrorIs(t, err, registry.ErrNoKey)
		require.Empty(t, as)
	}
	_, err := s.Wait(context.Background(), registry.Ask{Holder: nameless, Rule: Track})
	require.ErrorIs(t, err, registry.ErrNoKey)
	s.requireEmpty(t)
}

func testPhases(t *testing.T, open Open) {
	one := Supersede(1, registry.Streams)
	runSpecs(t, open, []spec{
		{"LastToCommitIsTheNewest", func(t *testing.T, s site) {
			a, b := Anon("a"), Anon("b")
			first, second := s.reserve(t, a, one), s.reserve(t, b, one)
			require.Empty(t, commit(t, second))
			require.Equal(t, []string{"b superseded"}, told(commit(t, first)))
			require.Equal(t, []string{"a"}, s.holders(t, "key"))
			require.Empty(t, s.node.Endings(a.ID))
		}},
		{"OfTwoReservedStreamsOfATabOneStays", func(t *testing.T, _ site) {
			for _, rule := range []registry.Rule{Reject(1, registry.Streams), Reject(1, registry.Clients), one} {
				s := open.site(t)
				a, b := Tab("a", "T"), Tab("b", "T")
				first, second := s.reserve(t, a, rule), s.reserve(t, b, rule)
				commit(t, second)
				require.Equal(t, []string{"b replaced"}, told(commit(t, first)), rule)
				require.Equal(t, []string{"a"}, s.holders(t, "key"))
			}
		}},
		{"CommitAfterLeaveIsRefused", func(t *testing.T, s site) {
			s.hold(t, Anon("a"), Track)
			p := s.reserve(t, Anon("b"), one)
			p.Leave(registry.Keep{})
			victims, err := p.Commit(context.Background())
			require.Error(t, err)
			require.Empty(t, victims)
			require.Equal(t, []string{"a"}, s.holders(t, "key"))
			require.Empty(t, s.node.Ended())
		}},
		{"CommitOfAHeldPlaceIsRefused", func(t *testing.T, s site) {
			reserved := s.reserve(t, Anon("a"), Track)
			commit(t, reserved)
			for _, p := range []registry.Place{reserved, s.hold(t, Anon("b"), Track)} {
				_, err := p.Commit(context.Background())
				require.Error(t, err)
			}
			require.Equal(t, []string{"a", "b"}, s.holders(t, "key"))
		}},
		{"HeaderEndsWithoutConsent", func(t *testing.T, s site) {
			a := withToken(Anon("a"), "another token")
			s.holdAll(t, a)
			require.Equal(t, []string{"a superseded"}, told(s.ask(t, registry.Header, Anon("n"), one).Ends))
			require.Equal(t, []registry.Ending{{Reason: reason.Superseded, By: "n", For: s.find(t, registry.Selector{All: true})[0].ID}},
				s.node.Endings(a.ID))
		}},
		{"EarlyEndsAllOrNone", testConsent},
		{"EarlyWithoutConsentSaysWhomItWouldEnd", func(t *testing.T, s site) {
			s.holdAll(t, Anon("a"), Anon("b"))
			a := s.ask(t, registry.Early, Anon("n"), one)
			require.Equal(t, registry.Undecided, a.Outcome)
			require.Equal(t, []string{"a superseded", "b superseded"}, told(a.Ends))
			require.Equal(t, []string{"a", "b"}, s.holders(t, "key"))
			require.Empty(t, s.node.Ended())
		}},
		{"NodeMayCallBack", testNodeMayCallBack},
	})
}

func testConsent(t *testing.T, s site) {
	holder := func(name, token, subject string) *registry.Holder {
		h := withToken(Anon(name), token)
		h.Subject = ID(subject)
		return h
	}
	s.holdAll(t, holder("token", "T", ""), holder("subject", "another", "S"))
	newcomer, rule := holder("n", "T", "S"), Supersede(1, registry.Streams)
	stranger := holder("n", "", "")
	for _, c := range []struct {
		consent  registry.Consent
		newcomer *registry.Holder
	}{
		{registry.Consent{}, newcomer},
		{registry.Consent{SameToken: true}, newcomer},
		{registry.Consent{SameSubject: true}, newcomer},
		{registry.Consent{SameToken: true, SameSubject: true}, stranger},
	} {
		require.Equal(t, registry.Undecided, s.askWith(t, registry.Early, c.consent, c.newcomer, rule).Outcome)
		require.Equal(t, []string{"subject", "token"}, s.holders(t, "key"))
	}
	require.Empty(t, s.node.Ended())
	both := registry.Consent{SameToken: true, SameSubject: true}
	a := s.askWith(t, registry.Early, both, newcomer, rule)
	require.Equal(t, registry.Admitted, a.Outcome)
	require.Equal(t, []string{"token superseded", "subject superseded"}, told(a.Ends))
	require.Empty(t, s.holders(t, "key"))
}

func testNodeMayCallBack(t *testing.T, s site) {
	if remote, ok := s.Registry.(Remote); ok {
		remote.OnlyCalls()
	}
	a, b := Device("a", "D"), Device("b", "D")
	var p registry.Place
	var during []string
	s.node.OnEnd = func(registry.StreamID, registry.Ending) {
		during = s.holders(t, "key")
		s.end(t, registry.Selector{Token: ID("nobody's token")}, registry.Ending{})
		leaveAndDepart(p)
	}
	rule := Supersede(1, registry.Streams)
	p = s.hold(t, a, rule)
	s.hold(t, b, rule)
	require.Equal(t, []string{"b"}, during, "no lock is held, and the ended stream counts no more")
	s.node.OnEnd = func(registry.StreamID, registry.Ending) { during = s.holders(t, "key") }
	s.end(t, registry.Selector{Key: b.Key}, registry.Ending{})
	require.Empty(t, during)
}
