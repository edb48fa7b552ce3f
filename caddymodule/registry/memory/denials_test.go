package memory_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/registry/memory"
	"github.com/sse-guard/sse-guard/caddymodule/registry/registrytest"
)

// noon is what time it is in tests, until they change it.
var noon = time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)

// clock is a registry's time, which only the test changes.
type clock struct{ now time.Time }

func openAtNoon(t *testing.T) (site, *clock) {
	r, c := open(t), &clock{noon}
	r.SetNow(func() time.Time { return c.now })
	return r, c
}

func deny(t require.TestingT, r *memory.Registry, denials ...registry.Denial) {
	require.NoError(t, r.Deny(context.Background(), denials...))
}

// deniable returns a stream that has everything that can be denied.
func deniable(name string) *registry.Holder {
	h := registrytest.Device(name, "client")
	h.Subject, h.IssuedAt = registrytest.ID("subject"), noon.Add(-time.Hour)
	return h
}

func ofToken(name string, until time.Duration) registry.Denial {
	return registry.Denial{Token: registrytest.ID(name), Until: noon.Add(until)}
}

func ofClient(token, client string, until time.Duration) registry.Denial {
	return registry.Denial{Token: registrytest.ID(token), Client: registrytest.ID(client), Until: noon.Add(until)}
}

func ofSubject(name string, issuedBefore, until time.Duration) registry.Denial {
	return registry.Denial{Subject: registrytest.ID(name), IssuedBefore: noon.Add(issuedBefore), Until: noon.Add(until)}
}

func TestDenial_ThatNamesNobodyIsNotKept(t *testing.T) {
	r, _ := openAtNoon(t)
	deny(t, r.Registry)
	deny(t, r.Registry, registry.Denial{Until: noon.Add(time.Hour)}, ofClient("", "client", time.Hour),
		registry.Denial{Subject: registrytest.ID("subject"), Until: noon.Add(time.Hour)},
		ofToken("token", 0), ofToken("token", -1), registry.Denial{Token: registrytest.ID("token")})
	require.Zero(t, r.Denials())
}

func TestDenial_IsForgottenInTime(t *testing.T) {
	r, clock := openAtNoon(t)
	s := deniable("s")
	deny(t, r.Registry, ofToken("token", time.Minute), ofToken("another", time.Hour))
	clock.now = noon.Add(time.Minute - 1)
	require.True(t, r.Denied(s))
	clock.now = noon.Add(time.Minute)
	require.False(t, r.Denied(s))
	r.hold(t, s, registrytest.Track)

	require.Equal(t, 2, r.Denials())
	deny(t, r.Registry, ofSubject("subject", 0, time.Hour))
	require.Equal(t, 2, r.Denials(), "each addition forgets whose time is over")
	clock.now = noon.Add(time.Hour)
	deny(t, r.Registry)
	require.Zero(t, r.Denials())
}

func TestDenial_OfTheSameLastsLonger(t *testing.T) {
	const minute = time.Minute
	// All are in force at noon+5m only if the later times count.
	tests := []struct {
		name          string
		first, second registry.Denial
	}{
		{"Token", ofToken("token", minute), ofToken("token", 10*minute)},
		{"Client", ofClient("token", "client", minute), ofClient("token", "client", 10*minute)},
		{"Subject_Until", ofSubject("subject", 0, minute), ofSubject("subject", 0, 10*minute)},
		{"Subject_IssuedBefore", ofSubject("subject", 0, 10*minute), ofSubject("subject", -2*time.Hour, 10*minute)},
		{"Subject_Both", ofSubject("subject", 0, minute), ofSubject("subject", -2*time.Hour, 10*minute)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for name, calls := range map[string][][]registry.Denial{
				"OneAfterTheOther":  {{test.first}, {test.second}},
				"TheOtherWayRound":  {{test.second}, {test.first}},
				"InOneCall":         {{test.first, test.second}},
				"InOneCallReversed": {{test.second, test.first}},
			} {
				t.Run(name, func(t *testing.T) {
					r, clock := openAtNoon(t)
					for _, call := range calls {
						deny(t, r.Registry, call...)
					}
					require.Equal(t, 1, r.Denials())
					clock.now = noon.Add(5 * minute)
					require.True(t, r.Denied(deniable("s")))
					deny(t, r.Registry)
					require.Equal(t, 1, r.Denials(), "it is forgotten by its new time")
					clock.now = noon.Add(10 * minute)
					deny(t, r.Registry)
					require.Zero(t, r.Denials())
				})
			}
		})
	}
}

