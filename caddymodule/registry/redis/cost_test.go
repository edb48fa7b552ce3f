package redis_test

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/registry/registrytest"
)

// fill has a node hold so many keys, by streams that have all that most streams have.
func (s site) fill(t testing.TB, n int) {
	for i := range n {
		h := registrytest.Device(fmt.Sprintf("192.0.2.%d", i%250), fmt.Sprint("client", i))
		h.Key, h.Token, h.Subject = registrytest.ID(fmt.Sprint("key", i)), registrytest.ID(fmt.Sprint("token", i)), registrytest.ID(fmt.Sprint("subject", i))
		h.IssuedAt, h.Expires, h.Since = time.Now(), time.Now().Add(time.Hour), time.Now()
		s.hold(t, h, one)
	}
}

func TestCost_OfAStream(t *testing.T) {
	server := harness.StartRedis(t)
	s := openSite(t, options(t, server.Addr))
	const streams = 5_000
	c := client(t, server)
	used := func() int64 {
		var sum int64
		keys, err := c.Do(t.Context(), c.B().Keys().Pattern("*").Build()).AsStrSlice()
		require.NoError(t, err)
		for _, key := range keys {
			n, err := c.Do(t.Context(), c.B().MemoryUsage().Key(key).Samples(0).Build()).AsInt64()
			require.NoError(t, err)
			sum += n
		}
		return sum
	}
	before := used()
	s.fill(t, streams)
	each := (used() - before) / streams
	t.Logf("%d bytes of Redis' memory for each of %d streams", each, streams)
	require.LessOrEqual(t, each, int64(300))
}

// Every key that there may be has an expiry, and none holds what is not hashed.
func TestKeys_ExpireAndHoldHashesOnly(t *testing.T) {
	server := harness.StartRedis(t)
	a := openSite(t, options(t, server.Addr))
	leaveAndDepart(a.hold(t, anon("a"), one))
	a.hold(t, anon("b"), rejectOne)
	made := time.Now()
	_, err := a.Admit(t.Context(), registry.Early, registry.Consent{}, []registry.Ask{{Holder: anon("n"), Rule: registrytest.Supersede(2, registry.Streams), Tombstone: &made}}, nil)
	require.NoError(t, err)
	require.NoError(t, a.Deny(t.Context(), registry.Denial{Token: registrytest.ID("another"), Until: time.Now().Add(time.Hour)}))
	_, err = a.Secret(t.Context(), bytes.Repeat([]byte("s"), 32), time.Hour)
	require.NoError(t, err)
	c := client(t, server)
	keys, err := c.Do(t.Context(), c.B().Keys().Pattern("*").Build()).AsStrSlice()
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(keys), 9, "%q", keys)
	for _, key := range keys {
		ttl, err := c.Do(t.Context(), c.B().Pttl().Key(key).Build()).AsInt64()
		require.NoError(t, err)
		require.Positive(t, ttl, "%q does not expire", key)
	}
}

func TestSecret_IsMadeOnce(t *testing.T) {
	server := harness.StartRedis(t)
	o := options(t, server.Addr)
	a, b := openSite(t, o), openSite(t, o)
	first, err := a.Secret(t.Context(), []byte("first"), time.Hour)
	require.NoError(t, err)
	second, err := b.Secret(t.Context(), []byte("second"), time.Hour)
	require.NoError(t, err)
	require.Equal(t, "first", string(first))
	require.Equal(t, "first", string(second))
}

func TestCost_OfDoingNothing(t *testing.T) {
	t.Parallel()
	server := harness.StartRedis(t)
	s := openSite(t, options(t, server.Addr))
	s.fill(t, 1000) // so many that every bucket has some: more cost no more
	c := client(t, server)
	commands := func() (n int64) {
		info, err := c.Do(t.Context(), c.B().Info().Section("commandstats").Build()).ToString()
		require.NoError(t, err)
		for line := range strings.SplitSeq(info, "\r\n") {
			if name, rest, ok := strings.Cut(line, ":calls="); ok && strings.HasPrefix(name, "cmdstat_eval") {
				calls, _, _ := strings.Cut(rest, ",")
				k, err := strconv.ParseInt(calls, 10, 64)
				require.NoError(t, err)
				n += k
			}
		}
		return n
	}
	before, began := commands(), time.Now()
	timer := time.NewTimer(6 * time.Second)
	<-timer.C // what is counted is what happens in a time
	rate := float64(commands()-before) / time.Since(began).Seconds()
	t.Logf("%.0f commands a second", rate)
	require.LessOrEqual(t, rate, 50.0)
}

// A question that changes nothing writes nothing, once the node's lease is there: a replica
// has no work with it.
func TestCost_OfAQuestion(t *testing.T) {
	server := harness.StartRedis(t)
	o := options(t, server.Addr)
	o.Lease = time.Hour // nothing is renewed
	s := sites(t, o, 2)
	s[0].hold(t, anon("held"), one)
	ask := func() {
		as, err := s[1].Admit(t.Context(), registry.Early, registry.Consent{}, []registry.Ask{{Holder: anon("asks"), Rule: one}}, nil)
		require.NoError(t, err)
		require.Len(t, as[0].Ends, 1)
		require.Equal(t, []string{"held"}, s[1].holders(t))
	}
	written := func() string {
		answer := server.Do(t, "INFO", "persistence")
		info, err := answer.ToString()
		require.NoError(t, err)
		_, rest, found := strings.Cut(info, "rdb_changes_since_last_save:")
		require.True(t, found)
		n, _, _ := strings.Cut(rest, "\r\n")
		return n
	}
	ask()
	require.Eventually(t, func() bool { // a node that was just started may yet say hello
		before := written()
		ask()
		return before == written()
	}, soon, aWhile)
}
