package redis_test

import (
	"bufio"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/registry/redis"
	"github.com/sse-guard/sse-guard/caddymodule/registry/registrytest"
)

// monitor tells how many records the scripts look at that Redis runs.
type monitor struct {
	conn net.Conn
	// most is how many records one script looked at, at most. It may be read once done is
	// closed.
	most int
	done chan struct{}
}

// startMonitor has Redis say what commands it runs.
func startMonitor(t testing.TB, server *harness.Redis) *monitor {
	conn, err := net.Dial("tcp", server.Addr)
	require.NoError(t, err)
	_, err = conn.Write([]byte("MONITOR\r\n"))
	require.NoError(t, err)
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, 1<<24) // a call may have many arguments
	require.True(t, lines.Scan())
	require.Equal(t, "+OK", lines.Text())
	m := &monitor{conn: conn, done: make(chan struct{})}
	go m.read(lines)
	return m
}

func (m *monitor) read(lines *bufio.Scanner) {
	defer close(m.done)
	records := 0
	for lines.Scan() {
		_, command, _ := strings.Cut(lines.Text(), "[0 ")
		if !strings.HasPrefix(command, "lua]") {
			records = 0 // another script begins
			continue
		}
		words := strings.Fields(command)
		switch words[1] {
		case `"HGET"`:
			records++
		case `"HSCAN"`:
			n, _ := strconv.Atoi(strings.Trim(words[len(words)-1], `"`))
			records += n
		}
		m.most = max(m.most, records)
	}
}

// stop returns the most records that a script has looked at.
func (m *monitor) stop(t testing.TB) int {
	require.NoError(t, m.conn.Close())
	<-m.done
	return m.most
}

// fillBucket has a node hold so many keys of one bucket, those from the given one on.
func (s site) fillBucket(t testing.TB, from, n int) []registry.Place {
	places := make([]registry.Place, n)
	for i := range places {
		h := anon(fmt.Sprint("stream", from+i))
		h.Key = redis.KeyInBucket(from + i)
		places[i] = s.hold(t, h, one)
	}
	return places
}

// requireAgreed waits until nodes and Redis agree that there are so many entries.
func requireAgreed(t testing.TB, nodes []site, entries int) {
	t.Helper()
	var known, places int
	require.Eventually(t, func() bool {
		known, places = 0, 0
		for _, s := range nodes {
			if s.Away() != nil {
				return false
			}
			known += int(s.Known())
			places += s.Places()
		}
		return known == entries && places == entries
	}, harness.Patience, 10*time.Millisecond, "Redis should have %d of %d entries, not %d", known, places, entries)
	for _, s := range nodes {
		require.Eventually(t, func() bool {
			s.Settle()
			s.Renew()
			differing, err := s.Differing()
			require.NoError(t, err)
			return differing == 0
		}, harness.Patience, aWhile, "Redis counts others")
		require.Empty(t, s.node.Ended())
	}
}

// However much a node has to tell when Redis is back, and Redis to say, no script takes
// long: Redis serves nobody else meanwhile, and the node would not wait for the answer.
func TestWayBack_NoCallIsAboutManyRecords(t *testing.T) {
	const most = 600
	server := harness.StartRedis(t)
	o := options(t, server.Addr)
	o.OnError, o.Lease = redis.Allow, time.Hour
	nodes, cables := make([]site, 3), make([]*cable, 3)
	for i := range nodes {
		cables[i] = newCable(t, server)
		nodes[i] = openSite(t, by(o, cables[i]))
	}
	cut := func() {
		for i, s := range nodes {
			cables[i].cut()
			require.Eventually(t, func() bool {
				_, _ = s.Admit(t.Context(), registry.Early, registry.Consent{}, []registry.Ask{{Holder: anon("n"), Rule: one}}, nil)
				return s.Away() != nil
			}, soon, aWhile)
		}
	}
	mend := func() {
		for _, c := range cables {
			c.mend(t)
		}
	}

	cut()
	const each = redis.MostRemembered + 500
	var places [][]registry.Place
	for i, s := range nodes {
		places = append(places, s.fillBucket(t, i*each, each))
	}
	m := startMonitor(t, server)
	mend()
	requireAgreed(t, nodes, 3*each)
	require.LessOrEqual(t, m.stop(t), most, "when all are registered")

	// Some leave, more than a node remembers, and Redis loses some.
	cut()
	const leave, lost = redis.MostRemembered + 100, 100
	for _, of := range places {
		for _, p := range of[:leave] {
			leaveAndDepart(p)
		}
	}
	lose := []string{"HDEL", nodes[0].EntriesKey(0)}
	for i := range nodes {
		for j := range lost {
			key := redis.KeyInBucket(i*each + leave + j)
			lose = append(lose, string(key[:]))
		}
	}
	server.Do(t, lose...)
	m = startMonitor(t, server)
	mend()
	requireAgreed(t, nodes, 3*(each-leave))
	require.LessOrEqual(t, m.stop(t), most, "when what differs is mended")
	entries := server.Do(t, "HLEN", nodes[0].EntriesKey(0))
	n, err := entries.AsInt64()
	require.NoError(t, err)
	require.EqualValues(t, 3*(each-leave), n)
}

