package memory

import (
	"math"
	"slices"

	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// newcomer is a stream that asks for a key, with what it finds there. The rules
// of admission are its methods; the key's shard must be locked.
type newcomer struct {
	holder *registry.Holder
	terms  terms
	// slot is nil if nobody has anything to do with the key.
	slot *slot
	// claim is nil if the newcomer's client id has no place, or is none.
	claim *claim
	// gone are holders that do not count, since they are about to end. preferred are
	// those that make room before others, since another guard of the request has to end
	// them: the oldest first, and none that asked later than the newcomer.
	gone, preferred []*entry
	absent          absent
	// back has the places, kept for the newcomer's client, that it takes back: one,
	// or, for a tab, all.
	back []*entry
}

// absent counts the held places that do not count.
type absent struct {
	streams int
	// own is how many of the streams are of the newcomer's client id.
	own int
	// holding is how many clients hold nothing else.
	holding int
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

// find looks up the newcomer's slot and claim.
func (n *newcomer) find(sh *shard) {
	n.slot = sh.slots[n.holder.Key]
	if n.slot != nil && !n.holder.Client.IsZero() {
		n.claim = sh.claims[pair{n.holder.Key, n.holder.Client}]
	}
}

// regard has n know which holders do not count, and which make room before others:
// both are named by streams of their responses.
func (n *newcomer) regard(in *Registry, gone, preferred []registry.StreamID) {
	if n.slot == nil || len(gone)+len(preferred) == 0 || n.holder.Yields { // who yields gets what is free
		return
	}
	for _, id := range gone {
		n.gone = in.ids.ofResponse(id, n.holder.Key, n.gone)
	}
	for _, id := range preferred {
		n.preferred = in.ids.ofResponse(id, n.holder.Key, n.preferred)
	}
	n.preferred = slices.DeleteFunc(n.preferred, func(e *entry) bool { return n.isGone(e) || n.isOlder(e) })
	slices.SortFunc(n.preferred, compareAge)
	n.countGone()
}

// isOlder tells whether the newcomer asked before e did, which does not yield.
func (n *newcomer) isOlder(e *entry) bool {
	return !e.holder.Yields && n.holder.Asked.Before(e.holder.Asked)
}

// countGone counts the holders that do not count.
func (n *newcomer) countGone() {
	for _, e := range n.gone {
		n.absent.streams++
		if n.owns(e) {
			n.absent.own++
		}
		c := e.claim
		switch {
		case c == nil:
			n.absent.holding++
		case youngest(viaClaim, c.held) == e && n.present(c) == nil && c.kept == 0:
			n.absent.holding++
		}
	}
}

// isGone tells whether e does not count for the newcomer.
func (n *newcomer) isGone(e *entry) bool { return slices.Contains(n.gone, e) }

// present returns the youngest of the claim's holders that counts; nil if there is
// none.
func (n *newcomer) present(c *claim) *entry {
	if len(n.gone) == 0 && c.held != nil {
		return youngest(viaClaim, c.held)
	}
	var found *entry
	for e := range ring(viaClaim, c.held) {
		if !n.isGone(e) {
			found = e
		}
	}
	return found
}

// findBack finds the places that the newcomer takes back.
func (n *newcomer) findBack() {
	if n.slot == nil || n.holder.Yields {
		return
	}
	for e := range ring(viaKey, n.slot.kept) {
		if !e.holder.SameClient(n.holder) {
			continue
		}
		n.back = append(n.back, e)
		if !n.isTab() {
			return
		}
	}
}

// isTab tells whether the newcomer replaces all older streams of its client id.
func (n *newcomer) isTab() bool {
	return n.holder.Tab && !n.holder.Client.IsZero() && !n.holder.Yields
}

// rejects tells whether the newcomer makes nobody go but those who yield.
func (n *newcomer) rejects() bool { return n.terms.reject || n.holder.Yields }

// uncounted is how many of those that yield do not count for the newcomer: all, unless
// it yields itself.
func (n *newcomer) uncounted(yield int) int {
	if n.holder.Yields {
		return 0
	}
	return yield
}

// admitted tells whether the newcomer gets a place. Reservations count, or two
// newcomers could both be promised the last one; and so do holders that are about
// to end: Reject protects them until they are gone. Those that yield count only for
// one that yields too.
func (n *newcomer) admitted() bool {
	switch {
	case n.slot == nil, !n.rejects(), n.terms.limit() == 0:
		return true
	case n.terms.clients:
		return n.takes() || n.slot.taking-n.uncounted(n.slot.yielding)-n.anonymousBack() < n.terms.limit()
	default:
		taken := n.slot.holders + n.slot.keeping + n.slot.reservations - n.uncounted(n.slot.yields)
		return taken-n.replaced()-len(n.back) < n.terms.limit()
	}
}

// fitted tells whether there was a place for the newcomer, which yields and has just
// been made a holder.
func (n *newcomer) fitted() bool {
	switch {
	case n.terms.limit() == 0:
		return true
	case n.terms.clients:
		mine := n.claim != nil && n.claim.holders+n.claim.kept > 1
		return mine || n.slot.holding <= n.terms.limit()
	default:
		return n.slot.holders+n.slot.keeping <= n.terms.limit()
	}
}

// occupied counts the places that are taken, of what the limit counts for the newcomer.
func (n *newcomer) occupied() int {
	switch {
	case n.slot == nil:
		return 0
	case n.terms.clients:
		return n.slot.taking - n.uncounted(n.slot.yielding)
	default:
		return n.slot.holders + n.slot.keeping + n.slot.reservations - n.uncounted(n.slot.yields)
	}
}

// takesPlace tells whether the newcomer, if admitted, takes a further place.
func (n *newcomer) takesPlace() bool {
	if len(n.back) > 0 {
		return false
	}
	if n.terms.clients {
		return !n.takes()
	}
	return n.replaced() == 0
}

// takes tells whether the newcomer's client id has a place already.
func (n *newcomer) takes() bool {
	return n.claim != nil && n.claim.places()-n.uncounted(n.claim.yields) > 0
}

// holds tells whether the newcomer's client id holds already.
func (n *newcomer) holds() bool {
	return n.claim != nil && n.claim.holders-n.absent.own+n.claim.kept > 0
}

// anonymousBack counts the clients without a client id whose places the newcomer
// takes back.
func (n *newcomer) anonymousBack() int {
	if !n.holder.Client.IsZero() {
		return 0
	}
	return len(n.back)
}

// replaced counts the places that a tab's newcomer does not count against
// itself: its own held ones, which its commit ends, and its own reserved ones.
// A reservation of the same client id that is not a tab's does count: were it
// committed after the newcomer, it would not end the newcomer, and the key
// would be held too often.
func (n *newcomer) replaced() int {
	if !n.isTab() || n.claim == nil {
		return 0
	}
	return n.claim.holders - n.claim.yieldsHeld + n.claim.tabs
}

// cost is who makes room for a newcomer.
type cost struct {
	// ends are the holders that must end, oldest first.
	ends []victim
	// yields are the kept places that are given up.
	yields []*entry
	// outasked says that nobody is to make room: who would have to asked later.
	outasked bool
}

// victim is a holder that must end, and why.
type victim struct {
	entry  *entry
	reason reason.Reason
}

// cost finds who makes room for the newcomer, once it holds.
func (n *newcomer) cost() cost {
	if n.slot == nil {
		return cost{}
	}
	c := cost{yields: n.back}
	if n.isTab() {
		for e := range ring(viaClaim, n.claim.oldest()) {
			if !n.isGone(e) {
				n.end(&c, e, reason.Replaced)
			}
		}
	}
	switch {
	case n.holder.Yields, n.terms.limit() == 0:
	case n.terms.clients:
		n.supersedeClients(&c)
	default:
		n.supersedeStreams(&c)
	}
	if c.outasked {
		return cost{outasked: true}
	}
	slices.SortFunc(c.ends, func(a, b victim) int { return compareAge(a.entry, b.entry) })
	return c
}

// end adds e to those in c that must end, unless it asked after the newcomer.
func (n *newcomer) end(c *cost, e *entry, why reason.Reason) {
	if n.isOlder(e) {
		c.outasked = true
		return
	}
	c.ends = append(c.ends, victim{e, why})
}

// supersedeStreams adds to c the places that are too many: streams that yield first;
// under Reject no others; then kept ones, then the newcomer's own older streams, then
// the preferred ones, then the oldest.
func (n *newcomer) supersedeStreams(c *cost) {
	excess := n.slot.holders + n.slot.keeping - n.absent.streams - len(c.ends) - len(c.yields) + 1 - n.terms.limit()
	for e := range ring(viaKey, n.slot.held) {
		if !e.holder.Yields {
			break // those that yield come first
		}
		if excess <= 0 {
			return
		}
		if !n.isGone(e) && (!n.isTab() || !n.owns(e)) { // else in c already
			c.ends = append(c.ends, victim{e, reason.Superseded})
			excess--
		}
	}
	if n.terms.reject {
		return
	}
	for e := range ring(viaKey, n.slot.kept) {
		if excess <= 0 {
			return
		}
		if !slices.Contains(n.back, e) {
			c.yields = append(c.yields, e)
			excess--
		}
	}
	if !n.isTab() { // a tab's are all in c already
		for e := range ring(viaClaim, n.claim.oldest()) {
			if excess <= 0 {
				return
			}
			if !n.isGone(e) && !e.holder.Yields {
				n.end(c, e, reason.Replaced)
				excess--
			}
		}
	}
	for _, e := range n.preferred {
		if excess > 0 && !n.owns(e) && !e.holder.Yields {
			n.end(c, e, reason.Superseded)
			excess--
		}
	}
	for e := range ring(viaKey, n.slot.held) {
		if excess <= 0 || c.outasked {
			return
		}
		if !n.owns(e) && !n.isGone(e) && !e.holder.Yields && !slices.Contains(n.preferred, e) { // else in c already
			n.end(c, e, reason.Superseded)
			excess--
		}
	}
}

// supersedeClients adds to c all places of the clients that are too many: first those
// that only yield; under Reject no others; then those for which places are only kept,
// then those all of whose streams are preferred, then those whose youngest stream is
// oldest, never the newcomer's own.
func (n *newcomer) supersedeClients(c *cost) {
	excess := n.slot.holding - n.absent.holding - n.anonymousBack() - n.terms.limit()
	if !n.holds() {
		excess++
	}
	for e := range ring(viaKey, n.slot.held) {
		if !e.holder.Yields {
			break // those that yield come first
		}
		switch {
		case excess <= 0:
			return
		case n.isGone(e), n.owns(e), !n.isYoungest(e), e.claim != nil && e.claim.kept > 0:
		default:
			n.endClient(c, e)
			excess--
		}
	}
	if n.terms.reject {
		return
	}
	for e := range ring(viaKey, n.slot.kept) {
		switch {
		case excess <= 0:
			return
		case n.owns(e), slices.Contains(c.yields, e):
		case e.claim == nil:
			c.yields = append(c.yields, e)
			excess--
		case n.onlyKept(e.claim):
			n.endClient(c, e)
			excess--
		}
	}
	for _, e := range n.preferred {
		if excess > 0 && !n.owns(e) && !e.holder.Yields && n.isYoungest(e) && n.isPreferred(e) {
			n.endClient(c, e)
			excess--
		}
	}
	for e := range ring(viaKey, n.slot.held) {
		switch {
		case excess <= 0:
			return
		case n.owns(e), n.isGone(e), e.holder.Yields, !n.isYoungest(e), n.isPreferred(e):
		case n.isOutaskedBy(e):
			c.outasked = true
			return
		default:
			n.endClient(c, e)
			excess--
		}
	}
}

// onlyKept tells whether none of the claim's holders counts but those that yield.
func (n *newcomer) onlyKept(c *claim) bool {
	youngest := n.present(c)
	return youngest == nil || youngest.holder.Yields
}

// isYoungest tells whether e is the youngest of its client's streams.
func (n *newcomer) isYoungest(e *entry) bool { return e.claim == nil || n.present(e.claim) == e }

// isPreferred tells whether all streams of e's client are preferred.
func (n *newcomer) isPreferred(e *entry) bool {
	if len(n.preferred) == 0 || e.claim == nil {
		return slices.Contains(n.preferred, e)
	}
	for peer := range ring(viaClaim, e.claim.held) {
		if !n.isGone(peer) && !slices.Contains(n.preferred, peer) {
			return false
		}
	}
	return true
}

// isOutaskedBy tells whether e asked after all streams of the newcomer's client.
func (n *newcomer) isOutaskedBy(e *entry) bool {
	if n.claim != nil {
		if own := n.present(n.claim); own != nil && !own.isOlder(e) {
			return false
		}
	}
	return n.isOlder(e)
}

// endClient adds to c all streams and places of e's client.
func (n *newcomer) endClient(c *cost, e *entry) {
	if e.claim == nil {
		c.ends = append(c.ends, victim{e, reason.Superseded})
		return
	}
	for peer := range ring(viaClaim, e.claim.held) {
		if !n.isGone(peer) {
			c.ends = append(c.ends, victim{peer, reason.Superseded})
		}
	}
	n.yieldAll(c, e.claim)
}

// yieldAll adds to c all places that are kept for the claim's client.
func (n *newcomer) yieldAll(c *cost, of *claim) {
	if of.kept == 0 {
		return
	}
	for e := range ring(viaKey, n.slot.kept) {
		if e.claim == of {
			c.yields = append(c.yields, e)
		}
	}
}

// owns tells whether e is a place of the newcomer's client id.
func (n *newcomer) owns(e *entry) bool { return n.claim != nil && e.claim == n.claim }

// victims is what callers get to see of those who must end.
func (c *cost) victims() []registry.Victim {
	if len(c.ends) == 0 {
		return nil
	}
	vs := make([]registry.Victim, len(c.ends))
	for i, v := range c.ends {
		vs[i] = registry.Victim{Holder: v.entry.holder, Reason: v.reason}
	}
	return vs
}
