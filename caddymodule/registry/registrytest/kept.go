package registrytest

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

var forAnHour = registry.Keep{For: time.Hour}

// keep admits the streams, without a limit, and has their clients leave.
func (s site) keep(t *testing.T, hs ...*registry.Holder) []registry.Place {
	var places []registry.Place
	for _, h := range hs {
		places = append(places, s.hold(t, h, Track))
	}
	for _, p := range places {
		p.Leave(forAnHour)
		p.Departed()
	}
	return places
}

func testKept(t *testing.T, open Open) {
	one := Reject(1, registry.Streams)
	runSpecs(t, open, []spec{
		{"CountsAsHeldForOthers", func(t *testing.T, s site) {
			s.keep(t, fingerprinted("a", "F"))
			for _, n := range []*registry.Holder{Anon("n"), fingerprinted("n", "G"), Device("n", "D")} {
				for _, phase := range []registry.Phase{registry.Early, registry.Header, registry.Reserve} {
					a := s.ask(t, phase, n, one)
					require.Equal(t, registry.Rejected, a.Outcome)
					require.Empty(t, a.Suspects, "the client is known to have left")
				}
			}
			require.Equal(t, []string{"a"}, s.holders(t, "key"))
			require.Empty(t, s.node.Ended())
		}},
		{"SameClientHasItBack", testKeptComesBack},
		{"OneIsGivenUpPerNewcomer", func(t *testing.T, s site) {
			s.keep(t, fingerprinted("a", "F"), fingerprinted("b", "F"), fingerprinted("c", "G"))
			rule := Reject(3, registry.Streams)
			s.hold(t, fingerprinted("n1", "F"), rule)
			require.Len(t, s.holders(t, "key"), 3)
			s.hold(t, fingerprinted("n2", "F"), rule)
			require.Equal(t, []string{"c", "n1", "n2"}, s.holders(t, "key"))
			require.Equal(t, registry.Rejected, s.ask(t, registry.Header, fingerprinted("n3", "F"), rule).Outcome)
		}},
		{"ReservationTakesOneBackOnly", func(t *testing.T, s site) {
			s.keep(t, fingerprinted("a", "F"), fingerprinted("b", "F"))
			p := s.reserve(t, fingerprinted("n", "F"), Reject(2, registry.Streams))
			require.Len(t, s.holders(t, "key"), 1)
			require.Empty(t, commit(t, p))
			require.Len(t, s.holders(t, "key"), 2, "the other is kept on")
		}},
		{"ATabHasAllOfItsOwnBack", func(t *testing.T, s site) {
			s.keep(t, Device("a", "T"), Device("b", "T"), Tab("c", "S"))
			s.hold(t, Tab("n", "T"), Reject(3, registry.Streams))
			require.Equal(t, []string{"c", "n"}, s.holders(t, "key"))
		}},
		{"IsGivenUpThoughThereIsRoom", func(t *testing.T, s site) {
			s.keep(t, Device("a", "D"))
			s.hold(t, Device("n", "D"), Reject(9, registry.Streams))
			require.Equal(t, []string{"n"}, s.holders(t, "key"))
		}},
		{"IsGivenUpInTime", func(t *testing.T, s site) {
			first := s.hold(t, Anon("a"), Track)
			second := s.hold(t, Anon("b"), Track)
			w := s.wait(t, Anon("w"), one)
			first.Leave(registry.Keep{For: 10 * time.Millisecond})
			second.Leave(registry.Keep{For: time.Millisecond})
			require.Eventually(t, func() bool { return len(s.holders(t, "key")) == 0 }, soon, aWhile)
			require.Eventually(t, func() bool { return free(w)[0] }, soon, aWhile)
			require.Empty(t, s.node.Ended())
			first.Departed()
			second.Departed()
			s.requireEmpty(t)
		}},
		{"WaiterOfTheSameClientIsTold", func(t *testing.T, s site) {
			p := s.hold(t, fingerprinted("a", "F"), one)
			other, same := s.wait(t, Anon("o"), one), s.wait(t, fingerprinted("w", "F"), one)
			p.Leave(forAnHour)
			require.Equal(t, []bool{false, true}, free(other, same))
		}},
		{"SecondLeaveChangesNothing", func(t *testing.T, s site) {
			p := s.hold(t, Anon("a"), one)
			p.Leave(forAnHour)
			p.Leave(registry.Keep{})
			require.Equal(t, []string{"a"}, s.holders(t, "key"))
			q := s.hold(t, withKey(Anon("b"), "another"), one)
			q.Leave(registry.Keep{})
			q.Leave(forAnHour)
			require.Empty(t, s.holders(t, "another"))
		}},
		{"ReservationIsNotKept", func(t *testing.T, s site) {
			s.reserve(t, Anon("a"), one).Leave(forAnHour)
			require.Equal(t, registry.Admitted, s.ask(t, registry.Early, Anon("n"), one).Outcome)
		}},
		{"SupersededStreamIsNotKept", func(t *testing.T, s site) {
			p := s.hold(t, Anon("a"), Track)
			s.hold(t, Anon("b"), Supersede(1, registry.Streams))
			p.Leave(forAnHour)
			require.Equal(t, []string{"b"}, s.holders(t, "key"))
		}},
		{"YieldsFirst", testKeptYields},
		{"GoesWithAnEnd", func(t *testing.T, s site) {
			s.keep(t, Anon("a"))
			s.hold(t, Anon("b"), Track)
			ended := s.end(t, registry.Selector{Token: ID("token")}, registry.Ending{Reason: reason.Logout})
			require.ElementsMatch(t, []string{"a", "b"}, names(ended.Holders), "both held")
			require.Len(t, s.node.Ended(), 1, "a kept place has no stream to end")
			require.Empty(t, s.holders(t, "key"))
		}},
	})
}

