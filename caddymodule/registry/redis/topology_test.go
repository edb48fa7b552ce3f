package redis_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
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

// masterOf returns the server of a cluster that has what the key's bucket has.
func (s site) masterOf(t testing.TB, c *harness.RedisCluster, key registry.ID) *harness.Redis {
	t.Helper()
	name := s.EntriesKey(int(key[0]) % 64)
	answer := c.Masters[0].Do(t, "CLUSTER", "KEYSLOT", name)
	slot, err := answer.AsInt64()
	require.NoError(t, err)
	for _, m := range c.Masters {
		answer := m.Do(t, "CLUSTER", "COUNTKEYSINSLOT", fmt.Sprint(slot))
		if n, err := answer.AsInt64(); err == nil && n > 0 {
			return m
		}
	}
	require.Fail(t, "no server has it", name)
	return nil
}

// A request has two guards, whose keys two servers have. One of these ends after the first
// guard's commit has ended a stream. The newcomer, for which that was, is not refused by the
// other guard, but where a limit is to be kept whatever happens.
func TestCommit_WhoseServerIsGoneAfterTheFirst(t *testing.T) {
	cluster := harness.StartRedisCluster(t, 3, 0, longTimeout)
	for _, onError := range []redis.OnError{redis.Allow, redis.Deny, redis.Fence} {
		t.Run(string(onError), func(t *testing.T) {
			o := ofCluster(t, cluster)
			o.OnError, o.Lease = onError, 4*longTimeout
			nodes := sites(t, o, 2)
			a, b := nodes[0], nodes[1]
			with := func(h *registry.Holder, key registry.ID) *registry.Holder {
				other := *h
				other.Key, other.ID[15] = key, other.ID[15]+1
				return &other
			}
			first := anon("first")
			a.hold(t, first, one)
			var second *registry.Holder
			for i := 0; ; i++ {
				second = with(anon("second"), registrytest.ID(fmt.Sprint("key", i)))
				a.hold(t, second, one)
				if a.masterOf(t, cluster, second.Key) != a.masterOf(t, cluster, first.Key) {
					break
				}
			}
			newer := anon("newer")
			asks := []registry.Ask{{Holder: newer, Rule: one}, {Holder: with(newer, second.Key), Rule: one}}
			as, err := b.Admit(t.Context(), registry.Reserve, registry.Consent{}, asks, nil)
			require.NoError(t, err)
			require.Equal(t, []registry.Outcome{registry.Admitted, registry.Admitted}, []registry.Outcome{as[0].Outcome, as[1].Outcome})
			victims, err := as[0].Place.Commit(t.Context())
			require.NoError(t, err)
			require.Len(t, victims, 1)
			a.requireEnded(t, first, soon)
			server := b.masterOf(t, cluster, second.Key)
			server.Kill()
			_, err = as[1].Place.Commit(t.Context())
			if onError == redis.Fence {
				require.ErrorIs(t, err, registry.ErrAway)
				for _, a := range as { // so the guard ends the stream
					leaveAndDepart(a.Place)
				}
			} else {
				require.NoError(t, err)
			}
			require.Empty(t, a.node.Endings(second.ID))
			server.Start(t)
			find := func() (found []string) {
				for _, key := range []registry.ID{first.Key, second.Key} {
					hs, _, err := b.Find(t.Context(), registry.Selector{Key: key}, "", 9)
					if err != nil || a.Away() != nil || b.Away() != nil {
						return []string{"away"}
					}
					for _, h := range hs {
						found = append(found, h.Addr)
					}
				}
				return found
			}
			want := []string{"newer", "newer"}
			if onError == redis.Fence {
				want = []string{"second"}
			}
			require.Eventually(t, func() bool { return slices.Equal(want, find()) }, 2*soon, aWhile, "%v", want)
			if onError != redis.Fence {
				a.requireEnded(t, second, soon)
			}
			require.Empty(t, b.node.Ended())
		})
	}
}

// One server of a cluster has lost everything, and the first that comes is a node that was
// started just now. It has no epoch of the server's buckets to know that by, and the zone,
// which another server has, has lost nothing.
func TestStart_RejectWhereOneServerOfAClusterHasLostEverything(t *testing.T) {
	cluster := harness.StartRedisCluster(t, 3, 0, longTimeout)
	o := ofCluster(t, cluster)
	o.Lease = 4 * longTimeout // so that nothing is due meanwhile
	var w wire
	ofA := o
	ofA.Client.DialCtxFn = w.dial
	node := new(registrytest.FakeNode)
	a := site{open(t, ofA, node), node}
	t.Cleanup(func() { require.NoError(t, a.Close()) })
	zone := cluster.MasterOf(t, "{"+o.Prefix+"/zone/zone}")
	holder, newcomer, loses := anon("a"), anon("n"), zone
	for i := 0; loses == zone; i++ {
		holder.Key = registrytest.ID(fmt.Sprint("key", i))
		loses = cluster.MasterOf(t, a.EntriesKeyOf(holder.Key))
	}
	a.hold(t, holder, rejectOne)
	newcomer.Key = holder.Key
	w.cut()
	cluster.Masters[loses].Do(t, "FLUSHALL")
	n := start(t, o)
	require.Eventually(t, func() bool { return n.Away() == nil }, soon, aWhile)
	outcome, _ := n.try(t, newcomer)
	require.NotEqual(t, registry.Admitted, outcome, "the holder's place is given away")
	w.mend()
	require.Eventually(t, func() bool {
		outcome, err := n.try(t, newcomer)
		require.NotEqual(t, registry.Admitted, outcome, "the holder's place is given away")
		return err == nil || a.Away() == nil
	}, soon, aWhile)
	require.Empty(t, a.node.Ended())
}
