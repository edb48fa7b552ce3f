package redis_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap/zaptest"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/registry/redis"
	"github.com/sse-guard/sse-guard/caddymodule/registry/registrytest"
)

func TestMain(m *testing.M) { harness.Main(m) }

func TestRegistry(t *testing.T) {
	server := harness.StartRedis(t)
	registrytest.Run(t, func(t testing.TB, node registry.Node) registry.Registry {
		ends := &endingNode{Node: node}
		return settled{open(t, options(t, server.Addr), ends), ends}
	})
}

var prefixes atomic.Int64

// options are those of a registry that shares nothing with others.
func options(t testing.TB, addr string) redis.Options {
	return redis.Options{
		Client: rueidis.ClientOption{
			InitAddress: []string{addr}, ForceSingleClient: true, DisableCache: true, DisableRetry: true,
			PipelineMultiplex: -1,
		},
		Prefix:  fmt.Sprintf("test%d", prefixes.Add(1)),
		Lease:   10 * time.Second,
		Timeout: 5 * time.Second, // the machine may be busy
		OnError: redis.Deny,
		Logger:  zaptest.NewLogger(t),
	}
}

func open(t testing.TB, o redis.Options, node registry.Node) *redis.Registry {
	r, err := redis.Open("zone", node, o)
	require.NoError(t, err)
	require.NoError(t, r.Away())
	return r
}

// settled has what does not block done when it returns, as the suite expects of a
// registry in its own process.
type settled struct {
	*redis.Registry
	ends *endingNode
}

// Settle returns at once to a node that calls back while it ends a stream: what it would
// wait for is that.
func (s settled) Settle() {
	if s.ends.ending.Load() == 0 {
		s.Registry.Settle()
	}
}

// endingNode knows whether it is ending a stream.
type endingNode struct {
	registry.Node
	ending atomic.Int64
}

func (n *endingNode) End(id registry.StreamID, e registry.Ending) {
	n.ending.Add(1)
	defer n.ending.Add(-1)
	n.Node.End(id, e)
}

func (s settled) Admit(
	ctx context.Context, phase registry.Phase, consent registry.Consent, asks []registry.Ask, leaving []registry.StreamID,
) ([]registry.Admission, error) {
	as, err := s.Registry.Admit(ctx, phase, consent, asks, leaving)
	for i := range as {
		if as[i].Place != nil {
			as[i].Place = settledPlace{as[i].Place, s}
		}
	}
	return as, err
}

func (s settled) Each(ctx context.Context, f func(registry.Node)) error {
	return s.Registry.Each(ctx, func(n registry.Node) {
		if n == s.ends {
			n = s.ends.Node
		}
		f(n)
	})
}

func (s settled) End(ctx context.Context, sel registry.Selector, e registry.Ending) (registry.Ended, error) {
	ended, err := s.Registry.End(ctx, sel, e)
	s.Settle()
	return ended, err
}

func (s settled) Wait(ctx context.Context, ask registry.Ask) (registry.Waiter, error) {
	w, err := s.Registry.Wait(ctx, ask)
	if err != nil {
		return nil, err
	}
	return settledWaiter{w, s}, nil
}

type settledPlace struct {
	registry.Place
	s settled
}

func (p settledPlace) Commit(ctx context.Context) ([]registry.Victim, error) {
	victims, err := p.Place.Commit(ctx)
	p.s.Settle()
	return victims, err
}

func (p settledPlace) Leave(keep registry.Keep) {
	p.Place.Leave(keep)
	p.s.Settle()
}

func (p settledPlace) Departed() {
	p.Place.Departed()
	p.s.Settle()
}

type settledWaiter struct {
	registry.Waiter
	s settled
}

func (w settledWaiter) Stop() {
	w.Waiter.Stop()
	w.s.Settle()
}
