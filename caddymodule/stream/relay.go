package stream

import (
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/eventstream"
)

// relay is what a stream knows of the bytes that go through it.
type relay struct {
	// mu guards the Stream's sink and the fields below it, but for those that say
	// otherwise. It is held while something is written.
	mu   sync.Mutex
	s    *Stream // not changed
	out  output
	held held
	// due is what is to be done once mu is released.
	due []due

	opened    bool // the upstream's bytes were let through
	delivered bool // the notice was handed to the connection
	concluded bool // the stream was told to end, and did at a boundary

	// opaque says that events are not told apart: the body is compressed, or
	// untracked. It is not changed once the stream is open.
	opaque bool
	// torn says that part of an unfinished event is with the client already. It is
	// written with mu held, as are the counts. They may be read without.
	torn   atomic.Bool
	counts counts

	pending pending
}

// counts count what was relayed.
type counts struct {
	events atomic.Uint64
	bytes  atomic.Int64
}

// prepare corrects the header of a stream that is about to go out.
func (r *relay) prepare(h http.Header) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.out.dirty = true
	if r.s.terms.Untracked {
		r.opaque = true
		return
	}
	r.opaque = encoded(h)
	h.Del("Content-Length")
	setDefault(h, "Cache-Control", "no-cache")
	setDefault(h, "X-Accel-Buffering", "no")
}

// encoded reports whether the body is compressed, so that its events cannot
// be told apart.
func encoded(h http.Header) bool {
	ce := h.Get("Content-Encoding")
	return ce != "" && ce != "identity"
}

func setDefault(h http.Header, name, value string) {
	if h.Get(name) == "" {
		h.Set(name, value)
	}
}

// start lets the upstream's bytes through: the header is out, and the gate has
// nothing against it.
func (r *relay) start() {
	r.s.care.begin()
	r.mu.Lock()
	defer r.unlock()
	r.out.open, r.opened = true, true
	if !r.opaque {
		r.out.retry, r.out.forget = r.s.cfg.OpenRetry, r.s.terms.ForgetID
	}
	r.happen(onOpened)
}

func (r *relay) wasOpened() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.opened
}

// happen has o happen. The effects come when mu is released, which is held.
func (r *relay) happen(o occurrence) {
	if _, d := r.s.life.happen(o); len(d.do) > 0 {
		r.due = append(r.due, d)
	}
}

// unlock releases mu, and does what became due.
func (r *relay) unlock() {
	all := r.due
	r.due = nil
	r.mu.Unlock()
	for _, d := range all {
		r.s.runAll(d)
	}
}

// write relays p up to its last event boundary and holds the rest.
func (r *relay) write(p []byte) {
	r.mu.Lock()
	defer r.unlock()
	if !r.s.life.now().relays() {
		return
	}
	if w := r.s.cfg.Wheel; w != nil {
		r.s.care.note(w.Now())
	}
	if r.opaque {
		r.out.upstream(p)
		return
	}
	cut := r.out.scanner.Scan(p)
	if r.out.lf && len(p) > 0 {
		r.out.lf = false
		if p[0] == '\n' { // it is with the client already
			p, cut = p[1:], cut-1
			r.out.taken++
		}
	}
	if cut >= 0 {
		r.sendHeld()
		r.out.upstream(p[:cut])
		r.counts.events.Store(r.out.scanner.Events())
		if r.torn.Load() {
			r.torn.Store(false)
		}
		p = p[cut:]
		if r.s.life.now() == stateEnding {
			r.endHere()
			return
		}
		r.sendPending()
	}
	r.hold(p)
}

// hold holds back p, the beginning of an event or more of it.
func (r *relay) hold(p []byte) {
	switch {
	case len(p) == 0:
	case r.torn.Load():
		r.out.upstream(p)
	case r.held.add(p, r.out.scanner.OnlyBOM()):
	default:
		r.sendHeld()
		r.out.upstream(p)
		r.torn.Store(true)
	}
}

