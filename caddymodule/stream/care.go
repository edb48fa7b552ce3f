package stream

import (
	"math/rand/v2"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/eventstream"
	"github.com/sse-guard/sse-guard/caddymodule/rounds"
)

// care is what the rounds remember of a stream between two visits. Only they,
// and before them whoever admits the stream, touch it.
type care struct {
	born rounds.Tick
	// age is how long the stream may live; 0: for ever.
	age time.Duration
	// patience is how long nothing may be written until the next heartbeat. It is
	// somewhat shorter than Heartbeat and different each time, so that streams
	// which got an event at the same moment do not all beat at another.
	patience time.Duration
	// unacked is when something was found to be on its way, and no acknowledgement
	// came since; 0: not now.
	unacked rounds.Tick
	// writing is since when somebody was found at one and the same write, which began
	// at began, and acked what the client had acknowledged by then; 0: nobody was,
	// last.
	writing, began rounds.Tick
	acked          uint64
}

// Condition is how a stream was found.
type Condition int

const (
	// Fine: it lives, as far as anybody can tell.
	Fine Condition = iota
	// Dead: the client has acknowledged nothing for Config.DeadAfter.
	Dead
	// Old: it has lived for Config.MaxAge.
	Old
	// Over: it has ended.
	Over
)

// leastOutstanding is for how long something must be on its way, however long ago
// the last acknowledgement was: a phone may take a second to wake its radio.
const leastOutstanding = 2 * time.Second

// again is when to come back to a stream that is to be ended, in case it is not.
const again = time.Second

// begin readies an admitted stream for its first visit.
func (s *Response) begin() {
	if s.cfg.Rounds == nil {
		return
	}
	now := s.cfg.Rounds.Read()
	s.relayed.Store(int64(now))
	s.beaten.Store(int64(now))
	s.care = care{born: now, patience: less(s.cfg.Heartbeat, 4)}
	if s.cfg.MaxAge > 0 {
		s.care.age = less(s.cfg.MaxAge+s.cfg.MaxAge/10, 5)
	}
	s.life.Lock()
	defer s.life.Unlock()
	s.unwatch = s.conn.TCP.Watch(kernelsTurn(s.cfg.DeadAfter))
}

// kernelsTurn is when the kernel is to give up a client that Tend has not given up:
// a little later, for all that the kernel tells is that the connection is gone, as
// if the client had left, and its place would be kept for it.
func kernelsTurn(deadAfter time.Duration) time.Duration {
	if deadAfter <= 0 {
		return 0
	}
	return deadAfter + 5*rounds.Precision
}

// less takes a random part off d, up to one in so many.
func less(d, one time.Duration) time.Duration {
	if part := d / one; part > 0 {
		return d - rand.N(part) //nolint:gosec // to spread, not to hide
	}
	return d
}

// Tend looks after the stream, which is relayed: it sends a heartbeat if one is
// due, and tells how the stream is and when to come again. It does not wait for
// anything. Visits do not overlap.
func (s *Response) Tend(now rounds.Tick) (Condition, time.Duration) {
	if s.over.Load() || s.ending.Load() != nil {
		return Over, 0
	}
	began := max(rounds.Tick(s.relayed.Load()), rounds.Tick(s.beaten.Load()))
	idle := now.Since(began)
	if !s.mu.TryLock() {
		return s.writing(now, began)
	}
	defer s.mu.Unlock()
	s.care.writing = 0
	if s.care.age > 0 && now.Since(s.care.born) >= s.care.age && !s.torn {
		return Old, again
	}

	silent, dead := s.acknowledged(now)
	if dead {
		s.lost.Store(true)
		return Dead, again
	}
	if s.cfg.Heartbeat > 0 && idle >= s.care.patience {
		if s.mayBeat() {
			if s.care.unacked == 0 {
				s.care.unacked = now
			}
			go s.beat() // the client may take nothing in
		}
		s.care.patience = less(s.cfg.Heartbeat, 4)
		idle = 0
	}
	return Fine, s.next(now, idle, silent)
}

