package stream

import (
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// fakeGate admits every event stream, and ends with the event "id: T".
type fakeGate struct {
	refuse, untracked, uncommitted bool

	judged atomic.Int32
	over   sync.Once
	isOver chan struct{}
}

func newGate() *fakeGate { return &fakeGate{isOver: make(chan struct{})} }

func (g *fakeGate) Judge(status int, h http.Header) Verdict {
	g.judged.Add(1)
	switch {
	case status != http.StatusOK || h.Get("Content-Type") != "text/event-stream":
		return Pass
	case g.refuse:
		return Refuse
	case g.untracked:
		return Untracked
	default:
		return Admit
	}
}

func (g *fakeGate) Commit() bool { return !g.uncommitted }

func (g *fakeGate) Notice(dst []byte, e registry.Ending, lastEventID string) []byte {
	return append(dst, notice(e.Reason, lastEventID)...)
}

func (g *fakeGate) Over(bool) { g.over.Do(func() { close(g.isOver) }) }

func notice(reason registry.Reason, lastEventID string) string {
	return "id: T\nevent: END\ndata: " + string(reason) + " " + lastEventID + "\n\n"
}

var testConfig = Config{EndTimeout: 200 * time.Millisecond, MaxEventSize: 1 << 10}
