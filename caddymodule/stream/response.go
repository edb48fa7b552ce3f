// Package stream guards one response: it relays a backend's event stream,
// holds back what is not yet a whole event, and can end the stream from the
// proxy's side, between two events, without the client or the backend seeing
// an error.
package stream

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/eventstream"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/rounds"
	"github.com/sse-guard/sse-guard/caddymodule/tcp"
)

// statusClientClosedRequest is what reverse_proxy answers, for the log only,
// when the client left before the header.
const statusClientClosedRequest = 499

// Config is what all responses of one guard share.
type Config struct {
	// EndTimeout bounds how long an ended stream may wait for its client to
	// read, or for its backend to finish an event that is partly sent.
	EndTimeout time.Duration
	// MaxEventSize is how many bytes of an unfinished event are held back.
	MaxEventSize int
	// OpenRetry is sent as each stream opens; 0 sends nothing.
	OpenRetry time.Duration
	// Heartbeat is how long nothing may be written before a comment is; 0: for
	// ever.
	Heartbeat time.Duration
	// DeadAfter is how long a client may acknowledge nothing before it counts as
	// dead; 0: for ever.
	DeadAfter time.Duration
	// MaxAge is how long a stream may live, give or take a tenth; 0: for ever.
	MaxAge time.Duration
	// Rounds tell the time that streams note, and visit them. With nil, they are
	// not looked after.
	Rounds *rounds.Rounds
}

// Connection is a client's connection. Both are nil if it is not known, as on
// HTTP/3.
type Connection struct {
	Net net.Conn
	TCP *tcp.Conn
}

// Verdict is what a Gate thinks of an upstream's header.
type Verdict int

const (
	// Pass lets the response through untouched: it is no stream.
	Pass Verdict = iota
	// Untracked relays a stream byte for byte: it holds no key.
	Untracked
	// Admit relays a stream that holds a key once Commit agrees.
	Admit
	// Refuse discards the response. The caller of Relay answers instead.
	Refuse
)

// Gate decides about one response and writes the words it ends with.
type Gate interface {
	// Judge is asked once, before the final header goes out.
	Judge(status int, header http.Header) Verdict
	// Commit is called after the header of an admitted stream was handed
	// outward. It reports false if an outer guard refused it.
	Commit() bool
	// Notice appends the event that tells the client why the stream ends.
	Notice(dst []byte, e registry.Ending, lastEventID string) []byte
	// Over is called as soon as the stream no longer counts, and may be called
	// again. The first call tells whether the client has left by itself.
	Over(left bool)
}

// Response is the writer that the handlers behind the guard write to. It
// implements registry.Handle.
type Response struct {
	w    http.ResponseWriter
	rc   *http.ResponseController
	r    *http.Request // as the guard received it
	conn Connection
	gate Gate
	cfg  *Config

	ctx         context.Context // for the handlers behind the guard
	endUpstream func(error)
	over        atomic.Bool // nothing more goes to the client
	ending      atomic.Pointer[registry.Ending]
	lost        atomic.Bool  // nobody is at the other end of the connection
	leftFirst   atomic.Bool  // the client left before the stream was over
	relayed     atomic.Int64 // rounds.Tick of the last bytes from the upstream
	beaten      atomic.Int64 // rounds.Tick of the last heartbeat
	care        care

	// life guards the fields below it. It is never held while writing, so that
	// ending a stream does not wait for a client that does not read.
	life     sync.Mutex
	phase    phase         // also read without life by the goroutine that sets it
	returned bool          // the handlers behind the guard have returned
	left     bool          // the client went away before the header
	released chan struct{} // made for the first who asks
	finished bool          // the handler returned: w must not be touched any more
	deadline *time.Timer
	waited   bool // a handler that does not return had one more EndTimeout
	proof    *proof
	unwatch  func() // the kernel need not watch the connection any more
	wasReset bool   // the HTTP/2 or HTTP/3 stream was reset

	// mu guards w and the fields below it while the stream is relayed.
	mu      sync.Mutex
	scanner eventstream.Scanner
	held    []byte // an event's first bytes, until the rest comes
	torn    bool   // part of an unfinished event is with the client already
	opaque  bool   // encoded or untracked: no boundaries, no notice
	opened  bool   // we wrote before the upstream did
	dirty   bool   // written since the last flush
	bytes   int64  // relayed
	// delivered is set once the notice was handed to the connection.
	delivered bool
}

type phase int

const (
	pending  phase = iota // the final header has not come
	passing               // no stream
	relaying              // a stream
	discarding
)

// New prepares the response to r. The handlers behind the guard see the values
// of ctx.
func New(ctx context.Context, w http.ResponseWriter, r *http.Request, conn Connection, gate Gate, cfg *Config) *Response {
	s := &Response{
		w:    w,
		rc:   http.NewResponseController(w),
		r:    r,
		conn: conn,
		gate: gate,
		cfg:  cfg,
	}
	s.ctx, s.endUpstream = newUpstreamContext(ctx)
	return s
}

