package redis

import (
	"context"
	"encoding/json"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// shared is what the nodes of a zone tell each other of what happens, for those who
// listen. A node that listens says so to all, again and again; the others send what
// happens to its channel until it has not said so for a while. Both ways have bounds of
// their own: what finds no room is counted and left out, so that an admission, or what the
// nodes must hear, never waits for it.
type shared struct {
	r *Registry
	// hear is set before anything else is called.
	hear func(at time.Time, b []byte, missed int)
	// listening is how many listen here, and changed is told when it was none, or is.
	listening atomic.Int64
	changed   chan struct{}
	// out has what is yet to be sent, and in what was received. missedOut and missedIn
	// count what found no room in them.
	out                 chan happening
	in                  chan string
	missedOut, missedIn atomic.Int64
	// heardUntil is until when a node listens, as far as they have said, in nanoseconds
	// of the Unix time; 0: none does.
	heardUntil atomic.Int64

	// mu guards until.
	mu sync.Mutex
	// until is until when each node listens.
	until map[string]time.Time
}

// happening is something that has happened.
type happening struct {
	At   time.Time
	Body []byte
}

// report is what one node sends to one that listens.
type report struct {
	// Ahead is as that of a question.
	Ahead  time.Duration
	Events []happening `json:",omitempty"`
	// Missed is how many the sender has left out.
	Missed int `json:",omitempty"`
}

const (
	// listenEvery is how often a node says that it listens, and listenFor how long that
	// holds.
	listenEvery = 3 * time.Second
	listenFor   = 4 * listenEvery
	// mostListeners is to how many nodes one sends.
	mostListeners = 16

	mostOut    = 2048
	mostIn     = 256
	mostEvents = 64 // of one report
)

func (s *shared) init(r *Registry) {
	s.r = r
	s.hear = func(time.Time, []byte, int) {}
	s.changed = make(chan struct{}, 1)
	s.out, s.in = make(chan happening, mostOut), make(chan string, mostIn)
	s.until = make(map[string]time.Time)
}

// Hear implements registry.Sharing.
func (r *Registry) Hear(hear func(at time.Time, b []byte, missed int)) { r.shared.hear = hear }

// Listen implements registry.Sharing.
func (r *Registry) Listen(more int) {
	after := r.shared.listening.Add(int64(more))
	if after != 0 && after != int64(more) {
		return
	}
	select {
	case r.shared.changed <- struct{}{}:
	default:
	}
}

// Heard implements registry.Sharing.
func (r *Registry) Heard() bool {
	until := r.shared.heardUntil.Load()
	return until != 0 && time.Now().UnixNano() < until
}

// Tell implements registry.Sharing.
func (r *Registry) Tell(at time.Time, b []byte) {
	select {
	case r.shared.out <- happening{at, b}:
	default:
		r.shared.missedOut.Add(1)
	}
}

// tell sends what happens to those who listen, and tells them that this node does.
func (s *shared) tell() {
	ticker := time.NewTicker(listenEvery)
	defer ticker.Stop()
	ticker.Stop()
	listened := false
	for {
		select {
		case first := <-s.out:
			s.report(first)
			continue
		case <-s.changed:
		case <-ticker.C:
		case <-s.r.ctx.Done():
			return
		}
		listens := s.listening.Load() > 0
		if listens != listened {
			ticker.Reset(listenEvery)
		}
		if !listens {
			ticker.Stop()
		}
		if listens || listened {
			s.sayListening(listens)
		}
		listened = listens
	}
}

// sayListening says whether this node listens. If that is lost, the others hear of it the
// next time, or find out by hearing nothing.
func (s *shared) sayListening(listens bool) {
	said := listenMessage + "0"
	if listens {
		said = listenMessage + "1"
	}
	if err := s.send(everybody, said+s.r.id); err != nil {
		s.r.options.Logger.Debug("telling other nodes who listens", zap.String("zone", s.r.zone), zap.Error(err))
	}
}

func (s *shared) send(to, message string) error {
	client := s.r.link.client()
	if client == nil || !s.r.link.isUp() {
		return ErrAway
	}
	ctx, cancel := context.WithTimeout(s.r.ctx, s.r.options.Timeout)
	defer cancel()
	return s.r.send(ctx, client, to, message).Error()
}

// report sends what has happened, and what happened since, as far as one report has room
// for it.
func (s *shared) report(first happening) {
	said := report{Ahead: s.r.link.ahead(), Events: []happening{first}}
	for more := true; more && len(said.Events) < mostEvents; {
		select {
		case h := <-s.out:
			said.Events = append(said.Events, h)
		default:
			more = false
		}
	}
	nodes := s.listeners()
	if len(nodes) == 0 {
		return
	}
	missed := s.missedOut.Swap(0)
	said.Missed = int(missed)
	body, err := json.Marshal(said)
	for i := 0; i < len(nodes) && err == nil; i++ {
		err = s.send(nodes[i], sharedMessage+string(body))
	}
	if err != nil {
		s.missedOut.Add(missed + int64(len(said.Events)))
		s.r.options.Logger.Debug("telling other nodes what happens", zap.String("zone", s.r.zone), zap.Error(err))
	}
}

// listeners lists the nodes that listen.
func (s *shared) listeners() (nodes []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for id, until := range s.until {
		if until.After(now) {
			nodes = append(nodes, id)
		}
	}
	return nodes
}

// take takes a message that is about what happens. The connection does not wait for what
// becomes of it.
func (s *shared) take(message string) (taken bool) {
	if kind := message[:1]; kind != sharedMessage && kind != listenMessage {
		return false
	}
	select {
	case s.in <- message:
	default:
		s.missedIn.Add(1)
	}
	return true
}

// work does what the messages say, one after the other.
func (s *shared) work() {
	for {
		select {
		case m := <-s.in:
			if m[:1] == listenMessage {
				s.noteListening(m[1:])
			} else {
				s.heard(m[1:])
			}
		case <-s.r.ctx.Done():
			return
		}
	}
}

// noteListening notes that another node listens, or does so no more.
func (s *shared) noteListening(said string) {
	if len(said) != 1+nodeIDSize || said[1:] == s.r.id {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(s.until, func(_ string, until time.Time) bool { return !until.After(now) })
	delete(s.until, said[1:])
	if said[:1] == "1" && len(s.until) < mostListeners {
		s.until[said[1:]] = now.Add(listenFor)
	}
	var latest int64
	for _, until := range s.until {
		latest = max(latest, until.UnixNano())
	}
	s.heardUntil.Store(latest)
}

// heard hands on what another node has told.
func (s *shared) heard(body string) {
	var said report
	if err := json.Unmarshal([]byte(body), &said); err != nil {
		s.missedIn.Add(1)
		return
	}
	shift := s.r.shift(said.Ahead)
	if missed := said.Missed + int(s.missedIn.Swap(0)); missed > 0 {
		s.hear(time.Now(), nil, missed)
	}
	for _, h := range said.Events {
		s.hear(h.At.Add(shift), h.Body, 0)
	}
}
