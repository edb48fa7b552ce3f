package wheel

import "sync/atomic"

// Entry is a visitor's place in the wheel.
type Entry struct {
	wheel   *Wheel
	visitor Visitor
	// at is the tick of the next visit, or visiting, or left. It is written under
	// the wheel's lock.
	at atomic.Int64

	// The list that has the entry, guarded by the wheel's lock. link is what points
	// to the entry; nil if no list has it.
	link **Entry
	next *Entry
}

const (
	// visiting says that the current turn has taken the entry out of its list.
	visiting = -1
	// left says that the entry is forgotten.
	left = -2
)

// Leave has the visitor visited no more. A visit that is under way may still run,
// or be just about to begin, when Leave returns. It may be called any number of
// times, also on nil.
func (e *Entry) Leave() {
	if e == nil {
		return
	}
	e.wheel.mu.Lock()
	defer e.wheel.mu.Unlock()
	if e.left() {
		return
	}
	e.unlink()
	e.wheel.forget(e)
}

func (e *Entry) left() bool { return e.at.Load() == left }

// unlink takes e out of the list that has it, if any.
func (e *Entry) unlink() {
	if e.link == nil {
		return
	}
	*e.link = e.next
	if e.next != nil {
		e.next.link = e.link
	}
	e.link, e.next = nil, nil // one that has left keeps no others alive
}

// list is the first of its entries. One can be taken out without knowing in which
// list it is.
type list struct{ first *Entry }

func (l *list) push(e *Entry) {
	e.link, e.next = &l.first, l.first
	if e.next != nil {
		e.next.link = &e.next
	}
	l.first = e
}

// take moves all entries of from, in one step, to l, which is empty.
func (l *list) take(from *list) {
	l.first, from.first = from.first, nil
	if l.first != nil {
		l.first.link = &l.first
	}
}
