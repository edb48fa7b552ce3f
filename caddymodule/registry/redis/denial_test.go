package redis_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/registry/redis"
	"github.com/sse-guard/sse-guard/caddymodule/registry/registrytest"
)

// Another node hears of a denial before it is asked to end the streams. They end as that
// says, and are counted.
func TestDenial_GoesWithAnEnd(t *testing.T) {
	server := harness.StartRedis(t)
	o := options(t, server.Addr)
	o.Lease = time.Hour
	both := sites(t, o, 2)
	a, b := both[0], both[1]
	there := anon("there")
	p := a.hold(t, there, registrytest.Track)
	require.NoError(t, b.Deny(t.Context(), registry.Denial{Token: there.Token, Until: time.Now().Add(time.Hour)}))
	require.Eventually(t, func() bool { return a.Denied(there) }, soon, aWhile)
	require.Equal(t, registry.Denied, a.ask(t, registry.Header, anon("n"), one).Outcome, "it is in force meanwhile")
	e := registry.Ending{Reason: reason.Revoked, By: "192.0.2.1", Message: "We close at six."}
	ended, err := b.End(t.Context(), registry.Selector{Token: there.Token}, e)
	require.NoError(t, err)
	require.Len(t, ended.Holders, 1)
	require.Equal(t, []registry.Ending{e}, a.node.Endings(there.ID))
	leaveAndDepart(p)
	requireClosed(t, ended.Departed, "nobody says that the upstream is gone")
}

// A node whose Redis is away denies what it is told to, and the others hear of it when
// Redis is back.
func TestDenial_GivenWhileRedisIsAwayIsToldLater(t *testing.T) {
	server := harness.StartRedis(t)
	o := shortly(t, server, redis.Deny)
	c := newCable(t, server)
	a, b := openSite(t, by(o, c)), openSite(t, o)
	there := anon("there")
	b.hold(t, there, registrytest.Track)
	c.cut()
	require.Eventually(t, func() bool { return a.Away() != nil }, soon, aWhile)
	require.NoError(t, a.Deny(t.Context(), registry.Denial{Token: there.Token, Until: time.Now().Add(time.Hour)}))
	require.False(t, b.Denied(there))
	c.mend(t)
	require.Equal(t, reason.Logout, b.requireEnded(t, there, soon).Reason)
	require.True(t, b.Denied(there))
}

// A replica that takes over may lack the last denials, and nothing else that tells.
func TestDenial_LostByAFailoverIsToldAgain(t *testing.T) {
	server := harness.StartRedis(t)
	o := shortly(t, server, redis.Deny)
	c := newCable(t, server)
	a, b := openSite(t, o), openSite(t, by(o, c))
	there := anon("there")
	b.hold(t, there, registrytest.Track)
	c.cut()
	require.NoError(t, a.Deny(t.Context(), registry.Denial{Token: there.Token, Until: time.Now().Add(time.Hour)}))
	key := func(name string) string { return fmt.Sprintf("{%s/zone/zone}%s", o.Prefix, name) }
	answer := server.Do(t, "DEL", key("d"), key("u"))
	lost, err := answer.AsInt64()
	require.NoError(t, err)
	require.EqualValues(t, 2, lost)
	server.Do(t, "CLIENT", "KILL", "TYPE", "normal")
	server.Do(t, "CLIENT", "KILL", "TYPE", "pubsub")
	c.mend(t)
	require.Equal(t, reason.Logout, b.requireEnded(t, there, soon).Reason)
}
