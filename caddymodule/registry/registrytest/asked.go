package registrytest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// asking returns a function that has a stream ask so many seconds after all began.
func asking() func(h *registry.Holder, second int) *registry.Holder {
	began := time.Now()
	return func(h *registry.Holder, second int) *registry.Holder {
		h.Asked = began.Add(time.Duration(second) * time.Second)
		return h
	}
}

// Who asked last has the key, not who was answered last.
func testAsked(t *testing.T, open Open) {
	one, two, oneClient := Supersede(1, registry.Streams), Supersede(2, registry.Streams), Supersede(1, registry.Clients)
	phases := []registry.Phase{registry.Early, registry.Reserve, registry.Header}
	outasked := func(t *testing.T, s site, h *registry.Holder, rule registry.Rule, by string) {
		t.Helper()
		before := s.holders(t, "key")
		for _, phase := range phases {
			a := s.askWith(t, phase, anyToken, h, rule)
			require.Equal(t, registry.Outasked, a.Outcome)
			require.Equal(t, []string{by}, names(a.Holders))
		}
		require.Equal(t, before, s.holders(t, "key"))
		require.Empty(t, s.node.Ended())
	}
	runSpecs(t, open, []spec{
		{"WhoAskedBeforeTheHolderIsOutasked", func(t *testing.T, s site) {
			at := asking()
			s.hold(t, at(Anon("newer"), 2), one)
			outasked(t, s, at(Anon("late"), 1), one, "newer")
			require.Equal(t, []string{"newer superseded"}, told(s.ask(t, registry.Header, at(Anon("newest"), 3), one).Ends))
		}},
		{"AnEndingTellsWhenTheNewcomerAsked", func(t *testing.T, s site) {
			at := asking()
			older, newer := at(Anon("older"), 1), at(Anon("newer"), 60)
			s.hold(t, older, one)
			s.hold(t, newer, one)
			if asked := s.node.Asked(older.ID); !asked.IsZero() { // a registry need not tell
				require.WithinDuration(t, newer.Asked, asked, time.Second)
			}
		}},
		{"OfTwoThatAskedAtOnceTheLaterAdmittedIsNewer", func(t *testing.T, s site) {
			at := asking()
			s.hold(t, at(Anon("a"), 1), one)
			require.Equal(t, []string{"a superseded"}, told(s.ask(t, registry.Header, at(Anon("b"), 1), one).Ends))
		}},
		{"TheOldestByAskingMakesRoom", func(t *testing.T, s site) {
			at := asking()
			s.hold(t, at(Anon("c"), 3), two)
			s.hold(t, at(Anon("a"), 1), two) // there is room for it
			require.Equal(t, []string{"a superseded"}, told(s.ask(t, registry.Header, at(Anon("b"), 2), two).Ends))
			require.Equal(t, []string{"b", "c"}, s.holders(t, "key"))
		}},
		{"AFreePlaceIsForWhoAskedEarlierToo", func(t *testing.T, s site) {
			at := asking()
			s.hold(t, at(Anon("newer"), 2), two)
			require.Empty(t, s.ask(t, registry.Header, at(Anon("late"), 1), two).Ends)
			require.Equal(t, []string{"late", "newer"}, s.holders(t, "key"))
		}},
		{"UnderRejectWhoWasAdmittedFirstStays", func(t *testing.T, s site) {
			at := asking()
			s.hold(t, at(Anon("newer"), 2), Reject(1, registry.Streams))
			require.Equal(t, registry.Rejected, s.ask(t, registry.Header, at(Anon("late"), 1), Reject(1, registry.Streams)).Outcome)
		}},
		{"ATabDoesNotReplaceItsNewerStream", func(t *testing.T, s site) {
			at := asking()
			s.hold(t, at(Tab("newer", "T"), 2), one)
			for _, rule := range []registry.Rule{one, Track, Reject(1, registry.Streams), oneClient} {
				outasked(t, s, at(Tab("late", "T"), 1), rule, "newer")
			}
		}},
		{"ADeviceDoesNotReplaceItsNewerStream", func(t *testing.T, s site) {
			at := asking()
			s.hold(t, at(Device("newer", "D"), 2), one)
			outasked(t, s, at(Device("late", "D"), 1), one, "newer")
			require.Empty(t, s.ask(t, registry.Header, at(Device("late", "D"), 1), oneClient).Ends, "one client")
		}},
		{"AClientIsAsOldAsItsYoungestStream", func(t *testing.T, s site) {
			at := asking()
			s.hold(t, at(Device("d1", "D"), 1), oneClient)
			s.hold(t, at(Device("d3", "D"), 3), oneClient)
			outasked(t, s, at(Device("late", "E"), 2), oneClient, "d3")
			require.Equal(t, []string{"d1 superseded", "d3 superseded"},
				told(s.ask(t, registry.Header, at(Device("e4", "E"), 4), oneClient).Ends))
		}},
		{"ATombstoneOfAKeyThatANewerOneHas", func(t *testing.T, s site) {
			at := asking()
			s.hold(t, at(Anon("newer"), 2), one)
			made := time.Now()
			as, err := s.Admit(context.Background(), registry.Header, registry.Consent{},
				[]registry.Ask{{Holder: at(Anon("late"), 1), Rule: one, Tombstone: &made}}, nil)
			require.NoError(t, err)
			require.Equal(t, registry.Entombed, as[0].Outcome)
		}},
		{"WhoIsOutaskedBetweenReserveAndCommitEndsNobody", func(t *testing.T, s site) {
			at := asking()
			s.hold(t, at(Anon("old"), 0), one)
			late := s.reserve(t, at(Anon("late"), 1), one)
			newer := s.hold(t, at(Anon("newer"), 2), one)
			victims, err := late.Commit(context.Background())
			require.ErrorIs(t, err, registry.ErrOutasked)
			require.Empty(t, victims)
			require.Equal(t, []string{"newer"}, s.holders(t, "key"))
			require.Len(t, s.node.Ended(), 1)
			leaveAndDepart(newer)
			require.Empty(t, s.holders(t, "key"))
		}},
		{"OneOfTwoGuardsIsEnough", func(t *testing.T, s site) {
			at := asking()
			s.hold(t, at(withKey(Anon("newer"), "user"), 2), one)
			s.hold(t, at(withKey(Anon("other"), "store"), 0), one)
			r := newResponse("late").of("store", one).of("user", one)
			for i := range r.asks {
				at(r.asks[i].Holder, 1)
			}
			out, ends := outcomes(s.askAll(t, registry.Reserve, r))
			require.Equal(t, []registry.Outcome{undecided, registry.Outasked}, out)
			require.Empty(t, ends)
			require.Equal(t, []string{"other"}, s.holders(t, "store"))
		}},
		{"EndTellsTheOldestFirst", func(t *testing.T, s site) {
			at := asking()
			for _, sel := range []registry.Selector{{Key: ID("key")}, {Token: ID("token")}} {
				s.holdAll(t, at(Anon("b"), 2), at(Anon("a"), 1), at(Anon("c"), 3))
				require.Equal(t, []string{"a", "b", "c"}, names(s.end(t, sel, registry.Ending{Reason: reason.Logout}).Holders))
			}
		}},
	})
}

