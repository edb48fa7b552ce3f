package registrytest

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

var allPhases = []registry.Phase{registry.Early, registry.Header, registry.Reserve}

// show asks for a newcomer that shows the key's tombstone.
func (s site) show(t require.TestingT, phase registry.Phase, h *registry.Holder, rule registry.Rule) registry.Admission {
	made := time.Now()
	as, err := s.Admit(context.Background(), phase, anyToken, []registry.Ask{{Holder: h, Rule: rule, Tombstone: &made}}, nil)
	require.NoError(t, err)
	require.Len(t, as, 1)
	requireSound(t, phase, as[0])
	return as[0]
}

// damped asks for a newcomer that flaps.
func (s site) damped(t require.TestingT, phase registry.Phase, h *registry.Holder, rule registry.Rule) registry.Admission {
	as, err := s.Admit(context.Background(), phase, anyToken, []registry.Ask{{Holder: h, Rule: rule, Damped: true}}, nil)
	require.NoError(t, err)
	require.Len(t, as, 1)
	requireSound(t, phase, as[0])
	return as[0]
}

// requireStaysAway checks that a newcomer with a tombstone is sent away for good.
func (s site) requireStaysAway(t *testing.T, h *registry.Holder, rule registry.Rule) {
	for _, phase := range allPhases {
		a := s.show(t, phase, h, rule)
		require.Equal(t, registry.Entombed, a.Outcome)
		require.Nil(t, a.Taken, "the key is full")
	}
	require.Empty(t, s.node.Ended())
}

func testTombstones(t *testing.T, open Open) {
	one := Supersede(1, registry.Streams)
	rules := []registry.Rule{one, Reject(1, registry.Streams), Supersede(1, registry.Clients), Reject(1, registry.Clients)}
	runSpecs(t, open, []spec{
		{"OfAFullKeyEndNobody", func(t *testing.T, s site) {
			s.hold(t, Anon("a"), one)
			for _, rule := range rules {
				s.requireStaysAway(t, Anon("n"), rule)
			}
			require.Equal(t, []string{"a"}, s.holders(t, "key"))
		}},
		{"OfAKeyWithRoomAreDropped", func(t *testing.T, s site) {
			s.hold(t, Anon("a"), one)
			two := Supersede(2, registry.Streams)
			require.Equal(t, admitted, s.show(t, registry.Early, Anon("n"), two).Outcome)
			require.Equal(t, admitted, s.show(t, registry.Header, Anon("n"), two).Outcome)
			s.requireStaysAway(t, Anon("m"), two)
			require.Equal(t, []string{"a", "n"}, s.holders(t, "key"))
		}},
		{"WithoutALimitAreDropped", func(t *testing.T, s site) {
			leaveAndDepart(s.hold(t, Anon("a"), Track))
			s.hold(t, Tab("b", "T"), Track)
			for _, phase := range allPhases {
				require.Equal(t, admitted, s.show(t, phase, Tab("n", "T"), Track).Outcome)
			}
		}},
		{"OfADeviceThatHasAPlaceAreDropped", func(t *testing.T, s site) {
			rule := Supersede(1, registry.Clients)
			s.hold(t, Device("a", "D"), rule)
			require.Equal(t, admitted, s.show(t, registry.Header, Device("n", "D"), rule).Outcome)
			s.requireStaysAway(t, Device("m", "E"), rule)
		}},
		{"OfAKeptPlaceStayAwayUnlessItIsTheirOwn", func(t *testing.T, s site) {
			rule := Reject(1, registry.Streams)
			s.hold(t, fingerprinted("a", "F"), rule).Leave(registry.Keep{For: time.Hour})
			s.requireStaysAway(t, fingerprinted("n", "G"), rule)
			require.Equal(t, admitted, s.show(t, registry.Header, fingerprinted("m", "F"), rule).Outcome)
		}},
		{"OneOfSeveralAsksIsEnough", func(t *testing.T, s site) {
			s.hold(t, withKey(Anon("a"), "user"), one)
			r := newResponse("n").of("store", one).of("user", one)
			made := time.Now()
			r.asks[1].Tombstone = &made
			for _, phase := range allPhases {
				out, _ := outcomes(s.askAll(t, phase, r))
				require.Equal(t, []registry.Outcome{undecided, registry.Entombed}, out)
			}
			require.Empty(t, s.holders(t, "store"))
		}},
		{"GoBeforeADenial", func(t *testing.T, s site) {
			s.hold(t, withToken(Anon("a"), "another token"), one)
			s.deny(t, registry.Denial{Token: ID("token"), Until: time.Now().Add(time.Hour)})
			s.requireStaysAway(t, Anon("n"), one)
			require.Equal(t, denied, s.ask(t, registry.Header, Anon("n"), one).Outcome)
		}},
		{"OfAKeyThatCameFreeLatelyWait", testFreeLately},
		{"OfAKeyThatWasEndedEarlyWait", func(t *testing.T, s site) {
			s.hold(t, Anon("a"), one)
			require.Equal(t, []string{"a superseded"}, told(s.askWith(t, registry.Early, anyToken, Anon("b"), one).Ends))
			require.NotNil(t, s.show(t, registry.Early, Anon("a"), one).Taken, "b's upstream has yet to answer")
		}},
		{"OfAKeyThatWasNotFullDoNotWait", func(t *testing.T, s site) {
			three := Supersede(3, registry.Streams)
			s.hold(t, Anon("a"), three)
			leaveAndDepart(s.hold(t, Anon("b"), three))
			require.Equal(t, admitted, s.show(t, registry.Early, Anon("n"), three).Outcome)
			leaveAndDepart(s.hold(t, Anon("c"), three))
			require.NotNil(t, s.show(t, registry.Early, Anon("n"), three).Taken, "there may have been three")
			require.Equal(t, admitted, s.show(t, registry.Early, Anon("n"), Supersede(4, registry.Streams)).Outcome)
		}},
		{"WaitForTheKeyToBeTaken", testTaken},
		{"DoNotWaitForWhoYields", testFreedByWhoYields},
	})
}