// Summary tells how a response went.
type Summary struct {
	// Refused is set if the gate refused the stream, or an outer guard did. Its
	// header was discarded and nothing was written.
	Refused bool
	// Ending is why the guard ended the stream; nil if it did not.
	Ending *registry.Ending
	// Delivered tells whether the notice was handed to the connection.
	Delivered bool
	// Cut is set if the response was cut off, perhaps in mid-frame. The caller
	// of Relay panics with http.ErrAbortHandler: HTTP/3 would else finish it as
	// if it were whole, which clients must treat as the connection's failure
	// (RFC 9114 section 7.1).
	Cut bool
	// Events and Bytes count what was relayed.
	Events uint64
	Bytes  int64
}

// Relay calls the handlers behind the guard and returns when they have, and
// everything that belongs to the stream is written. A panic passes through
// unless it is http.ErrAbortHandler from a stream that the guard ended.
func (s *Response) Relay(next func(http.ResponseWriter, *http.Request) error) (sum Summary, err error) {
	stop := context.AfterFunc(s.r.Context(), s.clientLeft)
	defer func() {
		p := recover()
		stop()
		quiet := s.finish()
		s.endUpstream(context.Canceled)      // releases what still hangs on the context
		aborted := p == http.ErrAbortHandler //nolint:errorlint // a panic's value, never wrapped
		if p != nil && (!quiet || !aborted) {
			panic(p)
		}
		if quiet {
			err = nil
		}
		sum = s.summary()
	}()
	err = next(s, s.r.WithContext(s.ctx))
	return sum, err
}

// finish writes what is left to write and closes the response to everybody
// else. It reports whether the guard, or the client, ended it before.
func (s *Response) finish() (quiet bool) {
	s.life.Lock()
	s.returned = true
	if s.released != nil {
		close(s.released)
	}
	s.life.Unlock()

	s.mu.Lock() // waits for a notice that is being written
	quiet = s.over.Load() || s.phase == discarding
	if s.phase == relaying && !s.over.Load() {
		switch {
		case s.ending.Load() != nil && !s.torn:
			quiet = true
			s.sendNotice()
		case len(s.held) > 0:
			s.send(s.held)
			s.flush()
		}
		s.conclude()
	}
	s.held = nil
	s.mu.Unlock()

	s.life.Lock()
	s.finished = true
	if s.deadline != nil {
		s.deadline.Stop()
	}
	left := s.left && s.phase == discarding
	unwatch := s.unwatch
	s.life.Unlock()

	if unwatch != nil {
		unwatch()
	}
	if s.lost.Load() && s.conn.Net != nil {
		_ = s.conn.Net.Close() // or it would linger until it is idle for too long
	}
	if left {
		s.w.WriteHeader(statusClientClosedRequest)
	}
	s.gate.Over(s.leftFirst.Load())
	return quiet
}

func (s *Response) summary() Summary {
	return Summary{
		Refused:   s.phase == discarding && !s.left,
		Ending:    s.ending.Load(),
		Delivered: s.delivered,
		Cut:       s.wasReset,
		Events:    s.scanner.Events(),
		Bytes:     s.bytes,
	}
}

// Header is the header map of the wrapped writer.
func (s *Response) Header() http.Header { return s.w.Header() }

// WriteHeader asks the gate about the final header. Informational ones pass.
func (s *Response) WriteHeader(status int) {
	informational := status >= 100 && status < 200 && status != http.StatusSwitchingProtocols
	switch {
	case s.phase == passing || s.phase == pending && informational:
		s.w.WriteHeader(status)
	case s.phase == pending:
		s.judge(status)
	}
}

func (s *Response) judge(status int) {
	switch s.gate.Judge(status, s.w.Header()) {
	case Pass:
		s.enter(passing)
		s.w.WriteHeader(status)
	case Refuse:
		s.enter(discarding)
		s.endUpstream(io.EOF)
	case Untracked:
		s.opaque, s.dirty = true, true
		s.enter(relaying)
		s.w.WriteHeader(status)
	case Admit:
		s.open(status)
	}
}

// open sends the header of an admitted stream.
func (s *Response) open(status int) {
	s.mu.Lock() // an end that comes from now on waits until the header is out
	defer s.mu.Unlock()
	s.enter(relaying)

	h := s.w.Header()
	s.opaque = encoded(h)
	h.Del("Content-Length")
	setDefault(h, "Cache-Control", "no-cache")
	setDefault(h, "X-Accel-Buffering", "no")
	s.w.WriteHeader(status)
	s.dirty = true

	s.begin()
	if !s.gate.Commit() {
		s.enter(discarding)
		s.endUpstream(io.EOF)
		return
	}
	if s.cfg.OpenRetry > 0 && !s.opaque {
		if b, err := (eventstream.Event{Retry: s.cfg.OpenRetry}).Append(nil); err == nil {
			s.opened = true
			s.write(b)
		}
	}
}

