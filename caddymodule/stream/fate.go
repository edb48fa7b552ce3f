package stream

import (
	"sync/atomic"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/tcp"
)

// Fate is what became of a stream's client. It may be kept for long after the stream is
// over: it does not refer to the stream, nor to its request. Its methods may be called
// concurrently.
type Fate struct {
	left atomic.Bool
	tcp  *tcp.Conn // not changed
}

// Fate returns what will have become of the stream's client.
func (s *Stream) Fate() *Fate {
	s.fate.CompareAndSwap(nil, &Fate{tcp: s.terms.Connection.TCP})
	f := s.fate.Load()
	if s.left.Load() {
		f.left.Store(true) // whoever set it may have found no Fate
	}
	return f
}

// noteLeft notes that the client left by itself.
func (s *Stream) noteLeft() {
	s.left.Store(true)
	if f := s.fate.Load(); f != nil {
		f.left.Store(true)
	}
}

// ClientLeft reports whether the client went away by itself before it was told the
// end. It is final once the handlers behind the guard have returned.
func (f *Fate) ClientLeft() bool { return f.left.Load() }

// SilentSince reports whether something is on its way to the client, which has
// acknowledged nothing since t. It is false where the kernel cannot tell.
func (f *Fate) SilentSince(t time.Time) bool { return f.tcp.SilentSince(t) }
