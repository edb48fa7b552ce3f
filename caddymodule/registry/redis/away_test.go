package redis_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/Shopify/toxiproxy/v2/toxics"
	"github.com/redis/rueidis"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/registry/redis"
	"github.com/sse-guard/sse-guard/caddymodule/registry/registrytest"
)

// cable is a node's connection with Redis, which can be cut and slowed.
type cable struct {
	proxy *toxiproxy.Proxy
	addr  string
}

func newCable(t testing.TB, server *harness.Redis) *cable {
	metrics := toxiproxy.NewMetricsContainer(nil)
	api := toxiproxy.NewServer(metrics, zerolog.Nop())
	c := &cable{addr: fmt.Sprintf("127.0.0.1:%d", harness.FreePort(t))}
	c.proxy = toxiproxy.NewProxy(api, "redis", c.addr, server.Addr)
	require.NoError(t, c.proxy.Start())
	t.Cleanup(c.proxy.Stop)
	return c
}

// cut closes all connections, and has none made.
func (c *cable) cut() { c.proxy.Stop() }

// mend lets connections be made again.
func (c *cable) mend(t testing.TB) { require.NoError(t, c.proxy.Start()) }

// slow delays all answers.
func (c *cable) slow(t testing.TB, by time.Duration) {
	_, err := c.proxy.Toxics.AddToxicJson(strings.NewReader(
		fmt.Sprintf(`{"name": "slow", "type": "latency", "stream": "downstream", "attributes": {"latency": %d}}`, by.Milliseconds())))
	require.NoError(t, err)
}

// swallow has all that is sent vanish, and nobody told.
func (c *cable) swallow(t testing.TB) {
	for _, direction := range []string{"upstream", "downstream"} {
		_, err := c.proxy.Toxics.AddToxicJson(strings.NewReader(
			fmt.Sprintf(`{"name": %q, "type": "timeout", "stream": %[1]q, "attributes": {"timeout": 0}}`, direction)))
		require.NoError(t, err)
	}
}

func (c *cable) fast(t testing.TB) {
	require.NoError(t, c.proxy.Toxics.RemoveToxic(context.Background(), "slow"))
}

var _ toxics.Toxic = (*toxics.LatencyToxic)(nil)

// shortly are options under which what is late comes soon.
func shortly(t testing.TB, server *harness.Redis, onError redis.OnError) redis.Options {
	o := options(t, server.Addr)
	o.Lease, o.Timeout, o.OnError = 2*time.Second, 2*time.Second, onError
	o.Client.Dialer = net.Dialer{Timeout: o.Timeout}
	return o
}

// by has a node reach Redis by a cable.
func by(o redis.Options, c *cable) redis.Options {
	o.Client.InitAddress = []string{c.addr}
	return o
}

// A node that dies says nothing. Its lease runs out.
func TestLease_OfANodeThatDiedFreesItsHolders(t *testing.T) {
	t.Parallel()
	server := harness.StartRedis(t)
	o := shortly(t, server, redis.Deny)
	dies := site{open(t, o, new(registrytest.FakeNode)), nil}
	b := openSite(t, o)
	dies.hold(t, anon("a"), rejectOne)
	w, err := b.Wait(t.Context(), registry.Ask{Holder: anon("w"), Rule: rejectOne})
	require.NoError(t, err)
	other := anon("other")
	other.Key = registrytest.ID("another key")
	b.hold(t, other, one) // the node that lives looks after the bucket of its own streams
	dies.Abandon()
	died := time.Now()
	require.Equal(t, registry.Rejected, b.ask(t, registry.Header, anon("n"), rejectOne).Outcome, "it may yet be there")
	requireClosed(t, w.Free(), "who waits is not told")
	require.Less(t, time.Since(died), 2*o.Lease)
	require.Equal(t, registry.Admitted, b.ask(t, registry.Header, anon("n"), rejectOne).Outcome)
	require.Equal(t, []string{"n"}, b.holders(t))
}

