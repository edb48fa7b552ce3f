// Package expiry ends streams when their token's life is over.
//
// A token's life is told in wall-clock time, while Go's timers run on the
// monotonic clock, which knows nothing of a corrected clock and stands still
// while the machine is suspended. So the one timer there is sleeps a few seconds
// at most, and asks the wall clock whenever it wakes.
package expiry

import (
	"container/heap"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

const (
	// maxSleep is how long the timer sleeps at most: how late a stream may end
	// after the clock jumped forward.
	maxSleep = 5 * time.Second
	// maxBatch is how many streams are taken out while the lock is held once.
	maxBatch = 256
)

// Deadlines ends streams at the end of their token's life. All methods may be
// called concurrently. Each costs the streams it is about, and the logarithm of
// those there are.
type Deadlines struct {
	end func([]*registry.Stream)
	// now is the wall clock, without a monotonic reading.
	now  func() time.Time
	size atomic.Int64
	// sweeps is what Close waits for.
	sweeps sync.WaitGroup

	mu       sync.Mutex
	queue    queue
	sessions sessions
	timer    *time.Timer
	// armed says that timer will fire within maxSleep.
	armed    bool
	sweeping bool
	closed   bool
}

// New returns Deadlines that call end with the streams whose time has come,
// those with the earliest deadline first, at most 256 at once. The calls never
// overlap, and no lock is held during them; the next streams wait for their
// return.
func New(end func([]*registry.Stream)) *Deadlines { return newAt(end, wallClock) }

func newAt(end func([]*registry.Stream), now func() time.Time) *Deadlines {
	d := &Deadlines{end: end, now: now, sessions: make(sessions)}
	d.timer = time.AfterFunc(maxSleep, d.sweep)
	d.timer.Stop()
	return d
}

// wallClock drops the monotonic reading, for a comparison with it would not see
// that the clock jumped.
func wallClock() time.Time { return time.Now().Round(0) }

// Add has s ended at the given time; if that is past, at once, but by a sweep and
// not by Add itself. The deadline can be renewed by session, unless that is zero.
// The Entry is nil if nothing will ever be done for s: at is zero, which never
// comes and can be no later, or d is closed.
func (d *Deadlines) Add(s *registry.Stream, session registry.ID, at time.Time) *Entry {
	if at.IsZero() {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	e := &Entry{in: d, stream: s, session: session, at: at.Round(0)}
	d.sessions.add(e)
	heap.Push(&d.queue, e)
	d.size.Add(1)
	if e.index == 0 {
		d.arm()
	}
	return e
}

// Renew moves the deadlines of the session's streams to at, where that is later,
// on the strength of token, and returns how many it moved. A zero at is later
// than any other: the token never expires. Streams so renewed have no deadline any
// more, but stay known until they are stopped.
//
// A stream that a sweep has already taken out is not moved. Who may be logging
// token out meanwhile asks whether it is denied after Renew, not before.
func (d *Deadlines) Renew(session, token registry.ID, at time.Time) int {
	at = at.Round(0)
	d.mu.Lock()
	defer d.mu.Unlock()
	moved := 0
	for e := range d.sessions.of(session) {
		if !e.before(at) {
			continue
		}
		e.at, e.renewedBy = at, token
		d.queue.fix(e)
		moved++
	}
	if moved > 0 {
		d.arm()
	}
	return moved
}

// RenewedBy lists, oldest first, the session's streams whose deadline was last
// moved by token. They carry an older token, so that a logout of this one does
// not find them otherwise.
func (d *Deadlines) RenewedBy(session, token registry.ID) []*registry.Stream {
	if token.IsZero() {
		return nil // it is what a deadline carries that was never moved
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []*registry.Stream
	for e := range d.sessions.of(session) {
		if e.renewedBy == token {
			out = append(out, e.stream)
		}
	}
	return out
}

// Len returns how many streams are known. It takes no lock, so that a request
// costs nothing while no stream expires.
func (d *Deadlines) Len() int { return int(d.size.Load()) }

// Close stops the timer for good, and waits for the call of end that may be
// running: none runs or starts once Close has returned. So it must not be called
// by end, nor with a lock that end takes. It may be called any number of times.
func (d *Deadlines) Close() {
	d.mu.Lock()
	d.closed, d.armed = true, false
	d.timer.Stop()
	d.mu.Unlock()
	d.sweeps.Wait()
}

// remove takes e out.
func (d *Deadlines) remove(e *Entry) {
	e.gone = true
	d.sessions.remove(e)
	d.queue.remove(e)
	d.size.Add(-1)
}
