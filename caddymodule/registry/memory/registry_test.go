package memory_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/registry/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// track admits anyone and ends nobody but a tab's own older streams.
var track = registry.Rule{Policy: registry.Supersede, Unit: registry.Streams}

// spy is a handle that remembers how its stream was ended.
type spy struct {
	mu      sync.Mutex
	endings []registry.Ending
	// onEnd, if set, is called by End.
	onEnd func()
}

func (s *spy) End(e registry.Ending) {
	s.mu.Lock()
	s.endings = append(s.endings, e)
	s.mu.Unlock()
	if s.onEnd != nil {
		s.onEnd()
	}
}

func (s *spy) Gone() <-chan struct{} { return nil }

// seen returns how the stream was ended so far.
func (s *spy) seen() []registry.Ending {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]registry.Ending(nil), s.endings...)
}

func endings(s *registry.Stream) []registry.Ending { return s.Handle.(*spy).seen() }

// id names something; the empty name is the zero ID.
func id(name string) registry.ID {
	if name == "" {
		return registry.ID{}
	}
	return sha256.Sum256([]byte(name))
}

// anon returns a stream without a client id. Its address is its name.
func anon(name string) *registry.Stream {
	return &registry.Stream{Key: id("key"), Token: id("token"), Addr: name, Handle: new(spy)}
}

func device(name, client string) *registry.Stream {
	s := anon(name)
	s.Client = id(client)
	return s
}

func tab(name, client string) *registry.Stream {
	s := device(name, client)
	s.Tab = true
	return s
}

func names(streams []*registry.Stream) []string {
	var out []string
	for _, s := range streams {
		out = append(out, s.Addr)
	}
	return out
}

// told returns victims as "name reason".
func told(victims []registry.Victim) []string {
	var out []string
	for _, v := range victims {
		out = append(out, fmt.Sprintf("%s %s", v.Stream.Addr, v.Reason))
	}
	return out
}

func judge(t require.TestingT, r *memory.Registry, s *registry.Stream, rule registry.Rule) registry.Judgement {
	j, err := r.Judge(context.Background(), s, rule)
	require.NoError(t, err)
	return j
}

// holders returns who holds key, oldest first.
func holders(t require.TestingT, r *memory.Registry, key registry.ID) []*registry.Stream {
	stranger := &registry.Stream{Key: key}
	return judge(t, r, stranger, registry.Rule{Policy: registry.Reject, Limit: 1}).Holders
}

func reserve(t require.TestingT, r *memory.Registry, s *registry.Stream, rule registry.Rule) registry.Place {
	p, j, err := r.Reserve(context.Background(), s, rule)
	require.NoError(t, err)
	require.True(t, j.Admitted, "%s is refused", s.Addr)
	require.NotNil(t, p)
	return p
}

func commit(t require.TestingT, p registry.Place) []registry.Victim {
	victims, err := p.Commit(context.Background())
	require.NoError(t, err)
	return victims
}

func hold(t require.TestingT, r *memory.Registry, s *registry.Stream, rule registry.Rule) registry.Place {
	p := reserve(t, r, s, rule)
	commit(t, p)
	return p
}

func holds(t require.TestingT, r *memory.Registry, index registry.Index, id registry.ID) bool {
	found, err := r.Holds(context.Background(), index, id)
	require.NoError(t, err)
	return found
}

func deny(t require.TestingT, r *memory.Registry, denials ...registry.Denial) {
	require.NoError(t, r.Deny(context.Background(), denials...))
}

func denied(t require.TestingT, r *memory.Registry, s *registry.Stream) bool {
	found, err := r.Denied(context.Background(), s)
	require.NoError(t, err)
	return found
}
