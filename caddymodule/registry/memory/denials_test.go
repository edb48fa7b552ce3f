package memory_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/registry/memory"
)

// noon is what time it is in tests, until they change it.
var noon = time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)

// clock is a registry's time, which only the test changes.
type clock struct{ now time.Time }

func registryAtNoon() (*memory.Registry, *clock) {
	r, c := memory.New(), &clock{noon}
	r.SetNow(func() time.Time { return c.now })
	return r, c
}

// deniable returns a stream that has everything that can be denied.
func deniable(name string) *registry.Stream {
	s := device(name, "client")
	s.Subject, s.IssuedAt = id("subject"), noon.Add(-time.Hour)
	return s
}

func ofToken(name string, until time.Duration) registry.Denial {
	return registry.Denial{Token: id(name), Until: noon.Add(until)}
}

func ofClient(token, client string, until time.Duration) registry.Denial {
	return registry.Denial{Token: id(token), Client: id(client), Until: noon.Add(until)}
}

func ofSubject(name string, issuedBefore, until time.Duration) registry.Denial {
	return registry.Denial{Subject: id(name), IssuedBefore: noon.Add(issuedBefore), Until: noon.Add(until)}
}

func TestDenial_NamesItsStreamsOnly(t *testing.T) {
	const hour = time.Hour
	zero := registry.ID{}
	tests := []struct {
		name   string
		denial registry.Denial
		stream func(*registry.Stream) // changes a deniable one
		denied bool
	}{
		{name: "Token", denial: ofToken("token", hour), denied: true},
		{name: "Token_WithWhateverClient", denial: ofToken("token", hour),
			stream: func(s *registry.Stream) { s.Client = id("another") }, denied: true},
		{name: "Token_WithoutClient", denial: ofToken("token", hour),
			stream: func(s *registry.Stream) { s.Client = zero }, denied: true},
		{name: "Token_Another", denial: ofToken("another", hour)},
		{name: "Token_NotAsASubject", denial: ofToken("subject", hour)},
		{name: "Token_StreamWithoutOne", denial: ofToken("token", hour),
			stream: func(s *registry.Stream) { s.Token = zero }},
		{name: "Token_UntilNow", denial: ofToken("token", 0)},

		{name: "Client", denial: ofClient("token", "client", hour), denied: true},
		{name: "Client_Another", denial: ofClient("token", "another", hour)},
		{name: "Client_OfAnotherToken", denial: ofClient("another", "client", hour)},
		{name: "Client_StreamWithoutOne", denial: ofClient("token", "client", hour),
			stream: func(s *registry.Stream) { s.Client = zero }},
		{name: "Client_WithoutToken", denial: ofClient("", "client", hour)},
		{name: "Client_StreamAndDenialWithoutToken", denial: ofClient("", "client", hour),
			stream: func(s *registry.Stream) { s.Token = zero }},

		{name: "Subject_OlderToken", denial: ofSubject("subject", -hour+1, hour), denied: true},
		{name: "Subject_TokenIssuedThen", denial: ofSubject("subject", -hour, hour)},
		{name: "Subject_NewerToken", denial: ofSubject("subject", -2*hour, hour)},
		{name: "Subject_TokenThatDoesNotTellWhen", denial: ofSubject("subject", 0, hour),
			stream: func(s *registry.Stream) { s.IssuedAt = time.Time{} }},
		{name: "Subject_WithWhateverToken", denial: ofSubject("subject", 0, hour),
			stream: func(s *registry.Stream) { s.Token, s.Client = zero, zero }, denied: true},
		{name: "Subject_Another", denial: ofSubject("another", 0, hour)},
		{name: "Subject_NotAsAToken", denial: ofSubject("token", 0, hour)},
		{name: "Subject_StreamWithoutOne", denial: ofSubject("subject", 0, hour),
			stream: func(s *registry.Stream) { s.Subject = zero }},
		{name: "Subject_UntilNow", denial: ofSubject("subject", 0, 0)},
		{name: "Subject_BeforeNothing", denial: registry.Denial{Subject: id("subject"), Until: noon.Add(hour)}},

		{name: "Nothing", denial: registry.Denial{Until: noon.Add(hour), IssuedBefore: noon}},
		{name: "Nothing_StreamOfNobody", denial: registry.Denial{Until: noon.Add(hour), IssuedBefore: noon},
			stream: func(s *registry.Stream) { s.Token, s.Client, s.Subject = zero, zero, zero }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r, _ := registryAtNoon()
			s := deniable("s")
			if test.stream != nil {
				test.stream(s)
			}
			// Others are denied too, so that the question is never cut short.
			deny(t, r, ofToken("x", time.Hour), ofClient("x", "y", time.Hour), ofSubject("x", 0, time.Hour))
			deny(t, r, test.denial)
			require.Equal(t, test.denied, denied(t, r, s))
			_, err := reserve(t, r, s, track).Commit(context.Background())
			if test.denied {
				require.ErrorIs(t, err, registry.ErrDenied)
			} else {
				require.NoError(t, err)
			}
		})
	}
}

