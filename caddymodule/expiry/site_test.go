package expiry_test

import (
	"crypto/sha256"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/expiry"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// site is Deadlines in a synctest bubble, whose wall clock can jump.
type site struct {
	*expiry.Deadlines
	// ahead is how far the wall clock has jumped, in nanoseconds.
	ahead atomic.Int64

	mu      sync.Mutex
	batches [][]*registry.Stream
	// endedAt is what the wall clock said when a stream was ended.
	endedAt map[*registry.Stream]time.Time
	// during is what happens while a batch is ended.
	during func()
}

// inBubble runs test with a site. It fails if a goroutine outlives the test.
func inBubble(t *testing.T, test func(t *testing.T, s *site)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newSite()
		defer s.Close()
		test(t, s)
	})
}

func newSite() *site {
	s := &site{endedAt: make(map[*registry.Stream]time.Time)}
	s.Deadlines = expiry.NewAt(s.end, s.now)
	return s
}

func (s *site) end(batch []*registry.Stream) {
	s.mu.Lock()
	s.batches = append(s.batches, batch)
	for _, stream := range batch {
		if _, twice := s.endedAt[stream]; twice {
			panic("a stream is ended twice")
		}
		s.endedAt[stream] = s.now()
	}
	during := s.during
	s.mu.Unlock()
	if during != nil {
		during()
	}
}

// meanwhile has something happen while a batch is ended, from now on.
func (s *site) meanwhile(happens func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.during = happens
}

// now has no monotonic reading that could outlast a jump.
func (s *site) now() time.Time { return time.Now().Round(0).Add(time.Duration(s.ahead.Load())) }

func (s *site) jump(d time.Duration) { s.ahead.Add(int64(d)) }

// in returns the wall clock's time after d.
func (s *site) in(d time.Duration) time.Time { return s.now().Add(d) }

// pass lets time pass on both clocks, then everything that is due happen.
func (*site) pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// ended returns who has ended since it was asked last, in that order.
func (s *site) ended() []*registry.Stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*registry.Stream
	for _, b := range s.batches {
		out = append(out, b...)
	}
	s.batches = nil
	return out
}

// requireEnded requires that these have ended, in this order, and no others.
func (s *site) requireEnded(t *testing.T, want ...*registry.Stream) {
	t.Helper()
	synctest.Wait()
	got := s.ended()
	require.Equal(t, names(want), names(got))
	for i := range want {
		require.Same(t, want[i], got[i])
	}
}

func names(streams []*registry.Stream) []string {
	out := make([]string, len(streams))
	for i, s := range streams {
		out[i] = s.Addr
	}
	return out
}

// stream returns a stream that is known by its address.
func stream(name string) *registry.Stream { return &registry.Stream{Addr: name} }

func id(name string) registry.ID { return sha256.Sum256([]byte(name)) }