// whoIsDenied returns which of the tokens a, b, c and so on are denied.
func whoIsDenied(t *testing.T, r site) string {
	out := ""
	for _, name := range "abcdefgh" {
		s := registrytest.Anon(string(name))
		s.Token = registrytest.ID(string(name))
		if r.Denied(s) {
			out += string(name)
		}
	}
	return out
}

func TestDeny_WhenFullForgetsTheSoonest(t *testing.T) {
	tests := []struct {
		name  string
		given []registry.Denial
		left  string
		many  bool
	}{
		{name: "NoRoomIsNeeded", given: nil, left: "abc"},
		{name: "OneGoes", given: []registry.Denial{ofToken("d", 9*time.Hour)}, left: "acd", many: true},
		{name: "TwoGo", given: []registry.Denial{ofToken("d", 9*time.Hour), ofToken("e", 9*time.Hour)}, left: "ade", many: true},
		{name: "TheNewOneStaysThoughTheSoonest", given: []registry.Denial{ofToken("d", time.Minute)}, left: "acd", many: true},
		{name: "TheNewOnesDoNotMakeEachOtherGo",
			given: []registry.Denial{ofToken("d", time.Minute), ofToken("e", 9*time.Hour)}, left: "ade", many: true},
		{name: "TheSameNeedsNoRoom", given: []registry.Denial{ofToken("b", 9*time.Hour)}, left: "abc"},
		{name: "TheSameTwiceNeedsRoomOnce", given: []registry.Denial{ofToken("d", time.Hour), ofToken("d", time.Minute)}, left: "acd", many: true},
		{name: "TheSameDoesNotGoThoughTheSoonest",
			given: []registry.Denial{ofToken("d", time.Minute), ofToken("b", time.Minute)}, left: "abd", many: true},
		{name: "WhatNamesNobodyNeedsNoRoom", given: []registry.Denial{{Until: noon.Add(time.Hour)}, ofToken("d", 0)}, left: "abc"},
		{name: "MoreThanThereMayBe", given: []registry.Denial{
			ofToken("d", 5*time.Hour), ofToken("e", 6*time.Hour), ofToken("f", time.Minute), ofToken("g", 7*time.Hour),
		}, left: "deg", many: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r, _ := openAtNoon(t)
			r.SetMaxDenials(3)
			deny(t, r.Registry, ofToken("a", 3*time.Hour), ofToken("b", time.Hour), ofToken("c", 2*time.Hour))
			err := r.Deny(context.Background(), test.given...)
			if test.many {
				require.ErrorIs(t, err, registry.ErrManyDenials)
			} else {
				require.NoError(t, err)
			}
			require.Equal(t, test.left, whoIsDenied(t, r))
			require.Equal(t, 3, r.Denials())
		})
	}
}

func TestDeny_TheThreeKindsShareTheRoom(t *testing.T) {
	r, _ := openAtNoon(t)
	r.SetMaxDenials(2)
	deny(t, r.Registry, ofClient("token", "client", time.Minute), ofSubject("subject", 0, time.Hour))
	require.ErrorIs(t, r.Deny(context.Background(), ofToken("a", time.Hour)), registry.ErrManyDenials)
	require.Equal(t, 2, r.Denials())
	s := deniable("s")
	require.True(t, r.Denied(s), "by its subject")
	s.Subject = registry.ID{}
	require.False(t, r.Denied(s), "its client's denial was the soonest")
}

func TestDeny_RoomOfThoseWhoseTimeIsOverIsFree(t *testing.T) {
	r, clock := openAtNoon(t)
	r.SetMaxDenials(2)
	deny(t, r.Registry, ofToken("a", time.Minute), ofToken("b", time.Hour))
	clock.now = noon.Add(time.Minute)
	deny(t, r.Registry, ofToken("c", time.Hour))
	require.Equal(t, "bc", whoIsDenied(t, r))
}

