package campaign

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/checker"
	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// campaign is one run.
type campaign struct {
	w       *world
	r       *recorder
	crowd   *crowd
	workers []*worker
	trouble *trouble
	watch   sync.WaitGroup
	done    chan struct{} // closed to end watch
	mended  func()        // notes that what cutOff did is over
}

func newCampaign(w *world, seed uint64) *campaign {
	r := newRecorder(w.zones)
	c := &campaign{w: w, r: r, crowd: newCrowd(w, r), done: make(chan struct{})}
	for i := range workers {
		c.workers = append(c.workers, newWorker(c.crowd, seed, i))
	}
	r.fault(checker.Fault{Kind: checker.RedisFlushed})() // Redis cannot tell a new zone from one that it has lost
	c.trouble = &trouble{w: w, r: r, rand: rand.New(rand.NewPCG(seed, workers))}
	c.watch.Go(func() { r.watch(c.done) })
	for _, n := range w.nodes {
		c.watch.Go(func() { r.watchNode(n, c.crowd.transport, c.done) })
	}
	return c
}

// play has clients at work, and the steps done meanwhile. Then it waits until whatever
// is promised must have come true.
func (c *campaign) play(steps []step) {
	stop := make(chan struct{})
	var working sync.WaitGroup
	for _, w := range c.workers {
		working.Go(func() { w.work(stop) })
	}
	began := time.Now()
	for _, s := range append(slices.Clone(steps), step{at: traffic, what: "quiet", do: func() {}}) {
		wait(s.at - time.Since(began))
		c.w.t.Logf("%s %s", c.r.now(), s.what)
		s.do()
	}
	close(stop)
	working.Wait()
	wait(promise.Lease + promise.Slack)
	c.r.quiet()
}

// wait waits for a time that is the test's own to choose.
func wait(d time.Duration) { <-time.After(d) }

// end closes all streams.
func (c *campaign) end() {
	close(c.done)
	c.watch.Wait()
	for _, w := range c.workers {
		w.closeAll()
	}
	c.crowd.wg.Wait()
	c.crowd.transport.CloseIdleConnections()
	require.Eventually(c.w.t, func() bool { return c.w.open.Load() == 0 }, harness.Patience, 10*time.Millisecond,
		"streams of the backend are left")
}

// TestCampaign is the campaign itself.
func TestCampaign(t *testing.T) {
	seed := seed(t)
	c := newCampaign(newWorld(t, zones, lease), seed)
	began := time.Now()
	for round := 1; round == 1 || time.Since(began) < *lastFlag; round++ {
		steps := c.trouble.round()
		t.Logf("round %d", round)
		c.play(steps)
	}
	h := c.r.soFar()
	c.end()
	t.Log(summary(h))
	report(t, h, checker.Check(h, promise))
	if t.Failed() {
		t.Logf("to play this again: go test ./caddymodule/e2e/campaign -run TestCampaign -v -args -seed %d -for %s", seed, *lastFlag)
	}
}

// report fails the test for violations, and shows what was around the first.
func report(t *testing.T, h *checker.History, violations []checker.Violation) {
	for i, v := range violations {
		if i < 5 {
			t.Errorf("%s\n%s", v, around(h, v))
		} else {
			t.Errorf("%s", v)
		}
	}
}

// summary says what the history has.
func summary(h *checker.History) string {
	counts := make(map[string]int)
	for _, s := range h.Streams {
		counts[string(s.Outcome)]++
		if s.Outcome == checker.Admitted {
			counts["ended: "+cmp.Or(string(s.Ending), "not")]++
		}
	}
	var stalled time.Duration
	for _, f := range h.Faults {
		counts["fault: "+string(f.Kind)]++
		if f.Kind == checker.Stalled {
			stalled += time.Duration(f.To - f.From)
		}
	}
	var lines []string
	for what, n := range counts {
		lines = append(lines, fmt.Sprintf("%6d %s", n, what))
	}
	slices.SortFunc(lines, func(a, b string) int { return cmp.Compare(a[6:], b[6:]) })
	return fmt.Sprintf("%d requests, %d logouts until %s; the machine stalled for %s\n%s",
		len(h.Streams), len(h.Logouts), h.Until, stalled, strings.Join(lines, "\n"))
}

// around lists what happened around a violation: what was done, and all requests for
// the same key, one line each.
func around(h *checker.History, v checker.Violation) string {
	if len(v.Streams) == 0 {
		return ""
	}
	first := h.Streams[v.Streams[0]]
	from, to := first.Asked, first.Answered
	for _, i := range v.Streams {
		from = min(from, h.Streams[i].Asked)
		to = max(to, h.Streams[i].Answered, min(h.Streams[i].Ended, h.Until))
	}
	from -= checker.Time(8 * lease) // what is found late may have begun long before
	var out strings.Builder
	for _, f := range h.Faults {
		if f.To >= from && f.From <= to {
			fmt.Fprintf(&out, "  %s to %s: %s %s %s\n", f.From, f.To, f.Kind, cmp.Or(f.Node, "all"), f.Delay)
		}
	}
	for _, l := range h.Logouts {
		if l.Zone == first.Zone && l.Token == first.Token {
			fmt.Fprintf(&out, "  %s to %s: logout of %s on %s, done %t\n", l.Asked, l.Answered, l.Token, l.Node, l.Done)
		}
	}
	for i, s := range h.Streams {
		if s.Zone != first.Zone || s.Key != first.Key || s.Asked > to || min(s.Ended, h.Until) < from && s.Answered < from {
			continue
		}
		mark := " "
		if slices.Contains(v.Streams, i) {
			mark = "*"
		}
		fmt.Fprintf(&out, "%s %d %s: asked %s, answered %s %s", mark, i, s.Node, s.Asked, s.Answered, s.Outcome)
		if s.Outcome == checker.Admitted {
			fmt.Fprintf(&out, ", ended %s %s", s.Ended, s.Ending)
		}
		fmt.Fprintf(&out, "; token %s client %s\n", s.Token, s.Client)
	}
	return out.String()
}