// A node that hangs for longer than its lease finds, when it wakes, that others have its
// keys. It ends its own streams, and not theirs.
func TestLease_OfANodeThatWakes(t *testing.T) {
	t.Parallel()
	server := harness.StartRedis(t)
	o := shortly(t, server, redis.Deny)
	c := newCable(t, server)
	a, b := openSite(t, by(o, c)), openSite(t, o)
	lost, stays := anon("lost"), anon("stays")
	stays.Key = registrytest.ID("another key")
	a.hold(t, lost, rejectOne)
	a.hold(t, stays, rejectOne)
	c.cut()
	successor := anon("successor")
	require.Eventually(t, func() bool {
		return b.ask(t, registry.Header, successor, rejectOne).Outcome == registry.Admitted
	}, soon, 50*time.Millisecond)
	require.Empty(t, a.node.Ended(), "under deny, streams live on")
	c.mend(t)
	require.Equal(t, registry.Ending{Reason: reason.Superseded, By: "successor", For: successor.ID}, func() registry.Ending {
		e := a.requireEnded(t, lost, soon)
		if e.For.IsZero() { // where its bucket was not yet swept, the newcomer is the younger all the same
			return registry.Ending{Reason: e.Reason, By: "successor", For: successor.ID}
		}
		return e
	}())
	require.Empty(t, b.node.Ended())
	require.Empty(t, a.node.Endings(stays.ID))
	require.Eventually(t, func() bool {
		hs, _, err := b.Find(t.Context(), registry.Selector{Key: stays.Key}, "", 9)
		return err == nil && len(hs) == 1
	}, soon, aWhile)
	require.Equal(t, []string{"successor"}, b.holders(t))
}

// openDeafSite opens a site that reaches Redis and has heard of others, and from now on
// hears nothing.
func openDeafSite(t testing.TB, server *harness.Redis, o redis.Options) site {
	server.Do(t, "ACL", "SETUSER", "deaf", "on", "nopass", "~*", "+@all", "allchannels")
	o.Client.Username, o.Client.Password = "deaf", "any"
	s := openSite(t, o)
	server.Do(t, "ACL", "SETUSER", "deaf", "resetchannels") // closes its connection, and allows no more subscriptions
	require.Eventually(t, func() bool {                     // it has another
		_, err := s.Admit(t.Context(), registry.Early, registry.Consent{}, []registry.Ask{{Holder: anon("deaf"), Rule: one}}, nil)
		return err == nil
	}, soon, aWhile)
	return s
}

// What Redis publishes may be lost. A node that hears nothing at all ends what it has
// lost within half of the lease.
func TestMessages_ThatAreLostAreFound(t *testing.T) {
	t.Parallel()
	server := harness.StartRedis(t)
	o := options(t, server.Addr)
	o.Lease = 4 * time.Second
	a, b := openDeafSite(t, server, o), openSite(t, o)
	older := anon("older")
	a.hold(t, older, one)
	newer := anon("newer")
	b.hold(t, newer, one)
	began := time.Now()
	require.Equal(t, registry.Ending{Reason: reason.Superseded, By: "newer", For: newer.ID}, a.requireEnded(t, older, soon))
	a.requireTold(t, older, newer)
	require.Less(t, time.Since(began), o.Lease/2+time.Second) // the machine may be busy
	require.Equal(t, []string{"newer"}, b.holders(t))
}

// Where a bucket is so busy that a call is under way at each renewal, the second renewal
// finds what was lost: that is half of the lease.
func TestMessages_ThatAreLostAreFoundHoweverBusyTheBucketIs(t *testing.T) {
	server := harness.StartRedis(t)
	o := options(t, server.Addr)
	o.Lease = 10 * time.Minute // nothing is renewed by itself
	a, b := openDeafSite(t, server, o), openSite(t, o)
	older := anon("older")
	p := a.hold(t, older, one)
	newer := anon("newer")
	b.hold(t, newer, one)
	require.NoError(t, a.RenewBusy(p))
	require.NoError(t, a.RenewBusy(p))
	require.Equal(t, reason.Superseded, a.requireEnded(t, older, soon).Reason)
}