// After an outage in which nothing changed, or little, a node asks no more than how many
// entries Redis has of it.
func TestWayBack_WhatDoesNotDifferIsNotCompared(t *testing.T) {
	server := harness.StartRedis(t)
	o := options(t, server.Addr)
	o.Lease = time.Hour
	c := newCable(t, server)
	a := openDeafSite(t, server, by(o, c)) // who begins to listen suspects to have missed something
	places := a.fillBucket(t, 0, 3*redis.MostTold)
	c.cut()
	require.Eventually(t, func() bool {
		_, err := a.Admit(t.Context(), registry.Early, registry.Consent{}, []registry.Ask{{Holder: anon("n"), Rule: one}}, nil)
		return err != nil && a.Away() != nil
	}, soon, aWhile)
	for _, p := range places[:3] {
		leaveAndDepart(p)
	}
	m := startMonitor(t, server)
	c.mend(t)
	requireAgreed(t, []site{a}, len(places)-3)
	require.LessOrEqual(t, m.stop(t), 2*3, "those that have left")
}

// While much is told, a newcomer is judged by all that its own node has to tell of its key.
func TestWayBack_NewcomersAreJudgedByWhatTheirNodeHas(t *testing.T) {
	server := harness.StartRedis(t)
	o := options(t, server.Addr)
	o.Lease = time.Hour
	a := openSite(t, o)
	const keys = 20 * redis.MostTold // each call of the comparison tells some
	a.fillBucket(t, 0, keys)
	server.Do(t, "DEL", a.EntriesKey(0))
	release := a.HoldBack()
	require.NoError(t, a.Compare())
	h := anon("n")
	h.Key = redis.KeyInBucket(keys - 1)
	got := a.ask(t, registry.Header, h, rejectOne)
	release()
	require.Equal(t, registry.Rejected, got.Outcome)
	a.Settle()
	requireAgreed(t, []site{a}, keys)
}

// What Redis counts may be wrong: an administrator may have deleted a key.
func TestWayBack_WrongCountsAreSetRight(t *testing.T) {
	server := harness.StartRedis(t)
	o := options(t, server.Addr)
	o.Lease = time.Hour
	a := openSite(t, o)
	const keys = 2 * redis.MostTold
	a.fillBucket(t, 0, keys)
	server.Do(t, "DEL", a.EntriesKey(0))
	require.NoError(t, a.Compare())
	requireAgreed(t, []site{a}, keys)
}

// A node may die while what another has left is swept out.
func TestLease_OfANodeThatDiesDuringASweep(t *testing.T) {
	server := harness.StartRedis(t)
	o := options(t, server.Addr)
	o.Lease = 2 * time.Second
	sweeper := openSite(t, o) // it has nothing there, and sweeps when it is told to
	dies, diesLater := site{open(t, o, new(registrytest.FakeNode)), nil}, site{open(t, o, new(registrytest.FakeNode)), nil}
	dies.fillBucket(t, 0, 1000)
	diesLater.fillBucket(t, 1000, 1000)
	entries := func() int64 {
		answer := server.Do(t, "HLEN", sweeper.EntriesKey(0))
		n, err := answer.AsInt64()
		require.NoError(t, err)
		return n
	}
	dies.Abandon()
	require.Eventually(t, func() bool {
		more, err := sweeper.SweepOnce()
		require.NoError(t, err)
		return more
	}, soon, aWhile)
	diesLater.Abandon()
	timer := time.NewTimer(o.Lease + 100*time.Millisecond)
	<-timer.C // its lease runs out; to look whether it has would sweep
	for more := true; more; {
		var err error
		more, err = sweeper.SweepOnce()
		require.NoError(t, err)
	}
	require.Zero(t, entries(), "what nobody looks after comes to life with its node's next lease")
}

// What is yet to be registered again is found missing by each comparison meanwhile. It is
// registered once all the same, or whoever leaves would be told of late.
func TestWayBack_RegistersOnceWhatIsFoundMissingAgain(t *testing.T) {
	server := harness.StartRedis(t)
	o := options(t, server.Addr)
	o.Lease = time.Hour
	s, release := lostQueued(t, server, o)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	require.NoError(t, s.Compare())
	missing, before := lostStreams-int(s.Known()), s.CallsOf()
	release()
	s.Settle()
	comparing := 20 // calls of the comparison that the loss itself has brought about
	require.LessOrEqual(t, s.CallsOf()-before, uint64(missing/redis.MostTold+comparing))
	require.EqualValues(t, lostStreams, s.Known())
}
