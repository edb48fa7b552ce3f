package memory

import (
	"cmp"
	"context"
	"iter"

	"github.com/sse-guard/sse-guard/caddymodule/internal/due"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// entry is one stream's place, and what is left of it until the stream's upstream
// request is gone. It carries the links of every list it is in, so that entering
// one allocates nothing. It is the registry.Place of a stream that was admitted at
// the header.
type entry struct {
	in     *Registry
	holder *registry.Holder

	// These are guarded by the lock of the key's shard.

	// age is the number of the commit, 0 before. It tells who is older of those that
	// asked at the same time.
	age uint64
	// slot is nil once the entry has left and departed.
	slot *slot
	// claim is nil for a stream without a client id, and once the entry has left.
	claim *claim
	// kept says until when a kept place is kept; nil for others.
	kept *due.Entry[struct{}, *entry]
	// awaited lists who waits for the stream's departure.
	awaited *awaited
	state   state
	// departed tells that the stream's upstream request is gone.
	departed bool

	// These are guarded by the lock of the list they belong to.

	links [vias]link
	// next is the next entry in the bucket of the stream's name.
	next *entry
}

// state is how a place stands. It only ever rises.
type state uint8

const (
	// reserved: no commit yet.
	reserved state = iota
	// held: the stream holds the key.
	held
	// kept: the client has left, and the place is kept for it.
	kept
	// left: the place was given back or taken away. Until the stream's upstream
	// request is gone, the slot has the entry among the departing.
	left
)

// Commit returns registry.ErrNotReserved: the place is held, or was.
func (e *entry) Commit(context.Context) ([]registry.Victim, error) {
	return nil, registry.ErrNotReserved
}

// Leave gives the place back, or, if it is held and so wanted, keeps it for the
// stream's client. After the first time, and once the place was taken away, it
// changes nothing.
func (e *entry) Leave(keep registry.Keep) {
	sh := e.shard()
	sh.mu.Lock()
	defer sh.mu.Unlock()
	switch {
	case e.state > held:
	case e.state == held && keep.For > 0 && !e.holder.Yields && e.in.kept.put(e, keep.For):
		sh.keep(e)
	default:
		sh.drop(e)
	}
}

// Departed says that the stream's upstream request is gone.
func (e *entry) Departed() {
	sh := e.shard()
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if e.departed {
		return
	}
	e.departed = true
	if e.state == left {
		sh.forget(e)
	}
	e.awaited.tell()
	e.awaited = nil
}

func (e *entry) shard() *shard { return e.in.shard(e.holder.Key) }

// via names one of the rings that an entry can be in.
type via uint8

const (
	viaKey     via = iota // of a key: the holders, the kept places, or the departing
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

// enter puts e into a ring of holders, and returns its head. They are in the order in
// which they asked, after those that yield, the one that came last first. It costs as
// many steps as holders asked later.
func (e *entry) enter(v via, head *entry) *entry {
	if e.holder.Yields {
		e.join(v, head)
		return e
	}
	if head == nil || !e.isOlder(youngest(v, head)) {
		return e.join(v, head)
	}
	next := youngest(v, head)
	for next != head && e.isOlder(next.links[v].prev) {
		next = next.links[v].prev
	}
	e.join(v, next) // before it, that is
	if next == head {
		return e
	}
	return head
}

// isOlder tells whether e yields, and other does not, or it asked before other did.
func (e *entry) isOlder(other *entry) bool {
	if e.holder.Yields != other.holder.Yields {
		return e.holder.Yields
	}
	return e.holder.Asked.Before(other.holder.Asked)
}

// compareAge orders holders of a key as their ring does.
func compareAge(a, b *entry) int {
	switch {
	case a.holder.Yields && b.holder.Yields:
		return cmp.Compare(b.age, a.age)
	case a.holder.Yields:
		return -1
	case b.holder.Yields:
		return +1
	}
	return cmp.Or(a.holder.Asked.Compare(b.holder.Asked), cmp.Compare(a.age, b.age))
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

// backwards walks a ring, youngest first. The ring must not change meanwhile.
func backwards(v via, head *entry) iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		if head == nil {
			return
		}
		for e := youngest(v, head); yield(e) && e != head; {
			e = e.links[v].prev
		}
	}
}

var _ registry.Place = (*entry)(nil)
