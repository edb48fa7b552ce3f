package registrytest

import (
	"bytes"
	"context"
	"slices"
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
	asked   map[registry.StreamID]time.Time
	ended   []registry.StreamID
	rows    []registry.Row
	onList  func()
}

// End remembers the ending. When its newcomer has asked, Asked tells.
func (n *FakeNode) End(id registry.StreamID, e registry.Ending) {
	n.remember(id, e)
	if n.OnEnd != nil {
		n.OnEnd(id, e)
	}
}

// EndAll is End for each.
func (n *FakeNode) EndAll(_ context.Context, ids []registry.StreamID, e registry.Ending) error {
	for _, id := range ids {
		n.End(id, e)
	}
	return nil
}

func (n *FakeNode) remember(id registry.StreamID, e registry.Ending) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.endings == nil {
		n.endings, n.asked = make(map[registry.StreamID][]registry.Ending), make(map[registry.StreamID]time.Time)
	}
	n.asked[id] = e.Asked
	e.Asked = time.Time{} // a registry need not tell, or not exactly
	n.endings[id] = append(n.endings[id], e)
	n.ended = append(n.ended, id)
}

// Endings returns how the stream was ended so far.
func (n *FakeNode) Endings(id registry.StreamID) []registry.Ending {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.endings[id])
}

// Asked returns when the newcomer asked that the stream was ended for, as the registry has
// told; zero: it has not.
func (n *FakeNode) Asked(id registry.StreamID) time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.asked[id]
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
func (n *FakeNode) List(_ context.Context, f registry.Filter, cursor string, limit int) ([]registry.Row, string, error) {
	n.mu.Lock()
	onList, rows := n.onList, slices.Clone(n.rows)
	n.mu.Unlock()
	if onList != nil {
		onList()
	}
	rows = slices.DeleteFunc(rows, func(r registry.Row) bool {
		return !f.Names(r.Holder) || r.Holder.ID.String() <= cursor
	})
	slices.SortFunc(rows, func(a, b registry.Row) int { return bytes.Compare(a.Holder.ID[:], b.Holder.ID[:]) })
	if limit = min(limit, 3); limit < len(rows) {
		return rows[:limit], rows[limit-1].Holder.ID.String(), nil
	}
	return rows, "", nil
}

// Notify reaches nobody.
func (n *FakeNode) Notify(context.Context, registry.Filter, string, string) (int, error) {
	return 0, nil
}

// Count counts nobody.
func (n *FakeNode) Count(context.Context) (registry.Counts, error) { return registry.Counts{}, nil }

var _ registry.Node = (*FakeNode)(nil)
