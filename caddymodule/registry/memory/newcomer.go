package memory

import (
	"cmp"
	"math"
	"slices"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// newcomer is a stream that asks for a key, with what it finds there. The rules
// of admission are its methods; the key's shard must be locked.
type newcomer struct {
	stream *registry.Stream
	terms  terms
	// slot is nil if nobody has anything to do with the key.
	slot *slot
	// claim is nil if the newcomer's client id has no place, or is none.
	claim *claim
}

// terms is a registry.Rule in a fifth of its size. What is not Reject is
// Supersede, and what is not Clients is Streams.
type terms struct {
	most            int32
	reject, clients bool
}

func termsOf(rule registry.Rule) terms {
	most := min(max(rule.Limit, 0), math.MaxInt32)
	return terms{int32(most), rule.Policy == registry.Reject, rule.Unit == registry.Clients}
}

// limit is the number of holders; 0: no limit.
func (t terms) limit() int { return int(t.most) }

// judgement says whether the newcomer is admitted, and at whose cost.
func (n newcomer) judgement() registry.Judgement {
	if n.admitted() {
		return registry.Judgement{Admitted: true, Ends: victims(n.departures())}
	}
	j := registry.Judgement{Holders: make([]*registry.Stream, 0, n.slot.holders)}
	for e := range ring(viaKey, n.slot.held) {
		j.Holders = append(j.Holders, e.stream)
	}
	return j
}

// admitted tells whether the newcomer gets a place. Reservations count, or two
// newcomers could both be promised the last one.
func (n newcomer) admitted() bool {
	switch {
	case n.slot == nil, !n.terms.reject, n.terms.limit() == 0:
		return true
	case n.terms.clients:
		return n.claim != nil || n.slot.taking < n.terms.limit()
	default:
		return n.slot.holders+n.slot.reservations-n.replaced() < n.terms.limit()
	}
}

// takesPlace tells whether the newcomer, if admitted, takes a further place.
func (n newcomer) takesPlace() bool {
	if n.terms.clients {
		return n.claim == nil
	}
	return n.replaced() == 0
}

// replaced counts the places that a tab's newcomer does not count against
// itself: its own held ones, which its commit ends, and its own reserved ones.
// A reservation of the same client id that is not a tab's does count: were it
// committed after the newcomer, it would not end the newcomer, and the key
// would be held too often.
func (n newcomer) replaced() int {
	if !n.stream.Tab || n.claim == nil {
		return 0
	}
	return n.claim.holders + n.claim.tabs
}

// departure is a holder that must go, and why.
type departure struct {
	entry  *entry
	reason registry.Reason
}

// departures lists, oldest first, the holders that the newcomer's commit ends.
func (n newcomer) departures() []departure {
	if n.slot == nil {
		return nil
	}
	var out []departure
	if n.stream.Tab {
		for e := range ring(viaClaim, n.claim.oldest()) {
			out = append(out, departure{e, registry.Replaced})
		}
	}
	switch {
	case n.terms.reject, n.terms.limit() == 0:
	case n.terms.clients:
		out = n.supersedeClients(out)
	default:
		out = n.supersedeStreams(out)
	}
	slices.SortFunc(out, func(a, b departure) int { return cmp.Compare(a.entry.age, b.entry.age) })
	return out
}

// supersedeStreams adds to out the holders that are too many: the newcomer's
// own older streams first, then the oldest.
func (n newcomer) supersedeStreams(out []departure) []departure {
	excess := n.slot.holders - len(out) + 1 - n.terms.limit()
	if !n.stream.Tab { // a tab's are all in out already
		for e := range ring(viaClaim, n.claim.oldest()) {
			if excess <= 0 {
				break
			}
			out = append(out, departure{e, registry.Replaced})
			excess--
		}
	}
	for e := range ring(viaKey, n.slot.held) {
		if excess <= 0 {
			break
		}
		if n.owns(e) {
			continue // in out already
		}
		out = append(out, departure{e, registry.Superseded})
		excess--
	}
	return out
}

// supersedeClients adds to out all streams of the clients that are too many:
// those whose youngest stream is oldest, never the newcomer's own.
func (n newcomer) supersedeClients(out []departure) []departure {
	excess := n.slot.holding - n.terms.limit()
	if n.claim.oldest() == nil {
		excess++
	}
	for e := range ring(viaKey, n.slot.held) {
		switch {
		case excess <= 0:
			return out
		case n.owns(e):
		case e.claim == nil:
			out = append(out, departure{e, registry.Superseded})
			excess--
		case youngest(viaClaim, e.claim.held) == e:
			for peer := range ring(viaClaim, e.claim.held) {
				out = append(out, departure{peer, registry.Superseded})
			}
			excess--
		}
	}
	return out
}

// owns tells whether e is a stream of the newcomer's client.
func (n newcomer) owns(e *entry) bool { return n.claim != nil && e.claim == n.claim }

// victims is what callers get to see of departures.
func victims(ds []departure) []registry.Victim {
	if len(ds) == 0 {
		return nil
	}
	vs := make([]registry.Victim, len(ds))
	for i, d := range ds {
		vs[i] = registry.Victim{Stream: d.entry.stream, Reason: d.reason}
	}
	return vs
}