func TestDenial_OfATokenAndASubjectIsBoth(t *testing.T) {
	r, _ := registryAtNoon()
	d := ofSubject("subject", 0, time.Hour)
	d.Token = id("token")
	deny(t, r, d)
	byToken, bySubject := deniable("a"), deniable("b")
	byToken.Subject, bySubject.Token = id("another"), id("another")
	require.True(t, denied(t, r, byToken))
	require.True(t, denied(t, r, bySubject))
}

func TestDenial_ThatNamesNobodyIsNotKept(t *testing.T) {
	r, _ := registryAtNoon()
	deny(t, r)
	deny(t, r, registry.Denial{Until: noon.Add(time.Hour)}, ofClient("", "client", time.Hour),
		registry.Denial{Subject: id("subject"), Until: noon.Add(time.Hour)},
		ofToken("token", 0), ofToken("token", -1), registry.Denial{Token: id("token")})
	require.Zero(t, r.Denials())
}

func TestCommit_OfADeniedStreamGivesThePlaceBack(t *testing.T) {
	r, _ := registryAtNoon()
	rule := supersede(1, registry.Streams)
	holder, s := anon("holder"), deniable("s")
	holder.Token = id("another token")
	hold(t, r, holder, rule)
	size := r.Size()
	p, j, err := r.Reserve(context.Background(), s, rule)
	require.NoError(t, err)
	require.Equal(t, []string{"holder superseded"}, told(j.Ends))
	deny(t, r, ofToken("token", time.Hour))

	victims, err := p.Commit(context.Background())
	require.ErrorIs(t, err, registry.ErrDenied)
	require.Empty(t, victims)
	require.Equal(t, []*registry.Stream{holder}, holders(t, r, s.Key))
	require.Empty(t, endings(holder), "who is denied ends nobody")
	require.Empty(t, endings(s), "who never held is not ended")
	require.Equal(t, size, r.Size(), "nothing is left behind")
	for index, id := range map[registry.Index]registry.ID{
		registry.ByToken: s.Token, registry.ByClient: s.Client, registry.BySubject: s.Subject,
	} {
		require.False(t, holds(t, r, index, id), index)
	}

	_, err = p.Commit(context.Background())
	require.ErrorIs(t, err, memory.ErrNotReserved)
	p.Release()
	require.Equal(t, []*registry.Stream{holder}, holders(t, r, s.Key))
}

func TestDeny_EndsNobody(t *testing.T) {
	r, _ := registryAtNoon()
	s := deniable("s")
	hold(t, r, s, track)
	deny(t, r, ofToken("token", time.Hour), ofSubject("subject", 0, time.Hour))
	require.Empty(t, endings(s))
	require.Equal(t, []*registry.Stream{s}, holders(t, r, s.Key))
}

func TestDenial_IsForgottenInTime(t *testing.T) {
	r, clock := registryAtNoon()
	s := deniable("s")
	deny(t, r, ofToken("token", time.Minute), ofToken("another", time.Hour))
	clock.now = noon.Add(time.Minute - 1)
	require.True(t, denied(t, r, s))
	clock.now = noon.Add(time.Minute)
	require.False(t, denied(t, r, s))
	commit(t, reserve(t, r, s, track))

	require.Equal(t, 2, r.Denials())
	deny(t, r, ofSubject("subject", 0, time.Hour))
	require.Equal(t, 2, r.Denials(), "each addition forgets whose time is over")
	clock.now = noon.Add(time.Hour)
	deny(t, r)
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
					r, clock := registryAtNoon()
					for _, call := range calls {
						deny(t, r, call...)
					}
					require.Equal(t, 1, r.Denials())
					clock.now = noon.Add(5 * minute)
					require.True(t, denied(t, r, deniable("s")))
					deny(t, r)
					require.Equal(t, 1, r.Denials(), "it is forgotten by its new time")
					clock.now = noon.Add(10 * minute)
					deny(t, r)
					require.Zero(t, r.Denials())
				})
			}
		})
	}
}

