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

// shared is what the nodes of a zone tell each other of what happens: all of them what
// each is to know, and those who listen the rest. A node that listens says so to all, again and again; the others send what
// happens to its channel until it has not said so for a while. Both ways have bounds of
// their own: what finds no room is counted and left out, so that an admission, or what the
// nodes must hear, never waits for it.
type shared struct {
	r *Registry
	// hear and hearAll are set before anything else is called.
	hear    func(at time.Time, b []byte, missed int)
	hearAll func(at time.Time, b []byte)
	// listening is how many listen here, and changed is told when it was none, or is.
	listening atomic.Int64
	changed   chan struct{}
	// out has what is yet to be sent, and in what was received. missedOut and missedIn
	// count what found no room in them.
	out                 chan happening
	in                  chan string
	missedOut, missedIn atomic.Int64
	// outAll and inAll are the same of what all are to know. What finds no room there is
	// left out.
	outAll chan happening
	inAll  chan string
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

// report is what one node sends to one that listens, or to all.
type report struct {
	// From is the node, where it is for all.
	From []byte `json:",omitempty"`
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
	s.hearAll = func(time.Time, []byte) {}
	s.outAll, s.inAll = make(chan happening, mostOut), make(chan string, mostIn)
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
	poke(r.shared.changed)
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

// HearAll implements registry.Announcing.
func (r *Registry) HearAll(hear func(at time.Time, b []byte)) { r.shared.hearAll = hear }

// TellAll implements registry.Announcing.
func (r *Registry) TellAll(at time.Time, b []byte) {
	select {
	case r.shared.outAll <- happening{at, b}:
	default:
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
		case first := <-s.outAll:
			s.reportAll(first)
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

// reportOf begins a report of what has happened first, and what happened since, as far as
// one report has room for it.
func (s *shared) reportOf(first happening, since <-chan happening) report {
	said := report{Ahead: s.r.link.ahead(), Events: []happening{first}}
	for len(said.Events) < mostEvents {
		select {
		case h := <-since:
			said.Events = append(said.Events, h)
		default:
			return said
		}
	}
	return said
}

// reportAll tells all nodes.
func (s *shared) reportAll(first happening) {
	said := s.reportOf(first, s.outAll)
	if len(s.r.peers.all()) == 0 {
		return
	}
	said.From = []byte(s.r.id)
	body, err := json.Marshal(said)
	if err == nil {
		err = s.send(everybody, noteMessage+string(body))
	}
	if err != nil {
		s.r.options.Logger.Debug("telling all nodes what happens", zap.String("zone", s.r.zone), zap.Error(err))
	}
}

// report tells those who listen.
func (s *shared) report(first happening) {
	said := s.reportOf(first, s.out)
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
	switch message[:1] {
	case noteMessage:
		select {
		case s.inAll <- message[1:]:
		default:
		}
	case sharedMessage, listenMessage:
		select {
		case s.in <- message:
		default:
			s.missedIn.Add(1)
		}
	default:
		return false
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
		case m := <-s.inAll:
			s.heardByAll(m)
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

// heardByAll hands on what another node has told all.
func (s *shared) heardByAll(body string) {
	var said report
	if err := json.Unmarshal([]byte(body), &said); err != nil || string(said.From) == s.r.id {
		return
	}
	shift := s.r.shift(said.Ahead)
	for _, h := range said.Events {
		s.hearAll(h.At.Add(shift), h.Body)
	}
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
