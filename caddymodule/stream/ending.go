package stream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// End asks the stream to end and returns at once. The notice is written
// between two events: at once if none is half sent, else when the upstream has
// finished it. Whatever happens, the upstream is released within EndTimeout.
func (s *Response) End(e registry.Ending) {
	s.life.Lock()
	defer s.life.Unlock()
	if s.finished || s.over.Load() || !s.ending.CompareAndSwap(nil, &e) {
		return
	}
	s.deadline = time.AfterFunc(s.cfg.EndTimeout, s.timedOut)
	go s.endBetweenEvents()
}

// Ended reports whether the guard has ended the stream, or begun to.
func (s *Response) Ended() bool { return s.ending.Load() != nil }

// Left reports whether the client had gone by itself before the stream was ended.
// It is final once the handlers behind the guard have returned.
func (s *Response) Left() bool { return s.leftFirst.Load() }

// Gone is closed when the handlers behind the guard have returned: the
// upstream request no longer exists.
func (s *Response) Gone() <-chan struct{} {
	s.life.Lock()
	defer s.life.Unlock()
	if s.released == nil {
		s.released = make(chan struct{})
		if s.returned {
			close(s.released)
		}
	}
	return s.released
}

func (s *Response) endBetweenEvents() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over.Load() || s.torn {
		return // ended meanwhile; or relay, or timedOut, does it
	}
	s.endHere()
}

// endHere ends the stream at an event boundary. What is held of the next event
// was never sent and never will be. mu is held.
func (s *Response) endHere() {
	s.sendNotice()
	s.conclude()
}

func (s *Response) sendNotice() {
	if s.opaque {
		return
	}
	s.write(s.gate.Notice(nil, *s.ending.Load(), s.scanner.LastEventID()))
	s.flush()
	s.delivered = !s.over.Load()
}

// conclude lets nothing more through to the client, and the upstream go. The
// cause io.EOF makes reverse_proxy see an ordinary end of the body: it neither
// logs nor panics, and the response ends cleanly.
func (s *Response) conclude() {
	s.over.Store(true)
	s.endUpstream(io.EOF)
	s.gate.Over(s.leftFirst.Load())
}

// gone is conclude for a client that has left: nobody listens.
func (s *Response) gone() {
	s.leftFirst.Store(true)
	s.conclude()
}

// clientLeft runs when the client's request is canceled. Before the header,
// and for what is no stream, the upstream must see the client's own error: an
// io.EOF would look like the upstream's failure.
func (s *Response) clientLeft() {
	s.life.Lock()
	cause := s.r.Context().Err()
	switch s.phase {
	case pending:
		s.left = true
		if errors.Is(cause, io.EOF) { // an outer guard ended us
			cause = context.Canceled
		}
	case relaying:
		if !s.over.Swap(true) && !errors.Is(cause, io.EOF) { // else an outer guard ended us
			s.leftFirst.Store(true)
		}
		cause = io.EOF
	case discarding:
		cause = io.EOF
	}
	s.life.Unlock()
	s.endUpstream(cause)
	s.gate.Over(s.leftFirst.Load())
}

// stuckGrace is how long a writer may take to notice that its HTTP/2 or HTTP/3
// stream was reset before its whole connection is taken for dead.
const stuckGrace = 250 * time.Millisecond

// timedOut runs EndTimeout after End, unless the handler has returned by then.
// The upstream is released in any case. A client that does not read is cut
// off; so is one whose handler does not return (FastCGI notices a canceled
// request only at its next write), one more EndTimeout later.
func (s *Response) timedOut() {
	s.life.Lock()
	defer s.life.Unlock() // finish waits: w stays valid meanwhile
	if s.finished {
		return
	}
	s.conclude()

	stuck := !s.mu.TryLock()
	if !stuck {
		s.mu.Unlock()
	}
	switch {
	case !stuck && !s.waited:
		s.waited = true
		s.deadline.Reset(s.cfg.EndTimeout)
	case s.r.ProtoMajor == 1:
		s.cut()
	case !s.wasReset:
		s.wasReset = true
		s.reset()
		s.deadline.Reset(stuckGrace)
	case stuck:
		s.cut()
	}
}

// cut closes the client's connection, which frees a writer that is stuck in
// the kernel. On HTTP/2 it is the last resort: its TCP is stuck, and all its
// streams with it.
func (s *Response) cut() {
	if s.conn.Net == nil {
		s.reset()
		return
	}
	_ = s.conn.Net.Close()
}

// reset lets the next, or present, write to this one response fail: on HTTP/2
// and HTTP/3 it resets the stream. It goes to the innermost writer, since
// those between are not synchronised.
func (s *Response) reset() {
	w := s.w
	for {
		u, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			break
		}
		w = u.Unwrap()
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Unix(1, 0))
}
