package redis_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/registry/redis"
	"github.com/sse-guard/sse-guard/caddymodule/registry/registrytest"
)

// start opens a node's registry, whatever Redis has, until the test ends.
func start(t testing.TB, o redis.Options) site {
	node := new(registrytest.FakeNode)
	r, err := redis.Open("zone", node, o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	return site{r, node}
}

// try asks for a place under Reject, and returns whether there was an answer, and the
// error where there was none.
func (s site) try(t testing.TB, h *registry.Holder) (registry.Outcome, error) {
	as, err := s.Admit(t.Context(), registry.Header, registry.Consent{}, []registry.Ask{{Holder: h, Rule: rejectOne}}, nil)
	if err != nil {
		require.ErrorIs(t, err, registry.ErrAway, "the refusal is temporary")
		return registry.Undecided, err
	}
	return as[0].Outcome, nil
}

// requireProtected requires that a place, which a stream of another node holds, is given to
// nobody, and that newcomers are told in time who holds it.
func (s site) requireProtected(t testing.TB) {
	require.Eventually(t, func() bool {
		outcome, err := s.try(t, anon("n"))
		require.NotEqual(t, registry.Admitted, outcome, "the holder's place is given away")
		return err == nil
	}, soon, aWhile)
}

// A node that is started while Redis is away knows of no other's streams. It gives no
// protected place away for one lease, and then does as on_error says.
func TestStart_RejectWhileRedisIsAway(t *testing.T) {
	t.Parallel() // it waits for a lease
	server := harness.StartRedis(t)
	c := newCable(t, server)
	c.cut()
	o := by(shortly(t, server, redis.Allow), c)
	o.Lease, o.Timeout = 4*time.Second, 100*time.Millisecond
	began := time.Now()
	a := start(t, o)
	_, err := a.try(t, anon("a"))
	require.ErrorContains(t, err, "not reached since this node was started")
	other := anon("other")
	other.Key = registrytest.ID("another key")
	a.hold(t, other, one)
	require.Eventually(t, func() bool {
		outcome, _ := a.try(t, anon("a"))
		return outcome == registry.Admitted
	}, soon, aWhile, "under allow the node goes on in the end")
	require.GreaterOrEqual(t, time.Since(began), o.Lease)
}

// Redis has the streams of another node, whose lease ran out while Redis was away for all.
// The node that is back first was started meanwhile.
func TestStart_RejectWhereRedisIsBackWithItsData(t *testing.T) {
	t.Parallel() // it waits for a lease
	server := harness.StartRedis(t)
	c, d := newCable(t, server), newCable(t, server)
	o := shortly(t, server, redis.Allow)
	o.Lease = 1500 * time.Millisecond
	a := openSite(t, by(o, c))
	a.hold(t, anon("a"), rejectOne)
	c.cut()
	d.cut()
	expired := client(t, server)
	lives := "{" + o.Prefix + "/zone/zone}z"
	require.Eventually(t, func() bool {
		n, err := expired.Do(t.Context(), expired.B().Zcount().Key(lives).Min(strconv.FormatInt(time.Now().UnixMilli(), 10)).Max("+inf").Build()).AsInt64()
		return err == nil && n == 0
	}, soon, aWhile)
	n := start(t, by(o, d))
	d.mend(t)
	require.Eventually(t, func() bool { return n.Away() == nil }, soon, aWhile)
	outcome, _ := n.try(t, anon("n"))
	require.NotEqual(t, registry.Admitted, outcome, "the holder's place is given away")
	c.mend(t)
	n.requireProtected(t)
	require.Empty(t, a.node.Ended())
}

// Redis has lost everything, and the first that comes is a node that does not know.
func TestStart_RejectWhereRedisHasLostEverything(t *testing.T) {
	for name, lose := range map[string]func(*testing.T, *harness.Redis){
		"Restart": func(t *testing.T, server *harness.Redis) { server.Kill(); server.Start(t) },
		"Flush":   func(t *testing.T, server *harness.Redis) { server.Do(t, "FLUSHALL") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // it waits for a lease
			server := harness.StartRedis(t)
			o := shortly(t, server, redis.Deny)
			o.Lease = 6 * time.Second // so that nothing is due meanwhile
			c := newCable(t, server)
			a, b := openSite(t, by(o, c)), openSite(t, o)
			a.hold(t, anon("a"), rejectOne)
			other := anon("other")
			other.Key = registrytest.ID("another key") // one in the same bucket would do as well
			b.hold(t, other, rejectOne)
			c.cut()
			lose(t, server)
			n := start(t, o)
			require.Eventually(t, func() bool { return n.Away() == nil }, soon, aWhile)
			outcome, _ := n.try(t, anon("n"))
			require.NotEqual(t, registry.Admitted, outcome, "the holder's place is given away")
			c.mend(t)
			n.requireProtected(t)
			require.Empty(t, a.node.Ended())
			require.Empty(t, b.node.Ended())
		})
	}
}

