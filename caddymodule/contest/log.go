// Package contest keeps contested keys from flooding the security log: what
// happens to a key again and again is counted, and told in one line.
//
// Memory is bounded by the number of keys. A key is forgotten when its time is
// over, or earlier to make room: the one first whose time is over first.
package contest

import (
	"sync"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

const (
	// minute is how long the refusals of a key are counted before they are told.
	minute = time.Minute
	// maxKeys is how many keys are known at most: refused ones, and as many that
	// were taken over.
	maxKeys = 10_000
)

// Log tells what happens to contested keys, seldom enough to be read. All
// methods may be called concurrently.
type Log struct {
	// telling are the sweep and the Close that call lines; Close waits for them.
	telling sync.WaitGroup

	mu        sync.Mutex
	refusals  windows[refusals]
	takeovers windows[takeovers]
	timer     *time.Timer
	// alarm is when timer fires; zero: it does not.
	alarm    time.Time
	sweeping bool
	closed   bool
}

// New returns a Log that knows no key.
func New() *Log { return newLimited(maxKeys) }

func newLimited(keys int) *Log {
	l := &Log{refusals: newWindows[refusals](keys), takeovers: newWindows[takeovers](keys)}
	l.timer = time.AfterFunc(minute, l.sweep)
	l.timer.Stop()
	return l
}

// Close stops the timer and tells what is untold, and waits for lines that are
// being told: once it has returned, only Rejected itself calls any. So it must
// not be called by a line, nor with a lock that a line takes. It may be called
// any number of times.
func (l *Log) Close() {
	if untold, first := l.shut(); first {
		untold.tell()
		l.telling.Done()
	}
	l.telling.Wait()
}

// shut closes l and returns what is untold, the oldest first; first: no other
// call did so before.
func (l *Log) shut() (untold lines, first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, false
	}
	l.closed, l.alarm = true, time.Time{}
	l.timer.Stop()
	l.telling.Add(1)
	for w := l.refusals.first(); w != nil; w = l.refusals.first() {
		l.refusals.remove(w)
		untold = untold.with(w.of.take())
	}
	l.takeovers = newWindows[takeovers](0)
	return untold, true
}

// Rejected counts a refused newcomer of key. The first one is told at once:
// line(1). Those that follow within a minute are told together when it is over,
// by the latest line given, with how many they were; so it goes on, minute by
// minute, until one passes without any. No lock is held while a line is called.
//
// Where there are too many keys, what is untold of the forgotten one is told at
// once. After Close, every newcomer is.
func (l *Log) Rejected(key registry.ID, line func(attempts int)) {
	l.rejected(key, line).tell()
}

func (l *Log) rejected(key registry.ID, tell func(attempts int)) lines {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return lines{{1, tell}}
	}
	if w := l.refusals.find(key); w != nil {
		w.of.add(tell)
		return nil
	}
	_, forgotten := l.refusals.add(key, time.Now().Add(minute))
	l.arm()
	out := lines{{1, tell}}
	if forgotten != nil {
		out = out.with(forgotten.of.take())
	}
	return out
}

// TakenOver notes that a client at addr took key over. When takeovers from addrs
// different addresses came within window, it returns those addresses, the latest
// last, and nil otherwise. It returns addresses of a key once per window, however
// the takeovers go on.
//
// Guards with different settings may share a key: each call is judged by its
// own.
func (l *Log) TakenOver(key registry.ID, addr string, addrs int, window time.Duration) []string {
	if addrs < 1 || window <= 0 {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	now := time.Now()
	w := l.takeovers.find(key)
	if w == nil {
		w, _ = l.takeovers.add(key, now.Add(window))
	} else {
		l.takeovers.extend(w, now.Add(window))
	}
	l.arm()
	w.of.add(arrival{addr, now}, addrs)
	return w.of.contest(now, addrs, window)
}
