package stream

import (
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
// and closes it to everybody.
func (s *Stream) finish() {
	s.life.running.Wait()
	s.relay.close()
	s.sink.Close()
	_, d := s.life.happen(onFinished)
	s.timer.stop()
	s.runAll(d)
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

// summary tells how the stream went. It is over.
func (s *Stream) summary() Summary {
	return Summary{
		Ending:    s.ending.Load(),
		Delivered: s.relay.delivered,
		Cut:       s.sink.WasReset(),
		Events:    s.relay.counts.events.Load(),
		Bytes:     s.relay.counts.bytes.Load(),
	}
}
