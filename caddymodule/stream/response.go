// Package stream guards one response: it relays a backend's event stream,
// holds back what is not yet a whole event, and can end the stream from the
// proxy's side, between two events, without the client or the backend seeing
// an error.
//
// A Response is what the handlers behind the guard write to, whatever they write. A
// Stream is there only where the answer is one, or may become one. The file
// state.go has all that can happen to them.
//
// There are two locks. The relay's mu is held while something is written to the
// client, and so for as long as the client takes nothing in. life.mu is held for an
// instant only. Who holds mu may take life.mu, not the other way round. No Gate,
// Place, or function of Terms is called with either of them held.
package stream

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/internal/wheel"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
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
	// Hold is for how long an unfinished event is held back, at most, and up to two
	// tenths of a second less; 0: until it is finished.
	Hold time.Duration
	// Held bounds what all streams hold back together. What does not fit passes at
	// once. Nil: no bound.
	Held *Budget
	// OpenRetry is sent before the first event of each stream; 0 sends nothing.
	OpenRetry time.Duration
	// Heartbeat is how long nothing may be written before a comment is; 0: for
	// ever.
	Heartbeat time.Duration
	// FinishAll says that also those responses are finished whose clients are to come
	// back. They are cut else.
	FinishAll bool
	// DeadAfter is how long a client may acknowledge nothing before it counts as
	// dead; 0: for ever.
	DeadAfter time.Duration
	// MaxAge is how long a stream may live, about: 0.88 to 1.1 times; 0: for ever.
	// Untracked streams have no age.
	MaxAge time.Duration
	// StallAfter is how long the upstream may send nothing; 0: for ever. Untracked
	// streams may be silent for any time.
	StallAfter time.Duration
	// Wheel tells the time that streams note, and visits them. With nil there are
	// no heartbeats, and no stream ends by itself.
	Wheel *wheel.Wheel
}

// Verdict is what a Gate thinks of an upstream's header.
type Verdict int

const (
	// Pass lets the response through untouched: it is no stream.
	Pass Verdict = iota
	// Admit relays a stream. Response.NewStream was called for it.
	Admit
	// Refuse discards the response. The caller of Relay answers instead.
	Refuse
)

// Gate decides about one response. It is called by the goroutine of the handlers
// behind the guard.
type Gate interface {
	// Judge is asked once, before the final header goes out.
	Judge(status int, header http.Header) Verdict
	// Opened is called once the header of an admitted stream was handed outward. An
	// end that comes before it returns takes effect when it has.
	Opened()
}

// Response is the writer that the handlers behind the guard write to. Init readies
// it, Relay uses it once.
type Response struct {
	life life

	w        http.ResponseWriter
	r        *http.Request // as the guard received it
	gate     Gate
	cfg      *Config
	upstream upstream
	// stream is nil unless the response is a stream, or may become one. It is written
	// with life.mu held.
	stream atomic.Pointer[Stream]
}

// Init readies the response to r, which is written to w.
func (p *Response) Init(w http.ResponseWriter, r *http.Request, gate Gate, cfg *Config) {
	p.w, p.r, p.gate, p.cfg = w, r, gate, cfg
	p.life.state.Store(uint32(stateAsked))
	p.upstream.values, p.upstream.client, p.upstream.owner = r.Context(), r.Context(), p
}

// NewStream makes the response a stream on the given terms, unless its header turns
// out to be none. The Gate calls it in Judge, at most once, before it asks a
// registry. From then on the stream may be ended.
func (p *Response) NewStream(t Terms) *Stream {
	s := newStream(&p.life, p.cfg, t, newWriterSink(p.w, p.r, t.Connection), &p.upstream)
	p.life.mu.Lock()
	s.tenure.given = p.life.now() != stateAsked // for nobody
	p.stream.Store(s)
	p.life.mu.Unlock()
	p.upstream.detach() // has the client's leave noticed
	return s
}

// Stream is what NewStream made; nil if it was not called.
func (p *Response) Stream() *Stream { return p.stream.Load() }

