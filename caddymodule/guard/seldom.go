package guard

import (
	"sync/atomic"
	"time"
)

// seldom says when a line is to be written that would else be written too often. The
// zero seldom has not written any.
type seldom struct{ next atomic.Int64 } // in nanoseconds of the wall clock

// due reports whether the line is to be written now. The next one is, at the earliest,
// after the given time.
func (s *seldom) due(after time.Duration) bool {
	now, next := time.Now(), s.next.Load()
	return now.UnixNano() >= next && s.next.CompareAndSwap(next, now.Add(after).UnixNano())
}
