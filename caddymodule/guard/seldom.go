package guard

import (
	"sync"
	"time"
)

// seldom keeps lines that many requests cause from filling the log: of each subject,
// it lets one through in a while. The subjects are of the configuration, never of a
// request, so there are few.
type seldom struct {
	// mu guards told. Nothing is called with it held.
	mu   sync.Mutex
	told map[string]time.Time
}

// may reports whether the subject may be told of, and notes that it is: nobody has
// for that long.
func (s *seldom) may(subject string, every time.Duration) bool {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if last, ok := s.told[subject]; ok && now.Sub(last) < every {
		return false
	}
	if s.told == nil {
		s.told = make(map[string]time.Time)
	}
	s.told[subject] = now
	return true
}