func TestMessages_ThatAreLostAreFoundAtOnceAfterAReconnect(t *testing.T) {
	server := harness.StartRedis(t)
	o := options(t, server.Addr)
	o.Lease = time.Minute
	c := newCable(t, server)
	cutOff := by(o, c)
	a, b := openSite(t, cutOff), openSite(t, o)
	older := anon("older")
	a.hold(t, older, one)
	c.cut()
	b.hold(t, anon("newer"), one)
	c.mend(t)
	require.Equal(t, reason.Superseded, a.requireEnded(t, older, soon).Reason)
}

func TestAway_Allow(t *testing.T) {
	t.Parallel()
	server := harness.StartRedis(t)
	o := shortly(t, server, redis.Allow)
	c, d := newCable(t, server), newCable(t, server)
	a, b := openSite(t, by(o, c)), openSite(t, by(o, d))
	before := anon("before")
	beforehand := a.hold(t, before, one)
	c.cut()
	d.cut()
	older := anon("older")
	pa := a.hold(t, older, one)
	require.Equal(t, reason.Superseded, a.requireEnded(t, before, soon).Reason, "on its own node the rules hold")
	require.ErrorIs(t, a.Away(), redis.ErrAway)
	require.Equal(t, registry.Rejected, a.ask(t, registry.Header, anon("r"), rejectOne).Outcome)
	newer := anon("newer")
	pb := b.hold(t, newer, one)
	require.Empty(t, b.node.Ended())

	c.mend(t)
	a.requireHolders(t, "older")
	d.mend(t)
	require.Equal(t, reason.Superseded, a.requireEnded(t, older, soon).Reason, "the surplus ends, the oldest first")
	require.Empty(t, b.node.Ended())
	b.requireHolders(t, "newer")
	leaveAndDepart(beforehand)
	leaveAndDepart(pa)
	leaveAndDepart(pb)
	a.requireHolders(t)
	for _, s := range []site{a, b} {
		require.Eventually(t, func() bool { return s.Places() == 0 && s.Known() == 0 }, soon, aWhile, "something is left behind")
	}
}

// A Redis that comes and goes is one line a minute, too.
func TestAway_IsToldOnceAMinute(t *testing.T) {
	server := harness.StartRedis(t)
	o := shortly(t, server, redis.Allow)
	core, logs := observer.New(zap.InfoLevel)
	o.Logger = zap.New(core)
	c := newCable(t, server)
	a := openSite(t, by(o, c))
	for range 3 {
		c.cut()
		require.Eventually(t, func() bool { return a.Away() != nil }, soon, aWhile)
		c.mend(t)
		require.Eventually(t, func() bool { return a.Away() == nil }, soon, aWhile)
	}
	require.Len(t, logs.FilterMessageSnippet("redis cannot be reached").All(), 1)
	require.Len(t, logs.FilterMessage("redis is back").All(), 1)
}

// A failover may lose denials, and no streams. Who has given them gives them again.
func TestLoss_OfDenialsIsMended(t *testing.T) {
	server := harness.StartRedis(t)
	o := shortly(t, server, redis.Allow)
	a, b := openSite(t, o), openSite(t, o)
	h := anon("h")
	h.Token = registrytest.ID("token")
	require.NoError(t, a.Deny(t.Context(), registry.Denial{Token: h.Token, Until: time.Now().Add(time.Hour)}))
	require.Eventually(t, func() bool { return b.Denied(h) }, soon, aWhile)
	keys := []string{"DEL"}
	for _, name := range []string{"q", "d", "u"} {
		keys = append(keys, fmt.Sprintf("{%s/zone/zone}%s", o.Prefix, name))
	}
	answer := server.Do(t, keys...)
	n, err := answer.AsInt64()
	require.NoError(t, err)
	require.EqualValues(t, 3, n)
	later := openSite(t, o)
	require.Eventually(t, func() bool { return later.Denied(h) }, soon, aWhile)
}

