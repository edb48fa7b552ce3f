package memory

import (
	"context"
	"errors"
	"iter"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// entry is one stream's place: reserved, then held, then gone. It carries the
// links of every list it is in, so that entering one allocates nothing.
type entry struct {
	in     *Registry
	stream *registry.Stream
	terms  terms

	// These are guarded by the lock of the key's shard.

	// age is the number of the commit, 0 before; a lower one is older.
	age uint64
	// slot is nil once the place is gone.
	slot *slot
	// claim is nil for a stream without a client id.
	claim *claim

	// links are guarded by the lock of the list they belong to.
	links [vias]link
}

type state uint8

const (
	reserved state = iota
	held
	gone
)

// state follows from the other fields: one more would not fit into 128 bytes, and
// there is an entry per stream.
func (e *entry) state() state {
	switch {
	case e.slot == nil:
		return gone
	case e.age == 0:
		return reserved
	default:
		return held
	}
}

// ErrNotReserved is returned by Commit for a place that was released or
// committed before.
var ErrNotReserved = errors.New("the place is not reserved any more; reserve another")

// Commit makes the reserved place a held one, ends the holders that are now too
// many and returns them, oldest first. After Release, or a second time, it
// changes nothing and returns ErrNotReserved. If the stream is denied, it gives
// the place back and returns registry.ErrDenied.
func (e *entry) Commit(context.Context) ([]registry.Victim, error) {
	ended, err := e.commit()
	end(ended, e.stream.Addr)
	return ended, err
}

func (e *entry) commit() ([]registry.Victim, error) {
	sh := e.in.shard(e.stream.Key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if e.state() != reserved {
		return nil, ErrNotReserved
	}
	ds := newcomer{stream: e.stream, terms: e.terms, slot: e.slot, claim: e.claim}.departures()
	// Held first, then asked: who denies does the opposite, so either finds the
	// other.
	sh.hold(e)
	if e.in.denials.name(e.stream) {
		sh.drop(e)
		return nil, registry.ErrDenied
	}
	for _, d := range ds {
		sh.drop(d.entry)
	}
	e.slot.tell(0)
	return victims(ds), nil
}

// Release gives the place back. It removes this entry or nothing.
func (e *entry) Release() {
	sh := e.in.shard(e.stream.Key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if e.state() != gone {
		sh.drop(e)
	}
}

// dropIfHeld takes the place away if it is held, and reports whether it was.
func (e *entry) dropIfHeld() bool {
	sh := e.in.shard(e.stream.Key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if e.state() != held {
		return false
	}
	sh.drop(e)
	return true
}

// via names one of the rings that an entry can be in.
type via uint8

const (
	viaKey     via = iota // the holders of a key
	viaClaim              // the holders of a key with one client id
	viaToken              // the holders with one token
	viaClient             // the holders with one client id
	viaSubject            // the holders with one subject
	vias
)

// link holds an entry's neighbours in a ring: the next younger and the next
// older one. The head is the oldest, so the one before it is the youngest.
type link struct{ next, prev *entry }

// join puts e at the young end of the ring and returns its head.
func (e *entry) join(v via, head *entry) *entry {
	if head == nil {
		e.links[v] = link{e, e}
		return e
	}
	tail := head.links[v].prev
	e.links[v] = link{next: head, prev: tail}
	tail.links[v].next = e
	head.links[v].prev = e
	return head
}

// leave takes e out of the ring and returns its head, nil if it is now empty.
func (e *entry) leave(v via, head *entry) *entry {
	l := e.links[v]
	e.links[v] = link{}
	if l.next == e {
		return nil
	}
	l.prev.links[v].next = l.next
	l.next.links[v].prev = l.prev
	if head == e {
		return l.next
	}
	return head
}

// youngest returns the entry that joined the ring last.
func youngest(v via, head *entry) *entry { return head.links[v].prev }

// ring walks a ring, oldest first. The ring must not change meanwhile.
func ring(v via, head *entry) iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		if head == nil {
			return
		}
		for e := head; yield(e); {
			if e = e.links[v].next; e == head {
				return
			}
		}
	}
}

var _ registry.Place = (*entry)(nil)
