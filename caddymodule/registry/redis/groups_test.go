package redis_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/registry/redis"
	"github.com/sse-guard/sse-guard/caddymodule/registry/registrytest"
)

// grouper is a node with streams in groups.
type grouper struct {
	site
	// mu guards the fields below it.
	mu      sync.Mutex
	own     map[registry.ID]int
	changed int
}

func openGrouper(t testing.TB, o redis.Options) *grouper {
	node := new(registrytest.FakeNode)
	g := &grouper{site: site{redis.New("zone", node, o), node}, own: make(map[registry.ID]int)}
	g.Group(func(id registry.ID) int {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.own[id]
	}, func([]registry.ID) {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.changed++
	})
	require.NoError(t, g.Start())
	requireReached(t, g)
	return g
}

// told is how often the node was told that others have changed.
func (g *grouper) told() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.changed
}

// groupers opens so many, until the test ends.
func groupers(t testing.TB, o redis.Options, n int) []*grouper {
	all := make([]*grouper, n)
	for i := range all {
		all[i] = openGrouper(t, o)
		t.Cleanup(func() { require.NoError(t, all[i].Close()) })
	}
	return all
}

func group(name string) registry.ID { return registrytest.ID(name) }

// have has the node have so many streams of a group.
func (g *grouper) have(name string, n int) {
	g.mu.Lock()
	g.own[group(name)] = n
	g.mu.Unlock()
	g.GroupChanged(group(name))
}

func (g *grouper) requireElsewhere(t testing.TB, name string, want int) {
	t.Helper()
	require.Eventually(t, func() bool { return g.Elsewhere(group(name)) == want }, soon, aWhile, "%s: %d, not %d", name, g.Elsewhere(group(name)), want)
}

func TestGroups_AreCountedOverAllNodes(t *testing.T) {
	t.Run("of one server", func(t *testing.T) {
		testGroups(t, options(t, harness.StartRedis(t).Addr))
	})
	t.Run("of a cluster", func(t *testing.T) {
		testGroups(t, ofCluster(t, harness.StartRedisCluster(t, 3, 0, longTimeout)))
	})
}

func testGroups(t *testing.T, o redis.Options) {
	all := groupers(t, o, 3)
	a, b, c := all[0], all[1], all[2]
	a.have("room", 2)
	b.have("room", 3)
	a.requireElsewhere(t, "room", 3)
	b.requireElsewhere(t, "room", 2)
	require.Zero(t, c.Elsewhere(group("room")), "it has none of that group")
	c.have("room", 1)
	c.requireElsewhere(t, "room", 5) // as told before
	a.requireElsewhere(t, "room", 4)
	require.NotZero(t, a.told())
	b.have("room", 0)
	a.requireElsewhere(t, "room", 1)
	c.requireElsewhere(t, "room", 2)
	c.have("other", 7)
	a.have("other", 1)
	a.requireElsewhere(t, "other", 7)
	a.requireElsewhere(t, "room", 1)
}

func TestGroups_OfANodeThatIsClosed(t *testing.T) {
	server := harness.StartRedis(t)
	o := options(t, server.Addr)
	o.Lease = time.Hour
	a, b := groupers(t, o, 1)[0], openGrouper(t, o)
	a.have("room", 1)
	b.have("room", 1)
	a.requireElsewhere(t, "room", 1)
	require.NoError(t, b.Close())
	a.requireElsewhere(t, "room", 0)
}

func TestGroups_OfANodeThatDies(t *testing.T) {
	server := harness.StartRedis(t)
	o := options(t, server.Addr)
	a, b := groupers(t, o, 1)[0], openGrouper(t, o)
	a.have("room", 1)
	b.have("room", 1)
	a.requireElsewhere(t, "room", 1)
	b.Abandon()
	a.requireElsewhere(t, "room", 0)
	keys := groupKeys(t, server)
	require.Eventually(t, func() bool { keys = groupKeys(t, server); return len(keys) == 1 }, soon, aWhile, "its hash is gone: %q", keys)
}

// groupKeys lists the Redis keys that have numbers of groups.
func groupKeys(t testing.TB, server *harness.Redis) (found []string) {
	c := client(t, server)
	keys, err := c.Do(t.Context(), c.B().Keys().Pattern("*").Build()).AsStrSlice()
	require.NoError(t, err)
	for _, key := range keys {
		if strings.Contains(key, "}n/") {
			found = append(found, key)
		}
	}
	return found
}

