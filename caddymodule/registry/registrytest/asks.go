package registrytest

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// response is a request with several guards, each with a key.
type response struct {
	name string
	id   registry.StreamID
	asks []registry.Ask
}

func newResponse(name string) *response { return &response{name: name, id: registry.NewStreamID()} }

// of adds a guard with a key of that name.
func (r *response) of(key string, rule registry.Rule) *response {
	h := withKey(Anon(r.name+"/"+key), key)
	h.ID = r.id.Nth(len(r.asks))
	r.asks = append(r.asks, registry.Ask{Holder: h, Rule: rule})
	return r
}

func (s site) askAll(
	t require.TestingT, phase registry.Phase, r *response, leaving ...registry.StreamID,
) []registry.Admission {
	as, err := s.Admit(context.Background(), phase, anyToken, r.asks, leaving)
	require.NoError(t, err)
	require.Len(t, as, len(r.asks))
	for _, a := range as {
		requireSound(t, phase, a)
	}
	return as
}

// outcomes returns those of the answers, and the victims of all.
func outcomes(as []registry.Admission) (out []registry.Outcome, ends []string) {
	for _, a := range as {
		out = append(out, a.Outcome)
		ends = append(ends, told(a.Ends)...)
	}
	return out, ends
}

const (
	undecided = registry.Undecided
	admitted  = registry.Admitted
	rejected  = registry.Rejected
	denied    = registry.Denied
)

func testAsks(t *testing.T, open Open) {
	one, rejectOne := Supersede(1, registry.Streams), Reject(1, registry.Streams)
	both := func(name string) *response { return newResponse(name).of("store", one).of("user", one) }
	runSpecs(t, open, []spec{
		{"AllAreAdmittedOrNone", func(t *testing.T, s site) {
			s.holdAll(t, withKey(Anon("a"), "store"), withKey(Anon("b"), "user"))
			for _, phase := range []registry.Phase{registry.Early, registry.Header, registry.Reserve} {
				out, _ := outcomes(s.askAll(t, phase, newResponse("n").of("store", one).of("user", rejectOne).of("site", one)))
				require.Equal(t, []registry.Outcome{undecided, rejected, undecided}, out)
				require.Equal(t, []string{"a"}, s.holders(t, "store"))
				require.Equal(t, []string{"b"}, s.holders(t, "user"))
				require.Empty(t, s.holders(t, "site"))
			}
			require.Empty(t, s.node.Ended())
		}},
		{"ConsentOfOneKeyIsNotEnough", func(t *testing.T, s site) {
			s.holdAll(t, withKey(Anon("a"), "store"), withToken(withKey(Anon("b"), "user"), "another token"))
			out, _ := outcomes(s.askAll(t, registry.Early, both("n")))
			require.Equal(t, []registry.Outcome{undecided, undecided}, out)
			require.Empty(t, s.node.Ended())
		}},
		{"AVictimOfOneAskCountsAsGoneForTheNext", func(t *testing.T, s site) {
			for _, phase := range []registry.Phase{registry.Header, registry.Early} {
				old := s.askAll(t, registry.Header, both("old"))
				out, ends := outcomes(s.askAll(t, phase, newResponse("n").of("store", one).of("user", one)))
				require.Equal(t, []registry.Outcome{admitted, admitted}, out)
				require.Equal(t, []string{"old/store superseded"}, ends, "its other streams end with it")
				for _, a := range old {
					leaveAndDepart(a.Place)
				}
				s.end(t, registry.Selector{All: true}, registry.Ending{})
			}
		}},
		{"RejectProtectsItsHoldersFromTheRequestsOtherGuards", func(t *testing.T, s site) {
			s.askAll(t, registry.Header, both("old"))
			for _, phase := range []registry.Phase{registry.Early, registry.Reserve, registry.Header} {
				out, _ := outcomes(s.askAll(t, phase, newResponse("n").of("store", one).of("user", rejectOne)))
				require.Equal(t, []registry.Outcome{undecided, rejected}, out)
			}
			require.Empty(t, s.node.Ended())
		}},
		{"AVictimMakesNoRoomTwice", func(t *testing.T, s site) {
			two := Supersede(2, registry.Streams)
			s.askAll(t, registry.Header, both("old"))
			s.holdAll(t, withKey(Anon("other"), "user"))
			_, ends := outcomes(s.askAll(t, registry.Header, newResponse("n").of("store", one).of("user", two)))
			require.Equal(t, []string{"old/store superseded"}, ends)
		}},
		{"WhoEndsForAnotherRegistryCountsAsGone", testLeaving},
		{"CommitsCountTheirVictimsAsGone", func(t *testing.T, s site) {
			s.askAll(t, registry.Header, both("old"))
			as := s.askAll(t, registry.Reserve, both("n"))
			_, ends := outcomes(as)
			require.Equal(t, []string{"old/store superseded"}, ends)
			require.Equal(t, []string{"old/store superseded"}, told(commit(t, as[0].Place)))
			require.Empty(t, commit(t, as[1].Place))
			require.Len(t, s.node.Ended(), 1)
		}},
		{"TwoForOneKeyDoNotCountAgainstEachOther", func(t *testing.T, s site) {
			for _, rule := range []registry.Rule{one, rejectOne} {
				as := s.askAll(t, registry.Header, newResponse("n").of("key", rule).of("key", rule))
				out, ends := outcomes(as)
				require.Equal(t, []registry.Outcome{admitted, admitted}, out)
				require.Empty(t, ends)
				for _, a := range as {
					leaveAndDepart(a.Place)
				}
			}
			s.requireEmpty(t)
		}},
		{"WhomALaterAskHasToEndMakesRoomFirst", testLookAhead},
		{"WhoIsPreferredMakesRoomFirst", testPrefer},
		{"NoAskNoAnswer", func(t *testing.T, s site) {
			as, err := s.Admit(context.Background(), registry.Header, anyToken, nil, nil)
			require.NoError(t, err)
			require.Empty(t, as)
		}},
	})
}