// Redis does not know whether a zone is new, or was lost. If nobody comes who knows more,
// newcomers are refused for a moment only, and not at all where the last node said goodbye.
func TestStart_RejectInANewZone(t *testing.T) {
	server := harness.StartRedis(t)
	o := shortly(t, server, redis.Deny)
	o.Lease, o.Timeout = time.Hour, 100*time.Millisecond
	a, b := start(t, o), start(t, o)
	for _, s := range []site{a, b} {
		require.Eventually(t, func() bool { return s.Away() == nil }, soon, aWhile)
		_, err := s.try(t, anon("n"))
		require.ErrorContains(t, err, "may not know of all")
	}
	require.Eventually(t, func() bool {
		outcome, _ := a.try(t, anon("n"))
		return outcome == registry.Admitted
	}, soon, aWhile)
	require.Equal(t, registry.Rejected, b.ask(t, registry.Header, anon("m"), rejectOne).Outcome)

	o = options(t, server.Addr)
	for range 3 {
		s := open(t, o, new(registrytest.FakeNode))
		require.Equal(t, registry.Admitted, site{s, nil}.ask(t, registry.Header, anon("n"), rejectOne).Outcome)
		require.NoError(t, s.Close())
	}
}

// The first calls are answered in the order in which they were made: Redis knows the
// scripts, so that none is sent once more, as a whole. It does so again after a restart.
func TestStart_RedisKnowsTheScripts(t *testing.T) {
	t.Parallel()
	server := harness.StartRedis(t)
	s := openSite(t, shortly(t, server, redis.Allow))
	requireKnown := func(name string) {
		before := server.Calls(t, "eval")
		for i := range 20 {
			s.hold(t, anon(name+strconv.Itoa(i)), one)
		}
		ask := registry.Ask{Holder: anon("waits"), Rule: rejectOne}
		w, err := s.Wait(t.Context(), ask)
		require.NoError(t, err)
		w.Stop()
		require.NotZero(t, server.Calls(t, "evalsha"))
		require.Equal(t, before, server.Calls(t, "eval"))
	}
	requireKnown("first")
	server.Kill()
	require.Eventually(t, func() bool { return s.Away() != nil }, soon, aWhile)
	server.Start(t)
	require.Eventually(t, func() bool { return s.Away() == nil }, soon, aWhile)
	requireKnown("second")
}

func TestStart_AClusterKnowsTheScripts(t *testing.T) {
	t.Parallel()
	cluster := harness.StartRedisCluster(t, 3, 0, longTimeout)
	s := openSite(t, ofCluster(t, cluster))
	calls := func(command string) (n int64) {
		for _, server := range cluster.Masters {
			n += server.Calls(t, command)
		}
		return n
	}
	eval, evalsha := calls("eval"), calls("evalsha")
	for i := range 20 {
		h := anon(strconv.Itoa(i))
		h.Key = registrytest.ID(strconv.Itoa(i))
		s.hold(t, h, one)
	}
	require.Greater(t, calls("evalsha"), evalsha)
	require.Equal(t, eval, calls("eval"))
}

// A Redis user who may load no scripts is told of, once. All works without it.
func TestStart_AUserWhoMayLoadNoScripts(t *testing.T) {
	server := harness.StartRedis(t)
	server.Do(t, "ACL", "SETUSER", "few", "on", ">secret", "~*", "&*", "+@all", "-script")
	o := options(t, server.Addr)
	o.Client.Username, o.Client.Password = "few", "secret"
	core, logs := observer.New(zap.WarnLevel)
	o.Logger = zap.New(core)
	s := openSite(t, o)
	s.hold(t, anon("a"), one)
	s.Renew()
	require.Equal(t, 1, logs.FilterMessageSnippet("load no scripts").Len())
}