// A message that was lost is found by the version, within a renewal.
func TestGroups_AMessageThatIsLost(t *testing.T) {
	server := harness.StartRedis(t)
	all := groupers(t, options(t, server.Addr), 2)
	a, b := all[0], all[1]
	a.have("room", 1)
	b.have("room", 1)
	a.requireElsewhere(t, "room", 1)
	b.requireElsewhere(t, "room", 1)
	b.MissGroups()
	require.Zero(t, b.Elsewhere(group("room")))
	b.requireElsewhere(t, "room", 1) // by a renewal
	b.MissGroups()
	a.have("other", 1) // the next message shows that one is missing
	b.requireElsewhere(t, "room", 1)
}

func TestGroups_AfterRedisHasLostAll(t *testing.T) {
	server := harness.StartRedis(t)
	o := options(t, server.Addr)
	all := groupers(t, o, 2)
	a, b := all[0], all[1]
	a.have("room", 1)
	b.have("room", 2)
	a.requireElsewhere(t, "room", 2)
	server.Do(t, "FLUSHALL")
	require.Eventually(t, func() bool { return len(groupKeys(t, server)) == 2 }, soon, aWhile, "it is told again")
	c := openGrouper(t, o)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	c.have("room", 1)
	c.requireElsewhere(t, "room", 3)
}

// What changes while Redis is away is told when it is back.
func TestGroups_WhileRedisIsAway(t *testing.T) {
	server := harness.StartRedis(t)
	all := groupers(t, options(t, server.Addr), 2)
	a, b := all[0], all[1]
	a.have("room", 1)
	a.have("left", 1)
	b.have("room", 1)
	b.have("left", 1)
	b.requireElsewhere(t, "room", 1)
	b.requireElsewhere(t, "left", 1)
	server.Pause(t)
	a.have("room", 4)
	a.have("left", 0)
	require.Eventually(t, func() bool { return a.Away() != nil && b.Away() != nil }, soon, aWhile)
	require.Equal(t, 1, b.Elsewhere(group("room")), "nothing better is known")
	server.Resume(t)
	b.requireElsewhere(t, "room", 4)
	b.requireElsewhere(t, "left", 0)
}

// Thousands of groups that change all the time are told some twenty times a second, in
// messages of bounded size.
func TestGroups_ManyAtOnce(t *testing.T) {
	server := harness.StartRedis(t)
	all := groupers(t, options(t, server.Addr), 2)
	a, b := all[0], all[1]
	const groups = 3000
	name := func(i int) string { return "room" + string(rune('a'+i%26)) + time.Duration(i).String() }
	for n := 1; n <= 3; n++ {
		for i := range groups {
			a.have(name(i), n)
		}
	}
	for i := range groups {
		b.have(name(i), 1)
	}
	for i := range groups {
		b.requireElsewhere(t, name(i), 3)
	}
	for i := range groups {
		a.have(name(i), 0)
	}
	for i := range groups {
		b.requireElsewhere(t, name(i), 0)
	}
	require.Zero(t, a.KnownGroups())
	require.Equal(t, groups, b.KnownGroups())
}

// Every key has an expiry.
func TestGroups_KeysExpire(t *testing.T) {
	server := harness.StartRedis(t)
	a := groupers(t, options(t, server.Addr), 1)[0]
	a.have("room", 1)
	require.Eventually(t, func() bool { return len(groupKeys(t, server)) == 1 }, soon, aWhile)
	c := client(t, server)
	ttl, err := c.Do(t.Context(), c.B().Pttl().Key(groupKeys(t, server)[0]).Build()).AsInt64()
	require.NoError(t, err)
	require.Positive(t, ttl)
}

// What could not be read when a node had the first stream of a group is read when Redis can
// be reached again, though nothing has changed since.
func TestGroups_TheFirstStreamComesWhileRedisIsCutOff(t *testing.T) {
	server := harness.StartRedis(t)
	o := options(t, server.Addr)
	b := groupers(t, o, 1)[0]
	c := newCable(t, server)
	o.Timeout = time.Second
	a := groupers(t, by(o, c), 1)[0]
	a.have("other", 1)
	b.have("room", 3)
	b.have("other", 5)
	a.requireElsewhere(t, "other", 5)
	b.requireElsewhere(t, "other", 1) // it has told all it has to
	a.Settle()
	c.slow(t, time.Hour)
	a.have("room", 1)
	require.Eventually(t, func() bool { return a.KnownGroups() == 2 }, soon, aWhile)
	c.cut() // before it has told its number, and so before it has read others'
	c.fast(t)
	c.mend(t)
	a.requireElsewhere(t, "room", 3)
}