// Who leaves while Redis is away is forgotten here, and is in the way of nobody when it is
// back, though this node has nothing else.
func TestAway_WhoLeavesMeanwhileIsNoGhost(t *testing.T) {
	server := harness.StartRedis(t)
	o := shortly(t, server, redis.Deny)
	o.Lease = time.Hour // it does not run out
	c := newCable(t, server)
	a := openSite(t, by(o, c))
	p := a.hold(t, anon("a"), rejectOne)
	c.cut()
	_, err := a.Admit(t.Context(), registry.Early, registry.Consent{}, []registry.Ask{{Holder: anon("n"), Rule: rejectOne}}, nil)
	require.Error(t, err)
	p.Leave(registry.Keep{})
	p.Departed()
	c.mend(t)
	require.Eventually(t, func() bool { return a.Away() == nil }, soon, aWhile)
	// What was queued is told as Redis is back, not before.
	require.Eventually(t, func() bool {
		return a.ask(t, registry.Header, anon("n"), rejectOne).Outcome == registry.Admitted
	}, soon, aWhile)
}

func TestAway_Deny(t *testing.T) {
	server := harness.StartRedis(t)
	o := shortly(t, server, redis.Deny)
	c := newCable(t, server)
	a := openSite(t, by(o, c))
	h := anon("a")
	a.hold(t, h, one)
	c.cut()
	for _, phase := range []registry.Phase{registry.Early, registry.Header, registry.Reserve} {
		_, err := a.Admit(t.Context(), phase, registry.Consent{SameToken: true}, []registry.Ask{{Holder: anon("n"), Rule: one}}, nil)
		require.Error(t, err)
	}
	_, err := a.Wait(t.Context(), registry.Ask{Holder: anon("n"), Rule: one})
	require.ErrorIs(t, err, redis.ErrAway)
	require.Empty(t, a.node.Ended())
	c.mend(t)
	require.Eventually(t, func() bool { return a.Away() == nil }, soon, aWhile)
	require.Equal(t, []string{"a"}, a.holders(t), "who could not be admitted is no ghost")
	require.Empty(t, a.node.Ended())
}

func TestAway_FenceEndsWhatTheLeaseNoLongerCovers(t *testing.T) {
	t.Parallel()
	server := harness.StartRedis(t)
	o := shortly(t, server, redis.Fence)
	c := newCable(t, server)
	a, b := openSite(t, by(o, c)), openSite(t, o)
	h := anon("a")
	p := a.hold(t, h, rejectOne)
	c.cut()
	require.Equal(t, reason.Fenced, a.requireEnded(t, h, soon).Reason)
	leaveAndDepart(p)
	require.Eventually(t, func() bool {
		return b.ask(t, registry.Header, anon("n"), rejectOne).Outcome == registry.Admitted
	}, soon, 20*time.Millisecond)
	c.mend(t)
	require.Eventually(t, func() bool { return a.Away() == nil && a.Places() == 0 }, soon, aWhile)
	require.Equal(t, []string{"n"}, a.holders(t))
	require.Empty(t, b.node.Ended())
}

// A client may leave when its place was compared, and before Redis counts as back.
func TestAway_WhoLeavesAsRedisComesBackIsNoGhost(t *testing.T) {
	for _, keep := range []registry.Keep{{}, {For: 100 * time.Millisecond}} {
		a := openSite(t, options(t, harness.StartRedis(t).Addr))
		p := a.hold(t, anon("a"), rejectOne)
		a.BackAfter(func() { p.Leave(keep) })
		p.Departed()
		require.Eventually(t, func() bool {
			return a.ask(t, registry.Header, anon("n"), rejectOne).Outcome == registry.Admitted
		}, soon, 20*time.Millisecond, "its place is held for ever")
	}
}