// enter moves to the next phase. If the client went away while the upstream
// was answering, there is nobody to answer to: reverse_proxy would find its
// context canceled in mid-body and log that, so it is unwound from here.
func (s *Response) enter(p phase) {
	s.life.Lock()
	left := s.left
	if left && p == relaying {
		p = discarding
	}
	s.phase = p
	s.life.Unlock()
	if left && p == discarding {
		panic(http.ErrAbortHandler)
	}
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

// Write relays p. Once the stream has ended it accepts and drops everything:
// an error would be logged by whoever writes.
func (s *Response) Write(p []byte) (int, error) {
	if s.phase == pending {
		s.WriteHeader(http.StatusOK)
	}
	switch s.phase {
	case relaying:
		s.relay(p)
		return len(p), nil
	case discarding:
		return len(p), nil
	default:
		return s.w.Write(p)
	}
}

// relay sends p up to its last event boundary and holds the rest.
func (s *Response) relay(p []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over.Load() {
		return
	}
	if s.cfg.Rounds != nil {
		s.relayed.Store(int64(s.cfg.Rounds.Now()))
	}
	if s.opaque {
		s.send(p)
		return
	}
	if cut := s.scanner.Scan(p); cut >= 0 {
		s.sendHeld()
		s.send(p[:cut])
		s.torn = false
		p = p[cut:]
		if s.ending.Load() != nil {
			s.endHere()
			return
		}
	}
	switch {
	case len(p) == 0:
	case s.torn:
		s.send(p)
	case len(s.held)+len(p) > s.cfg.MaxEventSize:
		s.sendHeld()
		s.send(p)
		s.torn = true
	default:
		s.held = append(s.held, p...)
	}
}

// retainedBuffer is how large a hold-back buffer may stay with its stream.
const retainedBuffer = 4 << 10

func (s *Response) sendHeld() {
	if len(s.held) == 0 {
		return
	}
	s.send(s.held)
	if cap(s.held) > retainedBuffer {
		s.held = nil
	}
	s.held = s.held[:0]
}

// send relays upstream bytes. A byte order mark is one only at the very start
// of a stream: behind something we wrote it would spoil the first field.
func (s *Response) send(p []byte) {
	if s.opened && s.bytes == 0 && s.scanner.HasBOM() && len(p) >= 3 {
		p = p[3:]
		s.bytes += 3
	}
	s.bytes += int64(s.write(p))
}

func (s *Response) write(p []byte) int {
	if len(p) == 0 || s.over.Load() {
		return 0
	}
	s.dirty = true
	n, err := s.w.Write(p)
	if err != nil {
		s.gone()
	}
	return n
}

// Flush implements http.Flusher.
func (s *Response) Flush() { _ = s.FlushError() }

// FlushError sends what is buffered, whole events only.
func (s *Response) FlushError() error {
	if s.phase == pending {
		s.WriteHeader(http.StatusOK)
	}
	switch s.phase {
	case relaying:
		s.mu.Lock()
		defer s.mu.Unlock()
		s.flush()
		return nil
	case discarding:
		return nil
	default:
		return s.rc.Flush()
	}
}

func (s *Response) flush() {
	if !s.dirty || s.over.Load() {
		return
	}
	s.dirty = false
	if err := s.rc.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		s.gone()
	}
}

// ReadFrom keeps the fast path (sendfile) for what is no stream.
func (s *Response) ReadFrom(r io.Reader) (int64, error) {
	if s.phase == pending {
		s.WriteHeader(http.StatusOK)
	}
	if rf, ok := s.w.(io.ReaderFrom); ok && s.phase == passing {
		return rf.ReadFrom(r)
	}
	return io.Copy(writeOnly{s}, r)
}

// writeOnly hides ReadFrom from io.Copy.
type writeOnly struct{ io.Writer }

// SetWriteDeadline keeps deadlines set from behind the guard in step with its
// own writes: the writers below are not synchronised.
func (s *Response) SetWriteDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over.Load() {
		return nil
	}
	return s.rc.SetWriteDeadline(t)
}

// Hijack hands the connection over, for WebSocket.
func (s *Response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if s.phase == pending {
		s.enter(passing)
	}
	if s.phase != passing {
		return nil, nil, http.ErrNotSupported
	}
	return s.rc.Hijack()
}

// Push implements http.Pusher.
func (s *Response) Push(target string, opts *http.PushOptions) error {
	if p, ok := s.w.(http.Pusher); ok {
		return p.Push(target, opts)
	}
	return http.ErrNotSupported
}

// Unwrap is for http.ResponseController.
func (s *Response) Unwrap() http.ResponseWriter { return s.w }

// Interface guards
var (
	_ http.ResponseWriter = (*Response)(nil)
	_ http.Flusher        = (*Response)(nil)
	_ http.Hijacker       = (*Response)(nil)
	_ http.Pusher         = (*Response)(nil)
	_ io.ReaderFrom       = (*Response)(nil)
	_ registry.Handle     = (*Response)(nil)
)
