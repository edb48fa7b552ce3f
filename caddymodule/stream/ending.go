package stream

import (
	"net/http"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/eventstream"
)

// runEnd runs an effect that is about how a stream ends.
func (s *Stream) runEnd(e effect) {
	switch e {
	case doStartTimer:
		s.startTimer(s.cfg.EndTimeout)
	case doSettle:
		go s.relay.settle()
	case doNotice:
		s.writeNotice()
	case doLastNotice:
		if s.relay.concludes() {
			s.writeNotice()
		}
	case doFlushHeld:
		s.relay.flushHeld()
	case doTellReturn:
		s.toldBack = true
		s.relay.writeNotice(eventstream.AppendRetry(nil, s.back))
	case doCutIfStuck:
		s.cutIfStuck()
	case doCut:
		s.cut()
	}
}

// writeNotice tells the client why the stream ends. It is called once, when nothing
// else is written any more.
func (s *Stream) writeNotice() {
	if s.relay.opaque {
		return
	}
	var notice []byte
	if s.terms.Notice != nil {
		notice = s.terms.Notice(nil, *s.ending.Load(), s.relay.lastEventID())
	}
	s.relay.writeNotice(notice)
}

// finish waits for what others are still doing to the stream, a notice above all,
// and closes it to everybody. It was in state from when the handlers returned, and
// client is done when its client has left. The summary tells how it went.
func (s *Stream) finish(from state, client <-chan struct{}) Summary {
	s.life.running.Wait()
	s.relay.close()
	cut := s.isCut(from)
	if cut {
		linger(client)
	}
	s.sink.Close()
	_, d := s.life.happen(onFinished)
	s.timer.stop()
	s.runAll(d)
	return Summary{
		Ending:    s.ending.Load(),
		Delivered: s.relay.delivered,
		Cut:       cut || s.sink.WasReset(),
		Events:    s.relay.counts.events.Load(),
		Bytes:     s.relay.counts.bytes.Load(),
	}
}

// isCut reports whether the response is to be cut: the stream was told to end where
// it could not, or its client is to come back. Many clients take a response that is
// finished for one they need not ask for again.
func (s *Stream) isCut(from state) bool {
	switch from {
	case stateAborted:
		return true
	case stateEnding:
		return s.relay.concluded && s.comesBack()
	case stateClosed, stateOverdue:
		return s.comesBack()
	default:
		return false
	}
}

// comesBack reports whether the client was told to come back, and is to see the
// response cut.
func (s *Stream) comesBack() bool {
	if s.cfg.FinishAll {
		return false
	}
	e := s.ending.Load()
	return s.toldBack || e != nil && e.Reason.Meaning().Cut
}

// lingerTime is how long nothing follows the last byte of a response before it is
// cut. Browsers drop what they have received of a response that fails and have not
// handed on yet: with HTTP/2 what their network stack holds, with any protocol what
// a page that is busy has yet to read.
const lingerTime = 250 * time.Millisecond

// linger lets a client take in what was sent, for as long as it is there.
func linger(client <-chan struct{}) {
	timer := time.NewTimer(lingerTime)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-client:
	}
}

// Abort cuts the response to r off, once its client had time to take in what was
// written. It panics with http.ErrAbortHandler.
func Abort(w http.ResponseWriter, r *http.Request) {
	_ = http.NewResponseController(w).Flush() // a client that left needs nothing
	linger(r.Context().Done())
	panic(http.ErrAbortHandler)
}

// endTimer is the timer of a stream's end.
type endTimer struct {
	life  *life
	timer *time.Timer // guarded by life.mu
}

// start has fire called after the given time, unless all is over by now.
func (t *endTimer) start(in time.Duration, fire func()) {
	t.life.mu.Lock()
	defer t.life.mu.Unlock()
	switch {
	case t.life.now() == stateGone:
	case t.timer == nil:
		t.timer = time.AfterFunc(in, fire)
	default:
		t.timer.Reset(in)
	}
}

func (t *endTimer) stop() {
	t.life.mu.Lock()
	defer t.life.mu.Unlock()
	if t.timer != nil {
		t.timer.Stop()
	}
}

// startTimer has onTimeout happen. What is being written by now is noted, so that
// it is known then for how long.
func (s *Stream) startTimer(in time.Duration) {
	s.sink.Writing()
	s.timer.start(in, func() { s.happen(onTimeout) })
}

// stuckGrace is how long a writer may take to notice that its HTTP/2 or HTTP/3
// stream was reset before its whole connection is taken for dead.
const stuckGrace = 250 * time.Millisecond

// cutIfStuck cuts off a client that does not read: something is being written to it
// for nearly as long as the timer ran. If not, the handlers, or the writing of what
// is left, get the same time again: FastCGI notices a canceled request only at its
// next write.
func (s *Stream) cutIfStuck() {
	if id, since := s.sink.Writing(); id != 0 && since >= s.cfg.EndTimeout-s.cfg.EndTimeout/10 {
		s.cut()
		return
	}
	s.startTimer(s.cfg.EndTimeout)
}

func (s *Stream) cut() {
	if s.sink.Cut() {
		s.startTimer(stuckGrace)
	}
}
