package redis_test

import (
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
	"github.com/sse-guard/sse-guard/caddymodule/registry/redis"
	"github.com/sse-guard/sse-guard/caddymodule/registry/registrytest"
)

// listener is a node with what it has heard from others.
type listener struct {
	site
	// mu guards the fields below it.
	mu     sync.Mutex
	heard  []string
	at     []time.Time
	missed int
	// forAll is what was told to all.
	forAll []string
}

func openListener(t testing.TB, o redis.Options) *listener {
	node := new(registrytest.FakeNode)
	l := &listener{site: site{redis.New("zone", node, o), node}}
	l.Hear(func(at time.Time, b []byte, missed int) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.missed += missed
		if b != nil {
			l.heard, l.at = append(l.heard, string(b)), append(l.at, at)
		}
	})
	l.HearAll(func(_ time.Time, b []byte) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.forAll = append(l.forAll, string(b))
	})
	require.NoError(t, l.Start())
	requireReached(t, l)
	return l
}

// count is how much was heard, and how much of it was missed.
func (l *listener) count() (heard, missed int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.heard), l.missed
}

// countForAll is how much was heard of what all are to know.
func (l *listener) countForAll() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.forAll)
}

func TestShared_IsToldWhileSomebodyListens(t *testing.T) {
	server := harness.StartRedis(t)
	o := options(t, server.Addr)
	a, b := openSite(t, o), openListener(t, o)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	require.False(t, a.Heard())
	b.Listen(1)
	b.Listen(1)
	require.Eventually(t, a.Heard, soon, aWhile)
	require.False(t, b.Heard(), "nobody listens to it")
	at := time.Now().Add(-time.Minute)
	a.Tell(at, []byte(`{"n":1}`))
	a.Tell(at, []byte(`{"n":2}`))
	require.Eventually(t, func() bool { n, _ := b.count(); return n == 2 }, soon, aWhile)
	require.Equal(t, []string{`{"n":1}`, `{"n":2}`}, b.heard)
	require.True(t, at.Equal(b.at[0]))
	b.Listen(-1)
	a.Tell(at, []byte("3"))
	require.Eventually(t, func() bool { n, _ := b.count(); return n == 3 }, soon, aWhile)
	b.Listen(-1)
	require.Eventually(t, func() bool { return !a.Heard() }, soon, aWhile)
	require.Zero(t, b.missed)
}

// What all are to know is told whether they listen or not, and not to who tells it.
func TestShared_WhatAllAreToKnow(t *testing.T) {
	server := harness.StartRedis(t)
	o := options(t, server.Addr)
	nodes := []*listener{openListener(t, o), openListener(t, o), openListener(t, o)}
	for _, n := range nodes {
		t.Cleanup(func() { require.NoError(t, n.Close()) })
	}
	requireAcquainted(t, nodes[0].site, nodes[1].site, nodes[2].site)
	at := time.Now().Add(-time.Minute)
	for i, n := range nodes {
		n.TellAll(at, []byte{byte(i)})
	}
	require.Eventually(t, func() bool {
		for _, n := range nodes {
			if n.countForAll() < 2 {
				return false
			}
		}
		return true
	}, soon, aWhile)
	for i, n := range nodes {
		n.mu.Lock()
		require.Len(t, n.forAll, 2)
		require.NotContains(t, n.forAll, string([]byte{byte(i)}), "it hears itself")
		require.Empty(t, n.heard)
		n.mu.Unlock()
	}
}

// The databases of a server have their Pub/Sub in common. Nodes of one do not hear those of
// another.
func TestShared_IsOfOneDatabase(t *testing.T) {
	server := harness.StartRedis(t)
	o := options(t, server.Addr)
	all := make([]*listener, 0, 6)
	for _, db := range []int{0, 1, 2} {
		o.Client.SelectDB = db
		a, b := openListener(t, o), openListener(t, o)
		requireAcquainted(t, a.site, b.site)
		all = append(all, a, b)
	}
	for i, l := range all {
		t.Cleanup(func() { require.NoError(t, l.Close()) })
		l.TellAll(time.Now(), []byte(strconv.Itoa(i/2)))
	}
	require.Eventually(t, func() bool {
		for _, l := range all {
			if l.countForAll() == 0 {
				return false
			}
		}
		return true
	}, soon, aWhile)
	for i, l := range all {
		l.mu.Lock()
		require.Equal(t, []string{strconv.Itoa(i / 2)}, l.forAll)
		l.mu.Unlock()
	}
}

// So much happens that it cannot all be told. Nobody waits for it, and it is said how much
// is missing.
func TestShared_MoreThanCanBeTold(t *testing.T) {
	server := harness.StartRedis(t)
	o := options(t, server.Addr)
	a, b := openSite(t, o), openListener(t, o)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	b.Listen(1)
	require.Eventually(t, a.Heard, soon, aWhile)
	const told = 50_000
	server.Pause(t)
	for i := range told {
		a.Tell(time.Now(), []byte(strconv.Itoa(i)))
	}
	server.Resume(t)
	require.Eventually(t, func() bool {
		a.Tell(time.Now(), []byte("more")) // says what was missed before
		_, missed := b.count()
		return missed > told/2
	}, soon, aWhile)
	heard, _ := b.count()
	require.NotZero(t, heard)
	a.hold(t, anon("older"), one)
	newer := anon("newer")
	b.hold(t, newer, one)
	require.Equal(t, []string{"newer"}, a.holders(t))
}

// A node that dies while it listens is not told for ever.
func TestShared_AListenerThatDies(t *testing.T) {
	t.Parallel()
	server := harness.StartRedis(t)
	o := options(t, server.Addr)
	a, b := openSite(t, o), openListener(t, o)
	b.Listen(1)
	require.Eventually(t, a.Heard, soon, aWhile)
	b.Abandon()
	require.Eventually(t, func() bool { return !a.Heard() }, 2*soon, 50*time.Millisecond)
}
