package due

import (
	"math"
	"sync"
	"time"
)

// Sweeper has one timer for all that becomes due. What is due is taken out with the
// owner's lock held, in bounded steps, and acted upon with no lock held. Sweeps
// never overlap: while an action is slow, what becomes due meanwhile waits.
//
// It costs no goroutine while nothing is due, and none outlives Close.
type Sweeper struct {
	next func() time.Time
	take func(now time.Time) (act func())

	timer *time.Timer
	// sweeps is what Close waits for. It is added to with mu held, and not any
	// more once closed is set.
	sweeps sync.WaitGroup

	// mu is the lock of the owner. It guards the fields below.
	mu sync.Locker
	// alarm is when timer fires; zero: it does not.
	alarm    time.Time
	sweeping bool
	closed   bool
}

// NewSweeper returns a Sweeper for an owner whose lock is mu. Both functions are
// called with mu held, so they must not call out of the owner.
//
// next returns when something is due first; the zero time: never. take takes out
// what is due at now, as much as may be done while the lock is held once, and
// returns the action that it calls for, which is called with no lock held. Then it
// is called again, until it returns nil: nothing was due.
func NewSweeper(mu sync.Locker, next func() time.Time, take func(now time.Time) (act func())) *Sweeper {
	s := &Sweeper{mu: mu, next: next, take: take}
	s.timer = time.AfterFunc(math.MaxInt64, s.sweep)
	s.timer.Stop()
	return s
}

// Arm sets the timer if something is due earlier than before. The owner calls it
// with mu held whenever that may be so. If the first due thing was delayed or
// removed, the timer fires too early, finds nothing and is set again.
func (s *Sweeper) Arm() {
	next := s.next()
	if s.closed || s.sweeping || next.IsZero() || !s.alarm.IsZero() && !next.Before(s.alarm) {
		return // a sweep arms the timer at its end
	}
	s.alarm = next
	s.timer.Reset(max(time.Until(next), 0))
}

// Armed reports whether the timer runs. It is called with mu held.
func (s *Sweeper) Armed() bool { return !s.alarm.IsZero() }

// Close stops the timer for good, and waits for an action that is running: none
// runs or starts once Close has returned. So it must not be called by an action,
// nor with mu or any lock held that an action takes. It may be called any number of
// times.
func (s *Sweeper) Close() {
	s.mu.Lock()
	s.closed, s.alarm = true, time.Time{}
	s.timer.Stop()
	s.mu.Unlock()
	s.sweeps.Wait()
}

// sweep is what the timer calls.
func (s *Sweeper) sweep() {
	if !s.begin() {
		return
	}
	defer s.sweeps.Done()
	for act := s.step(); act != nil; act = s.step() {
		act()
	}
}

// begin reports false if there is to be no sweep: s is closed, or another sweep is
// running, since the timer may be set again just when it has fired.
func (s *Sweeper) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sweeping || s.closed {
		return false
	}
	s.sweeping, s.alarm = true, time.Time{}
	s.sweeps.Add(1)
	return true
}

// step takes out the next that are due. If there are none, it returns nil, and the
// sweep is over.
func (s *Sweeper) step() (act func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		act = s.take(time.Now())
	}
	if act == nil {
		s.sweeping = false
		s.Arm()
	}
	return act
}
