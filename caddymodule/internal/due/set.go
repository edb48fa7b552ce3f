package due

import (
	"sync"
	"time"
)

// Set remembers keys until their time is over, and forgets them then, also if nothing
// else happens. All methods may be called concurrently.
type Set[K comparable] struct {
	// mu guards known.
	mu      sync.Mutex
	known   *Map[K, struct{}]
	sweeper *Sweeper // its lock is mu
}

// NewSet returns an empty Set with room for limit keys: to make room, it forgets the
// one whose time is over first.
func NewSet[K comparable](limit int) *Set[K] {
	s := &Set[K]{known: NewMap[K, struct{}](limit)}
	s.sweeper = NewSweeper(&s.mu, s.known.next, func(now time.Time) func() {
		if s.known.forgetDue(now) {
			return func() {}
		}
		return nil
	})
	return s
}

// Add remembers key until then, or longer if that was said before. After Close it does
// nothing.
func (s *Set[K]) Add(key K, until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sweeper.closed {
		return
	}
	if e := s.known.Find(key); e != nil {
		s.known.Extend(e, until)
	} else {
		s.known.Add(key, until)
	}
	s.sweeper.Arm()
}

// Until is how long key is remembered; zero: it is not known.
func (s *Set[K]) Until(key K) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.known.Find(key); e != nil {
		return e.At()
	}
	return time.Time{}
}

// Len returns how many keys are known.
func (s *Set[K]) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known.Len()
}

// Close forgets all keys, and stops the timer for good.
func (s *Set[K]) Close() {
	s.sweeper.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known.forgetAll()
}

// maxForgotten is how many entries are forgotten while the lock is held once.
const maxForgotten = 256

// next is the earliest time of an entry; zero: there is none.
func (m *Map[K, V]) next() time.Time {
	if first := m.First(); first != nil {
		return first.At()
	}
	return time.Time{}
}

// forgetDue forgets entries whose time is not after now, and reports whether there
// were any.
func (m *Map[K, V]) forgetDue(now time.Time) (found bool) {
	for range maxForgotten {
		e := m.Due(now)
		if e == nil {
			break
		}
		m.Remove(e)
		found = true
	}
	return found
}

func (m *Map[K, V]) forgetAll() {
	for e := m.First(); e != nil; e = m.First() {
		m.Remove(e)
	}
}
