package stream

import (
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Sink is where a stream's bytes go. Write, Flush and SetWriteDeadline are called
// by one goroutine at a time, and none of them after Close. The others may be
// called at any time, by any goroutine.
type Sink interface {
	// Write writes p. It may block for as long as the client takes nothing in.
	Write(p []byte) (int, error)
	// Flush sends what is buffered.
	Flush() error
	// Pass has guards further out, which the stream goes through too, hold nothing back
	// of what was written. Like Write, it is called by one goroutine at a time.
	Pass()
	// SetWriteDeadline sets when writing fails.
	SetWriteDeadline(t time.Time) error
	// Last says that what is written from now on is the last. Like Write, it is called
	// by one goroutine at a time.
	Last()
	// Writing tells of the present call of Write or Flush: what tells it from others,
	// and for how long it is known to go on: since Writing first saw it, and after Last
	// since it began. The id is 0 if there is none.
	Writing() (id uint64, since time.Duration)
	// Acked is how much the client has acknowledged so far, of this stream alone; 0
	// where that cannot be told.
	Acked() uint64
	// Cut cuts the client off, so that a call of Write or Flush that blocks, and all
	// after it, fail. Where others may use the connection too, the first call only
	// resets the stream and returns true: the writer needs time to notice. If it does
	// not, the connection is stuck, which further calls close as soon as nobody else
	// uses it; until then they return true.
	Cut() (again bool)
	// WasReset reports whether the stream was reset while its connection goes on.
	WasReset() bool
	// HangUp closes the connection of a client that is gone, unless others use it too.
	HangUp()
	// Close says that the writer must not be touched any more.
	Close()
}

// writerSink is a Sink over a server's response writer.
type writerSink struct {
	w    http.ResponseWriter
	rc   *http.ResponseController
	conn Connection
	// alone says that the connection serves nobody else at the same time: HTTP/1.
	alone bool
	// calls is odd while a call of Write or Flush is in progress. It grows with each:
	// no clock is read for what is only relayed.
	calls atomic.Uint64
	last  bool // read and written by who writes

	// mu guards the fields below it. It is held while the connection's deadline is
	// set, which does not block, so that the writer stays valid meanwhile.
	mu     sync.Mutex
	reset  bool
	closed bool
	// seen is the call that Writing has seen last, and at when it saw it first.
	seen uint64
	at   time.Time
}

func newWriterSink(w http.ResponseWriter, r *http.Request, conn Connection) *writerSink {
	return &writerSink{w: w, rc: http.NewResponseController(w), conn: conn, alone: r.ProtoMajor == 1}
}

func (s *writerSink) Write(p []byte) (int, error) {
	s.begin()
	defer s.calls.Add(1)
	return s.w.Write(p)
}

func (s *writerSink) Flush() error {
	s.begin()
	defer s.calls.Add(1)
	if err := s.rc.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}

func (s *writerSink) Pass() {
	for w := s.w; ; {
		if outer, ok := w.(interface{ passHeld() }); ok { // a Response, or what embeds one
			outer.passHeld()
			return
		}
		u, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return
		}
		w = u.Unwrap()
	}
}

func (s *writerSink) begin() {
	s.calls.Add(1)
	if s.last {
		s.Writing()
	}
}

func (s *writerSink) Last() { s.last = true }

func (s *writerSink) SetWriteDeadline(t time.Time) error { return s.rc.SetWriteDeadline(t) }

func (s *writerSink) Writing() (id uint64, since time.Duration) {
	id = s.calls.Load()
	if id%2 == 0 {
		return 0, 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen != id {
		s.seen, s.at = id, time.Now()
	}
	return id, time.Since(s.at)
}

func (s *writerSink) Acked() uint64 {
	if !s.alone {
		return 0
	}
	info, _ := s.conn.TCP.Info()
	return info.Acked
}

func (s *writerSink) Cut() (again bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
	case s.alone:
		s.cutConnection()
	case !s.reset:
		s.reset = true
		s.conn.User.Leave()
		s.expire()
		return true
	case s.calls.Load()%2 == 0:
	case s.conn.User.others():
		return true // the kernel will give it up for all at once, if need be
	default:
		s.cutConnection() // its TCP is stuck
	}
	return false
}

// cutConnection closes the client's connection, which frees a writer that is stuck
// in the kernel. mu is held.
func (s *writerSink) cutConnection() {
	if s.conn.Net == nil {
		s.expire()
		return
	}
	_ = s.conn.Net.Close()
}

// expire lets the next, or present, write to this one response fail: on HTTP/2
// and HTTP/3 it resets the stream. It goes to the innermost writer, since
// those between are not synchronised. mu is held.
func (s *writerSink) expire() {
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

func (s *writerSink) WasReset() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reset
}

func (s *writerSink) HangUp() {
	if s.conn.Net != nil && (s.alone || !s.conn.User.others()) {
		_ = s.conn.Net.Close()
	}
}

func (s *writerSink) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
}
