package campaign

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/checker"
)

// recorder writes the history.
type recorder struct {
	began time.Time

	// mu guards the fields below it.
	mu      sync.Mutex
	history checker.History
}

func newRecorder(zones []zone) *recorder {
	r := &recorder{began: time.Now()}
	r.history.Zones = make(map[string]checker.Zone)
	for _, z := range zones {
		r.history.Zones[z.name] = z.Zone
	}
	return r
}

func (r *recorder) now() checker.Time { return checker.Time(time.Since(r.began)) }

// asks enters a stream that asks now, and returns its index.
func (r *recorder) asks(s checker.Stream) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	s.Asked, s.Answered, s.Ended = r.now(), checker.Never, checker.Never
	r.history.Streams = append(r.history.Streams, s)
	return len(r.history.Streams) - 1
}

func (r *recorder) answered(i int, o checker.Outcome, status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &r.history.Streams[i]
	s.Answered, s.Outcome, s.Status = r.now(), o, status
}

// ended notes how an admitted stream ended. The first word counts.
func (r *recorder) ended(i int, e checker.Ending) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &r.history.Streams[i]
	if s.Ending == checker.Lives {
		s.Ended, s.Ending = r.now(), e
	}
}

func (r *recorder) loggedOut(l checker.Logout) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l.Answered = r.now()
	r.history.Logouts = append(r.history.Logouts, l)
}

// fault notes what begins now, and returns what to call when it is over.
func (r *recorder) fault(f checker.Fault) (over func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f.From, f.To = r.now(), checker.Never
	r.history.Faults = append(r.history.Faults, f)
	i := len(r.history.Faults) - 1
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.history.Faults[i].To = r.now()
	}
}

// stalled notes that the machine did not let a node run. Empty: this process itself.
func (r *recorder) stalled(node string, from, to checker.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.history.Faults = append(r.history.Faults, checker.Fault{Kind: checker.Stalled, Node: node, From: from, To: to})
}

func (r *recorder) quiet() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.history.Quiet = append(r.history.Quiet, r.now())
}

// soFar returns the history up to now.
func (r *recorder) soFar() *checker.History {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.history
	h.Streams, h.Logouts = slices.Clone(h.Streams), slices.Clone(h.Logouts)
	h.Faults, h.Quiet = slices.Clone(h.Faults), slices.Clone(h.Quiet)
	h.Until = r.now()
	return &h
}

const (
	// tick is how often the machine is asked whether it runs.
	tick = 20 * time.Millisecond
	// stall is how late it may answer.
	stall = 250 * time.Millisecond
)

// watch notes, until done is closed, when the machine did not let this process run. What
// its nodes and Redis do then says nothing of them.
func (r *recorder) watch(done <-chan struct{}) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	last := r.now()
	for {
		select {
		case <-ticker.C:
		case <-done:
			return
		}
		now := r.now()
		if time.Duration(now-last) > stall {
			r.stalled("", last, now)
		}
		last = now
	}
}

// watchNode notes, until done is closed, when the node is late to answer what asks for
// nothing.
func (r *recorder) watchNode(n *node, transport http.RoundTripper, done <-chan struct{}) {
	ticker := time.NewTicker(5 * tick)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-done:
			return
		}
		from := r.now()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, n.url+"/ready", nil)
		if err != nil {
			panic(err) // the URL is ours
		}
		if response, err := transport.RoundTrip(request); err == nil {
			response.Body.Close()
			if to := r.now(); time.Duration(to-from) > stall {
				r.stalled(n.name, from, to)
			}
		}
		cancel()
	}
}
