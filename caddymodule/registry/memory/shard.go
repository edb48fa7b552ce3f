package memory

import (
	"sync"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// shard keeps the keys that fall to it.
type shard struct {
	// mu guards all fields, with the slots, claims and entries in them. With it
	// held, the lock of an index, of the denials or of the kept places may be
	// taken, and nothing outside of the package may be called.
	mu sync.Mutex
	// slots has a slot per key that anyone holds, reserves, departs from or waits
	// for.
	slots map[registry.ID]*slot
	// spare is a slot that was given up, if any, for the next key to use: keys
	// come and go all the time.
	spare *slot
	// claims has a claim per key and client id with at least one place.
	claims map[pair]*claim
	// commits numbers the commits, so that holders have an age.
	commits uint64
	// holders counts the held and kept places.
	holders int
	// freed has the keys of which a place came free lately.
	freed freed
}

// pair names the streams of one client under one key.
type pair struct{ key, client registry.ID }

// newcomer looks up what the stream finds.
func (sh *shard) newcomer(h *registry.Holder, t terms) newcomer {
	n := newcomer{holder: h, terms: t}
	n.find(sh)
	n.findBack()
	return n
}

// reserve enters e as reserved, in its slot and claim; it makes them if e has
// none yet.
func (sh *shard) reserve(e *entry) {
	h := e.holder
	if e.slot == nil {
		e.slot = sh.newSlot()
		sh.slots[h.Key] = e.slot
	}
	wasYielding := e.claim.onlyYields()
	e.slot.reservations++
	switch {
	case h.Client.IsZero():
		e.slot.taking++
	case e.claim == nil:
		e.claim = new(claim)
		sh.claims[pair{h.Key, h.Client}] = e.claim
		e.slot.taking++
	}
	if e.claim != nil {
		e.claim.reserve(h, +1)
	}
	e.slot.countYields(e.claim, h, wasYielding, +1)
}

// hold makes e, which is reserved, a holder of its key: the youngest, unless others
// asked later, or it yields.
func (sh *shard) hold(e *entry) {
	sh.commits++
	e.age = sh.commits
	e.state = held
	sh.holders++

	if sh.freed.awaited > 0 && !e.holder.Yields { // who yields takes it from nobody who waits
		sh.freed.took(e.holder.Key, e.in.now())
	}

	sl, c := e.slot, e.claim
	sl.reservations--
	sl.holders++
	sl.held = e.enter(viaKey, sl.held)
	if c == nil || c.holders+c.kept == 0 {
		sl.holding++
	}
	if c != nil {
		c.reserve(e.holder, -1)
		c.hold(e.holder, +1)
		c.held = e.enter(viaClaim, c.held)
	}
	e.in.ids.add(e)
	e.in.tokens.add(e)
	e.in.clients.add(e)
	e.in.subjects.add(e)
}

// keep makes e, which is held, a kept place. Who waits with the same client would
// now be admitted.
func (sh *shard) keep(e *entry) {
	sl, c := e.slot, e.claim
	sl.holders--
	sl.held = e.leave(viaKey, sl.held)
	if c != nil {
		c.holders--
		c.held = e.leave(viaClaim, c.held)
		c.kept++
	}
	e.state = kept
	sl.keeping++
	sl.kept = e.join(viaKey, sl.kept)
	sl.tell(0)
}

// pay takes the places away that make room for a newcomer, which holds by now.
func (sh *shard) pay(c cost) {
	sh.giveUp(c.yields)
	for _, v := range c.ends {
		sh.drop(v.entry)
	}
}

// giveUp takes those places away that are still kept: two newcomers of one request
// may have been counting on the same.
func (sh *shard) giveUp(entries []*entry) {
	for _, e := range entries {
		if e.state == kept {
			sh.drop(e)
		}
	}
}

// drop takes away the place of e, reserved, held or kept, and tells a waiter. The place of
// one that yields was free before: any site can have it come and go.
func (sh *shard) drop(e *entry) {
	if e.state != reserved && !e.holder.Yields {
		sh.freed.add(e.holder.Key, e.in.now())
	}
	sh.giveBack(e)
}

// giveBack is drop of a place that nobody took for a held one.
func (sh *shard) giveBack(e *entry) {
	sl := e.slot
	sh.remove(e)
	if e.holder.Yields {
		sl.tell(0) // it kept nobody from a place
	} else {
		sl.tell(1)
	}
	sh.tidy(e.holder.Key, sl)
}

// takeBack takes away a place that nobody has heard of, so that nothing has
// changed.
func (sh *shard) takeBack(e *entry) {
	sl := e.slot
	e.departed = true
	sh.remove(e)
	sh.tidy(e.holder.Key, sl)
}

// remove takes e out of everything but, unless it has departed, its slot, where it
// is one of the departing from now on.
func (sh *shard) remove(e *entry) {
	sl, c := e.slot, e.claim
	wasYielding := c.onlyYields()
	switch e.state {
	case reserved:
		sl.reservations--
		if c != nil {
			c.reserve(e.holder, -1)
		}
	case held:
		sl.holders--
		sl.held = e.leave(viaKey, sl.held)
		if c != nil {
			c.hold(e.holder, -1)
			c.held = e.leave(viaClaim, c.held)
		}
		sh.unhold(e)
	case kept:
		sl.keeping--
		sl.kept = e.leave(viaKey, sl.kept)
		if c != nil {
			c.kept--
		}
		e.in.kept.remove(e)
		sh.unhold(e)
	}
	sl.countYields(c, e.holder, wasYielding, -1)
	if c == nil {
		sl.taking--
	} else if c.places() == 0 {
		delete(sh.claims, pair{e.holder.Key, e.holder.Client})
		sl.taking--
	}
	e.claim, e.state = nil, left
	if e.departed {
		e.slot = nil
	} else {
		sl.departing = e.join(viaKey, sl.departing)
	}
}

// unhold takes e, which its slot and claim do not count any more, out of what else
// knows holders.
func (sh *shard) unhold(e *entry) {
	sh.holders--
	if e.claim == nil || e.claim.holders+e.claim.kept == 0 {
		e.slot.holding--
	}
	e.in.ids.remove(e)
	e.in.tokens.remove(e)
	e.in.clients.remove(e)
	e.in.subjects.remove(e)
}

// forget takes e, which has left and departed, out of its slot.
func (sh *shard) forget(e *entry) {
	sl := e.slot
	e.slot = nil
	sl.departing = e.leave(viaKey, sl.departing)
	sh.tidy(e.holder.Key, sl)
}

// tidy forgets the slot of key if nobody is left in it.
func (sh *shard) tidy(key registry.ID, sl *slot) {
	if sl.empty() {
		delete(sh.slots, key)
		sh.spare = sl // with nobody left in it, it is as good as new
	}
}

// newSlot returns an empty slot.
func (sh *shard) newSlot() *slot {
	if sl := sh.spare; sl != nil {
		sh.spare = nil
		return sl
	}
	return new(slot)
}
