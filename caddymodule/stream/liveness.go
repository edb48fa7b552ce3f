package stream

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/internal/wheel"
	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// liveness is what the visits remember of a stream. Where nothing else is said,
// only they, and before them begin, touch it.
//
// It is the stream's wheel.Visitor.
type liveness struct {
	s     *Stream // not changed
	watch watch
	// relayed is when the upstream last sent something, a wheel.Tick plus 1; 0: never.
	// beaten is the wheel.Tick of the last heartbeat. Both are written by whoever
	// relays, and may be read at any time.
	relayed, beaten atomic.Int64
	// expires is when the stream ends, in milliseconds of the wall clock; 0: never.
	// Renew changes it at any time.
	expires atomic.Int64
	// lost says that nobody is at the other end of the connection. It is set at any
	// time.
	lost atomic.Bool

	born wheel.Tick
	// age is how long the stream may live; 0: for ever.
	age time.Duration
	// patience is how long nothing may be written until the next heartbeat. It is
	// somewhat shorter than Heartbeat and different each time, so that streams
	// which got an event at the same moment do not all beat at another.
	patience time.Duration
	// unacked is when something was found to be on its way, and no acknowledgement
	// came since; 0: not now.
	unacked wheel.Tick
	// writing is when a visit first saw the current write in progress, which is the
	// sink's number write; 0 if the last visit saw none. acked is what the client had
	// acknowledged by then.
	writing wheel.Tick
	write   uint64
	acked   uint64
	// wrote is when a visit last saw a write in progress: for so long the upstream could
	// not be read.
	wrote wheel.Tick
}

// leastOutstanding is for how long something must be on its way, however long ago
// the last acknowledgement was: a phone may take a second to wake its radio.
const leastOutstanding = 2 * time.Second

const (
	// seldom is the time between visits of a stream for which nothing is to be done.
	seldom = time.Minute
	// clockLook is the time between two looks at the wall clock, which may jump: how
	// late, at most, a stream may end after it did.
	clockLook = 5 * time.Second
	// oldLook is the time between two looks at a stream that is old enough and waits
	// for the end of an event.
	oldLook = time.Second
)

// begin readies a stream that is about to open for its first visit.
func (l *liveness) begin() {
	if l.s.cfg.Wheel == nil {
		return
	}
	now := l.s.cfg.Wheel.Read()
	l.note(now)
	l.beaten.Store(int64(now))
	l.born, l.patience = now, less(l.s.cfg.Heartbeat, 4)
	if l.s.cfg.MaxAge > 0 && !l.s.terms.Untracked {
		l.age = less(l.s.cfg.MaxAge+l.s.cfg.MaxAge/10, 5)
	}
}

// note notes that the upstream has sent something.
func (l *liveness) note(now wheel.Tick) {
	if t := int64(now) + 1; l.relayed.Load() != t {
		l.relayed.Store(t)
	}
}

// lastEvent is when the upstream last sent something, to a tenth of a second; zero:
// not known.
func (l *liveness) lastEvent() time.Time {
	at := l.relayed.Load()
	if at == 0 {
		return time.Time{}
	}
	return time.Now().Add(-l.s.cfg.Wheel.Now().Since(wheel.Tick(at - 1)))
}

// less takes a random part off d, up to one in so many.
func less(d, one time.Duration) time.Duration {
	if part := d / one; part > 0 {
		return d - rand.N(part) //nolint:gosec // to spread, not to hide
	}
	return d
}

// expireAt sets when the stream ends; zero: never.
func (l *liveness) expireAt(at time.Time) {
	if at.IsZero() {
		l.expires.Store(0)
		return
	}
	ms := at.Add(time.Millisecond - 1).UnixMilli() // not before its time
	if ms == 0 {
		ms = 1
	}
	l.expires.Store(ms)
}

// expiresIn is how long the stream may live by the wall clock. It is false if it
// does not expire.
func (l *liveness) expiresIn() (left time.Duration, ok bool) {
	at := l.expires.Load()
	if at == 0 {
		return 0, false
	}
	// Round drops the monotonic reading, which does not see that the clock jumped.
	return time.UnixMilli(at).Sub(time.Now().Round(0)), true
}

// Visit implements wheel.Visitor: it sends a heartbeat if one is due, and ends a
// stream that has expired, is dead or old enough. It does not wait for anything.
func (l *liveness) Visit(now wheel.Tick) (next time.Duration) {
	if l.s.life.now() != stateLive {
		return 0
	}
	why, next := l.look(now)
	if why != "" {
		// A registry may take its time.
		go l.s.End(registry.Ending{Reason: why})
		return 0
	}
	if left, ok := l.expiresIn(); ok {
		next = min(next, left, clockLook)
	}
	return max(next, wheel.Precision)
}

