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

// distance is lower for a holder that tells a page of the newcomer's more.
func (n *newcomer) distance(h *registry.Holder) int {
	switch {
	case h.Token.IsZero() || h.Token != n.holder.Token:
		return 2
	case h.Origin != n.holder.Origin:
		return 1
	default:
		return 0
	}
}

// mostAsked is of how many holders, the oldest, the node is asked how long their
// clients have been silent.
const mostAsked = 64

// suspects are holders whose clients may be dead, the oldest first.
type suspects []registry.StreamID

// suspects returns the newcomer's. The client of a kept place is known to have
// left.
func (n *newcomer) suspects() (s suspects) {
	for e := range ring(viaKey, n.slot.held) {
		if len(s) == mostAsked {
			break
		}
		s = append(s, e.holder.ID)
	}
	return s
}

// choose returns at most registry.MostSuspects: those whose clients have been
// silent for longest, as the node knows, then the oldest. It is called with no lock
// held.
func (s suspects) choose(r *Registry) []registry.StreamID {
	if len(s) <= registry.MostSuspects {
		return s
	}
	var rows []registry.Row
	for _, id := range s {
		page, _ := r.node.List(registry.Selector{ID: id}, "", 1)
		for _, row := range page {
			if row.State == registry.StateLive && !row.LastAck.IsZero() {
				rows = append(rows, row)
			}
		}
	}
	slices.SortStableFunc(rows, func(a, b registry.Row) int { return a.LastAck.Compare(b.LastAck) })

	var chosen []registry.StreamID
	for _, row := range rows[:min(len(rows), registry.MostSuspects)] {
		chosen = append(chosen, row.Holder.ID)
	}
	for _, id := range s {
		if len(chosen) < registry.MostSuspects && !slices.Contains(chosen, id) {
			chosen = append(chosen, id)
		}
	}
	return chosen
}
