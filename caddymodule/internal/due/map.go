// Package due keeps values that are of interest for a limited time: found by key
// and by whose time comes first, and bounded in number.
//
// A Queue is ordered by time. A Map is a Queue with a bound, in which entries are
// found by key too. A Sweeper is the one timer that looks after what is due.
package due

import "time"

// Map finds entries by key, and by the earliest time. It has at most as many as its
// limit says: to make room, it forgets the entry with the earliest time. Its
// methods may not be called concurrently.
type Map[K comparable, V any] struct {
	limit int
	byKey map[K]*Entry[K, V]
	queue Queue[K, V]
}

// NewMap returns an empty Map with room for limit entries, at least one.
func NewMap[K comparable, V any](limit int) *Map[K, V] {
	return &Map[K, V]{limit: max(limit, 1), byKey: make(map[K]*Entry[K, V])}
}

// Find returns the entry of key; nil if there is none.
func (m *Map[K, V]) Find(key K) *Entry[K, V] { return m.byKey[key] }

// First returns the entry with the earliest time; nil if there is none.
func (m *Map[K, V]) First() *Entry[K, V] { return m.queue.First() }

// Due returns the entry with the earliest time if that is not after now, else nil.
// It stays in the map.
func (m *Map[K, V]) Due(now time.Time) *Entry[K, V] { return m.queue.Due(now) }

// Add makes an entry, with the zero value, for a key that has none. If the map is
// full, the entry with the earliest time is forgotten first, and returned.
func (m *Map[K, V]) Add(key K, at time.Time) (added, forgotten *Entry[K, V]) {
	if m.Len() >= m.limit {
		forgotten = m.First()
		m.Remove(forgotten)
	}
	added = &Entry[K, V]{Key: key}
	m.byKey[key] = added
	m.queue.Put(added, at)
	return added, forgotten
}

// Extend moves e, which the map has, to the given time if that is later than its
// own.
func (m *Map[K, V]) Extend(e *Entry[K, V], at time.Time) {
	if at.After(e.at) {
		m.queue.Put(e, at)
	}
}

// Remove takes e out. It does nothing if the map does not have it.
func (m *Map[K, V]) Remove(e *Entry[K, V]) {
	if !e.Queued() {
		return
	}
	many := m.queue.hasMany()
	m.queue.Remove(e)
	delete(m.byKey, e.Key)
	if many && m.Len() == 0 {
		m.byKey = make(map[K]*Entry[K, V]) // an emptied map keeps its memory
	}
}

// Len returns the number of entries.
func (m *Map[K, V]) Len() int { return m.queue.Len() }
