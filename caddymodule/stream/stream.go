package stream

import (
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/tcp"
)

// Stream is one event stream, from before its header until the handlers behind the
// guard have returned; or a newcomer that is parked. Its methods may be called
// concurrently, and at any time.
type Stream struct {
	terms  Terms
	cfg    *Config
	life   *life
	sink   Sink
	source Source
	// ending is why the stream was told to end; nil if it was not. It is written once,
	// with life.mu held, together with the state.
	ending atomic.Pointer[registry.Ending]
	// left says that the client went away by itself before the end was told, and fate
	// that and more to who wants to know later; nil: nobody does.
	left atomic.Bool
	// lost says that the client did not go away: the kernel has given it up.
	lost   atomic.Bool
	fate   atomic.Pointer[Fate]
	tenure tenure
	timer  endTimer
	relay  relay
	care   liveness
	probes probes
	// back is when a parked client is told to come back once the key is free, and
	// toldBack says that it was. The effect that sets it is waited for.
	back     time.Duration
	toldBack bool
}

// Connection is a client's connection. All are nil if it is not known, as on
// HTTP/3.
type Connection struct {
	Net net.Conn
	TCP *tcp.Conn
	// User is the request among those that use it now; nil: nobody counts them.
	User *User
}

// Users counts the requests that use a connection at the same time, as far as they
// come to a guard. Those of many clients may share one, if they come through a proxy.
type Users struct{ n atomic.Int32 }

// User is one of them. The zero User is not counted.
type User struct {
	of   *Users
	left atomic.Bool
}

// Enter counts u among the users, which may be nil. It is called once, before all else.
func (u *User) Enter(of *Users) {
	if u.of = of; of != nil {
		of.n.Add(1)
	}
}

// Leave says that u uses the connection no more, or has given it up. It may be called
// any number of times.
func (u *User) Leave() {
	if u != nil && u.of != nil && !u.left.Swap(true) {
		u.of.n.Add(-1)
	}
}

// others reports whether others use the connection too.
func (u *User) others() bool {
	if u == nil || u.of == nil {
		return false
	}
	n := u.of.n.Load()
	if !u.left.Load() {
		n--
	}
	return n > 0
}

// Terms are what a stream is to know of itself. They are not changed.
type Terms struct {
	// Holder is who the stream is for.
	Holder *registry.Holder
	// About is what a list shows of it besides.
	About registry.About
	// Untracked streams hold nothing, and are relayed byte for byte: their events are
	// not told apart, and nothing is written into them.
	Untracked bool
	// ForgetID says that the client holds a last event id that is not the
	// application's. The first event takes that away, unless the application's id does.
	ForgetID bool
	// Keep is how long the place is kept if the client leaves by itself; 0: not.
	Keep time.Duration
	// Notice appends what the client is told at the end, which may be nothing. It may
	// take its time. Nil: nothing.
	Notice func(dst []byte, e registry.Ending, lastEventID string) []byte
	// Connection is the client's.
	Connection Connection
	// Gone is called once, when nothing will happen to the stream any more: the
	// handlers behind the guard have returned, or the response is no stream after all.
	// Nil: nobody wants to know.
	Gone func(*Stream)
}

func newStream(l *life, cfg *Config, t Terms, sink Sink, source Source) *Stream {
	s := &Stream{terms: t, cfg: cfg, life: l, sink: sink, source: source}
	s.tenure.life, s.timer.life = l, l
	s.relay.s, s.care.s, s.probes.s = s, s, s
	s.relay.out.r, s.relay.held.r = &s.relay, &s.relay
	return s
}

// Holder is who the stream is for.
func (s *Stream) Holder() *registry.Holder { return s.terms.Holder }

// Hold has the stream hold p, to which the registry has admitted it. If it is over
// by then, or was told to end, p is given back at once.
func (s *Stream) Hold(p registry.Place) { s.tenure.begin(p) }

// Holds reports whether the stream has a place, and was not told to end.
func (s *Stream) Holds() bool { return s.life.now().unended() && s.tenure.holds() }

// End tells the stream to end, and returns at once. Its place is free by then. The
// notice is written between two events: at once if none is partly sent, else
// when the upstream has finished it. Whatever happens, the upstream is released
// within Config.EndTimeout. Only the first call counts, and none once the stream is
// over.
func (s *Stream) End(e registry.Ending) {
	s.life.mu.Lock()
	var d due
	if s.ending.Load() == nil && moves[s.life.now()][onEnd].to != stateNone {
		s.ending.Store(&e)
		_, d = s.life.locked(onEnd)
	}
	s.life.mu.Unlock()
	s.runAll(d)
}

