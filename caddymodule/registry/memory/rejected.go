package memory

import (
	"cmp"
	"slices"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// someHolders returns those who hold the key, as registry.Admission describes: kept
// places too.
func (n *newcomer) someHolders() []*registry.Holder {
	var first []*entry // at most registry.MostHolders, the nearest first
	add := func(e *entry) {
		at, _ := slices.BinarySearchFunc(first, e, func(a, b *entry) int {
			return cmp.Or(cmp.Compare(n.distance(a.holder), n.distance(b.holder)), cmp.Compare(a.age, b.age))
		})
		if at < registry.MostHolders {
			first = slices.Insert(first, at, e)
			first = first[:min(len(first), registry.MostHolders)]
		}
	}
	for e := range ring(viaKey, n.slot.held) {
		add(e)
	}
	for e := range ring(viaKey, n.slot.kept) {
		add(e)
	}
	var out []*registry.Holder
	for _, e := range first {
		out = append(out, e.holder)
	}
	return out
}

// distance is lower for a holder of the newcomer's token.
func (n *newcomer) distance(h *registry.Holder) int {
	if h.Token.IsZero() || h.Token != n.holder.Token {
		return 1
	}
	return 0
}

// suspects are the holders whose clients may be dead.
type suspects struct {
	// oldest has registry.MostSuspects of them, if there are so many; more tells
	// that there are others.
	oldest []registry.StreamID
	more   bool
}

// suspects returns the newcomer's. The client of a kept place is known to have
// left.
func (n *newcomer) suspects() (s suspects) {
	for e := range ring(viaKey, n.slot.held) {
		if len(s.oldest) == registry.MostSuspects {
			s.more = true
			return s
		}
		s.oldest = append(s.oldest, e.holder.ID)
	}
	return s
}

// rowsAtOnce is how many streams the node is asked for in one go.
const rowsAtOnce = 512

// choose returns at most registry.MostSuspects: those whose clients have been
// silent for longest, as the node knows, then the oldest. It is called with no lock
// held.
func (s suspects) choose(r *Registry, key registry.ID) []registry.StreamID {
	if !s.more {
		return s.oldest
	}
	var rows []registry.Row
	for cursor := ""; ; {
		var page []registry.Row
		page, cursor = r.node.List(registry.Selector{Key: key}, cursor, rowsAtOnce)
		for _, row := range page {
			if row.State == registry.StateLive && !row.LastAck.IsZero() {
				rows = append(rows, row)
			}
		}
		if cursor == "" {
			break
		}
	}
	slices.SortStableFunc(rows, func(a, b registry.Row) int { return a.LastAck.Compare(b.LastAck) })

	var chosen []registry.StreamID
	for _, row := range rows {
		if len(chosen) == registry.MostSuspects {
			return chosen
		}
		if r.holds(row.Holder.ID) {
			chosen = append(chosen, row.Holder.ID)
		}
	}
	for _, id := range s.oldest {
		if len(chosen) < registry.MostSuspects && !slices.Contains(chosen, id) {
			chosen = append(chosen, id)
		}
	}
	return chosen
}

// holds tells whether the stream of that name holds its key, and is not only kept a
// place.
func (r *Registry) holds(id registry.StreamID) bool {
	e := r.ids.find(id)
	if e == nil {
		return false
	}
	sh := e.shard()
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return e.state == held
}
