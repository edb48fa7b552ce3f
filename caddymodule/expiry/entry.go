package expiry

import (
	"container/heap"
	"iter"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// Entry is a stream's place among the deadlines.
type Entry struct {
	in      *Deadlines
	stream  *registry.Stream
	session registry.ID

	// The rest is guarded by the lock of in.

	// at is when the stream ends; zero: never.
	at time.Time
	// renewedBy is the token that moved the deadline last; zero: none did.
	renewedBy registry.ID
	// index is where the queue has the entry; noDeadline if it has not.
	index int
	// prev and next are the session's entries around this one, in a ring.
	prev, next *Entry
	gone       bool
}

const noDeadline = -1

// Stop takes the stream out. A sweep that has taken it out before may still end
// it. Stop may be called any number of times, also on nil.
func (e *Entry) Stop() {
	if e == nil {
		return
	}
	d := e.in
	d.mu.Lock()
	defer d.mu.Unlock()
	if e.gone {
		return
	}
	earliest := e.index == 0
	d.remove(e)
	if earliest {
		d.arm()
	}
}

// before tells whether e has a deadline that is earlier than at, whose zero is
// later than all.
func (e *Entry) before(at time.Time) bool {
	return !e.at.IsZero() && (at.IsZero() || e.at.Before(at))
}

// queue is a heap of the entries that have a deadline, the earliest on top.
type queue []*Entry

// fix puts e, whose deadline was moved, where it belongs now.
func (q *queue) fix(e *Entry) {
	if e.at.IsZero() {
		q.remove(e)
		return
	}
	heap.Fix(q, e.index)
}

func (q *queue) remove(e *Entry) {
	if e.index != noDeadline {
		heap.Remove(q, e.index)
	}
}

// Len, Less, Swap, Push and Pop are for package heap.

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].at.Before(q[j].at) }

func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

func (q *queue) Push(x any) {
	e := x.(*Entry)
	e.index = len(*q)
	*q = append(*q, e)
}

func (q *queue) Pop() any {
	old := *q
	last := len(old) - 1
	e := old[last]
	old[last] = nil // or the array would keep it alive
	e.index = noDeadline
	*q = old[:last]
	return e
}

// sessions finds the oldest entry of each session, in a ring with the others.
type sessions map[registry.ID]*Entry

// add enters e, unless it has no session.
func (s sessions) add(e *Entry) {
	if e.session.IsZero() {
		return
	}
	head := s[e.session]
	if head == nil {
		e.prev, e.next = e, e
		s[e.session] = e
		return
	}
	e.prev, e.next = head.prev, head
	e.prev.next, e.next.prev = e, e
}

// remove takes e out, which add was called with.
func (s sessions) remove(e *Entry) {
	switch {
	case e.session.IsZero():
		return
	case e.next == e:
		delete(s, e.session)
	case s[e.session] == e:
		s[e.session] = e.next
	}
	e.prev.next, e.next.prev = e.next, e.prev
	e.prev, e.next = nil, nil // a stopped entry keeps no others alive
}

// of ranges over the session's entries, oldest first. None may be taken out
// meanwhile.
func (s sessions) of(session registry.ID) iter.Seq[*Entry] {
	return func(yield func(*Entry) bool) {
		head := s[session]
		for e := head; e != nil; {
			if !yield(e) {
				return
			}
			if e = e.next; e == head {
				return
			}
		}
	}
}