// Ended is why the stream was told to end; nil if it was not.
func (s *Stream) Ended() *registry.Ending { return s.ending.Load() }

// Renew sets the time at which the stream ends with reason.Expired, by the wall
// clock; zero, which is how it begins: never. It does not block. A stream that is
// open, and had no such time, gets it at its next visit, a minute later at most.
func (s *Stream) Renew(until time.Time) { s.care.expireAt(until) }

// ClientLeft reports whether the client went away by itself before it was told the
// end. It is final once the handlers behind the guard have returned.
func (s *Stream) ClientLeft() bool { return s.left.Load() }

// Delivered reports whether the notice of its end was handed to the connection. It may be
// called once the stream is Gone.
func (s *Stream) Delivered() bool { return s.relay.delivered }

// Framed reports whether the stream's events can be told apart, so that others can be
// written between them. It may be called once the header is on its way.
func (s *Stream) Framed() bool { return !s.relay.opaque }

// About is what a list shows of the stream besides its holder.
func (s *Stream) About() *registry.About { return &s.terms.About }

// ClientLost reports whether a client that seems to have left is dead: the kernel has
// given up its connection.
func (s *Stream) ClientLost() bool { return s.lost.Load() }

// LastEventID is the last id that the application sent in a whole event. It waits for
// what is being written to the client.
func (s *Stream) LastEventID() string { return s.relay.lastEventID() }

// Row is the stream as a list shows it.
func (s *Stream) Row() registry.Row {
	row := registry.Row{Holder: s.terms.Holder, About: s.terms.About, State: s.State(), LastEvent: s.care.lastEvent()}
	row.Events, row.Bytes = s.Relayed()
	if info, ok := s.terms.Connection.TCP.Info(); ok {
		row.LastAck = time.Now().Add(-info.SinceAck)
	}
	return row
}

// Relayed counts what was relayed so far.
func (s *Stream) Relayed() (events uint64, bytes int64) {
	return s.relay.counts.events.Load(), s.relay.counts.bytes.Load()
}

// Opened reports whether the header went out of what was then relayed. It is false of a
// parked newcomer.
func (s *Stream) Opened() bool { return s.relay.wasOpened() }

// State is how the stream stands.
func (s *Stream) State() registry.State {
	switch now := s.life.now(); {
	case now == stateParked:
		return registry.StateParked
	case !now.unended():
		return registry.StateEnding
	case s.terms.Untracked:
		return registry.StateUntracked
	default:
		return registry.StateLive
	}
}

// happen has o happen, and runs the effects.
func (s *Stream) happen(o occurrence) {
	_, d := s.life.happen(o)
	s.runAll(d)
}

func (s *Stream) runAll(d due) {
	defer d.done()
	for _, e := range d.do {
		s.run(e)
	}
}

// run runs an effect. No lock is held.
func (s *Stream) run(e effect) {
	switch e {
	case doCancelAsEOF:
		// reverse_proxy sees an ordinary end of the body: it neither logs nor
		// panics, and the response ends cleanly.
		s.source.End(io.EOF)
	case doLeave:
		s.tenure.leave(registry.Keep{})
	case doKeep:
		s.tenure.leave(s.keep())
	case doNoteLeft:
		s.noteLeft()
	case doDeparted:
		s.tenure.depart()
	case doWatch:
		s.care.start()
	case doUnvisit:
		s.care.endVisits()
	case doUnwatch:
		s.care.end()
	case doForget:
		s.forget()
	default:
		s.runEnd(e)
	}
}

// keep is how the place of a client is kept that has left by itself. If the kernel
// has given up the connection, the client has not left: it is dead.
func (s *Stream) keep() registry.Keep {
	info, ok := s.terms.Connection.TCP.Info()
	if ok && info.Gone && s.cfg.DeadAfter > 0 && info.SinceAck >= s.cfg.DeadAfter {
		s.lost.Store(true)
		return registry.Keep{}
	}
	return registry.Keep{For: s.terms.Keep}
}

// forget is the last effect of each course.
func (s *Stream) forget() {
	if s.terms.Gone != nil {
		s.terms.Gone(s)
	}
}
