package memory

import (
	"sync"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// shard keeps the keys that fall to it.
type shard struct {
	mu sync.Mutex
	// slots has a slot per key that anyone holds, reserves or waits for.
	slots map[registry.ID]*slot
	// spare is a slot that was given up, if any, for the next key to use: keys
	// come and go all the time.
	spare *slot
	// claims has a claim per key and client id with at least one place.
	claims map[pair]*claim
	// commits numbers the commits, so that holders have an age.
	commits uint64
	// holders counts the held places.
	holders int
}

// pair names the streams of one client under one key.
type pair struct{ key, client registry.ID }

// newcomer looks up what s finds.
func (sh *shard) newcomer(s *registry.Stream, t terms) newcomer {
	n := newcomer{stream: s, terms: t, slot: sh.slots[s.Key]}
	if n.slot != nil && !s.Client.IsZero() {
		n.claim = sh.claims[pair{s.Key, s.Client}]
	}
	return n
}

// reserve enters e as reserved, in its slot and claim; it makes them if e has
// none yet.
func (sh *shard) reserve(e *entry) {
	s := e.stream
	if e.slot == nil {
		e.slot = sh.newSlot()
		sh.slots[s.Key] = e.slot
	}
	e.slot.reservations++
	switch {
	case s.Client.IsZero():
		e.slot.taking++
	case e.claim == nil:
		e.claim = new(claim)
		sh.claims[pair{s.Key, s.Client}] = e.claim
		e.slot.taking++
	}
	if e.claim != nil {
		e.claim.reserve(s, +1)
	}
	e.slot.tell(0)
}

// hold makes e, which is reserved, the youngest holder of its key.
func (sh *shard) hold(e *entry) {
	sh.commits++
	e.age = sh.commits
	sh.holders++

	sl := e.slot
	sl.reservations--
	sl.holders++
	sl.held = e.join(viaKey, sl.held)
	c := e.claim
	if c == nil || c.holders == 0 {
		sl.holding++
	}
	if c != nil {
		c.reserve(e.stream, -1)
		c.holders++
		c.held = e.join(viaClaim, c.held)
	}
	e.in.tokens.add(e)
	e.in.clients.add(e)
	e.in.subjects.add(e)
}

// drop takes away the place of e, reserved or held, and tells a waiter.
func (sh *shard) drop(e *entry) {
	if e.state() == held {
		sh.unhold(e)
	} else {
		e.slot.reservations--
		if e.claim != nil {
			e.claim.reserve(e.stream, -1)
		}
	}
	s, sl, c := e.stream, e.slot, e.claim
	e.slot, e.claim = nil, nil
	if c != nil && c.holders+c.reservations == 0 {
		delete(sh.claims, pair{s.Key, s.Client})
		sl.taking--
	} else if c == nil {
		sl.taking--
	}
	sl.tell(1)
	sh.tidy(s.Key, sl)
}

// unhold takes e out of everything that knows holders.
func (sh *shard) unhold(e *entry) {
	sh.holders--
	sl := e.slot
	sl.holders--
	sl.held = e.leave(viaKey, sl.held)
	c := e.claim
	if c != nil {
		c.holders--
		c.held = e.leave(viaClaim, c.held)
	}
	if c == nil || c.holders == 0 {
		sl.holding--
	}
	e.in.tokens.remove(e)
	e.in.clients.remove(e)
	e.in.subjects.remove(e)
}

// tidy forgets the slot of key if nobody is left in it.
func (sh *shard) tidy(key registry.ID, sl *slot) {
	if sl.holders+sl.reservations+len(sl.waiters) == 0 {
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

// holder returns the entry with which s holds its key, or nil. It looks at the
// oldest first, since those are the ones that go.
func (sh *shard) holder(s *registry.Stream) *entry {
	n := sh.newcomer(s, terms{})
	if n.slot == nil {
		return nil
	}
	v, head := viaKey, n.slot.held
	if !s.Client.IsZero() {
		v, head = viaClaim, n.claim.oldest()
	}
	for e := range ring(v, head) {
		if e.stream == s {
			return e
		}
	}
	return nil
}