// look tells why the stream is to end now, which is empty if it is not, and when to
// look again.
func (l *liveness) look(now wheel.Tick) (why reason.Reason, next time.Duration) {
	if left, ok := l.expiresIn(); ok && left <= 0 {
		return reason.Expired, 0
	}
	// Whoever writes may do so at every visit by chance, and the connection be dead.
	silent, dead := l.acknowledged(now)
	if dead {
		l.lost.Store(true)
		return reason.Dead, 0
	}
	if id, _ := l.s.sink.Writing(); id != 0 {
		return l.lookAtWrite(now, id, silent)
	}
	l.writing = 0
	if l.stalls() && l.silence(now) >= l.s.cfg.StallAfter {
		return reason.Stalled, 0
	}
	if l.old(now) {
		return reason.MaxAge, 0
	}
	idle := l.heartbeat(now)
	return "", l.next(now, idle, silent)
}

// old reports whether the stream has lived for long enough. An event that is partly
// sent is waited for, for a tenth of the time; the body may be no framed event stream.
func (l *liveness) old(now wheel.Tick) bool {
	lived := now.Since(l.born)
	return l.age > 0 && lived >= l.age && (!l.s.relay.torn.Load() || lived >= l.age+l.s.cfg.MaxAge/10)
}

// stalls reports whether the stream ends where its upstream is silent.
func (l *liveness) stalls() bool { return l.s.cfg.StallAfter > 0 && !l.s.terms.Untracked }

// silence is for how long the upstream has sent nothing, although it could.
func (l *liveness) silence(now wheel.Tick) time.Duration {
	return now.Since(max(wheel.Tick(l.relayed.Load()-1), l.wrote))
}

// heartbeat sends one if it is due. It returns for how long nothing was written.
func (l *liveness) heartbeat(now wheel.Tick) (idle time.Duration) {
	idle = now.Since(max(wheel.Tick(l.relayed.Load()-1), wheel.Tick(l.beaten.Load())))
	if l.s.cfg.Heartbeat == 0 || idle < l.patience {
		return idle
	}
	if !l.s.relay.opaque && !l.s.relay.torn.Load() {
		if l.unacked == 0 {
			l.unacked = now
		}
		go l.s.relay.beat() // the client may take nothing in
	}
	l.patience = less(l.s.cfg.Heartbeat, 4)
	return 0
}

// lookAtWrite judges a stream to which something is being written. If that goes on,
// and the client acknowledges nothing meanwhile, it takes nothing in. On HTTP/2,
// the kernel knows of all the connection's streams at once, so time alone counts. silent
// is that of acknowledged.
func (l *liveness) lookAtWrite(now wheel.Tick, id uint64, silent time.Duration) (why reason.Reason, next time.Duration) {
	l.wrote = now
	acked := l.s.sink.Acked()
	if l.writing == 0 || id != l.write || acked != l.acked {
		l.writing, l.write, l.acked = max(now, 1), id, acked
	}
	stuck := now.Since(l.writing)
	switch {
	case l.s.cfg.DeadAfter == 0:
		return "", seldom
	case stuck >= l.s.cfg.DeadAfter:
		return reason.Dead, 0
	default:
		return "", min(l.s.cfg.DeadAfter-max(stuck, silent), l.s.cfg.DeadAfter/2)
	}
}

// acknowledged asks the kernel what the client has acknowledged. It returns for
// how long it has been silent although something is on its way, and whether that
// is too long: no acknowledgement of anything for DeadAfter, and since the last
// heartbeat, or for DeadAfter where there are none. An acknowledgement that is
// long ago alone means nothing on a stream that is idle.
func (l *liveness) acknowledged(now wheel.Tick) (silent time.Duration, dead bool) {
	info, ok := l.s.terms.Connection.TCP.Info()
	if !ok || l.s.cfg.DeadAfter == 0 || info.Unacked == 0 {
		l.unacked = 0
		return 0, false
	}
	if l.unacked == 0 || info.SinceAck < now.Since(l.unacked) {
		l.unacked = now
	}
	outstanding := l.s.cfg.DeadAfter
	if 0 < l.s.cfg.Heartbeat && l.s.cfg.Heartbeat < l.s.cfg.DeadAfter {
		outstanding = max(outstanding-l.s.cfg.Heartbeat, min(outstanding, leastOutstanding))
	}
	return info.SinceAck, info.SinceAck >= l.s.cfg.DeadAfter && now.Since(l.unacked) >= outstanding
}

// next is when to come again.
func (l *liveness) next(now wheel.Tick, idle, silent time.Duration) time.Duration {
	next := seldom
	if l.s.cfg.Heartbeat > 0 {
		next = l.patience - idle
	}
	if l.s.cfg.DeadAfter > 0 {
		next = min(next, l.s.cfg.DeadAfter/2)
		if silent > 0 {
			next = min(next, l.s.cfg.DeadAfter-silent)
		}
	}
	if l.stalls() {
		next = min(next, l.s.cfg.StallAfter-l.silence(now))
	}
	if left := l.age - now.Since(l.born); left > 0 {
		next = min(next, left)
	} else if l.age > 0 {
		next = min(next, oldLook)
	}
	return next
}