// The node's lease runs out in Redis whatever the node waits for: its streams have ended
// by then.
func TestAway_FenceDoesNotWaitForRedis(t *testing.T) {
	server := harness.StartRedis(t)
	o := shortly(t, server, redis.Fence)
	o.Lease, o.Timeout = 8*time.Second, 1700*time.Millisecond // its attempts end before and after the end of the lease
	c := newCable(t, server)
	a, b := openSite(t, by(o, c)), openSite(t, o)
	h := anon("a")
	a.hold(t, h, rejectOne)
	c.swallow(t)
	require.Eventually(t, func() bool {
		return b.ask(t, registry.Header, anon("n"), rejectOne).Outcome == registry.Admitted
	}, soon, 20*time.Millisecond)
	require.NotEmpty(t, a.node.Endings(h.ID), "another node has its place, and it lives")
}

// Redis may be so slow that an admission is given up which is made all the same.
func TestSlow_LeavesNoGhost(t *testing.T) {
	t.Parallel()
	server := harness.StartRedis(t)
	o := shortly(t, server, redis.Deny)
	o.Timeout = 200 * time.Millisecond
	c := newCable(t, server)
	a, b := openSite(t, by(o, c)), openSite(t, o)
	c.slow(t, time.Second)
	began := time.Now()
	for range 20 {
		_, err := a.Admit(t.Context(), registry.Header, registry.Consent{}, []registry.Ask{{Holder: anon("ghost"), Rule: one}}, nil)
		require.Error(t, err)
	}
	require.Less(t, time.Since(began), 2*time.Second, "after the first, nobody waits for the timeout")
	c.fast(t)
	require.Eventually(t, func() bool { return a.Away() == nil }, soon, aWhile)
	b.requireHolders(t) // else a ghost has the key
	require.Empty(t, a.node.Ended())
	a.hold(t, anon("n"), rejectOne)
}

// What a node has given up may reach Redis after it has said so.
func TestSlow_AnAdmissionThatWasGivenUpIsNotMade(t *testing.T) {
	a := openSite(t, options(t, harness.StartRedis(t).Addr))
	older := anon("older")
	a.hold(t, older, one)
	require.ErrorContains(t, a.AdmitLate(t.Context(), registry.Ask{Holder: anon("late"), Rule: one}), "gave this up")
	require.Equal(t, []string{"older"}, a.holders(t))
	require.Empty(t, a.node.Ended())
	require.NoError(t, a.Away())
}

func TestSlow_AWaitThatWasGivenUpIsNotBegun(t *testing.T) {
	a := openSite(t, options(t, harness.StartRedis(t).Addr))
	a.hold(t, anon("held"), rejectOne)
	require.ErrorContains(t, a.WaitLate(t.Context(), registry.Ask{Holder: anon("late"), Rule: rejectOne}), "gave this up")
	a.requireAgrees(t)
	require.NoError(t, a.Away())
}

// After Redis has lost everything, all streams are registered again, and nobody else's
// place is given away under Reject meanwhile.
func TestLoss(t *testing.T) {
	for name, lose := range map[string]func(*testing.T, *harness.Redis){
		"Restart": func(t *testing.T, server *harness.Redis) { server.Kill(); server.Start(t) },
		"Flush":   func(t *testing.T, server *harness.Redis) { server.Do(t, "FLUSHALL") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // it waits for a lease to run out
			server := harness.StartRedis(t)
			o := shortly(t, server, redis.Deny)
			o.Lease = 4 * time.Second // so that nothing is due meanwhile
			nodes := sites(t, o, 2)
			a, b := nodes[0], nodes[1]
			p := a.hold(t, anon("a"), rejectOne)
			b.hold(t, anon("elsewhere"), registrytest.Track).Leave(registry.Keep{})
			lose(t, server)
			require.Eventually(t, func() bool {
				as, err := b.Admit(t.Context(), registry.Header, registry.Consent{}, []registry.Ask{{Holder: anon("n"), Rule: rejectOne}}, nil)
				require.False(t, err == nil && as[0].Outcome == registry.Admitted, "the holder's place is given away")
				return err == nil
			}, soon, aWhile)
			require.Equal(t, []string{"a"}, b.holders(t))
			require.Empty(t, a.node.Ended())
			leaveAndDepart(p)
			require.Eventually(t, func() bool {
				return b.ask(t, registry.Header, anon("n"), rejectOne).Outcome == registry.Admitted
			}, soon, aWhile)
		})
	}
}