// passHeld sends what the stream holds of an event that is shown to the client
// further inside already.
func (p *Response) passHeld() {
	if s := p.Stream(); s != nil {
		s.relay.passHeld(s.relay.held.shown)
	}
}

// Summary tells how a response went.
type Summary struct {
	// Refused is set if the gate refused the response. Its header was discarded and
	// nothing was written.
	Refused bool
	// Passed is set if the answer was no stream, and went through.
	Passed bool
	// Left is set if the client went away before the header, and 499 was answered.
	Left bool
	// Ending is why the stream was ended; nil if it was not.
	Ending *registry.Ending
	// Delivered tells whether the notice was handed to the connection.
	Delivered bool
	// Cut is set if the response is to be cut, or was, perhaps in mid-frame. The caller
	// of Relay panics with http.ErrAbortHandler, which has the server close the
	// connection on HTTP/1, and else reset the stream with INTERNAL_ERROR, the one code
	// that handlers have: net/http and quic-go offer no CANCEL. (HTTP/3 would finish even one
	// that was cut in mid-frame as if it were whole, which clients must treat as the
	// connection's failure, RFC 9114 section 7.1.)
	Cut bool
	// Events and Bytes count what was relayed.
	Events uint64
	Bytes  int64
}

// Relay calls the handlers behind the guard, which see the values of ctx, and
// returns when they have, and everything that belongs to the stream is written. A
// panic passes through unless it is http.ErrAbortHandler from a stream that the
// guard, or its client, ended.
func (p *Response) Relay(ctx context.Context, next func(http.ResponseWriter, *http.Request) error) (sum Summary, err error) {
	p.upstream.values = ctx
	defer func() {
		panicked := recover()
		var quiet bool
		sum, quiet = p.finish()
		p.upstream.release()
		aborted := panicked == http.ErrAbortHandler //nolint:errorlint // a panic's value, never wrapped
		if panicked != nil && (!quiet || !aborted) {
			panic(panicked)
		}
		if quiet {
			err = nil
		}
	}()
	err = next(p, p.r.WithContext(&p.upstream))
	return sum, err
}

// finish writes what is left to write, and closes the response to everybody else.
// It reports whether the handlers' error, or abort, is the guard's or the client's
// doing.
func (p *Response) finish() (sum Summary, quiet bool) {
	from := p.happen(onReturned)
	s := p.stream.Load()
	if s == nil {
		p.happen(onFinished)
	} else {
		sum = s.finish(from, p.r.Context().Done())
	}
	switch from {
	case stateRefused:
		return Summary{Refused: true}, true
	case stateUnwound:
		return Summary{Left: true}, true
	case statePassing:
		return Summary{Passed: true}, false
	case stateClosed, stateOverdue, stateAborted:
		return sum, true
	case stateEnding:
		return sum, s.relay.concluded
	case stateOpening, stateLive:
		return sum, false
	default:
		return Summary{}, false
	}
}

// happen has o happen, and runs the effects. It returns the state before.
func (p *Response) happen(o occurrence) state {
	from, d := p.life.happen(o)
	p.run(d)
	return from
}

func (p *Response) run(d due) {
	defer d.done()
	for _, e := range d.do {
		switch e {
		case doCancel:
			p.upstream.End(context.Canceled)
		case doCancelAsClient:
			p.upstream.End(p.r.Context().Err())
		case doCancelAsEOF:
			p.upstream.End(io.EOF)
		case doUnwind:
			panic(http.ErrAbortHandler)
		case doAnswerLeft:
			p.w.WriteHeader(statusClientClosedRequest)
		default:
			if s := p.stream.Load(); s != nil {
				s.run(e)
			}
		}
	}
}

// clientDone implements leaver: the client's request is done. It may be called any
// number of times.
func (p *Response) clientDone() {
	if errors.Is(p.r.Context().Err(), io.EOF) {
		p.happen(onOuterEnd)
		return
	}
	p.happen(onClientLeft)
}