// Any site can have streams that yield come and go, and must not keep a client waiting.
func testFreedByWhoYields(t *testing.T, s site) {
	for _, rule := range []registry.Rule{Supersede(1, registry.Streams), Reject(1, registry.Streams), Supersede(1, registry.Clients), Reject(1, registry.Clients)} {
		leaveAndDepart(s.hold(t, yielding(Anon("y")), rule))
		require.Equal(t, admitted, s.show(t, registry.Early, Anon("n"), rule).Outcome)
	}
	two := Supersede(2, registry.Streams)
	leaveAndDepart(s.hold(t, Anon("a"), two))
	y := s.hold(t, yielding(Anon("y")), two)
	require.Equal(t, admitted, s.show(t, registry.Early, Anon("n"), two).Outcome, "one place is free for long")
	leaveAndDepart(y)

	one := Supersede(1, registry.Streams)
	waits := s.show(t, registry.Early, Anon("n"), one)
	require.NotNil(t, waits.Taken)
	s.hold(t, yielding(Anon("z")), one)
	require.False(t, isClosed(waits.Taken), "whoever yields takes nothing")
	s.hold(t, Anon("b"), one)
	require.Eventually(t, func() bool { return isClosed(waits.Taken) }, soon, aWhile)
}

func testFreeLately(t *testing.T, s site) {
	one := Supersede(1, registry.Streams)
	now := time.Now()
	clocked, ok := s.Registry.(Clocked)
	if !ok {
		return // its time cannot be told
	}
	clocked.SetNow(func() time.Time { return now })
	p := s.hold(t, Anon("a"), one)
	s.hold(t, withKey(Anon("b"), "other"), one)
	now = now.Add(time.Hour)
	leaveAndDepart(p)
	freed := now
	for _, phase := range allPhases {
		a := s.show(t, phase, Anon("n"), one)
		require.Equal(t, registry.Entombed, a.Outcome)
		require.True(t, a.Until.Equal(freed.Add(registry.FreeLately)))
		require.False(t, isClosed(a.Taken))
	}
	require.Nil(t, s.show(t, registry.Early, withKey(Anon("n"), "other"), one).Taken, "that is another key")
	require.Nil(t, s.show(t, registry.Early, withKey(Anon("n"), "third"), one).Taken)
	now = freed.Add(registry.FreeLately - 1)
	require.Equal(t, registry.Entombed, s.show(t, registry.Early, Anon("n"), one).Outcome)
	now = now.Add(1)
	require.Equal(t, admitted, s.show(t, registry.Early, Anon("n"), one).Outcome)
	require.Equal(t, admitted, s.show(t, registry.Header, Anon("n"), one).Outcome)
}

func testTaken(t *testing.T, s site) {
	one := Supersede(1, registry.Streams)
	leaveAndDepart(s.hold(t, Anon("a"), one))
	waits := s.show(t, registry.Early, Anon("a"), one)
	again := s.show(t, registry.Early, Anon("a"), one)
	s.hold(t, withKey(Anon("b"), "other"), one)
	require.False(t, isClosed(waits.Taken))
	reserved := s.reserve(t, Anon("c"), one)
	require.False(t, isClosed(waits.Taken), "it may yet be given back")
	commit(t, reserved)
	require.Eventually(t, func() bool { return isClosed(waits.Taken) && isClosed(again.Taken) }, soon, aWhile)
	s.requireStaysAway(t, Anon("a"), one)
}

func testDamped(t *testing.T, open Open) {
	one := Supersede(1, registry.Streams)
	runSpecs(t, open, []spec{
		{"EndNobody", func(t *testing.T, s site) {
			s.hold(t, Anon("a"), one)
			for _, phase := range allPhases {
				require.Equal(t, registry.Damped, s.damped(t, phase, Anon("n"), one).Outcome)
			}
			require.Empty(t, s.node.Ended())
			require.Equal(t, rejected, s.damped(t, registry.Header, Anon("n"), Reject(1, registry.Streams)).Outcome)
		}},
		{"GetAKeyThatIsFree", func(t *testing.T, s site) {
			leaveAndDepart(s.hold(t, Anon("a"), one))
			require.Equal(t, admitted, s.damped(t, registry.Early, Anon("n"), one).Outcome)
			require.Equal(t, admitted, s.damped(t, registry.Header, Anon("n"), one).Outcome)
			require.Equal(t, admitted, s.damped(t, registry.Header, Anon("m"), Supersede(2, registry.Streams)).Outcome)
		}},
		{"AreNotWithoutALimit", func(t *testing.T, s site) {
			s.hold(t, Tab("a", "T"), Track)
			a := s.damped(t, registry.Header, Tab("n", "T"), Track)
			require.Equal(t, admitted, a.Outcome)
			require.Equal(t, []string{"a replaced"}, told(a.Ends))
		}},
		{"ADenialGoesFirst", func(t *testing.T, s site) {
			s.hold(t, withToken(Anon("a"), "another token"), one)
			s.deny(t, registry.Denial{Token: ID("token"), Until: time.Now().Add(time.Hour)})
			require.Equal(t, denied, s.damped(t, registry.Header, Anon("n"), one).Outcome)
		}},
	})
}
