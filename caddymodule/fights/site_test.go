package fights_test

import (
	"crypto/sha256"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/fights"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// usual is the default rule.
var usual = fights.Rule{Flaps: 4, Window: 2 * time.Minute}

// site guards one key in a synctest bubble, where newcomers supersede the oldest
// holder.
type site struct {
	*fights.Fights
	rule  fights.Rule
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
	stream *registry.Stream
	party  string
	gone   atomic.Bool
	// ended is closed when it is superseded.
	ended chan struct{}
}

var key = id("key")

// inBubble runs test with a site.
func inBubble(t *testing.T, test func(t *testing.T, s *site)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newSite()
		defer s.close()
		test(t, s)
	})
}

func newSite() *site {
	return &site{
		Fights: fights.New(), rule: usual, limit: 1,
		free: make(chan struct{}), closing: make(chan struct{}),
	}
}

func (s *site) close() {
	close(s.closing)
	s.pages.Wait()
}

// open is a newcomer of party without a tombstone; nil: it is parked.
func (s *site) open(party string) *client {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened++
	c := &client{stream: &registry.Stream{Key: key}, party: party, ended: make(chan struct{})}
	if s.Flaps(c.stream, id(party), s.holds, s.rule) {
		s.parked++
		return nil
	}
	s.holders = append(s.holders, c)
	if len(s.holders) > s.limit {
		s.takeovers++
		loser := s.holders[0]
		s.holders = s.holders[1:]
		s.Superseded(fights.Loss{Stream: loser.stream, By: c.stream, Party: id(loser.party), Gone: loser.gone.Load})
		close(loser.ended)
	}
	return c
}

// holds is for Flaps, which is called with s.mu held.
func (s *site) holds(stream *registry.Stream) bool {
	return slices.ContainsFunc(s.holders, func(c *client) bool { return c.stream == stream })
}

// leave has c go by itself.
func (s *site) leave(c *client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holders = slices.DeleteFunc(s.holders, func(h *client) bool { return h == c })
	close(s.free)
	s.free = make(chan struct{})
}

func (s *site) holder() *client {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.holders[0]
}

func (s *site) counts() (opened, takeovers, parked int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opened, s.takeovers, s.parked
}

// fight is a page that builds a new EventSource so long after each end.
func (s *site) fight(party string, retry time.Duration) {
	s.pages.Go(func() {
		for {
			s.mu.Lock()
			end := s.free
			s.mu.Unlock()
			if c := s.open(party); c != nil {
				end = c.ended
			}
			if !wait(s, end) || !s.sleep(retry) {
				return
			}
		}
	})
}

// behave is a page whose EventSource shows its tombstone so long after its end.
func (s *site) behave(party string, after time.Duration) *client {
	c := s.open(party)
	if c == nil {
		return nil
	}
	s.pages.Go(func() {
		if !wait(s, c.ended) {
			return
		}
		made := tombstone()
		if s.sleep(after) {
			s.Rests(key, id(party), made)
		}
	})
	return c
}

// sleep and wait report false if the site is closing instead.
func (s *site) sleep(d time.Duration) bool { return wait(s, time.After(d)) }

func wait[T any](s *site, what <-chan T) bool {
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
func (s *site) requireRest(t *testing.T) {
	t.Helper()
	pass(10 * time.Minute)
	before, _, _ := s.counts()
	pass(time.Hour)
	after, _, _ := s.counts()
	require.Equal(t, before, after)
}

func id(name string) registry.ID { return sha256.Sum256([]byte(name)) }