func (r *relay) sendHeld() {
	if len(r.held.bytes) > 0 {
		r.out.upstream(r.held.bytes)
		r.held.drop()
	}
}

// passHeld sends what is held of an event if that is due, which is asked with mu
// held. Its rest then passes as it comes.
func (r *relay) passHeld(due func() bool) {
	r.mu.Lock()
	defer r.unlock()
	if r.s.life.now().relays() && due() {
		r.tear()
	}
}

// tear sends what is held, although the event is not whole. mu is held.
func (r *relay) tear() {
	r.sendHeld()
	r.torn.Store(true)
	r.out.flush()
	r.s.sink.Pass()
}

// failed notes that what was written did not reach the client.
func (r *relay) failed() {
	r.out.broken = true
	r.happen(onWriteFailed)
}

// flush sends what is buffered.
func (r *relay) flush() {
	r.mu.Lock()
	defer r.unlock()
	if r.s.life.now().relays() {
		r.out.flush()
	}
}

func (r *relay) setWriteDeadline(t time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.s.life.now().relays() {
		return nil
	}
	return r.s.sink.SetWriteDeadline(t)
}

// mayInsert reports whether something of ours may go out now: not into an event,
// and not into what is compressed.
func (r *relay) mayInsert() bool {
	now := r.s.life.now()
	return (now == stateLive || now == stateParked) && r.out.open && !r.opaque && !r.torn.Load()
}

// insert writes p between two events.
func (r *relay) insert(p []byte) {
	r.out.ours(p)
	r.out.flush()
}

var heartbeat = eventstream.AppendComment(nil, "")

// beat sends a comment between two events.
func (r *relay) beat() {
	r.mu.Lock()
	defer r.unlock()
	if !r.mayInsert() {
		return
	}
	if w := r.s.cfg.Wheel; w != nil {
		r.s.care.beaten.Store(int64(w.Now()))
	}
	r.insert(heartbeat)
}

// settle ends the stream if it stands between two events. If not, whoever relays
// the rest of the event does it.
func (r *relay) settle() {
	r.mu.Lock()
	defer r.unlock()
	r.endHere()
}

// endHere has an ending stream end at a boundary, if it stands at one. What is held
// of the next event was never sent and never will be, unless the body may be no
// framed event stream. mu is held; the effects come when it is released.
func (r *relay) endHere() {
	if r.s.life.now() != stateEnding || !r.out.open || r.torn.Load() {
		return
	}
	if r.showsHeld() {
		r.tear()
		return
	}
	r.happen(onBoundary)
}

// showsHeld reports whether a client would have shown what is held, since it does
// not wait for events to be whole.
func (r *relay) showsHeld() bool {
	return len(r.held.bytes) > 0 && !r.out.framed() && !r.out.scanner.OnlyBOM()
}

// lastEventID is the last id that the application sent in a whole event.
func (r *relay) lastEventID() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.out.scanner.LastEventID()
}

// concludes reports whether a stream that was told to end, and whose upstream has
// ended by itself since, ends at a boundary.
func (r *relay) concludes() bool {
	r.mu.Lock()
	defer r.unlock()
	if r.showsHeld() {
		r.s.sink.Last()
		r.tear()
	}
	r.concluded = r.out.open && !r.torn.Load()
	return r.concluded
}

// writeNotice writes the last of all.
func (r *relay) writeNotice(notice []byte) {
	r.mu.Lock()
	defer r.unlock()
	r.s.sink.Last()
	r.out.ours(notice)
	r.out.flush()
	r.delivered = !r.out.broken
}

// flushHeld sends what is held of an event that the upstream has not finished.
func (r *relay) flushHeld() {
	r.mu.Lock()
	defer r.unlock()
	if len(r.held.bytes) > 0 {
		r.s.sink.Last()
		r.sendHeld()
		r.out.flush()
	}
}

// close forbids all writing. A heartbeat that is being written is waited for.
func (r *relay) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.out.open = false
	r.held.release()
}
