package registrytest

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

func testDepartures(t *testing.T, open Open) {
	one := Supersede(1, registry.Streams)
	runSpecs(t, open, []spec{
		{"OfTheVictims", func(t *testing.T, s site) {
			a, b := s.hold(t, Anon("a"), Track), s.hold(t, Anon("b"), Track)
			got := s.askWith(t, registry.Early, anyToken, Anon("n"), one)
			require.Equal(t, []string{"a superseded", "b superseded"}, told(got.Ends))
			require.False(t, isClosed(got.Departed))
			a.Leave(registry.Keep{})
			b.Leave(registry.Keep{})
			a.Departed()
			a.Departed()
			require.False(t, isClosed(got.Departed), "one is still there")
			b.Departed()
			require.True(t, isClosed(got.Departed))
			s.requireEmpty(t)
		}},
		{"OfTheSameClientThatLeft", testDepartureOfClient},
		{"OfAVictimThatHasDepartedAlready", func(t *testing.T, s site) {
			p := s.hold(t, Anon("a"), Track)
			p.Departed()
			got := s.askWith(t, registry.Early, anyToken, Anon("n"), one)
			require.Len(t, got.Ends, 1)
			require.True(t, isClosed(got.Departed))
			p.Leave(registry.Keep{})
			s.requireEmpty(t)
		}},
		{"AreOfOneKey", func(t *testing.T, s site) {
			p := s.hold(t, withKey(Device("a", "D"), "another"), Track)
			p.Leave(registry.Keep{})
			require.Nil(t, s.ask(t, registry.Early, Device("n", "D"), one).Departed)
			p.Departed()
			s.requireEmpty(t)
		}},
		{"OfWhomWasEnded", func(t *testing.T, s site) {
			a := s.hold(t, Anon("a"), Track)
			b := s.hold(t, withKey(Anon("b"), "another"), Track)
			ended := s.end(t, registry.Selector{Token: ID("token")}, registry.Ending{})
			require.Len(t, ended.Holders, 2)
			b.Departed()
			require.False(t, isClosed(ended.Departed))
			a.Departed()
			require.True(t, isClosed(ended.Departed))
			require.Nil(t, s.end(t, registry.Selector{Token: ID("token")}, registry.Ending{}).Departed)
			s.requireEmpty(t)
		}},
		{"OfWhomOthersEnded", func(t *testing.T, s site) {
			p := s.hold(t, Device("a", "D"), Track)
			q := s.hold(t, Device("b", "E"), one)
			got := s.ask(t, registry.Early, Device("n", "D"), Supersede(0, registry.Streams))
			require.False(t, isClosed(got.Departed), "another superseded it")
			p.Departed()
			require.True(t, isClosed(got.Departed))
			leaveAndDepart(q)
			s.requireEmpty(t)
		}},
		{"OfAWholeRequest", func(t *testing.T, s site) {
			old := s.askAll(t, registry.Header, newResponse("old").of("store", one).of("user", one))
			other := s.hold(t, withKey(Anon("other"), "user"), Track)
			as := s.askAll(t, registry.Early, newResponse("n").of("store", one).of("user", one))
			_, ends := outcomes(as)
			require.Equal(t, []string{"old/store superseded", "other superseded"}, ends)
			old[0].Place.Departed()
			require.True(t, isClosed(as[0].Departed))
			require.False(t, isClosed(as[1].Departed))
			other.Departed()
			require.True(t, isClosed(as[1].Departed))
		}},
	})
}

func testDepartureOfClient(t *testing.T, s site) {
	for _, unit := range []registry.Unit{registry.Streams, registry.Clients} {
		for _, policy := range []registry.Policy{registry.Supersede, registry.Reject} {
			for _, keep := range []registry.Keep{{}, forAnHour} {
				rule := registry.Rule{Policy: policy, Limit: 2, Unit: unit}
				first, second := s.hold(t, fingerprinted("a", "F"), Track), s.hold(t, fingerprinted("b", "F"), Track)
				first.Leave(keep)
				one := s.ask(t, registry.Early, fingerprinted("n", "F"), rule)
				require.False(t, isClosed(one.Departed))
				second.Leave(keep)
				both := s.ask(t, registry.Early, fingerprinted("n", "F"), rule)
				again := s.ask(t, registry.Early, fingerprinted("n", "F"), rule)
				if keep == (registry.Keep{}) {
					require.Nil(t, s.ask(t, registry.Early, fingerprinted("n", "G"), rule).Departed, "another client need not wait")
				}
				first.Departed()
				require.True(t, isClosed(one.Departed))
				require.False(t, isClosed(both.Departed))
				second.Departed()
				require.True(t, isClosed(both.Departed))
				require.True(t, isClosed(again.Departed))
				require.Nil(t, s.ask(t, registry.Early, fingerprinted("n", "F"), rule).Departed)
				s.end(t, registry.Selector{All: true}, registry.Ending{})
				s.requireEmpty(t)
			}
		}
	}
	require.Empty(t, s.node.Ended())
}