// testKeptComesBack has clients come back by client id, and by fingerprint.
func testKeptComesBack(t *testing.T, s site) {
	clients := []func(name string) *registry.Holder{
		func(name string) *registry.Holder { return fingerprinted(name, "F") },
		func(name string) *registry.Holder { return Device(name, "D") },
		func(name string) *registry.Holder { return Tab(name, "T") },
	}
	for _, unit := range []registry.Unit{registry.Streams, registry.Clients} {
		for _, client := range clients {
			rule := Reject(1, unit)
			s.keep(t, client("old"))
			a := s.ask(t, registry.Early, client("n"), rule)
			require.Equal(t, registry.Admitted, a.Outcome)
			require.Empty(t, a.Ends)
			require.Equal(t, []string{"old"}, s.holders(t, "key"), "an early question takes nothing")

			p := s.reserve(t, client("r"), rule)
			require.Empty(t, s.holders(t, "key"), "it is given up for the reservation")
			require.Equal(t, registry.Rejected, s.ask(t, registry.Early, Anon("o"), rule).Outcome)
			require.Empty(t, commit(t, p))
			p.Leave(forAnHour)
			p.Departed()

			p = s.hold(t, client("n"), rule)
			require.Equal(t, []string{"n"}, s.holders(t, "key"))
			leaveAndDepart(p)
			s.requireEmpty(t)
		}
	}
	require.Empty(t, s.node.Ended(), "nobody is there to be ended")
}

func testKeptYields(t *testing.T, s site) {
	for _, unit := range []registry.Unit{registry.Streams, registry.Clients} {
		held := []registry.Place{s.hold(t, Device("a", "A"), Track)}
		s.keep(t, Device("k", "K"), fingerprinted("l", "L"))
		held = append(held, s.hold(t, Device("b", "B"), Track))
		two := Supersede(2, unit)

		a := s.askWith(t, registry.Early, anyToken, Device("n", "N"), Supersede(3, unit))
		require.Equal(t, registry.Admitted, a.Outcome)
		require.Empty(t, a.Ends)
		require.Equal(t, []string{"a", "b", "k", "l"}, s.holders(t, "key"), "none is given up early")
		a = s.ask(t, registry.Header, Device("n", "N"), two)
		require.Equal(t, []string{"a superseded"}, told(a.Ends), "where kept ones are not enough, the oldest goes")
		require.Equal(t, []string{"b", "n"}, s.holders(t, "key"))
		for _, p := range append(held, a.Place) {
			leaveAndDepart(p)
		}
	}

	// Of a client that must go, all goes.
	s.keep(t, Device("k", "C"))
	p := s.hold(t, Device("c", "C"), Track)
	a := s.ask(t, registry.Header, Device("d", "D"), Supersede(1, registry.Clients))
	require.Equal(t, []string{"c superseded"}, told(a.Ends))
	require.Equal(t, []string{"d"}, s.holders(t, "key"))
	leaveAndDepart(p)
	leaveAndDepart(a.Place)
	s.requireEmpty(t)
}
