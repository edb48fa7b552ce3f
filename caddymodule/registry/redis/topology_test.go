package redis_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/registry/redis"
	"github.com/sse-guard/sse-guard/caddymodule/registry/registrytest"
)

// longTimeout is a node timeout that a busy machine does not exceed, where no master is
// to be replaced.
const longTimeout = 30 * time.Second

// ofCluster are options for a cluster.
func ofCluster(t testing.TB, c *harness.RedisCluster) redis.Options {
	o := options(t, "")
	o.Client.InitAddress, o.Client.ForceSingleClient = c.Addrs(), false
	return o
}

// The groups that are left out are about one key, which one server keeps in a cluster
// too, and take long.
func TestRegistry_OnACluster(t *testing.T) {
	cluster := harness.StartRedisCluster(t, 3, 0, longTimeout)
	registrytest.Run(t, func(t testing.TB, node registry.Node) registry.Registry {
		s := newSettled(t, ofCluster(t, cluster), node)
		require.True(t, s.IsCluster())
		return s
	}, "Admission", "Phases", "Asks", "NobodyEndsNeedlessly", "Asked", "Tombstones", "Damped", "Leave", "Kept", "Departures",
		"End", "Find", "Denials", "Waiters", "Yields", "Model")
}

func TestNodes_OnACluster(t *testing.T) {
	cluster := harness.StartRedisCluster(t, 3, 0, longTimeout)
	testNodes(t, func(t testing.TB) redis.Options { return ofCluster(t, cluster) })
}

// Redis before version 7 has no sharded Pub/Sub.
func TestNodes_OnAClusterWithoutShardedPubSub(t *testing.T) {
	cluster := harness.StartRedisCluster(t, 3, 0, longTimeout, "--rename-command", "SPUBLISH", "", "--rename-command", "SSUBSCRIBE", "")
	testNodes(t, func(t testing.TB) redis.Options { return ofCluster(t, cluster) })
	calls := int64(0)
	for _, s := range cluster.Masters {
		calls += s.Calls(t, "publish")
	}
	require.Positive(t, calls)
}

// A message by sharded Pub/Sub goes to one server, not to all.
func TestCluster_SendsByShard(t *testing.T) {
	cluster := harness.StartRedisCluster(t, 3, 0, longTimeout)
	nodes := sites(t, ofCluster(t, cluster), 2)
	older := anon("older")
	nodes[0].hold(t, older, one)
	nodes[1].hold(t, anon("newer"), one)
	nodes[0].requireEnded(t, older, soon)
	_, err := nodes[1].End(t.Context(), registry.Selector{Token: older.Token}, registry.Ending{Reason: reason.Logout})
	require.NoError(t, err)
	require.NoError(t, nodes[1].Deny(t.Context(), registry.Denial{Token: older.Token, Until: time.Now().Add(time.Hour)}))
	sharded := int64(0)
	for _, s := range cluster.Masters {
		require.Zero(t, s.Calls(t, "publish"))
		sharded += s.Calls(t, "spublish")
	}
	require.Greater(t, sharded, int64(2*64), "beside the questions for the slots")
}

// wire is a node's connections, whatever servers they are with, that can be cut.
type wire struct {
	mu    sync.Mutex // guards the fields below
	isCut bool
	conns []net.Conn
}

var errCut = errors.New("the wire is cut")

func (w *wire) dial(ctx context.Context, addr string, dialer *net.Dialer, _ *tls.Config) (net.Conn, error) {
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.isCut {
		return nil, errors.Join(errCut, conn.Close())
	}
	w.conns = append(w.conns, conn)
	return conn, nil
}

func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.isCut = true
	for _, conn := range w.conns {
		_ = conn.Close() // some are closed already
	}
	w.conns = nil
}

func (w *wire) mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.isCut = false
}
