package redis_test

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/registry/redis"
	"github.com/sse-guard/sse-guard/caddymodule/registry/registrytest"
)

// silence is for how long a master is silent before it is replaced, where it is to be.
const silence = 2 * time.Second

// ofSentinel are options for the master that Sentinels name.
func ofSentinel(t testing.TB, s *harness.RedisSentinel) redis.Options {
	o := options(t, "")
	o.Client.InitAddress, o.Client.ForceSingleClient = s.Addrs(), false
	o.Client.Sentinel.MasterSet = harness.SentinelMaster
	return o
}

func TestNodes_WithSentinel(t *testing.T) {
	servers := harness.StartRedisSentinel(t, longTimeout)
	testNodes(t, func(t testing.TB) redis.Options { return ofSentinel(t, servers) })
}

func TestFailover_WithSentinel(t *testing.T) {
	for _, loses := range []bool{false, true} {
		t.Run(fmt.Sprintf("LosesWrites=%t", loses), func(t *testing.T) {
			servers := harness.StartRedisSentinel(t, silence)
			f := newFailover(t, ofSentinel(t, servers))
			if loses {
				servers.Replica.StopReplicating(t, servers.Master)
			}
			f.change(t)
			if !loses {
				servers.Master.WaitReplicated(t)
			}
			servers.Master.Kill()
			servers.WaitMaster(t, servers.Replica)
			f.check(t)
			require.Positive(t, servers.Replica.Calls(t, "script|load"), "it knew none of the scripts")
		})
	}
}

func TestFailover_OfACluster(t *testing.T) {
	for _, loses := range []bool{false, true} {
		t.Run(fmt.Sprintf("LosesWrites=%t", loses), func(t *testing.T) {
			cluster := harness.StartRedisCluster(t, 3, 1, silence)
			o := ofCluster(t, cluster)
			f := newFailover(t, o)
			i := cluster.MasterOf(t, "{"+o.Prefix+"/zone/zone}") // the one that has what is the zone's as a whole
			master, replica := cluster.Masters[i], cluster.Replicas[i][0]
			if loses {
				replica.StopReplicating(t, master)
			}
			f.change(t)
			if !loses {
				master.WaitReplicated(t)
			}
			master.Kill()
			cluster.WaitMaster(t, replica)
			f.check(t)
		})
	}
}

// failover is what two nodes hold before Redis fails over, and are to hold after it.
type failover struct {
	nodes []site
	// holds has who holds a key, by its name.
	holds map[string]*heldKey
	// ended has the streams that were taken over before.
	ended []*registry.Holder
}

type heldKey struct {
	site  site
	h     *registry.Holder
	place registry.Place
}

// keysOfFailover is so many that every server of a cluster has some of each kind.
const keysOfFailover = 120

func newFailover(t testing.TB, o redis.Options) *failover {
	f := &failover{nodes: sites(t, o, 2), holds: make(map[string]*heldKey)}
	for i := range keysOfFailover {
		f.take(t, fmt.Sprint("key", i), f.nodes[i%2])
	}
	return f
}

// take has a stream of s take the key.
func (f *failover) take(t testing.TB, key string, s site) {
	h := anon(key)
	h.Key = registrytest.ID(key)
	if older := f.holds[key]; older != nil {
		defer func() {
			require.Equal(t, reason.Superseded, older.site.requireEnded(t, older.h, soon).Reason)
			leaveAndDepart(older.place)
			f.ended = append(f.ended, older.h)
		}()
	}
	f.holds[key] = &heldKey{s, h, s.hold(t, h, one)}
}

// change has streams taken over, end and begin.
func (f *failover) change(t testing.TB) {
	for i := range keysOfFailover {
		key := fmt.Sprint("key", i)
		switch i % 6 {
		case 0, 1: // by the other node
			f.take(t, key, f.nodes[(i+1)%2])
		case 2, 3:
			leaveAndDepart(f.holds[key].place)
			f.holds[key] = nil
		}
		f.take(t, fmt.Sprint("new", i), f.nodes[i%2])
	}
	for _, s := range f.nodes {
		s.Settle()
	}
}

// check waits until Redis has what the nodes have, and sees that nobody was ended for it.
func (f *failover) check(t testing.TB) {
	require.Eventually(t, func() bool {
		for _, s := range f.nodes {
			if s.Away() != nil {
				return false
			}
		}
		return true
	}, harness.Patience, 10*time.Millisecond, "Redis is not reached again")
	for key, held := range f.holds {
		var names []string
		require.Eventually(t, func() bool {
			hs, _, err := f.nodes[0].Find(t.Context(), registry.Selector{Key: registrytest.ID(key)}, "", 10)
			names = nil
			for _, h := range hs {
				names = append(names, h.ID.String())
			}
			return err == nil && (held == nil && len(hs) == 0 || held != nil && len(hs) == 1 && hs[0].ID == held.h.ID)
		}, soon, 10*time.Millisecond, "%s: %v hold it, not %v", key, names, held)
	}
	endings := 0
	for _, s := range f.nodes {
		endings += len(s.node.Ended())
	}
	require.Len(t, f.ended, endings, "somebody was ended for nothing")

	for i := range keysOfFailover { // and all goes on
		f.take(t, fmt.Sprint("key", i), f.nodes[i%2])
	}
}

// forwarder is an address that leads to one server, and then to another. Connections stay
// with the server that they were made with.
type forwarder struct {
	addr string
	to   atomic.Pointer[harness.Redis]
}