// writing judges a stream to which somebody writes at this moment, since began. If
// that write goes on, and the client acknowledges nothing meanwhile, it takes
// nothing in. On HTTP/2, the kernel knows of all the connection's streams at once,
// so time alone counts.
func (s *Response) writing(now, began rounds.Tick) (Condition, time.Duration) {
	var acked uint64
	if s.r.ProtoMajor == 1 {
		info, _ := s.conn.TCP.Info()
		acked = info.Acked
	}
	if s.care.writing == 0 || began != s.care.began || acked != s.care.acked {
		s.care.writing, s.care.began, s.care.acked = max(now, 1), began, acked
	}
	stuck := now.Since(s.care.writing)
	switch {
	case s.cfg.DeadAfter == 0:
		return Fine, time.Minute
	case stuck >= s.cfg.DeadAfter:
		return Dead, again
	default:
		return Fine, min(s.cfg.DeadAfter-stuck, s.cfg.DeadAfter/2)
	}
}

// acknowledged asks the kernel what the client has acknowledged. It returns for
// how long it has been silent although something is on its way, and whether that
// is too long: no acknowledgement of anything for DeadAfter, and since the last
// heartbeat, or for DeadAfter where there are none. An acknowledgement that is
// long ago alone means nothing on a stream that is idle.
func (s *Response) acknowledged(now rounds.Tick) (silent time.Duration, dead bool) {
	info, ok := s.conn.TCP.Info()
	if !ok || s.cfg.DeadAfter == 0 || info.Unacked == 0 {
		s.care.unacked = 0
		return 0, false
	}
	if s.care.unacked == 0 || info.SinceAck < now.Since(s.care.unacked) {
		s.care.unacked = now
	}
	outstanding := s.cfg.DeadAfter
	if 0 < s.cfg.Heartbeat && s.cfg.Heartbeat < s.cfg.DeadAfter {
		outstanding = max(outstanding-s.cfg.Heartbeat, min(outstanding, leastOutstanding))
	}
	return info.SinceAck, info.SinceAck >= s.cfg.DeadAfter && now.Since(s.care.unacked) >= outstanding
}

// next is when to come again.
func (s *Response) next(now rounds.Tick, idle, silent time.Duration) time.Duration {
	const seldom = time.Minute
	next := seldom
	if s.cfg.Heartbeat > 0 {
		next = s.care.patience - idle
	}
	if s.cfg.DeadAfter > 0 {
		next = min(next, s.cfg.DeadAfter/2)
		if silent > 0 {
			next = min(next, s.cfg.DeadAfter-silent)
		}
	}
	if s.care.age > 0 {
		next = min(next, s.care.age-now.Since(s.care.born))
	}
	return max(next, rounds.Precision)
}

// mayBeat reports whether a comment may go out: not into an event, and not into
// what is compressed. mu is held.
func (s *Response) mayBeat() bool { return !s.opaque && !s.torn && !s.over.Load() }

var heartbeat = eventstream.AppendComment(nil, "")

// beat sends a comment between two events.
func (s *Response) beat() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.mayBeat() {
		return
	}
	if s.cfg.Rounds != nil {
		s.beaten.Store(int64(s.cfg.Rounds.Now()))
	}
	s.opened = s.opened || s.bytes == 0
	s.write(heartbeat)
	s.flush()
}

// Activity tells when a stream last did something.
type Activity struct {
	// Relayed is when the last bytes from the upstream went through, to a tenth of
	// a second.
	Relayed time.Time
	// Acknowledged is when the client last acknowledged anything; zero: the kernel
	// cannot tell.
	Acknowledged time.Time
}

// Activity tells when the stream last did something. It must be relayed, by a
// Response with Rounds.
func (s *Response) Activity() Activity {
	now := time.Now()
	a := Activity{Relayed: now.Add(-s.cfg.Rounds.Now().Since(rounds.Tick(s.relayed.Load())))}
	if info, ok := s.conn.TCP.Info(); ok {
		a.Acknowledged = now.Add(-info.SinceAck)
	}
	return a
}
