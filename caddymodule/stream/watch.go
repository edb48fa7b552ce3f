package stream

import (
	"math/rand/v2"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/internal/wheel"
)

// watch is who looks after an open stream. life.mu guards its fields.
type watch struct {
	visits  *wheel.Entry
	unwatch func() // the kernel need not watch the connection any more
}

// start has the stream visited, beginning at a random moment, so that many
// that open at once are not visited at once, and has the kernel watch its
// connection.
func (l *liveness) start() {
	if l.s.cfg.Wheel == nil {
		return
	}
	first := Spread(l.firstVisit())
	if left, ok := l.expiresIn(); ok {
		first = min(first, left)
	}
	unwatch := l.s.terms.Connection.TCP.Watch(kernelsTurn(l.s.cfg.DeadAfter))
	l.s.life.mu.Lock()
	gone := l.s.life.now() == stateGone
	if !gone {
		l.watch.unwatch = unwatch
	}
	if l.s.life.now().relays() {
		l.watch.visits = l.s.cfg.Wheel.Enter(l, first)
	}
	l.s.life.mu.Unlock()
	if gone {
		unwatch()
	}
}

// firstVisit is when the stream is to be visited first, at the latest.
func (l *liveness) firstVisit() time.Duration {
	first := seldom
	for _, d := range []time.Duration{l.s.cfg.Heartbeat, l.s.cfg.DeadAfter / 2, l.s.cfg.MaxAge, l.s.cfg.StallAfter} {
		if d > 0 {
			first = min(first, d)
		}
	}
	return first
}

// Spread is a random part of d, and at least a tenth: when to do what not all are
// to do at once.
func Spread(d time.Duration) time.Duration {
	least := d / 10
	if d <= least || d <= 0 {
		return d
	}
	return least + rand.N(d-least) //nolint:gosec // to spread, not to hide
}

// kernelsTurn is when the kernel is to give up a client that the visits have not
// given up: a little later, for all that the kernel tells is that the connection is
// gone, as if the client had left, and its place would be kept for it.
func kernelsTurn(deadAfter time.Duration) time.Duration {
	if deadAfter <= 0 {
		return 0
	}
	return deadAfter + 5*wheel.Precision
}

func (l *liveness) endVisits() {
	l.s.life.mu.Lock()
	visits := l.watch.visits
	l.watch.visits = nil
	l.s.life.mu.Unlock()
	visits.Leave()
}

// end ends all looking after, and hangs up on who is lost: the connection
// would linger until it is idle for too long.
func (l *liveness) end() {
	l.endVisits()
	l.s.life.mu.Lock()
	unwatch := l.watch.unwatch
	l.watch.unwatch = nil
	l.s.life.mu.Unlock()
	if unwatch != nil {
		unwatch()
	}
	if l.lost.Load() {
		l.s.sink.HangUp()
	}
}
