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