// A store for two, full with another user's older stream and the user's own, which has
// to go anyway: the other one stays, whichever guard is further inside.
func testLookAhead(t *testing.T, s site) {
	two, one := Supersede(2, registry.Streams), Supersede(1, registry.Streams)
	for _, inner := range []string{"store", "user"} {
		for _, phase := range []registry.Phase{registry.Early, registry.Header, registry.Reserve} {
			s.hold(t, withKey(Anon("bob"), "store"), two)
			s.askAll(t, registry.Header, newResponse("ann").of("store", two).of("user", one))
			newcomer := newResponse("n").of("store", two).of("user", one)
			if inner == "user" {
				newcomer = newResponse("n").of("user", one).of("store", two)
			}
			as := s.askAll(t, phase, newcomer)
			_, ends := outcomes(as)
			require.Equal(t, []string{"ann/" + inner + " superseded"}, ends)
			if phase == registry.Reserve {
				require.Equal(t, ends, told(commit(t, as[0].Place)))
				require.Empty(t, commit(t, as[1].Place))
			}
			require.Contains(t, s.holders(t, "store"), "bob")
			s.end(t, registry.Selector{All: true}, registry.Ending{})
		}
	}
}

func testPrefer(t *testing.T, s site) {
	for _, unit := range []registry.Unit{registry.Streams, registry.Clients} {
		for _, phase := range []registry.Phase{registry.Early, registry.Reserve, registry.Header} {
			old, young := Device("old", "D"), Device("young", "E")
			s.holdAll(t, old, young)
			asks := []registry.Ask{{
				Holder: Device("n", "F"), Rule: Supersede(2, unit),
				Prefer: []registry.StreamID{registry.NewStreamID(), young.ID.Nth(3)},
			}}
			as, err := s.Admit(context.Background(), phase, anyToken, asks, nil)
			require.NoError(t, err)
			require.Equal(t, []string{"young superseded"}, told(as[0].Ends))
			if phase == registry.Reserve {
				require.Equal(t, []string{"young superseded"}, told(commit(t, as[0].Place)))
			}
			s.end(t, registry.Selector{All: true}, registry.Ending{})
		}
	}
}

func testLeaving(t *testing.T, s site) {
	for _, policy := range []registry.Policy{registry.Supersede, registry.Reject} {
		want := registry.Admitted
		if policy == registry.Reject {
			want = registry.Rejected // a holder is protected until it is gone
		}
		for _, unit := range []registry.Unit{registry.Streams, registry.Clients} {
			old, other := Device("old", "D"), Device("other", "E")
			first, second := s.hold(t, old, Track), s.hold(t, other, Track)
			newcomer := Device("n", "F")
			asks := []registry.Ask{{Holder: newcomer, Rule: registry.Rule{Policy: policy, Limit: 2, Unit: unit}}}
			leaving := []registry.StreamID{registry.NewStreamID(), old.ID.Nth(3)}
			for _, phase := range []registry.Phase{registry.Early, registry.Reserve, registry.Header} {
				as, err := s.Admit(context.Background(), phase, anyToken, asks, leaving)
				require.NoError(t, err)
				require.Equal(t, want, as[0].Outcome)
				require.Empty(t, as[0].Ends, "another registry's guard ends it")
				p := as[0].Place
				if p != nil && phase == registry.Reserve {
					require.Empty(t, commit(t, p))
				}
				if p != nil {
					leaveAndDepart(p)
				}
			}
			require.Equal(t, []string{"old", "other"}, s.holders(t, "key"))
			leaveAndDepart(first)
			leaveAndDepart(second)
		}
	}
	require.Empty(t, s.node.Ended())
	s.requireEmpty(t)
}
