package due

import "time"

// Entry is a value with a key and a time. The zero Entry, with or without a key and
// a value, is ready to be put into a Queue.
type Entry[K comparable, V any] struct {
	// Key must not be changed while a Map has the entry.
	Key   K
	Value V

	at time.Time
	// place is one more than the index in the queue; 0: no queue has the entry.
	place int
}

// At returns the time that the entry was put at last.
func (e *Entry[K, V]) At() time.Time { return e.at }

// Queued reports whether a Queue, or a Map, has the entry.
func (e *Entry[K, V]) Queued() bool { return e.place != 0 }
