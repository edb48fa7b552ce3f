package redis_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/registry/redis"
	"github.com/sse-guard/sse-guard/caddymodule/registry/registrytest"
)

// A node may be closed in the middle of whatever it does: while it renews its leases,
// registers again what it has, and admits streams. It leaves nothing behind, or its
// holders would be in the way of others until its lease has run out.
func TestClose_LeavesNothingBehind(t *testing.T) {
	server := harness.StartRedis(t)
	o := options(t, server.Addr)
	c := client(t, server)
	var entries []string
	for i := range 100 {
		s := site{open(t, o, new(registrytest.FakeNode)), nil}
		entries = entries[:0]
		for b := range 64 {
			entries = append(entries, s.EntriesKey(b))
		}
		s.hold(t, anon("a"), rejectOne)
		var busy sync.WaitGroup
		closing := make(chan struct{})
		for n := range 3 {
			busy.Go(func() {
				for j := 0; ; j++ {
					select {
					case <-closing:
						return
					default:
						s.CompareSoon()
						h := anon("n")
						h.Key = registrytest.ID(fmt.Sprint(n, j))
						_, _ = s.Admit(t.Context(), registry.Header, registry.Consent{}, []registry.Ask{{Holder: h, Rule: one}}, nil)
					}
				}
			})
		}
		for range i % 7 {
			_ = s.Compare() // so that it is closed in another moment each time
		}
		require.NoError(t, s.Close())
		close(closing)
		busy.Wait()
		left, err := c.Do(t.Context(), c.B().Exists().Key(entries...).Key("{"+o.Prefix+"/zone/zone}z").Build()).AsInt64()
		require.NoError(t, err)
		require.Zero(t, left, "after %d closes", i+1)
	}
}

const lostStreams = 40 * redis.MostTold

// lostQueued opens a node that Redis has lost all streams of, which the node has queued to
// be registered again.
func lostQueued(t *testing.T, server *harness.Redis, o redis.Options) (s site, release func()) {
	s = site{open(t, o, new(registrytest.FakeNode)), nil}
	s.fillBucket(t, 0, lostStreams)
	s.Settle()
	release = s.HoldBack()
	server.Do(t, "FLUSHALL")
	require.NoError(t, s.Compare())
	require.Greater(t, s.Queued(), lostStreams/4)
	return s, release
}

// What a node had yet to register again when it was closed is not registered by what takes
// the rest out.
func TestClose_RegistersNothingThatIsQueued(t *testing.T) {
	server := harness.StartRedis(t)
	o := options(t, server.Addr)
	o.Lease = time.Hour
	s, release := lostQueued(t, server, o)
	defer release()
	require.NoError(t, s.Close())
	c := client(t, server)
	left, err := c.Do(t.Context(), c.B().Hlen().Key(s.EntriesKey(0)).Build()).AsInt64()
	require.NoError(t, err)
	require.Zero(t, left)
}

// A node that is back just when it is closed, and is cut off again, does not try to tell
// what is queued for as long as it is.
func TestClose_WhileRedisComesAndGoes(t *testing.T) {
	server := harness.StartRedis(t)
	c := newCable(t, server)
	o := by(options(t, server.Addr), c)
	o.Lease = time.Hour
	s, release := lostQueued(t, server, o)
	defer release()
	c.cut()
	s.BackAsItCloses()
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		_ = s.Close()
	}()
	select {
	case <-closed:
	case <-time.After(harness.Patience):
		c.mend(t)
		require.Fail(t, "it is not closed")
	}
}
