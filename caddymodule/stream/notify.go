package stream

import (
	"slices"
	"sync"
	"sync/atomic"
)

// mostPending is how many bytes may wait for the end of an event. A single event may
// have more.
const mostPending = 64 << 10

// pending is events of an administrator's that wait to be written.
type pending struct {
	// mu guards the fields below it. Nothing is called with it held.
	mu sync.Mutex
	// events is not written to: streams share an event that all of them get.
	events []byte
	// some says that there are events. It may be read without mu.
	some atomic.Bool
	// writing says that a goroutine is on its way to write them.
	writing bool
}

// Notify writes an event, which is whole and not changed from now on, between two of
// the upstream's: at once, or at the next boundary. It does not wait for that, and what
// has not been written when the stream ends is lost. It reports false if nothing can be
// written: the stream is neither live nor parked, its events cannot be told apart, or
// it would wait behind others, and they would be more than 64 KiB.
func (s *Stream) Notify(event []byte) bool {
	r := &s.relay
	if now := s.life.now(); now != stateLive && now != stateParked || r.opaque {
		return false
	}
	taken, wake := r.pending.add(event)
	if wake {
		go r.writePending() // the client may take nothing in
	}
	return taken
}

// add adds an event, if there is room. It reports whether somebody is to write it
// who is not on the way yet.
func (p *pending) add(event []byte) (taken, wake bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.events) > 0 && len(p.events)+len(event) > mostPending {
		return false, false
	}
	if len(p.events) == 0 {
		p.events = slices.Clip(event)
	} else {
		p.events = append(p.events, event...)
	}
	p.some.Store(true)
	wake = !p.writing
	p.writing = true
	return true, wake
}

// take takes out all events.
func (p *pending) take() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	events := p.events
	p.events = nil
	p.some.Store(false)
	return events
}

// arrived says that who was on the way to write is there.
func (p *pending) arrived() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.writing = false
}

// writePending writes what is pending, unless an event is partly sent: then whoever
// relays its rest does it.
func (r *relay) writePending() {
	r.mu.Lock()
	defer r.unlock()
	r.pending.arrived()
	r.sendPending()
}

// sendPending writes what is pending, where something may be inserted. mu is held.
func (r *relay) sendPending() {
	if r.pending.some.Load() && r.mayInsert() {
		r.insert(r.pending.take())
	}
}
