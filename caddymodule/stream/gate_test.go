package stream

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// fakeGate admits every event stream, and ends with the event "id: T".
type fakeGate struct {
	response *Response // by whoever makes it
	test     string    // its name, where the stack does not tell
	refuse   bool
	pass     bool // although there is a Stream
	terms    Terms
	place    *fakePlace
	// asked is called when there is a Stream, and the registry is asked; opening in
	// Opened.
	asked, opening func(*Stream)

	judged atomic.Int32
	gone   atomic.Int32
	isGone chan struct{}
}

func newGate() *fakeGate { return &fakeGate{place: newPlace(), isGone: make(chan struct{})} }

func (g *fakeGate) Judge(status int, h http.Header) Verdict {
	g.judged.Add(1)
	if status != http.StatusOK || h.Get("Content-Type") != "text/event-stream" {
		return Pass
	}
	t := g.terms
	t.Holder = &registry.Holder{}
	if t.Notice == nil {
		t.Notice = func(dst []byte, e registry.Ending, lastEventID string) []byte {
			return append(dst, notice(e.Reason, lastEventID)...)
		}
	}
	if gone := t.Gone; gone == nil {
		t.Gone = func(*Stream) {
			if g.gone.Add(1) == 1 {
				close(g.isGone)
			}
		}
	}
	s := g.response.NewStream(t)
	if g.asked != nil {
		g.asked(s)
	}
	if g.refuse {
		return Refuse
	}
	if !t.Untracked {
		s.Hold(g.place)
	}
	if g.pass {
		return Pass
	}
	return Admit
}

func (g *fakeGate) Opened() {
	if g.opening != nil {
		g.opening(g.response.Stream())
	}
}

// fakePlace notes when it is given back.
type fakePlace struct {
	slow time.Duration // of Leave

	mu       sync.Mutex
	keeps    []registry.Keep
	departed int
	isLeft   chan struct{} // closed by the first Leave
}

func newPlace() *fakePlace { return &fakePlace{isLeft: make(chan struct{})} }

func (*fakePlace) Commit(context.Context) ([]registry.Victim, error) { return nil, nil }

func (p *fakePlace) Leave(k registry.Keep) {
	if p.slow > 0 {
		<-time.After(p.slow)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.keeps = append(p.keeps, k); len(p.keeps) == 1 {
		close(p.isLeft)
	}
}

func (p *fakePlace) Departed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.departed++
}

// left are the calls of Leave so far.
func (p *fakePlace) left() []registry.Keep {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.keeps)
}

// departures is how often Departed was called.
func (p *fakePlace) departures() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.departed
}

func notice(r reason.Reason, lastEventID string) string {
	return "id: T\nevent: END\ndata: " + string(r) + " " + lastEventID + "\n\n"
}

var testConfig = Config{EndTimeout: 200 * time.Millisecond, MaxEventSize: 1 << 10}

var superseded = registry.Ending{Reason: reason.Superseded}

// newResponse readies a Response as a guard does.
func newResponse(w http.ResponseWriter, r *http.Request, gate *fakeGate, cfg *Config) *Response {
	p := new(Response)
	gate.response = p
	p.Init(w, r, gate, cfg)
	inTests.add(cmp.Or(gate.test, runningTest()), p)
	return p
}
