package registrytest

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

func testWaiters(t *testing.T, open Open) {
	for _, test := range takers() {
		t.Run("ToldWhatever/"+test.name, func(t *testing.T) {
			s := open.site(t)
			giveBack := test.take(t, s)
			one := Reject(1, registry.Streams)
			first, second := s.wait(t, Anon("1"), one), s.wait(t, Anon("2"), one)
			require.Equal(t, []bool{false, false}, free(first, second))
			giveBack()
			require.Equal(t, []bool{true, false}, free(first, second), "the longest waiting, and no other")
			first.Stop()
			second.Stop()
			s.requireEmpty(t)
		})
	}
	one, two := Reject(1, registry.Streams), Reject(2, registry.Streams)
	runSpecs(t, open, []spec{
		{"ToldAtOnceIfItWouldBeAdmitted", func(t *testing.T, s site) {
			require.True(t, free(s.wait(t, Anon("1"), one))[0])
			s.hold(t, Anon("a"), Track)
			require.Equal(t, []bool{true, true, false}, free(
				s.wait(t, Anon("2"), two), s.wait(t, Anon("3"), Supersede(1, registry.Streams)), s.wait(t, Anon("4"), one)))
		}},
		{"OneIsToldPerPlace", func(t *testing.T, s site) {
			a, b := s.hold(t, Anon("a"), two), s.hold(t, Anon("b"), two)
			first, second, third := s.wait(t, Anon("1"), two), s.wait(t, Anon("2"), two), s.wait(t, Anon("3"), two)
			a.Leave(registry.Keep{})
			require.Equal(t, []bool{true, false, false}, free(first, second, third))
			c := s.hold(t, Anon("1"), two)
			b.Leave(registry.Keep{})
			require.Equal(t, []bool{true, true, false}, free(first, second, third))
			c.Leave(registry.Keep{})
			require.Equal(t, []bool{true, true, true}, free(first, second, third))
		}},
		{"EndingAllTellsOnePerPlace", func(t *testing.T, s site) {
			s.holdAll(t, Anon("a"), Anon("b"), Anon("c")) // one more than the waiters' limit
			first, second, third := s.wait(t, Anon("1"), two), s.wait(t, Anon("2"), two), s.wait(t, Anon("3"), two)
			require.Len(t, s.end(t, registry.Selector{Key: ID("key")}, registry.Ending{}).Holders, 3)
			require.Equal(t, []bool{true, true, false}, free(first, second, third))
		}},
		{"TakeoverFreesNoPlace", func(t *testing.T, s site) {
			s.hold(t, Anon("a"), Track)
			w := s.wait(t, Anon("1"), one)
			p := s.hold(t, Anon("b"), Supersede(1, registry.Streams))
			require.False(t, free(w)[0])
			p.Leave(registry.Keep{})
			require.True(t, free(w)[0])
		}},
		{"EachIsJudgedByItsOwnRule", func(t *testing.T, s site) {
			a, b := s.hold(t, Anon("a"), Track), s.hold(t, Anon("b"), Track)
			first, second := s.wait(t, Anon("1"), one), s.wait(t, Anon("2"), two)
			a.Leave(registry.Keep{})
			require.Equal(t, []bool{false, true}, free(first, second), "the longest waiting would not be admitted yet")
			b.Leave(registry.Keep{})
			require.Equal(t, []bool{true, true}, free(first, second))
		}},
		{"ClientThatHoldsNowIsTold", func(t *testing.T, s site) {
			s.hold(t, Device("a", "C"), Track)
			rule := Reject(1, registry.Clients)
			x, y, z := s.wait(t, Device("1", "D"), rule), s.wait(t, Device("2", "D"), rule), s.wait(t, Device("3", "E"), rule)
			s.hold(t, Device("b", "D"), Track)
			require.Equal(t, []bool{true, true, false}, free(x, y, z), "they take no further place")
		}},
		{"SoManyMayWaitForAKey", testManyWaiters},
		{"WhoStoppedIsNotToldAnyMore", func(t *testing.T, s site) {
			p := s.hold(t, Anon("a"), one)
			first, second := s.wait(t, Anon("1"), one), s.wait(t, Anon("2"), one)
			first.Stop()
			leaveAndDepart(p)
			require.Equal(t, []bool{false, true}, free(first, second))
			first.Stop()
			second.Stop()
			s.requireEmpty(t)
		}},
		{"TheLastToStopLeavesNothing", func(t *testing.T, s site) {
			p := s.hold(t, Anon("a"), one)
			s.wait(t, Anon("1"), one)
			second := s.wait(t, Anon("2"), one)
			leaveAndDepart(p) // tells the first only
			second.Stop()
			s.requireEmpty(t)

			s.hold(t, Anon("b"), one)
			third := s.wait(t, Anon("3"), one)
			second.Stop()
			require.False(t, free(third)[0])
			third.Stop()
		}},
	})
}

func testManyWaiters(t *testing.T, s site) {
	rule := Reject(1, registry.Streams)
	s.hold(t, Anon("a"), rule)
	var ws []registry.Waiter
	for range registry.MostWaiters {
		ws = append(ws, s.wait(t, Anon("w"), rule))
	}
	oneMore := func(h *registry.Holder) error {
		_, err := s.Wait(context.Background(), registry.Ask{Holder: h, Rule: rule})
		return err
	}
	require.ErrorIs(t, oneMore(Anon("w")), registry.ErrManyWaiters)
	require.NoError(t, oneMore(withKey(Anon("w"), "another key")))
	for range 3 { // stopping again frees no second seat
		ws[3].Stop()
	}
	require.NoError(t, oneMore(Anon("w")))
	require.ErrorIs(t, oneMore(Anon("w")), registry.ErrManyWaiters)
}

// taker takes the only place, and returns what gives it back.
type taker struct {
	name string
	take func(*testing.T, site) func()
}

func takers() []taker {
	rule := Reject(1, registry.Streams)
	endedBy := func(name string, sel registry.Selector) taker {
		return taker{"HolderIsEndedBy" + name, func(t *testing.T, s site) func() {
			h := Device("a", "D")
			h.Subject = ID("subject")
			s.hold(t, h, rule).Departed()
			return func() { s.end(t, sel, registry.Ending{}) }
		}}
	}
	return []taker{
		{"HolderLeaves", func(t *testing.T, s site) func() {
			p := s.hold(t, Anon("a"), rule)
			return func() { leaveAndDepart(p) }
		}},
		{"ReservationIsGivenBack", func(t *testing.T, s site) func() {
			p := s.reserve(t, Anon("a"), rule)
			return func() { leaveAndDepart(p) }
		}},
		{"ReservationIsDenied", func(t *testing.T, s site) func() {
			h := withToken(Anon("a"), "denied token")
			p := s.reserve(t, h, rule)
			p.Departed()
			s.deny(t, registry.Denial{Token: h.Token, Until: time.Now().Add(time.Hour)})
			return func() {
				_, err := p.Commit(context.Background())
				require.ErrorIs(t, err, registry.ErrDenied)
			}
		}},
		{"HolderIsEndedEarly", func(t *testing.T, s site) func() {
			s.hold(t, Anon("a"), rule).Departed()
			return func() { s.askWith(t, registry.Early, anyToken, Anon("n"), Supersede(1, registry.Streams)) }
		}},
		endedBy("Key", registry.Selector{Key: ID("key")}),
		endedBy("Token", registry.Selector{Token: ID("token")}),
		endedBy("Client", registry.Selector{Client: ID("D")}),
		endedBy("Subject", registry.Selector{Subject: ID("subject")}),
		endedBy("All", registry.Selector{All: true}),
	}
}