func newForwarder(t testing.TB, to *harness.Redis) *forwarder {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	f := &forwarder{addr: listener.Addr().String()}
	f.to.Store(to)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { f.forward(client) })
		}
	})
	t.Cleanup(func() {
		require.NoError(t, listener.Close())
		wg.Wait() // the client and the servers are closed by now, or will be
	})
	return f
}

func (f *forwarder) forward(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", f.to.Load().Addr)
	if err != nil {
		return
	}
	defer server.Close()
	go func() {
		_, _ = io.Copy(server, client)
		_ = server.Close() // ends the other direction
	}()
	_, _ = io.Copy(client, server)
}

// After a failover behind one address the old master, a replica now, keeps the connections
// that it has.
func TestFailover_BehindOneAddress(t *testing.T) {
	old, next := harness.StartRedis(t), harness.StartRedis(t)
	replicate := func(replica, of *harness.Redis) {
		host, port, _ := strings.Cut(of.Addr, ":")
		replica.Do(t, "REPLICAOF", host, port)
		replica.WaitSynced(t)
	}
	replicate(next, old)
	address := newForwarder(t, old)
	o := options(t, address.addr)
	a, b := openSite(t, o), openSite(t, o)
	older := anon("older")
	a.hold(t, older, one)
	old.WaitReplicated(t)
	address.to.Store(next)
	next.Do(t, "REPLICAOF", "NO", "ONE")
	replicate(old, next)
	newer := anon("newer")
	require.Eventually(t, func() bool {
		as, err := b.Admit(t.Context(), registry.Header, registry.Consent{}, []registry.Ask{{Holder: newer, Rule: one}}, nil)
		return err == nil && as[0].Outcome == registry.Admitted
	}, soon, 10*time.Millisecond, "the old server refuses to write, and is asked again and again")
	require.Equal(t, reason.Superseded, a.requireEnded(t, older, soon).Reason, "the nodes hear of each other")
	require.Equal(t, []string{"newer"}, b.holders(t))
}

// One server of a cluster may lose what it has, and the zone's epoch be kept by another.
// Nobody's place is given away under Reject while its node has yet to register it again.
func TestLoss_OfOneServerOfACluster(t *testing.T) {
	cluster := harness.StartRedisCluster(t, 3, 0, longTimeout)
	o := ofCluster(t, cluster)
	o.Lease, o.Timeout = 4*time.Second, time.Second
	wire := new(wire)
	byWire := o
	byWire.Client.DialCtxFn = wire.dial
	a, b := openSite(t, byWire), openSite(t, o)
	h, n := anon("a"), anon("n")
	zone := cluster.MasterOf(t, "{"+o.Prefix+"/zone/zone}")
	loses := zone
	for i := 0; loses == zone; i++ {
		h.Key = registrytest.ID(fmt.Sprint("key", i))
		loses = cluster.MasterOf(t, a.EntriesKeyOf(h.Key))
	}
	n.Key = h.Key
	a.hold(t, h, rejectOne)
	wire.cut()
	cluster.Masters[loses].Kill()
	cluster.Masters[loses].Start(t)
	ask := func() (registry.Outcome, error) {
		as, err := b.Admit(t.Context(), registry.Header, registry.Consent{}, []registry.Ask{{Holder: n, Rule: rejectOne}}, nil)
		if err != nil {
			return registry.Undecided, err
		}
		return as[0].Outcome, nil
	}
	require.Eventually(t, func() bool {
		got, err := ask()
		require.NotEqual(t, registry.Admitted, got, "the holder's place is given away")
		return err != nil && strings.Contains(err.Error(), "redis may not know of all")
	}, harness.Patience, 10*time.Millisecond)
	wire.mend()
	require.Eventually(t, func() bool {
		got, _ := ask()
		require.NotEqual(t, registry.Admitted, got, "the holder's place is given away")
		return got == registry.Rejected
	}, harness.Patience, 10*time.Millisecond, "newcomers are refused for ever")
	require.Empty(t, a.node.Ended())
}

// A holder of which Redis has lost all, and whose node cannot tell it in time, is
// registered behind those that came after it: the oldest is the surplus.
func TestFailover_SurplusEndsTheOldestFirst(t *testing.T) {
	servers := harness.StartRedisSentinel(t, silence)
	o := ofSentinel(t, servers)
	o.Lease, o.Timeout = 4*time.Second, time.Second
	wire := new(wire)
	byWire := o
	byWire.Client.DialCtxFn = wire.dial
	a, b := openSite(t, byWire), openSite(t, o)
	servers.Replica.StopReplicating(t, servers.Master)
	older, only := anon("older"), anon("only")
	only.Key = registrytest.ID("another key")
	a.hold(t, older, one)
	a.hold(t, only, one)
	wire.cut()
	servers.Master.Kill()
	servers.WaitMaster(t, servers.Replica)
	newer := anon("newer")
	require.Eventually(t, func() bool {
		as, err := b.Admit(t.Context(), registry.Header, registry.Consent{}, []registry.Ask{{Holder: newer, Rule: one}}, nil)
		return err == nil && as[0].Outcome == registry.Admitted
	}, harness.Patience, 10*time.Millisecond)
	require.Equal(t, []string{"newer"}, b.holders(t))
	require.Empty(t, a.node.Ended())
	wire.mend()
	require.Equal(t, reason.Superseded, a.requireEnded(t, older, harness.Patience).Reason)
	require.Equal(t, []string{"newer"}, b.holders(t))
	require.Empty(t, b.node.Ended())
	require.Len(t, a.node.Ended(), 1)
	hs, _, err := b.Find(t.Context(), registry.Selector{Key: only.Key}, "", 10)
	require.NoError(t, err)
	require.Len(t, hs, 1, "what nobody else has taken is registered again")
}