// All ask at once, and are answered in any order, some at once and some in two steps.
func testLastAsked(t *testing.T, open Open) {
	const limit, each = 3, 50
	at := asking()
	for done, rounds := 0, 1; done < rounds; done++ {
		s := open.site(t)
		rounds = s.rounds(20)
		times := rand.Perm(goroutines * each) //nolint:gosec // a schedule need not be secret
		var mu sync.Mutex
		next := 0 // guarded by mu
		take := func() int {
			mu.Lock()
			defer mu.Unlock()
			next++
			return times[next-1]
		}
		race(rand.Uint64(), func(rnd *rand.Rand, _ string) { //nolint:gosec // a schedule need not be secret
			for range each {
				second := take()
				ask := registry.Ask{Holder: at(Anon(fmt.Sprintf("%03d", second)), second), Rule: Supersede(limit, registry.Streams)}
				phase := pick(rnd, []registry.Phase{registry.Header, registry.Reserve})
				as, err := s.Admit(context.Background(), phase, registry.Consent{}, []registry.Ask{ask}, nil)
				require.NoError(t, err)
				if p := as[0].Place; p != nil && phase == registry.Reserve {
					if _, err := p.Commit(context.Background()); err != nil {
						require.ErrorIs(t, err, registry.ErrOutasked)
					}
				}
			}
		})
		require.Equal(t, []string{"397", "398", "399"}, s.holders(t, "key"))
	}
}
