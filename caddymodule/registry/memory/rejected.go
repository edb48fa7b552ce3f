package memory

import (
	"context"
	"slices"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// someHolders returns those who hold the key, as registry.Admission describes: kept
// places too. What it costs does not depend on how many there are.
func (n *newcomer) someHolders(in *Registry) []*registry.Holder {
	some := in.tokens.underKey(n.holder.Token, n.holder.Key, registry.MostHolders)
	slices.SortFunc(some, compareAge)
	for _, head := range []*entry{n.slot.held, n.slot.kept} {
		for e := range ring(viaKey, head) {
			if len(some) == registry.MostHolders {
				break
			}
			if !slices.Contains(some, e) {
				some = append(some, e)
			}
		}
	}
	out := make([]*registry.Holder, len(some))
	for i, e := range some {
		out[i] = e.holder
	}
	return out
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
func (s suspects) choose(ctx context.Context, r *Registry) []registry.StreamID {
	return registry.ChooseSuspects(ctx, r.node, s, s)
}
