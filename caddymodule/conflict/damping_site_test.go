package conflict_test

import (
	"crypto/sha256"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/conflict"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// usual is the default rule.
var usual = conflict.Rule{Count: 4, HalfLife: time.Minute}

// told is when a client is told to come back that lost its key.
const told = time.Second

// dampingSite guards one key in a synctest bubble, where newcomers supersede the oldest
// holder.
type dampingSite struct {
	*conflict.Damping
	// nodes has all dampings, where there are several nodes: each request comes to the
	// next.
	nodes []*conflict.Damping
	turn  int
	rule  conflict.Rule
	limit int

	mu      sync.Mutex
	holders []*client
	// opened, takeovers and parked count what became of newcomers, and last is when
	// the key was taken over last.
	opened, takeovers, parked int
	last                      time.Time
	// free is closed when a holder goes.
	free chan struct{}
	// closing ends all pages.
	closing chan struct{}
	pages   sync.WaitGroup
	began   time.Time
}

// client is an open stream.
type client struct {
	stream *registry.Holder
	token  string
	node   *conflict.Damping
	gone   atomic.Bool
	// ended is closed when it is superseded.
	ended chan struct{}
}

var key = id("key")

// dampingInBubble runs test with a dampingSite.
func dampingInBubble(t *testing.T, test func(t *testing.T, s *dampingSite)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newDampingSite()
		defer s.close()
		test(t, s)
	})
}

func newDampingSite() *dampingSite {
	return &dampingSite{
		Damping: conflict.NewDamping(), rule: usual, limit: 1,
		free: make(chan struct{}), closing: make(chan struct{}), began: time.Now(),
	}
}

// next returns the damping of the node that the next request comes to. s.mu is held.
func (s *dampingSite) next() *conflict.Damping {
	if len(s.nodes) == 0 {
		return s.Damping
	}
	s.turn++
	return s.nodes[s.turn%len(s.nodes)]
}

// onNodes has the requests come to so many nodes, each to the next.
func (s *dampingSite) onNodes(n int) {
	s.nodes = []*conflict.Damping{s.Damping}
	for len(s.nodes) < n {
		s.nodes = append(s.nodes, conflict.NewDamping())
	}
	for _, node := range s.nodes {
		node.Share(func(at time.Time, b []byte) {
			for _, other := range s.nodes {
				if other != node {
					other.Hear(at, b)
				}
			}
		})
	}
}

func (s *dampingSite) close() {
	close(s.closing)
	s.pages.Wait()
}

// open is a newcomer of that token without a tombstone; nil: it is parked.
func (s *dampingSite) open(token string) *client {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ask(newcomer(key, token), token, false)
}

// take is a newcomer that a person asks for.
func (s *dampingSite) take(token string) *client {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ask(newcomer(key, token), token, true)
}

func (s *dampingSite) ask(h *registry.Holder, token string, take bool) *client {
	s.opened++
	c := &client{stream: h, token: token, node: s.next(), ended: make(chan struct{})}
	full := len(s.holders) == s.limit
	if c.node.Flaps(c.stream, take, s.holds, s.rule) && full {
		s.parked++
		return nil
	}
	s.holders = append(s.holders, c)
	if full {
		s.takeovers++
		s.last = time.Now()
		loser := s.holders[0]
		s.holders = s.holders[1:]
		loser.node.Lost(lost(loser.stream, c.stream, loser.gone.Load))
		close(loser.ended)
	}
	return c
}

// show is a newcomer with a tombstone made then. It reports whether it is to stay
// away: else the key is free.
func (s *dampingSite) show(token string, made time.Time) bool {
	s.mu.Lock()
	full := len(s.holders) == s.limit
	node := s.next()
	s.mu.Unlock()
	node.Shown(newcomer(key, token), made)
	return full
}

// holds is for Flaps, which is called with s.mu held.
func (s *dampingSite) holds(stream registry.StreamID) bool {
	return slices.ContainsFunc(s.holders, func(c *client) bool { return c.stream.ID == stream })
}

// leave has c go by itself.
func (s *dampingSite) leave(c *client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holders = slices.DeleteFunc(s.holders, func(h *client) bool { return h == c })
	close(s.free)
	s.free = make(chan struct{})
}

func (s *dampingSite) holder() *client {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.holders[0]
}

func (s *dampingSite) counts() (opened, takeovers, parked int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opened, s.takeovers, s.parked
}

// flap is a page that builds a new EventSource so long after each end.
func (s *dampingSite) flap(token string, after time.Duration) { s.live(token, -1, after) }

// rebuild is a page whose EventSource shows its tombstone, and which builds a new one
// so long after that was answered.
func (s *dampingSite) rebuild(token string, after time.Duration) { s.live(token, told, after) }

// live is a page that shows its tombstone so long after each end, never if that is
// negative, and then builds a new EventSource.
func (s *dampingSite) live(token string, show, after time.Duration) {
	s.pages.Go(func() {
		for {
			s.mu.Lock()
			end := s.free
			s.mu.Unlock()
			c := s.open(token)
			if c != nil {
				end = c.ended
			}
			if !wait(s, end) {
				return
			}
			if made := tombstone(); c != nil && show >= 0 {
				if !s.sleep(show) {
					return
				}
				s.show(token, made)
			}
			if !s.sleep(after) {
				return
			}
		}
	})
}

// behave is a page whose EventSource shows its tombstone so long after its end, and
// stays away.
func (s *dampingSite) behave(token string, after time.Duration) *client {
	c := s.open(token)
	if c == nil {
		return nil
	}
	s.pages.Go(func() {
		if !wait(s, c.ended) {
			return
		}
		made := tombstone()
		if s.sleep(after) {
			s.show(token, made)
		}
	})
	return c
}

// sleep and wait report false if the site is closing instead.
func (s *dampingSite) sleep(d time.Duration) bool { return wait(s, time.After(d)) }

func wait[T any](s *dampingSite, what <-chan T) bool {
	select {
	case <-what:
		return true
	case <-s.closing:
		return false
	}
}

// tombstone returns the time that a tombstone made now tells.
func tombstone() time.Time { return time.Unix(time.Now().Unix(), 0) }

// pass lets time pass, then everything that is due happen.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// requireRest requires that nobody takes the key over any more after that time, and
// that all pages but one wait.
func (s *dampingSite) requireRest(t *testing.T, within time.Duration, pages int) {
	t.Helper()
	pass(20 * time.Minute)
	_, _, parked := s.counts()
	require.Equal(t, pages-s.limit, parked)
	require.Less(t, s.last.Sub(s.began), within)
}

// newcomer returns a stream of that token that asks for key. Its client changes its
// client id, address and User-Agent each time.
func newcomer(key registry.ID, token string) *registry.Holder {
	stream := registry.NewStreamID()
	return &registry.Holder{
		ID: stream, Key: key, Token: id(token),
		Client: id(stream.String()), Fingerprint: id(stream.String()), Addr: stream.String(),
	}
}

// lost says that stream lost its key to by.
func lost(stream, by *registry.Holder, gone func() bool) conflict.Loss {
	return conflict.Loss{
		Stream: stream.ID, By: by.ID, Key: stream.Key, Token: stream.Token, Subject: stream.Subject, Gone: gone,
	}
}

func id(name string) registry.ID { return sha256.Sum256([]byte(name)) }
