package conflict

import (
	"sync"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/internal/due"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// Audit is the audit log of contested keys. It tells what happens to them, seldom
// enough to be read. All methods may be called concurrently.
type Audit struct {
	// closing has each Close wait until the first has told what was untold. It is
	// added to with mu held, when closed is set.
	closing sync.WaitGroup
	// sweeper tells and forgets where a window is over. Its lock is mu.
	sweeper *due.Sweeper

	// mu guards the fields below. No line is called with it held.
	mu        sync.Mutex
	refusals  *due.Map[refused, refusals]
	takeovers *due.Map[registry.ID, takeovers]
	closed    bool
}

// NewAudit returns an Audit that knows no key.
func NewAudit() *Audit { return newAudit(maxKeys) }

func newAudit(keys int) *Audit {
	a := new(Audit)
	a.sweeper = due.NewSweeper(&a.mu, a.next, a.take)
	a.reset(keys)
	return a
}

// reset forgets all keys.
func (a *Audit) reset(keys int) {
	a.refusals = due.NewMap[refused, refusals](keys)
	a.takeovers = due.NewMap[registry.ID, takeovers](keys)
}

// Close stops the timer and tells what is untold, and waits for lines that are
// being told: once it has returned, only Rejected itself calls any. So it must
// not be called by a line, nor with a lock that a line takes. It may be called
// any number of times.
func (a *Audit) Close() {
	if untold, first := a.shut(); first {
		untold.tell()
		a.closing.Done()
	}
	a.closing.Wait()
	a.sweeper.Close()
}

// shut closes a and returns what is untold, the oldest first; first: no other call
// did so before.
func (a *Audit) shut() (untold lines, first bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return nil, false
	}
	a.closed = true
	a.closing.Add(1)
	for e := a.refusals.First(); e != nil; e = a.refusals.First() {
		a.refusals.Remove(e)
		untold = untold.with(e.Value.take())
	}
	a.reset(0)
	return untold, true
}

// Rejected counts a refused newcomer of key. The first one is told at once:
// line(1). Those that follow within a minute are told together when it is over,
// by the latest line given, with how many they were; so it goes on, minute by
// minute, until one passes without any. No lock is held while a line is called.
//
// Where there are too many keys, what is untold of the forgotten one is told at
// once. After Close, every newcomer is.
func (a *Audit) Rejected(key registry.ID, line func(attempts int)) {
	a.refuse(refused{key: key}, line).tell()
}

// Parked is Rejected for newcomers that flap. They are counted apart.
func (a *Audit) Parked(key registry.ID, line func(attempts int)) {
	a.refuse(refused{key: key, parked: true}, line).tell()
}

func (a *Audit) refuse(key refused, tell func(attempts int)) lines {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return lines{{1, tell}}
	}
	if e := a.refusals.Find(key); e != nil {
		e.Value.add(tell)
		return nil
	}
	_, forgotten := a.refusals.Add(key, time.Now().Add(minute))
	a.sweeper.Arm()
	out := lines{{1, tell}}
	if forgotten != nil {
		out = out.with(forgotten.Value.take())
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
func (a *Audit) TakenOver(key registry.ID, addr string, addrs int, window time.Duration) []string {
	if addrs < 1 || window <= 0 {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return nil
	}
	now := time.Now()
	over := now.Add(window)
	e := a.takeovers.Find(key)
	if e == nil {
		e, _ = a.takeovers.Add(key, over)
	}
	a.takeovers.Extend(e, over)
	a.sweeper.Arm()
	e.Value.add(takeover{addr, now}, addrs)
	return e.Value.contested(now, addrs, window)
}