// Header is the header map of the wrapped writer.
func (p *Response) Header() http.Header { return p.w.Header() }

// WriteHeader asks the gate about the final header. Informational ones pass.
func (p *Response) WriteHeader(status int) {
	informational := status >= 100 && status < 200 && status != http.StatusSwitchingProtocols
	switch now := p.life.now(); {
	case now == statePassing, now.beforeHeader() && informational:
		p.w.WriteHeader(status)
	case now.beforeHeader():
		p.judge(status)
	}
}

func (p *Response) judge(status int) {
	verdict := p.gate.Judge(status, p.w.Header())
	if p.r.Context().Err() != nil {
		p.clientDone() // nobody may have told
	}
	switch verdict {
	case Pass:
		p.happen(onJudgedPass)
		p.w.WriteHeader(status)
	case Refuse:
		p.happen(onJudgedRefuse)
	case Admit:
		p.happen(onJudgedAdmit)
		s := p.stream.Load()
		s.relay.prepare(p.w.Header())
		p.w.WriteHeader(status)
		p.gate.Opened()
		s.relay.start()
	}
}

// implicit sends the header that is not written by itself.
func (p *Response) implicit() {
	if p.life.now().beforeHeader() {
		p.WriteHeader(http.StatusOK)
	}
}

// Write relays b. Once the stream has ended it accepts and drops everything:
// an error would be logged by whoever writes.
func (p *Response) Write(b []byte) (int, error) {
	p.implicit()
	now := p.life.now()
	if now == statePassing {
		return p.w.Write(b)
	}
	if now.relays() {
		p.stream.Load().relay.write(b)
	}
	return len(b), nil
}

// Flush implements http.Flusher.
func (p *Response) Flush() { _ = p.FlushError() }

// FlushError sends what is buffered, whole events only.
func (p *Response) FlushError() error {
	p.implicit()
	now := p.life.now()
	if now == statePassing {
		return http.NewResponseController(p.w).Flush()
	}
	if now.relays() {
		p.stream.Load().relay.flush()
	}
	return nil
}

// ReadFrom keeps the fast path (sendfile) for what is no stream.
func (p *Response) ReadFrom(r io.Reader) (int64, error) {
	p.implicit()
	if rf, ok := p.w.(io.ReaderFrom); ok && p.life.now() == statePassing {
		return rf.ReadFrom(r)
	}
	return io.Copy(writeOnly{p}, r)
}

// writeOnly hides ReadFrom from io.Copy.
type writeOnly struct{ io.Writer }

// SetWriteDeadline keeps deadlines set from behind the guard in step with a
// stream's own writes: the writers below are not synchronised.
func (p *Response) SetWriteDeadline(t time.Time) error {
	now := p.life.now()
	switch {
	case now.relays():
		return p.stream.Load().relay.setWriteDeadline(t)
	case now >= stateClosed:
		return nil // the guard may be writing
	default:
		return http.NewResponseController(p.w).SetWriteDeadline(t)
	}
}

// Hijack hands the connection over, for WebSocket.
func (p *Response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if p.life.now().beforeHeader() {
		p.happen(onJudgedPass)
	}
	if p.life.now() != statePassing {
		return nil, nil, http.ErrNotSupported
	}
	return http.NewResponseController(p.w).Hijack()
}

// Push implements http.Pusher.
func (p *Response) Push(target string, opts *http.PushOptions) error {
	if pusher, ok := p.w.(http.Pusher); ok {
		return pusher.Push(target, opts)
	}
	return http.ErrNotSupported
}

// Unwrap is for http.ResponseController.
func (p *Response) Unwrap() http.ResponseWriter { return p.w }

// Interface guards
var (
	_ http.ResponseWriter = (*Response)(nil)
	_ http.Flusher        = (*Response)(nil)
	_ http.Hijacker       = (*Response)(nil)
	_ http.Pusher         = (*Response)(nil)
	_ io.ReaderFrom       = (*Response)(nil)
	_ Source              = (*upstream)(nil)
	_ Sink                = (*writerSink)(nil)
)
