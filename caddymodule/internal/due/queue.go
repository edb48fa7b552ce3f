package due

import (
	"container/heap"
	"time"
)

// Queue has entries in the order of their times. Its methods may not be called
// concurrently. The zero Queue is empty.
//
// Putting and removing cost the logarithm of the number of entries; the rest costs
// the same however many there are.
type Queue[K comparable, V any] struct{ entries entries[K, V] }

// Put puts e at the given time. An entry that the queue already has is moved. It
// must not be in another queue.
func (q *Queue[K, V]) Put(e *Entry[K, V], at time.Time) {
	e.at = at
	if e.Queued() {
		heap.Fix(&q.entries, e.place-1)
		return
	}
	heap.Push(&q.entries, e)
}

// Remove takes e out. It does nothing if the queue does not have it.
func (q *Queue[K, V]) Remove(e *Entry[K, V]) {
	if !e.Queued() {
		return
	}
	many := q.hasMany()
	heap.Remove(&q.entries, e.place-1)
	if many && len(q.entries) == 0 {
		q.entries = nil // an emptied slice keeps its memory
	}
}

// First returns the entry with the earliest time; nil if the queue is empty.
func (q *Queue[K, V]) First() *Entry[K, V] {
	if len(q.entries) == 0 {
		return nil
	}
	return q.entries[0]
}

// Due returns the entry with the earliest time if that is not after now, else nil.
// It stays in the queue.
func (q *Queue[K, V]) Due(now time.Time) *Entry[K, V] {
	if e := q.First(); e != nil && !e.at.After(now) {
		return e
	}
	return nil
}

// Len returns the number of entries.
func (q *Queue[K, V]) Len() int { return len(q.entries) }

// manyEntries is how many entries there may be memory for that is kept.
const manyEntries = 64

func (q *Queue[K, V]) hasMany() bool { return cap(q.entries) > manyEntries }

// entries is a heap. Its methods are for package heap.
type entries[K comparable, V any] []*Entry[K, V]

func (es entries[K, V]) Len() int           { return len(es) }
func (es entries[K, V]) Less(i, j int) bool { return es[i].at.Before(es[j].at) }

func (es entries[K, V]) Swap(i, j int) {
	es[i], es[j] = es[j], es[i]
	es[i].place, es[j].place = i+1, j+1
}

func (es *entries[K, V]) Push(x any) {
	e := x.(*Entry[K, V])
	*es = append(*es, e)
	e.place = len(*es)
}

func (es *entries[K, V]) Pop() any {
	old := *es
	last := len(old) - 1
	e := old[last]
	old[last] = nil // or the array would keep it alive
	e.place = 0
	*es = old[:last]
	return e
}
