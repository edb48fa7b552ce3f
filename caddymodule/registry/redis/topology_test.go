package redis_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/registry/redis"
	"github.com/sse-guard/sse-guard/caddymodule/registry/registrytest"
)

// longTimeout is a node timeout that a busy machine does not exceed, where no master is
// to be replaced.
const longTimeout = 30 * time.Second

// ofCluster are options for a cluster.
func ofCluster(t testing.TB, c *harness.RedisCluster) redis.Options {
	o := options(t, "")
	o.Client.InitAddress, o.Client.ForceSingleClient = c.Addrs(), false
	return o
}

// The groups that are left out are about one key, which one server keeps in a cluster
// too, and take long.
func TestRegistry_OnACluster(t *testing.T) {
	cluster := harness.StartRedisCluster(t, 3, 0, longTimeout)
	registrytest.Run(t, func(t testing.TB, node registry.Node) registry.Registry {
		r := open(t, ofCluster(t, cluster), node)
		require.True(t, r.IsCluster())
		return settled{r}
	}, "Admission", "Phases", "Asks", "NobodyEndsNeedlessly", "Asked", "Tombstones", "Damped", "Leave", "Kept", "Departures",
		"End", "Find", "Denials", "Waiters", "Yields", "Model")
}

func TestNodes_OnACluster(t *testing.T) {
	cluster := harness.StartRedisCluster(t, 3, 0, longTimeout)
	testNodes(t, func(t testing.TB) redis.Options { return ofCluster(t, cluster) })
}
