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
var usual = conflict.Rule{Flaps: 4, Window: 2 * time.Minute}

// dampingSite guards one key in a synctest bubble, where newcomers supersede the oldest
// holder.
type dampingSite struct {
	*conflict.Damping
	rule  conflict.Rule
	limit int

	mu      sync.Mutex
	holders []*client
	// opened, takeovers and parked count what became of newcomers.
	opened, takeovers, parked int
	// free is closed when a holder goes.
	free chan struct{}
	// closing ends all pages.
	closing chan struct{}
	pages   sync.WaitGroup
}

// client is an open stream.
type client struct {
	stream *registry.Holder
	name   string
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
		free: make(chan struct{}), closing: make(chan struct{}),
	}
}

func (s *dampingSite) close() {
	close(s.closing)
	s.pages.Wait()
}

// open is a newcomer of the named client without a tombstone; nil: it is parked.
func (s *dampingSite) open(name string) *client {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened++
	c := &client{stream: newcomer(key, name), name: name, ended: make(chan struct{})}
	if s.Flaps(c.stream, s.holds, s.rule) {
		s.parked++
		return nil
	}
	s.holders = append(s.holders, c)
	if len(s.holders) > s.limit {
		s.takeovers++
		loser := s.holders[0]
		s.holders = s.holders[1:]
		s.Lost(lost(loser.stream, c.stream, loser.gone.Load))
		close(loser.ended)
	}
	return c
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
func (s *dampingSite) flap(name string, retry time.Duration) {
	s.pages.Go(func() {
		for {
			s.mu.Lock()
			end := s.free
			s.mu.Unlock()
			if c := s.open(name); c != nil {
				end = c.ended
			}
			if !wait(s, end) || !s.sleep(retry) {
				return
			}
		}
	})
}

// behave is a page whose EventSource shows its tombstone so long after its end.
func (s *dampingSite) behave(name string, after time.Duration) *client {
	c := s.open(name)
	if c == nil {
		return nil
	}
	s.pages.Go(func() {
		if !wait(s, c.ended) {
			return
		}
		made := tombstone()
		if s.sleep(after) {
			s.Rests(key, id(name), made)
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

// requireRest requires that nobody comes any more after a while.
func (s *dampingSite) requireRest(t *testing.T) {
	t.Helper()
	pass(10 * time.Minute)
	before, _, _ := s.counts()
	pass(time.Hour)
	after, _, _ := s.counts()
	require.Equal(t, before, after)
}

// newcomer returns a stream of the named client that asks for key.
func newcomer(key registry.ID, name string) *registry.Holder {
	return &registry.Holder{ID: registry.NewStreamID(), Key: key, Fingerprint: id(name)}
}

// lost says that stream lost its key to by.
func lost(stream, by *registry.Holder, gone func() bool) conflict.Loss {
	return conflict.Loss{Stream: stream.ID, By: by.ID, Key: stream.Key, Fingerprint: stream.Fingerprint, Gone: gone}
}

func id(name string) registry.ID { return sha256.Sum256([]byte(name)) }