func TestOpen_RefusesNewerData(t *testing.T) {
	server := harness.StartRedis(t)
	o := options(t, server.Addr)
	openSite(t, o)
	server.Do(t, "HSET", "{"+o.Prefix+"/zone/zone}g", "v", "2")
	_, err := redis.Open("zone", new(registrytest.FakeNode), o)
	require.ErrorContains(t, err, "newer version")
}

// Redis need not be there at the start.
func TestOpen_WithoutRedis(t *testing.T) {
	server := harness.StartRedis(t)
	c := newCable(t, server)
	c.cut()
	o := by(shortly(t, server, redis.Allow), c)
	r, err := redis.Open("zone", new(registrytest.FakeNode), o)
	require.NoError(t, err)
	a := site{r, nil}
	defer func() { require.NoError(t, a.Close()) }()
	require.ErrorIs(t, a.Away(), redis.ErrAway)
	a.hold(t, anon("a"), one)
	c.mend(t)
	a.requireHolders(t, "a")
}

func client(t testing.TB, server *harness.Redis) rueidis.Client {
	c, err := rueidis.NewClient(options(t, server.Addr).Client)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

// Where a node has gone there may be streams that nobody is told of, until it is back.
func TestMissing_IsANodeThatIsCutOff(t *testing.T) {
	t.Parallel()
	server := harness.StartRedis(t)
	o := shortly(t, server, redis.Allow)
	wire := newCable(t, server)
	a, b := openSite(t, o), openSite(t, by(o, wire))
	missing := func(s site, want bool) {
		require.Eventually(t, func() bool { return s.Missing() == want }, soon, aWhile)
	}
	require.Eventually(t, func() bool {
		nodes := 0
		_ = a.Each(t.Context(), func(registry.Node) { nodes++ }) // never fails
		return nodes == 2
	}, soon, aWhile)
	require.False(t, a.Missing())
	wire.cut()
	missing(a, true)
	missing(b, true)
	there := anon("there")
	b.hold(t, there, one)
	found, _, err := a.Find(t.Context(), registry.Selector{Token: there.Token}, "", 1)
	require.NoError(t, err)
	require.Empty(t, found)
	wire.mend(t)
	missing(a, false)
	missing(b, false)
}

// A node that is stopped has given back all it had, and is missed by nobody.
func TestMissing_IsNoNodeThatHasStopped(t *testing.T) {
	t.Parallel()
	server := harness.StartRedis(t)
	o := shortly(t, server, redis.Allow)
	a := openSite(t, o)
	b := open(t, o, new(registrytest.FakeNode))
	requireAcquainted(t, a, site{b, nil})
	require.NoError(t, b.Close())
	requireAcquainted(t, a, openSite(t, o)) // it has said hello since
	require.False(t, a.Missing())
}

// However many ask while Redis hangs, each is answered as on_error says once timeout is
// over, also who finds the connection full. What Redis did all the same is taken back.
func TestSlow_ManyAreAnsweredInTime(t *testing.T) {
	t.Parallel()
	server := harness.StartRedis(t)
	o := shortly(t, server, redis.Deny)
	o.Client.ConnWriteTimeout = time.Hour // until then it is not broken
	s := openSite(t, o)
	const many = 3000
	errs := make(chan error, many)
	server.Pause(t)
	for i := range many {
		ask := registry.Ask{Holder: anon(fmt.Sprint("n", i)), Rule: one}
		go func() {
			_, err := s.Admit(t.Context(), registry.Header, registry.Consent{}, []registry.Ask{ask}, nil)
			errs <- err
		}()
	}
	late := time.After(soon)
	for i := range many {
		select {
		case err := <-errs:
			require.ErrorIs(t, err, registry.ErrAway)
		case <-late:
			server.Resume(t)
			require.Fail(t, "some were not answered", "%d of %d were", i, many)
		}
	}
	server.Resume(t)
	s.requireHolders(t)
}
