package registrytest

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// yielding makes h a stream that no page can read.
func yielding(h *registry.Holder) *registry.Holder {
	h.Yields = true
	return h
}

func testYields(t *testing.T, open Open) {
	rules := []registry.Rule{
		Supersede(1, registry.Streams), Reject(1, registry.Streams),
		Supersede(1, registry.Clients), Reject(1, registry.Clients),
	}
	forEach := func(name string, run func(*testing.T, site, registry.Rule)) spec {
		return spec{name, func(t *testing.T, s site) {
			for _, rule := range rules {
				run(t, s, rule)
				s.end(t, registry.Selector{All: true}, registry.Ending{})
			}
		}}
	}
	runSpecs(t, open, []spec{
		forEach("EndsNobody", func(t *testing.T, s site, rule registry.Rule) {
			s.hold(t, Tab("holder", "tab"), rule)
			for _, phase := range allPhases {
				newcomer := yielding(Tab("n", "another tab"))
				a, err := s.Admit(context.Background(), phase, anyToken, []registry.Ask{{Holder: newcomer, Rule: rule}}, nil)
				require.NoError(t, err)
				require.Equal(t, registry.Rejected, a[0].Outcome)
			}
			require.Equal(t, []string{"holder"}, s.holders(t, "key"))
		}),
		{"ReplacesNoStreamOfItsClient", func(t *testing.T, s site) {
			two := Supersede(2, registry.Streams)
			s.hold(t, Tab("holder", "tab"), two)
			require.Empty(t, s.ask(t, registry.Header, yielding(Tab("n", "tab")), two).Ends)
			require.Equal(t, registry.Rejected, s.ask(t, registry.Header, yielding(Device("m", "tab")), two).Outcome)
			require.Equal(t, []string{"holder", "n"}, s.holders(t, "key"))
		}},
		forEach("GoesForTheFirstNewcomer", func(t *testing.T, s site, rule registry.Rule) {
			s.hold(t, yielding(Anon("y")), rule)
			require.Equal(t, registry.Rejected, s.ask(t, registry.Header, yielding(Anon("another")), rule).Outcome)
			a := s.ask(t, registry.Header, Anon("n"), rule)
			require.Equal(t, []string{"y superseded"}, told(a.Ends))
			require.Equal(t, []string{"n"}, s.holders(t, "key"))
		}),
		forEach("GoesForANewcomerThatShowsATombstoneOrFlaps", func(t *testing.T, s site, rule registry.Rule) {
			s.hold(t, yielding(Anon("y")), rule)
			require.Equal(t, []string{"y superseded"}, told(s.damped(t, registry.Header, Anon("n"), rule).Ends))
		}),
		{"GoesBeforeKeptPlacesAndOwnStreams", func(t *testing.T, s site) {
			four := Supersede(4, registry.Streams)
			s.hold(t, Device("own", "device"), four)
			s.hold(t, fingerprinted("kept", "f"), four).Leave(forAnHour)
			s.hold(t, Anon("proper"), four)
			s.hold(t, yielding(Anon("y")), four)
			require.Equal(t, []string{"y superseded"}, told(s.ask(t, registry.Header, Device("n", "device"), four).Ends))
		}},
		{"TakesNoKeptPlace", func(t *testing.T, s site) {
			one := Reject(1, registry.Streams)
			s.hold(t, fingerprinted("kept", "f"), one).Leave(forAnHour)
			require.Equal(t, registry.Rejected, s.ask(t, registry.Header, yielding(fingerprinted("y", "f")), one).Outcome)
			s.hold(t, fingerprinted("back", "f"), one)
		}},
		{"IsKeptNoPlace", func(t *testing.T, s site) {
			s.hold(t, yielding(fingerprinted("y", "f")), Track).Leave(forAnHour)
			require.Empty(t, s.holders(t, "key"))
		}},
		{"IsNoHolderToThoseWhoWait", func(t *testing.T, s site) {
			one := Reject(1, registry.Streams)
			s.hold(t, yielding(Anon("y")), one)
			require.Equal(t, []bool{true}, free(s.wait(t, Anon("w"), one)))
			s.hold(t, Anon("holder"), one)
			_, err := s.Wait(context.Background(), registry.Ask{Holder: yielding(Anon("another")), Rule: one})
			require.ErrorIs(t, err, registry.ErrManyWaiters)
		}},
		forEach("HasNoPlaceWhereOthersCameBeforeItsCommit", func(t *testing.T, s site, rule registry.Rule) {
			y := s.reserve(t, yielding(Anon("y")), rule)
			s.hold(t, Anon("n"), rule)
			victims, err := y.Commit(context.Background())
			require.ErrorIs(t, err, registry.ErrOutasked)
			require.Empty(t, victims)
			require.Equal(t, []string{"n"}, s.holders(t, "key"))
		}),
		{"TheClientThatOnlyYieldsGoesFirst", func(t *testing.T, s site) {
			for _, rule := range []registry.Rule{Supersede(2, registry.Clients), Reject(2, registry.Clients)} {
				s.hold(t, Device("a", "a"), rule)
				s.hold(t, yielding(Device("a2", "a")), rule)
				s.hold(t, yielding(Device("b", "b")), rule)
				s.hold(t, yielding(Device("b2", "b")), rule)
				a := s.ask(t, registry.Header, Device("n", "n"), rule)
				require.ElementsMatch(t, []string{"b superseded", "b2 superseded"}, told(a.Ends))
				require.Equal(t, []string{"a", "a2", "n"}, s.holders(t, "key"))
				s.end(t, registry.Selector{All: true}, registry.Ending{Reason: reason.Logout})
			}
		}},
	})
}
