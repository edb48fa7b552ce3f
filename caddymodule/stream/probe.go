package stream

import (
	"context"
	"sync"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/event"
	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// probes has the present probe of a stream's client.
type probes struct {
	s  *Stream // not changed
	mu sync.Mutex
	// present is guarded by mu; nil: there is none. Nothing is called with it held.
	present *probe
}

// probe is a client's attempt to prove that it lives. Those who ask meanwhile
// share it.
type probe struct {
	over  chan struct{}
	proof event.Proof // set before over is closed
}

const (
	// firstLook and longestLook bound the time between two looks at what the
	// client has acknowledged.
	firstLook   = 2 * time.Millisecond
	longestLook = 50 * time.Millisecond
)

// Probe asks the client to prove that it lives: a heartbeat is written, and its
// kernel must acknowledge it within the given time, or twice the connection's
// retransmission timeout if that is longer (RFC 6298). If it does not, the stream is
// ended, and its place free when Probe returns that. A client that has left does
// not live either, but its place may be kept for it. Where the kernel cannot
// tell, and where ctx is done first, the client is taken to live.
func (s *Stream) Probe(ctx context.Context, within time.Duration) event.Proof {
	p := s.probes.prove(within)
	select {
	case <-p.over:
		return p.proof
	case <-ctx.Done():
		return event.ProofUnknown
	}
}

// prove returns the present probe, or begins one.
func (ps *probes) prove(within time.Duration) *probe {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.present != nil {
		return ps.present
	}
	p := &probe{over: make(chan struct{})}
	ps.present = p
	go func() {
		p.proof = ps.answers(within)
		if p.proof == event.ProofDead {
			ps.s.End(registry.Ending{Reason: reason.Dead})
		}
		ps.mu.Lock()
		ps.present = nil
		ps.mu.Unlock()
		close(p.over)
	}()
	return p
}

func (ps *probes) answers(within time.Duration) event.Proof {
	before, ok := ps.s.terms.Connection.TCP.Info()
	if !ok {
		return ps.gone(event.ProofUnknown)
	}
	timeout := time.NewTimer(max(within, 2*before.RTO))
	defer timeout.Stop()
	go ps.s.relay.beat() // the client may take nothing in
	for pause := firstLook; ; pause = min(2*pause, longestLook) {
		look := time.NewTimer(pause)
		select {
		case <-look.C:
		case <-timeout.C:
			look.Stop()
			return ps.livesSilently(before.Acked)
		}
		info, ok := ps.s.terms.Connection.TCP.Info()
		switch {
		case ps.s.life.now().over() || !ok || info.Gone:
			return ps.gone(event.ProofLeft)
		case info.Acked > before.Acked:
			return event.ProofLives
		}
	}
}

// gone returns the proof unless the stream is over, or its client is known to be dead.
func (ps *probes) gone(proof event.Proof) event.Proof {
	switch over := ps.s.life.now().over(); {
	case (over || proof == event.ProofLeft) && ps.s.care.lost.Load():
		return event.ProofDead
	case over:
		return event.ProofLeft
	default:
		return proof
	}
}

// livesSilently judges a client that has acknowledged nothing new in time. If nothing
// is on its way, there was nothing to acknowledge: its window is shut, or the
// stream stands within an event. That is no proof of death.
func (ps *probes) livesSilently(acked uint64) event.Proof {
	info, ok := ps.s.terms.Connection.TCP.Info()
	switch {
	case ps.s.life.now().over() || !ok || info.Gone:
		return ps.gone(event.ProofLeft)
	case info.Acked > acked:
		return event.ProofLives
	case info.Unacked == 0:
		return event.ProofUnknown
	default:
		ps.s.care.lost.Store(true)
		return event.ProofDead
	}
}
