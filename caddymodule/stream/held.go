package stream

import (
	"sync/atomic"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/internal/wheel"
)

// held is the beginning of an event that the upstream has not finished. It waits for
// the rest for Config.Hold at most, in which it is visited; nothing else is ever
// visited for it, and a stream whose events come whole never is.
//
// It is a wheel.Visitor.
type held struct {
	r     *relay // not changed
	bytes []byte // guarded by the relay's mu
	// since is when the first of the bytes came, a wheel.Tick plus 1; 0: none is held.
	// It is written with the relay's mu held.
	since atomic.Int64
	// entered says that there will be a visit.
	entered atomic.Bool
	// passing says that a goroutine is on its way to send the bytes.
	passing atomic.Bool
}

// Budget bounds what many streams hold back together. Its methods may be called
// concurrently.
type Budget struct {
	most int64
	used atomic.Int64
}

// NewBudget returns a Budget of so many bytes.
func NewBudget(most int64) *Budget { return &Budget{most: most} }

// take takes n bytes if there are as many. A nil Budget has no end.
func (b *Budget) take(n int) bool {
	if b == nil {
		return true
	}
	if b.used.Add(int64(n)) > b.most {
		b.used.Add(-int64(n))
		return false
	}
	return true
}

// force takes n bytes, although there may not be as many.
func (b *Budget) force(n int) {
	if b != nil {
		b.used.Add(int64(n))
	}
}

func (b *Budget) giveBack(n int) { b.force(-n) }

// add holds p back too. It reports false if that were too much. A byte order mark, or
// what may become one, is always held, and no time counts for it: it shows nothing, and
// once it is sent there is no place for anything of ours until the first event is whole.
func (h *held) add(p []byte, onlyBOM bool) bool {
	cfg := h.r.s.cfg
	switch {
	case onlyBOM:
		cfg.Held.force(len(p))
	case len(h.bytes)+len(p) > cfg.MaxEventSize || !cfg.Held.take(len(p)):
		return false
	}
	h.bytes = append(h.bytes, p...)
	if !onlyBOM && cfg.Hold > 0 && cfg.Wheel != nil && h.since.Load() == 0 {
		h.wait(cfg.Wheel)
	}
	return true
}

// wait has the bytes visited. While there is a visit to come the wheel turns, and
// tells the time without a clock.
func (h *held) wait(w *wheel.Wheel) {
	if h.entered.Load() {
		h.since.Store(int64(w.Now()) + 1)
	} else {
		h.since.Store(int64(w.Read()) + 1)
	}
	if h.entered.CompareAndSwap(false, true) {
		w.Enter(h, h.left(0))
	}
}

// left is how long bytes may wait that have waited for so long. A visit comes up to
// a Precision late.
func (h *held) left(waited time.Duration) time.Duration {
	return h.r.s.cfg.Hold - wheel.Precision - waited
}

// Visit implements wheel.Visitor: it has the bytes sent that have waited for long
// enough. The visits go on until nothing is held: what was sent may be followed by
// the beginning of another event, and an upstream that writes each event in two parts
// does not enter the wheel each time.
func (h *held) Visit(now wheel.Tick) (next time.Duration) {
	since := h.since.Load()
	if since == 0 {
		h.entered.Store(false)
		if since = h.since.Load(); since == 0 || !h.entered.CompareAndSwap(false, true) {
			return 0 // whoever holds something from now on enters anew
		}
	}
	if left := h.left(now.Since(wheel.Tick(since - 1))); left > 0 {
		return left
	}
	if h.passing.CompareAndSwap(false, true) {
		go h.pass() // the client may take nothing in
	}
	return wheel.Precision
}

func (h *held) pass() {
	defer h.passing.Store(false)
	h.r.passHeld(h.overdue)
}

// overdue reports whether the bytes have waited for long enough. The relay's mu is
// held.
func (h *held) overdue() bool {
	since := h.since.Load()
	return since != 0 && h.left(h.r.s.cfg.Wheel.Read().Since(wheel.Tick(since-1))) <= 0
}

// shown reports whether there are bytes that may pass at any time. The relay's mu is
// held.
func (h *held) shown() bool { return len(h.bytes) > 0 && !h.r.out.scanner.OnlyBOM() }

// retainedBuffer is how large a buffer may stay with its stream.
const retainedBuffer = 4 << 10

// drop forgets the bytes. The relay's mu is held.
func (h *held) drop() {
	if len(h.bytes) == 0 {
		return
	}
	h.r.s.cfg.Held.giveBack(len(h.bytes))
	if cap(h.bytes) > retainedBuffer {
		h.bytes = nil
	}
	h.bytes = h.bytes[:0]
	h.since.Store(0)
}

// release forgets the bytes and their buffer. The relay's mu is held.
func (h *held) release() {
	h.drop()
	h.bytes = nil
}
