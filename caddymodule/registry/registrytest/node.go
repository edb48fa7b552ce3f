package registrytest

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// FakeNode is a registry.Node without streams, which remembers who was ended. All
// methods may be called concurrently. The zero FakeNode is ready.
type FakeNode struct {
	// OnEnd, if set, is called by End, with no lock held.
	OnEnd func(registry.StreamID, registry.Ending)

	// mu guards the fields below.
	mu      sync.Mutex
	endings map[registry.StreamID][]registry.Ending
	ended   []registry.StreamID
	rows    []registry.Row
	onList  func()
}

// End remembers the ending, but not when its newcomer has asked.
func (n *FakeNode) End(id registry.StreamID, e registry.Ending) {
	n.remember(id, e)
	if n.OnEnd != nil {
		n.OnEnd(id, e)
	}
}

func (n *FakeNode) remember(id registry.StreamID, e registry.Ending) {
	e.Asked = time.Time{} // a registry need not tell
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.endings == nil {
		n.endings = make(map[registry.StreamID][]registry.Ending)
	}
	n.endings[id] = append(n.endings[id], e)
	n.ended = append(n.ended, id)
}

// Endings returns how the stream was ended so far.
func (n *FakeNode) Endings(id registry.StreamID) []registry.Ending {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.endings[id])
}

// Ended returns who was ended, in order.
func (n *FakeNode) Ended() []registry.StreamID {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.ended)
}

// Show has List list the rows; onList, if not nil, is called by List first.
func (n *FakeNode) Show(onList func(), rows ...registry.Row) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.onList, n.rows = onList, rows
}

// Probe reports that the stream's client lives.
func (n *FakeNode) Probe(context.Context, registry.StreamID, time.Duration) bool { return true }

// List lists the rows that Show was given. A page has three of them at most, so that
// whoever needs all must turn it.
func (n *FakeNode) List(sel registry.Selector, cursor string, limit int) ([]registry.Row, string) {
	n.mu.Lock()
	onList, rows := n.onList, slices.Clone(n.rows)
	n.mu.Unlock()
	if onList != nil {
		onList()
	}
	rows = slices.DeleteFunc(rows, func(r registry.Row) bool { return !sel.Matches(r.Holder) })
	from, _ := strconv.Atoi(cursor)
	to := from + min(limit, 3)
	if to >= len(rows) {
		return rows[from:], ""
	}
	return rows[from:to], strconv.Itoa(to)
}

// Notify reaches nobody.
func (n *FakeNode) Notify(registry.Selector, string, string) int { return 0 }

var _ registry.Node = (*FakeNode)(nil)
