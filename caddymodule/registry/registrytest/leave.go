package registrytest

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

func testLeave(t *testing.T, open Open) {
	runSpecs(t, open, []spec{
		{"RemovesItsOwnPlaceOnly", func(t *testing.T, s site) {
			rule := Supersede(1, registry.Streams)
			old, fresh := s.hold(t, Anon("a"), rule), s.hold(t, Anon("b"), rule)
			ended := len(s.node.Ended())
			leaveAndDepart(old)
			leaveAndDepart(old)
			require.Equal(t, []string{"b"}, s.holders(t, "key"), "a superseded stream leaves its successor alone")

			leaveAndDepart(fresh)
			leaveAndDepart(fresh)
			require.Empty(t, s.holders(t, "key"))
			require.Len(t, s.node.Ended(), ended, "who leaves by itself is not ended")
			s.requireEmpty(t)
		}},
		{"OfAReservationFreesThePlace", func(t *testing.T, s site) {
			rule := Reject(1, registry.Streams)
			p := s.reserve(t, Anon("a"), rule)
			require.Equal(t, registry.Rejected, s.ask(t, registry.Early, Anon("b"), rule).Outcome)
			leaveAndDepart(p)
			require.Equal(t, registry.Admitted, s.ask(t, registry.Early, Anon("b"), rule).Outcome)
			s.requireEmpty(t)
		}},
		{"OfAnEndedStreamChangesNothing", func(t *testing.T, s site) {
			a := Anon("a")
			p := s.hold(t, a, Track)
			s.end(t, registry.Selector{ID: a.ID}, registry.Ending{})
			again := *a
			s.hold(t, &again, Track) // under the same name
			p.Leave(registry.Keep{})
			p.Departed()
			require.Equal(t, []string{"a"}, s.holders(t, "key"))
			require.Len(t, s.find(t, registry.Selector{ID: a.ID}), 1)
		}},
		{"ThenDepartedLeavesNothing", func(t *testing.T, s site) {
			for _, order := range []func(registry.Place){
				leaveAndDepart,
				func(p registry.Place) { p.Departed(); p.Leave(registry.Keep{}) },
				func(p registry.Place) { p.Departed(); p.Departed(); leaveAndDepart(p) },
			} {
				order(s.hold(t, Device("a", "D"), Track))
				order(s.reserve(t, Device("b", "D"), Track))
				s.requireEmpty(t)
			}
		}},
	})
}
