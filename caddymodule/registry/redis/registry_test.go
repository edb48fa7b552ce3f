package redis_test

import (
	"context"
	"fmt"
	"sync"
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
		o := options(t, server.Addr)
		o.Lease, o.Timeout = time.Minute, 30*time.Second // the machine may stand still for long
		return newSettled(t, o, node)
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

// open opens the registry of a zone that is not new: the nodes that it had have said
// goodbye. In a new one newcomers under Reject are refused at first.
func open(t testing.TB, o redis.Options, node registry.Node) *redis.Registry {
	client, err := rueidis.NewClient(o.Client)
	require.NoError(t, err)
	defer client.Close()
	old := []string{fmt.Sprintf("{%s/zone/zone}g", o.Prefix)}
	for i := 0; i < 64 && client.Mode() == rueidis.ClientModeCluster; i++ { // so have its buckets
		old = append(old, fmt.Sprintf("{%s/zone/%02d}g", o.Prefix, i))
	}
	for _, key := range old {
		require.NoError(t, client.Do(t.Context(), client.B().Arbitrary("EVAL").Args(
			`if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('HSET', KEYS[1], 'id', 'old', 'began', 0, 'loss', 0, 'v', 1, 'left', 1) end return 0`,
			"1").Keys(key).Build()).Error())
	}
	r, err := redis.Open("zone", node, o)
	require.NoError(t, err)
	requireReached(t, r)
	return r
}

// requireReached requires that a node reaches Redis: the start does not wait for long.
func requireReached(t testing.TB, r registry.Reachable) {
	t.Helper()
	require.Eventually(t, func() bool { return r.Away() == nil }, soon, aWhile)
}

// settled has what does not block done when it returns, as the suite expects of a
// registry in its own process. Where several calls are under way, or a node calls back
// while it ends a stream, that is left to the last of them.
//
// All the while it compares what it has with what Redis has: that must change nothing.
type settled struct {
	*redis.Registry
	calls    *atomic.Int64
	comparer *comparer
}

// comparer compares until it is stopped.
type comparer struct {
	once sync.Once
	stop chan struct{} // closed
	done chan struct{} // closed once nothing is compared any more
}

func newSettled(t testing.TB, o redis.Options, node registry.Node) settled {
	s := settled{open(t, o, node), new(atomic.Int64), &comparer{stop: make(chan struct{}), done: make(chan struct{})}}
	go s.compare()
	return s
}

func (s settled) compare() {
	defer close(s.comparer.done)
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			_ = s.Compare() // if it fails, Redis is away, and every call says so
		case <-s.comparer.stop:
			return
		}
	}
}

func (s settled) Close() error {
	s.OnlyCalls()
	return s.Registry.Close()
}

// OnlyCalls implements registrytest.Remote.
func (s settled) OnlyCalls() {
	s.comparer.once.Do(func() { close(s.comparer.stop) })
	<-s.comparer.done
}

// do does what is then settled.
func (s settled) do(call func()) {
	s.calls.Add(1)
	call()
	if s.calls.Add(-1) == 0 { // of two that end at once, one settles
		s.Settle()
	}
}

func (s settled) Admit(
	ctx context.Context, phase registry.Phase, consent registry.Consent, asks []registry.Ask, leaving []registry.StreamID,
) (as []registry.Admission, err error) {
	s.do(func() { as, err = s.Registry.Admit(ctx, phase, consent, asks, leaving) })
	for i := range as {
		if as[i].Place != nil {
			as[i].Place = settledPlace{as[i].Place, s}
		}
	}
	return as, err
}

func (s settled) End(ctx context.Context, sel registry.Selector, e registry.Ending) (ended registry.Ended, err error) {
	s.do(func() { ended, err = s.Registry.End(ctx, sel, e) })
	return ended, err
}

func (s settled) Wait(ctx context.Context, ask registry.Ask) (w registry.Waiter, err error) {
	s.do(func() { w, err = s.Registry.Wait(ctx, ask) })
	if err != nil {
		return nil, err
	}
	return settledWaiter{w, s}, nil
}

type settledPlace struct {
	registry.Place
	s settled
}

func (p settledPlace) Commit(ctx context.Context) (victims []registry.Victim, err error) {
	p.s.do(func() { victims, err = p.Place.Commit(ctx) })
	return victims, err
}

func (p settledPlace) Leave(keep registry.Keep) { p.s.do(func() { p.Place.Leave(keep) }) }

func (p settledPlace) Departed() { p.s.do(p.Place.Departed) }

type settledWaiter struct {
	registry.Waiter
	s settled
}

func (w settledWaiter) Stop() { w.s.do(w.Waiter.Stop) }
