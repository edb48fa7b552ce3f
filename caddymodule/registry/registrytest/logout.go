package registrytest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// logout is a denial, and what those it names are ended by.
type logout struct {
	denial   registry.Denial
	selector registry.Selector
}

// logouts returns one of each kind, for IDs of that round.
func logouts(round int) []logout {
	token, client, subject := ID(fmt.Sprint("t", round)), ID(fmt.Sprint("c", round)), ID(fmt.Sprint("s", round))
	until := time.Now().Add(time.Hour)
	return []logout{
		{registry.Denial{Token: token, Until: until}, registry.Selector{Token: token}},
		{registry.Denial{Token: token, Client: client, Until: until}, registry.Selector{Token: token, Client: client}},
		{registry.Denial{Subject: subject, IssuedBefore: until, Until: until}, registry.Selector{Subject: subject}},
	}
}

// name gives h what the denial names.
func (l logout) name(h *registry.Holder) {
	h.Token, h.Client = l.denial.Token, l.denial.Client
	h.Subject, h.IssuedAt = l.denial.Subject, time.Now()
}

// outcome is one stream of a race with a logout, and what became of it.
type outcome struct {
	holder  *registry.Holder
	named   bool
	refused bool
}

// Streams come, some of them named by a logout that comes meanwhile. Afterwards
// none of those holds, and each was ended once or refused.
func testLogouts(t *testing.T, open Open) {
	s := open.site(t)
	rule := Supersede(3, registry.Streams)
	seed := rand.Uint64() //nolint:gosec // a schedule need not be secret
	t.Logf("seed %d", seed)
	for round := range s.rounds(300) {
		for kind, l := range logouts(round) {
			results := s.raceLogout(t, rule, l, source(seed, round*3+kind))
			s.requireNobodySlippedThrough(t, l, results)
		}
	}
}

// raceLogout admits streams in several goroutines while another logs out.
func (s site) raceLogout(t *testing.T, rule registry.Rule, l logout, rnd *rand.Rand) []outcome {
	var wg sync.WaitGroup
	start := make(chan struct{})
	results := make([][]outcome, 4)
	for g := range results {
		for i := range 6 {
			h := withToken(Anon(fmt.Sprintf("%d.%d", g, i)), "another token")
			h.Key = pick(rnd, someKeys)
			res := outcome{holder: h, named: rnd.IntN(4) != 0}
			if res.named {
				l.name(h)
			}
			results[g] = append(results[g], res)
		}
		atHeader := rnd.IntN(2) == 0
		wg.Go(func() {
			<-start
			for i := range results[g] {
				res := &results[g][i]
				res.refused = s.isDenied(t, res.holder, rule, atHeader)
			}
		})
	}
	patience := rnd.IntN(200)
	wg.Go(func() {
		<-start
		for range patience {
			runtime.Gosched()
		}
		assert.NoError(t, s.Deny(context.Background(), l.denial))
		_, err := s.End(context.Background(), l.selector, registry.Ending{Reason: reason.Logout})
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

// isDenied asks for a stream, in one go or two, and reports whether it was denied.
func (s site) isDenied(t *testing.T, h *registry.Holder, rule registry.Rule, atHeader bool) bool {
	phase := registry.Reserve
	if atHeader {
		phase = registry.Header
	}
	a := s.ask(t, phase, h, rule)
	if a.Outcome == registry.Denied || atHeader {
		return a.Outcome == registry.Denied
	}
	_, err := a.Place.Commit(context.Background())
	if err != nil {
		assert.ErrorIs(t, err, registry.ErrDenied)
	}
	return err != nil
}

func (s site) requireNobodySlippedThrough(t *testing.T, l logout, results []outcome) {
	require.Empty(t, s.find(t, l.selector), "somebody still holds")
	refused := make(map[registry.StreamID]bool)
	for _, res := range results {
		endings := s.node.Endings(res.holder.ID)
		switch {
		case res.refused:
			require.True(t, res.named, "%s is refused for another's logout", res.holder.Addr)
			require.Empty(t, endings, "who never held is not ended")
			refused[res.holder.ID] = true
		case res.named:
			require.Len(t, endings, 1, "%s was admitted, so it must have been ended", res.holder.Addr)
		default:
			require.LessOrEqual(t, len(endings), 1)
			for _, e := range endings {
				require.Equal(t, reason.Superseded, e.Reason)
			}
		}
	}
	for _, res := range results {
		for _, e := range s.node.Endings(res.holder.ID) {
			require.False(t, refused[e.For], "%s was ended for one who was refused", res.holder.Addr)
		}
	}
}

// Many deny at once, and ask at once; each finds its own denial.
func testConcurrentDeny(t *testing.T, s site) {
	seed := rand.Uint64() //nolint:gosec // a schedule need not be secret
	t.Logf("seed %d", seed)
	race(seed, func(rnd *rand.Rand, _ string) {
		for range s.rounds(100) {
			l := pick(rnd, logouts(rnd.IntN(100)))
			assert.NoError(t, s.Deny(context.Background(), l.denial))
			h := Anon("s")
			l.name(h)
			assert.True(t, s.Denied(h))
		}
	})
}
