package stream

import (
	"net/http"
	"sync"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// Parked is how a refused newcomer waits: its response stays open, without an
// upstream, until it would be admitted. A client whose stream is open does not
// come back to ask again.
type Parked struct {
	life    life
	w       http.ResponseWriter
	r       *http.Request
	parking Parking
	stream  *Stream
	waiting waiting
}

// Parking says how a newcomer is parked.
type Parking struct {
	// Terms are those of the parked stream. It has no place to hold.
	Terms Terms
	// Notice is sent first.
	Notice []byte
	// Waiter tells when the newcomer would be admitted.
	Waiter registry.Waiter
	// Free asks the same again at each heartbeat: whoever was told first may
	// not have come back.
	Free func() bool
	// Heartbeat is the time between comment lines.
	Heartbeat time.Duration
	// Return is the retry that the client is told when it may come back.
	Return time.Duration
}

// Park readies the answer to r. Nothing is written before Wait, which must be
// called. The stream may be listed, and ended, from now on.
func Park(w http.ResponseWriter, r *http.Request, cfg *Config, parking Parking) *Parked {
	p := &Parked{w: w, r: r, parking: parking, waiting: waiting{done: make(chan struct{})}}
	p.life.state.Store(uint32(stateParked))
	p.stream = newStream(&p.life, cfg, parking.Terms, newWriterSink(w, r, parking.Terms.Connection), &p.waiting)
	p.stream.back = parking.Return
	return p
}

// Stream is the parked stream.
func (p *Parked) Stream() *Stream { return p.stream }

// Wait answers the request, and returns when the client left, was told to come
// back, or was told why it need not. The caller has set what the header needs
// besides, and cuts the response if the summary says so.
func (p *Parked) Wait() Summary {
	s := p.stream
	defer p.parking.Waiter.Stop()
	defer s.terms.Connection.TCP.Watch(s.cfg.DeadAfter)()
	if p.open() {
		p.wait()
	}
	from, d := s.life.happen(onReturned)
	s.runAll(d)
	return s.finish(from, p.r.Context().Done())
}

// open sends the header and the first notice. It reports whether there is anything
// to wait for.
func (p *Parked) open() bool {
	s := p.stream
	r := &s.relay
	r.mu.Lock()
	defer r.unlock()
	SetHeader(p.w.Header())
	p.w.WriteHeader(http.StatusOK)
	r.out.open, r.out.dirty = true, true
	r.out.send(p.parking.Notice)
	r.out.flush()
	r.sendPending() // of who was faster
	r.endHere()     // if it was told to end before
	return !s.life.now().over()
}

func (p *Parked) wait() {
	s := p.stream
	beat := time.NewTicker(p.parking.Heartbeat)
	defer beat.Stop()
	for {
		select {
		case <-p.waiting.done:
			return
		case <-p.r.Context().Done():
			s.happen(onClientLeft)
			return
		case <-p.parking.Waiter.Free():
			s.happen(onKeyFree)
			return
		case <-beat.C:
			if p.parking.Free() {
				s.happen(onKeyFree)
				return
			}
			s.relay.beat()
		}
		if s.life.now().over() {
			return
		}
	}
}

// waiting is the Source of a stream without an upstream: there is nothing to end but
// the waiting.
type waiting struct {
	once sync.Once
	done chan struct{}
}

// End implements Source.
func (w *waiting) End(error) { w.once.Do(func() { close(w.done) }) }

// SetHeader sets the header of an event stream that the guard itself writes.
func SetHeader(h http.Header) {
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
}