// whoIsDenied returns which of the tokens a, b, c and so on are denied.
func whoIsDenied(t *testing.T, r *memory.Registry) string {
	out := ""
	for _, name := range "abcdefgh" {
		s := anon(string(name))
		s.Token = id(string(name))
		if denied(t, r, s) {
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
			r, _ := registryAtNoon()
			r.SetMaxDenials(3)
			deny(t, r, ofToken("a", 3*time.Hour), ofToken("b", time.Hour), ofToken("c", 2*time.Hour))
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
	r, _ := registryAtNoon()
	r.SetMaxDenials(2)
	deny(t, r, ofClient("token", "client", time.Minute), ofSubject("subject", 0, time.Hour))
	require.ErrorIs(t, r.Deny(context.Background(), ofToken("a", time.Hour)), registry.ErrManyDenials)
	require.Equal(t, 2, r.Denials())
	s := deniable("s")
	require.True(t, denied(t, r, s), "by its subject")
	s.Subject = registry.ID{}
	require.False(t, denied(t, r, s), "its client's denial was the soonest")
}

func TestDeny_RoomOfThoseWhoseTimeIsOverIsFree(t *testing.T) {
	r, clock := registryAtNoon()
	r.SetMaxDenials(2)
	deny(t, r, ofToken("a", time.Minute), ofToken("b", time.Hour))
	clock.now = noon.Add(time.Minute)
	deny(t, r, ofToken("c", time.Hour))
	require.Equal(t, "bc", whoIsDenied(t, r))
}

// While a computer sleeps its monotonic clock stands still, and a comparison of
// two of its readings would let denials last too long.
func TestDenial_KeepsTheWallClockOnly(t *testing.T) {
	r := memory.New()
	now := time.Now()
	require.NotEqual(t, now.Round(0), now, "there is a monotonic reading")
	deny(t, r, registry.Denial{Token: id("a"), Until: now.Add(time.Hour)},
		registry.Denial{Subject: id("b"), IssuedBefore: now, Until: now.Add(time.Hour)})
	deny(t, r, registry.Denial{Subject: id("b"), IssuedBefore: now.Add(time.Minute), Until: now.Add(2 * time.Hour)})
	times := r.DenialTimes()
	require.Len(t, times, 4)
	for _, at := range times {
		require.Equal(t, at.Round(0), at)
	}
}

func TestDenial_IsOfItsRegistryOnly(t *testing.T) {
	r, _ := registryAtNoon()
	other, _ := registryAtNoon()
	deny(t, r, ofToken("token", time.Hour))
	require.False(t, denied(t, other, deniable("s")))
}

// A logout comes just while a commit asks: after it was found not to be denied
// by its token. If it were not held by then, the logout would not find it.
func TestCommit_IsHeldBeforeItAsks(t *testing.T) {
	r := memory.New()
	s := deniable("s")
	// A denial of an older token, so that the time is asked for in the end.
	deny(t, r, registry.Denial{Subject: s.Subject, IssuedBefore: s.IssuedAt, Until: time.Now().Add(time.Hour)})
	p := reserve(t, r, s, track)

	loggedOut := make(chan struct{})
	var asked atomic.Bool
	r.SetNow(func() time.Time {
		if asked.Swap(true) {
			return time.Now() // the logout's own question
		}
		go func() {
			defer close(loggedOut)
			assert.NoError(t, r.Deny(context.Background(), registry.Denial{Token: s.Token, Until: time.Now().Add(time.Hour)}))
			_, err := r.EndAll(context.Background(), registry.ByToken, s.Token, registry.Ending{Reason: registry.Logout})
			assert.NoError(t, err)
		}()
		select {
		case <-loggedOut: // found nobody
		case <-time.After(50 * time.Millisecond): // found s, and waits for its commit
		}
		return time.Now()
	})
	commit(t, p)
	<-loggedOut
	require.Equal(t, []registry.Ending{{Reason: registry.Logout}}, endings(s))
	require.Empty(t, holders(t, r, s.Key))
}

// logout is a denial, and what those it names are ended by.
type logout struct {
	denial registry.Denial
	index  registry.Index
	id     registry.ID
}

// logouts returns one of each kind, for ids of that round.
func logouts(round int) []logout {
	token, client, subject := id(fmt.Sprint("t", round)), id(fmt.Sprint("c", round)), id(fmt.Sprint("s", round))
	until := time.Now().Add(time.Hour)
	return []logout{
		{registry.Denial{Token: token, Until: until}, registry.ByToken, token},
		{registry.Denial{Token: token, Client: client, Until: until}, registry.ByClient, client},
		{registry.Denial{Subject: subject, IssuedBefore: noon.AddDate(100, 0, 0), Until: until}, registry.BySubject, subject},
	}
}

// name gives s what the denial names.
func (l logout) name(s *registry.Stream) {
	s.Token, s.Client = l.denial.Token, l.denial.Client
	s.Subject, s.IssuedAt = l.denial.Subject, noon
}

// outcome is one stream of a race with a logout, and what became of it.
type outcome struct {
	stream *registry.Stream
	named  bool
	err    error
}

// Streams come, some of them named by a logout that comes meanwhile. Afterwards
// none of those holds, and each was ended once or refused.
func TestConcurrentLogout_NobodySlipsThrough(t *testing.T) {
	r := memory.New()
	rule := supersede(3, registry.Streams)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for round := range 400 {
		for kind, l := range logouts(round) {
			rnd := rand.New(rand.NewPCG(seed, uint64(round*3+kind)))
			results := raceLogout(t, r, rule, l, rnd)
			requireNobodySlippedThrough(t, r, l, results)
		}
	}
	require.NoError(t, endKeys(r))
	require.Zero(t, r.Size())
}

// raceLogout commits streams in several goroutines while another logs out.
func raceLogout(t *testing.T, r *memory.Registry, rule registry.Rule, l logout, rnd *rand.Rand) []outcome {
	var wg sync.WaitGroup
	start := make(chan struct{})
	results := make([][]outcome, 4)
	for g := range results {
		for i := range 6 {
			s := anon(fmt.Sprintf("%d.%d", g, i))
			s.Key, s.Token = someKeys[rnd.IntN(len(someKeys))], id("another token")
			res := outcome{stream: s, named: rnd.IntN(4) != 0}
			if res.named {
				l.name(s)
			}
			results[g] = append(results[g], res)
		}
		wg.Go(func() {
			<-start
			for i := range results[g] {
				res := &results[g][i]
				p, _, err := r.Reserve(context.Background(), res.stream, rule)
				if assert.NoError(t, err) {
					_, res.err = p.Commit(context.Background())
				}
			}
		})
	}
	patience := rnd.IntN(200)
	wg.Go(func() {
		<-start
		for range patience {
			runtime.Gosched()
		}
		assert.NoError(t, r.Deny(context.Background(), l.denial))
		_, err := r.EndAll(context.Background(), l.index, l.id, registry.Ending{Reason: registry.Logout})
		assert.NoError(t, err)
	})
	close(start)
	wg.Wait()
	var all []outcome
	for _, rs := range results {
		all = append(all, rs...)
	}
	return all
}

func requireNobodySlippedThrough(t *testing.T, r *memory.Registry, l logout, results []outcome) {
	require.False(t, holds(t, r, l.index, l.id), "somebody still holds")
	refused := make(map[string]bool)
	for _, res := range results {
		es := endings(res.stream)
		switch {
		case res.err != nil:
			require.ErrorIs(t, res.err, registry.ErrDenied)
			require.True(t, res.named, "%s is refused for another's logout", res.stream.Addr)
			require.Empty(t, es, "who never held is not ended")
			refused[res.stream.Addr] = true
		case res.named:
			require.Len(t, es, 1, "%s was admitted, so it must have been ended", res.stream.Addr)
		default:
			for _, e := range es {
				require.Equal(t, registry.Superseded, e.Reason)
			}
			require.LessOrEqual(t, len(es), 1)
		}
	}
	for _, res := range results {
		for _, e := range endings(res.stream) {
			require.False(t, refused[e.By], "%s was ended for one who was refused", res.stream.Addr)
		}
	}
}

// endKeys ends who is left on the keys of tests.
func endKeys(r *memory.Registry) error {
	for _, key := range someKeys {
		if _, err := r.EndAll(context.Background(), registry.ByKey, key, registry.Ending{}); err != nil {
			return err
		}
	}
	return nil
}

// Many deny at once, ask at once, and more than there is room for.
func TestConcurrentDeny_KeepsTheListInOrder(t *testing.T) {
	r := memory.New()
	r.SetMaxDenials(50)
	until := time.Now().Add(time.Hour)
	race(rand.Uint64(), func(rnd *rand.Rand, _ string) []*arrival {
		for range 500 {
			ls := logouts(rnd.IntN(100))
			l := ls[rnd.IntN(len(ls))]
			l.denial.Until = until.Add(time.Duration(rnd.IntN(1000)) * time.Second)
			_ = r.Deny(context.Background(), l.denial)
			s := anon("s")
			l.name(s)
			_, err := r.Denied(context.Background(), s)
			assert.NoError(t, err)
		}
		return nil
	})
	require.Equal(t, 50, r.Denials())
}
