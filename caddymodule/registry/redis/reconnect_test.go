package redis_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry/redis"
)

// connections lists the numbers of the connections of a user of Redis.
func connections(t testing.TB, server *harness.Redis, user string) (ids []string) {
	answer := server.Do(t, "CLIENT", "LIST")
	list, err := answer.ToString()
	require.NoError(t, err)
	for line := range strings.Lines(list) {
		if strings.Contains(line, " user="+user+" ") {
			ids = append(ids, strings.Fields(line)[0])
		}
	}
	return ids
}

// A password is replaced: a new one is let in beside the old one, the node is told, and
// the old one is not let in any more. The node is never without Redis, and loses nobody.
func TestReconnect_WithAnotherPassword(t *testing.T) {
	server := harness.StartRedis(t)
	server.Do(t, "ACL", "SETUSER", "guard", "on", ">old", "~*", "&*", "+@all")
	o := options(t, server.Addr)
	b := openSite(t, o)
	o.Client.Username, o.Client.Password, o.Identity = "guard", "old", "old"
	a := openSite(t, o)
	requireAcquainted(t, a, b)
	older := anon("older")
	a.hold(t, older, one)
	before := connections(t, server, "guard")
	require.NotEmpty(t, before)

	reconnect := func(password string) {
		changed := o.Client
		changed.Password = password
		a.Reconnect(changed, password)
	}
	reconnect("wrong")
	require.Eventually(t, func() bool {
		answer := server.Do(t, "ACL", "LOG")
		refused, err := answer.ToArray()
		return err == nil && len(refused) > 0
	}, soon, aWhile, "it has tried")
	require.Equal(t, before, connections(t, server, "guard"), "the connection that works is kept")
	require.NoError(t, a.Away())

	server.Do(t, "ACL", "SETUSER", "guard", ">new")
	reconnect("new")
	require.Eventually(t, func() bool {
		require.NoError(t, a.Away())
		now := connections(t, server, "guard")
		return len(now) > 0 && !slices.ContainsFunc(now, func(id string) bool { return slices.Contains(before, id) })
	}, soon, aWhile, "connections of before are kept")
	server.Do(t, "ACL", "SETUSER", "guard", "<old")
	require.Empty(t, a.node.Ended())

	now := connections(t, server, "guard")
	reconnect("new")
	a.hold(t, anon("newer"), one)
	require.Equal(t, reason.Superseded, a.requireEnded(t, older, soon).Reason)
	newest := anon("newest")
	b.hold(t, newest, one)
	b.requireHolders(t, "newest")
	require.Eventually(t, func() bool { return len(a.node.Ended()) == 2 }, soon, aWhile, "it hears of others")
	require.Equal(t, now, connections(t, server, "guard"), "nothing has changed")
}

// A node that never got in is let in once the configuration has the right password.
func TestReconnect_WhereNothingWasConnected(t *testing.T) {
	server := harness.StartRedis(t)
	server.Do(t, "ACL", "SETUSER", "guard", "on", ">right", "~*", "&*", "+@all")
	o := shortly(t, server, redis.Deny)
	o.Client.Username, o.Client.Password, o.Identity = "guard", "wrong", "wrong"
	a := start(t, o)
	require.ErrorContains(t, a.Away(), "WRONGPASS")
	o.Client.Password = "right"
	a.Reconnect(o.Client, "right")
	require.Eventually(t, func() bool { return a.Away() == nil }, soon, aWhile)
	a.hold(t, anon("a"), one)
}

// On a cluster a node has connections with all servers, and listens to each.
func TestReconnect_ToACluster(t *testing.T) {
	o := ofCluster(t, harness.StartRedisCluster(t, 3, 0, longTimeout))
	a, b := openSite(t, o), openSite(t, o)
	requireAcquainted(t, a, b)
	older := anon("older")
	a.hold(t, older, one)
	a.Reconnect(o.Client, "other")
	require.Eventually(t, func() bool { return a.Identity() == "other" }, soon, aWhile)
	b.hold(t, anon("newer"), one)
	require.Equal(t, reason.Superseded, a.requireEnded(t, older, soon).Reason)
	a.hold(t, anon("newest"), one)
	b.requireHolders(t, "newest")
	require.NoError(t, a.Away())
}
