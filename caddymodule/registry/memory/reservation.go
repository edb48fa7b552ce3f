package memory

import (
	"context"
	"slices"
	"sync"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// reservation is a place that is held only once it was committed.
type reservation struct {
	*entry
	terms terms
	// prefer names who makes room before others.
	prefer []registry.StreamID
	group  *group
}

// group is what the reservations of one call of Admit have in common.
type group struct {
	// mu is taken with no other lock held, and none is taken under it.
	mu sync.Mutex
	// gone names the holders that do not count: they were about to end already, or
	// were ended by another commit of the group.
	gone []registry.StreamID
}

// Commit makes the reserved place a held one, ends the holders that are now too
// many and returns them, oldest first. After Leave, or a second time, it changes
// nothing and returns registry.ErrNotReserved. If the stream is denied, it gives the place
// back and returns registry.ErrDenied; so it does, with registry.ErrOutasked, if those
// who would have to make room asked later, or if it yields and there is no room.
func (p *reservation) Commit(context.Context) ([]registry.Victim, error) {
	victims, err := p.commit(p.group.named())
	p.group.add(victims)
	p.in.end(victims, p.holder)
	return victims, err
}

func (p *reservation) commit(gone []registry.StreamID) ([]registry.Victim, error) {
	e, sh := p.entry, p.shard()
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if e.state != reserved {
		return nil, registry.ErrNotReserved
	}
	n := newcomer{holder: e.holder, terms: p.terms, slot: e.slot, claim: e.claim}
	n.regard(e.in, gone, p.prefer)
	if n.isTab() {
		n.findBack() // others have taken theirs back already
	}
	c := n.cost()
	if c.outasked {
		sh.giveBack(e)
		if e.in.denials.name(e.holder) {
			return nil, registry.ErrDenied
		}
		return nil, registry.ErrOutasked
	}
	// Held first, then asked: who denies does the opposite, so either finds the
	// other.
	sh.hold(e)
	switch {
	case e.in.denials.name(e.holder):
		sh.giveBack(e)
		return nil, registry.ErrDenied
	case e.holder.Yields && !n.fitted():
		sh.giveBack(e)
		return nil, registry.ErrOutasked
	}
	sh.pay(c)
	e.slot.tell(0)
	return c.victims(), nil
}

func (g *group) named() []registry.StreamID {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clip(g.gone)
}

func (g *group) add(victims []registry.Victim) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, v := range victims {
		g.gone = append(g.gone, v.Holder.ID)
	}
}

var _ registry.Place = (*reservation)(nil)