// While a computer sleeps its monotonic clock stands still, and a comparison of
// two of its readings would let denials last too long.
func TestDenial_KeepsTheWallClockOnly(t *testing.T) {
	r := open(t)
	now := time.Now()
	require.NotEqual(t, now.Round(0), now, "there is a monotonic reading")
	deny(t, r.Registry, registry.Denial{Token: registrytest.ID("a"), Until: now.Add(time.Hour)},
		registry.Denial{Subject: registrytest.ID("b"), IssuedBefore: now, Until: now.Add(time.Hour)})
	deny(t, r.Registry, registry.Denial{Subject: registrytest.ID("b"), IssuedBefore: now.Add(time.Minute), Until: now.Add(2 * time.Hour)})
	times := r.DenialTimes()
	require.Len(t, times, 6)
	for _, at := range times {
		require.Equal(t, at.Round(0), at)
	}
}

// A logout comes just while an admission asks: after it was found not to be denied
// by its token. If it were not held by then, the logout would not find it.
func TestAdmission_IsHeldBeforeItAsks(t *testing.T) {
	for name, admit := range map[string]func(*testing.T, site, *registry.Holder) func(){
		"Commit": func(t *testing.T, s site, h *registry.Holder) func() {
			p := s.reserve(t, h, registrytest.Track)
			return func() {
				_, err := p.Commit(context.Background())
				require.NoError(t, err)
			}
		},
		"Header": func(t *testing.T, s site, h *registry.Holder) func() {
			return func() { s.hold(t, h, registrytest.Track) }
		},
	} {
		t.Run(name, func(t *testing.T) { testHeldBeforeItAsks(t, admit) })
	}
}

func testHeldBeforeItAsks(t *testing.T, admit func(*testing.T, site, *registry.Holder) func()) {
	s := open(t)
	h := deniable("s")
	// A denial of an older token, so that the time is asked for in the end.
	deny(t, s.Registry, registry.Denial{Subject: h.Subject, IssuedBefore: h.IssuedAt, Until: time.Now().Add(time.Hour)})
	finish := admit(t, s, h)

	loggedOut := make(chan struct{})
	var asked atomic.Bool
	s.SetNow(func() time.Time {
		if asked.Swap(true) {
			return time.Now() // the logout's own question
		}
		go func() {
			defer close(loggedOut)
			assert.NoError(t, s.Deny(context.Background(), registry.Denial{Token: h.Token, Until: time.Now().Add(time.Hour)}))
			_, err := s.End(context.Background(), registry.Selector{Token: h.Token}, registry.Ending{Reason: reason.Logout})
			assert.NoError(t, err)
		}()
		select {
		case <-loggedOut: // found nobody
		case <-time.After(50 * time.Millisecond): // found the stream, and waits for its admission
		}
		return time.Now()
	})
	finish()
	<-loggedOut
	require.Equal(t, []registry.Ending{{Reason: reason.Logout}}, s.node.Endings(h.ID))
	require.Empty(t, s.holders(t, h.Key))
}

// Many deny at once, ask at once, and more than there is room for.
func TestConcurrentDeny_KeepsTheListInOrder(t *testing.T) {
	r := open(t)
	r.SetMaxDenials(50)
	until := time.Now().Add(time.Hour)
	race(rand.Uint64(), func(rnd *rand.Rand, _ string) []*arrival {
		for range 500 {
			n := fmt.Sprint(rnd.IntN(100))
			d := []registry.Denial{
				{Token: registrytest.ID("t" + n)},
				{Token: registrytest.ID("t" + n), Client: registrytest.ID("c" + n)},
				{Subject: registrytest.ID("s" + n), IssuedBefore: until},
			}[rnd.IntN(3)]
			d.Until = until.Add(time.Duration(rnd.IntN(1000)) * time.Second)
			_ = r.Deny(context.Background(), d)
			r.Denied(&registry.Holder{Token: d.Token, Client: d.Client, Subject: d.Subject, IssuedAt: noon})
		}
		return nil
	})
	require.Equal(t, 50, r.Denials())
}
