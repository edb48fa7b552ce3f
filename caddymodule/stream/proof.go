package stream

import (
	"context"
	"time"
)

// proof is a client's attempt to prove that it lives. Those who ask meanwhile
// share it.
type proof struct {
	over  chan struct{}
	lives bool
}

const (
	// firstLook and longestLook bound the time between two looks at what the
	// client has acknowledged.
	firstLook   = 2 * time.Millisecond
	longestLook = 50 * time.Millisecond
)

// Lives asks the client to prove that it lives: a heartbeat is written, and its
// kernel must acknowledge it within the given time, or twice the connection's
// retransmission timeout if that is longer (RFC 6298). Where the kernel cannot
// tell, and where ctx is done first, the client is taken to live.
func (s *Response) Lives(ctx context.Context, within time.Duration) bool {
	p := s.prove(within)
	select {
	case <-p.over:
		return p.lives
	case <-ctx.Done():
		return true
	}
}

// Lost reports whether the client's connection is dead: it has acknowledged
// nothing for too long.
func (s *Response) Lost() bool { return s.lost.Load() }

// prove returns the present proof, or begins one.
func (s *Response) prove(within time.Duration) *proof {
	s.life.Lock()
	defer s.life.Unlock()
	if s.proof != nil {
		return s.proof
	}
	p := &proof{over: make(chan struct{})}
	s.proof = p
	go func() {
		p.lives = s.answers(within)
		s.life.Lock()
		s.proof = nil
		s.life.Unlock()
		close(p.over)
	}()
	return p
}

func (s *Response) answers(within time.Duration) bool {
	before, ok := s.conn.TCP.Info()
	if !ok {
		return !s.over.Load()
	}
	timeout := time.NewTimer(max(within, 2*before.RTO))
	defer timeout.Stop()
	go s.beat() // the client may take nothing in
	for pause := firstLook; ; pause = min(2*pause, longestLook) {
		look := time.NewTimer(pause)
		select {
		case <-look.C:
		case <-timeout.C:
			look.Stop()
			return s.livesSilently(before.Acked)
		}
		info, ok := s.conn.TCP.Info()
		switch {
		case s.over.Load() || !ok || info.Gone:
			return false
		case info.Acked > before.Acked:
			return true
		}
	}
}

// livesSilently judges a client that has acknowledged nothing new in time. If nothing
// is on its way, there was nothing to acknowledge: its window is shut, or the
// stream stands within an event. That is no proof of death.
func (s *Response) livesSilently(acked uint64) bool {
	info, ok := s.conn.TCP.Info()
	switch {
	case s.over.Load() || !ok || info.Gone:
		return false
	case info.Acked > acked || info.Unacked == 0:
		return true
	default:
		s.lost.Store(true)
		return false
	}
}
