package harness

import (
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// RedisCluster is a running Redis Cluster, whose masters share the slots evenly.
type RedisCluster struct {
	Masters []*Redis
	// Replicas has, at the index of each master, that one's replicas.
	Replicas [][]*Redis

	ids map[*Redis]string
}

// clusterSlots is how many slots every Redis Cluster has.
const clusterSlots = 16384

// StartRedisCluster runs so many masters, each with so many replicas, until the test
// ends. A master that has been silent for nodeTimeout is replaced. All servers get the
// arguments.
func StartRedisCluster(t testing.TB, masters, replicas int, nodeTimeout time.Duration, arguments ...string) *RedisCluster {
	t.Helper()
	c := &RedisCluster{ids: make(map[*Redis]string), Replicas: make([][]*Redis, masters)}
	start := func() *Redis {
		port, bus := FreePort(t), FreePort(t)
		s := startRedis(t, port, rueidis.ClientOption{}, append([]string{
			"--port", fmt.Sprint(port), "--cluster-port", fmt.Sprint(bus), "--cluster-enabled", "yes",
			"--cluster-node-timeout", fmt.Sprint(nodeTimeout.Milliseconds()),
			"--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0",
		}, arguments...)...)
		c.ids[s] = s.text(t, "CLUSTER", "MYID")
		return s
	}
	for i := range masters {
		s := start()
		s.Do(t, "CLUSTER", "SET-CONFIG-EPOCH", fmt.Sprint(i+1))
		s.Do(t, "CLUSTER", "ADDSLOTSRANGE", fmt.Sprint(i*clusterSlots/masters), fmt.Sprint((i+1)*clusterSlots/masters-1))
		c.Masters = append(c.Masters, s)
		for range replicas {
			c.Replicas[i] = append(c.Replicas[i], start())
		}
	}
	first := c.Masters[0]
	host, port, _ := strings.Cut(first.Addr, ":")
	for s := range c.ids {
		if s != first {
			s.Do(t, "CLUSTER", "MEET", host, port, first.argument("--cluster-port"))
		}
	}
	for i, master := range c.Masters {
		for _, s := range c.Replicas[i] {
			require.Eventually(t, func() bool { return strings.Contains(s.text(t, "CLUSTER", "NODES"), c.ids[master]) },
				Patience, 10*time.Millisecond, "a replica hears of its master")
			s.Do(t, "CLUSTER", "REPLICATE", c.ids[master])
		}
	}
	c.waitComplete(t, masters*(1+replicas))
	for _, all := range c.Replicas {
		for _, s := range all {
			s.WaitSynced(t)
		}
	}
	return c
}

// Addrs lists where all servers listen.
func (c *RedisCluster) Addrs() (addrs []string) {
	for i, s := range c.Masters {
		addrs = append(addrs, s.Addr)
		for _, replica := range c.Replicas[i] {
			addrs = append(addrs, replica.Addr)
		}
	}
	return addrs
}

// MasterOf returns the index of the master that has had the slot of a key from the
// beginning.
func (c *RedisCluster) MasterOf(t testing.TB, key string) int {
	t.Helper()
	answer := c.Masters[0].Do(t, "CLUSTER", "KEYSLOT", key)
	slot, err := answer.AsInt64()
	require.NoError(t, err)
	for i := range c.Masters {
		if int(slot) < (i+1)*clusterSlots/len(c.Masters) {
			return i
		}
	}
	return -1 // there is no such slot
}

// WaitMaster waits until s is a master, and the servers that run know it.
func (c *RedisCluster) WaitMaster(t testing.TB, s *Redis) {
	t.Helper()
	for other := range c.ids {
		if other.isDead() {
			continue
		}
		var nodes, info string
		if !assert.Eventually(t, func() bool {
			nodes, info = other.text(t, "CLUSTER", "NODES"), other.text(t, "CLUSTER", "INFO")
			for line := range strings.Lines(nodes) {
				if strings.HasPrefix(line, c.ids[s]) {
					return strings.Contains(line, "master") && strings.Contains(info, "cluster_state:ok")
				}
			}
			return false
		}, Patience, 20*time.Millisecond) {
			require.Fail(t, "a replica is not made master", "%s knows of %s: %s%s", other.Addr, c.ids[s], nodes, info)
		}
	}
}

// waitComplete waits until all servers know all others, and all slots are served.
func (c *RedisCluster) waitComplete(t testing.TB, servers int) {
	t.Helper()
	for s := range c.ids {
		require.Eventually(t, func() bool {
			info := s.text(t, "CLUSTER", "INFO")
			return strings.Contains(info, "cluster_state:ok") && strings.Contains(info, fmt.Sprintf("cluster_known_nodes:%d\r", servers)) &&
				strings.Contains(info, fmt.Sprintf("cluster_size:%d\r", len(c.Masters))) && !strings.Contains(s.text(t, "CLUSTER", "NODES"), "handshake")
		}, Patience, 20*time.Millisecond, "the cluster does not come together: %s", s.printed)
	}
}

// RedisSentinel is a master and its replica, which three Sentinels watch.
type RedisSentinel struct {
	Master, Replica *Redis
	Sentinels       []*Redis
}

// SentinelMaster is the name by which the Sentinels know the master.
const SentinelMaster = "main"

// StartRedisSentinel runs them until the test ends. A master that has been silent for
// downAfter is replaced, if two Sentinels say so.
func StartRedisSentinel(t testing.TB, downAfter time.Duration) *RedisSentinel {
	t.Helper()
	c := &RedisSentinel{Master: StartRedis(t)}
	host, masterPort, _ := strings.Cut(c.Master.Addr, ":")
	port := FreePort(t)
	c.Replica = startRedis(t, port, rueidis.ClientOption{}, "--port", fmt.Sprint(port), "--replicaof", host, masterPort)
	c.Replica.WaitSynced(t)
	for range 3 {
		port := FreePort(t)
		// Sentinel takes what it watches from a file only, and writes to it.
		file := filepath.Join(t.TempDir(), "sentinel.conf")
		require.NoError(t, os.WriteFile(file, fmt.Appendf(nil,
			"sentinel monitor %[1]s %[2]s %[3]s 2\nsentinel down-after-milliseconds %[1]s %[4]d\nsentinel failover-timeout %[1]s %[5]d\n",
			SentinelMaster, host, masterPort, downAfter.Milliseconds(), (4*downAfter).Milliseconds()), 0o600))
		c.Sentinels = append(c.Sentinels, startRedis(t, port, rueidis.ClientOption{}, file, "--sentinel", "--port", fmt.Sprint(port)))
	}
	for _, s := range c.Sentinels {
		require.Eventually(t, func() bool {
			masters := s.text(t, "INFO", "sentinel")
			return strings.Contains(masters, "status=ok") && strings.Contains(masters, "slaves=1,sentinels=3")
		}, Patience, 20*time.Millisecond, "the Sentinels do not find each other: %s", s.printed)
	}
	return c
}

// Addrs lists where the Sentinels listen.
func (c *RedisSentinel) Addrs() (addrs []string) {
	for _, s := range c.Sentinels {
		addrs = append(addrs, s.Addr)
	}
	return addrs
}

// WaitMaster waits until all Sentinels that run name s as the master, and s is one.
func (c *RedisSentinel) WaitMaster(t testing.TB, s *Redis) {
	t.Helper()
	_, port, _ := strings.Cut(s.Addr, ":")
	require.Eventually(t, func() bool {
		for _, sentinel := range c.Sentinels {
			answer := sentinel.Do(t, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", SentinelMaster)
			named, err := answer.AsStrSlice()
			if err != nil || len(named) != 2 || named[1] != port {
				return false
			}
		}
		return strings.Contains(s.text(t, "INFO", "replication"), "role:master")
	}, Patience, 20*time.Millisecond, "no other master is made: %s", c.Sentinels[0].printed)
}

// SecureRedis is a Redis that speaks TLS only, and knows one user.
type SecureRedis struct {
	*Redis
	// CA is the file with the certificate that the server's is signed by.
	CA string
	// Username and Password are those of the one user that is not disabled.
	Username, Password string
}

// StartSecureRedis runs one until the test ends. What the user may do is given as Redis'
// ACL has it. The server's certificate is for localhost.
func StartSecureRedis(t testing.TB, acl ...string) *SecureRedis {
	t.Helper()
	s := &SecureRedis{Username: "guard", Password: "pass-word-of-guard"}
	s.CA = WriteCertificate(t, t.TempDir())
	port := FreePort(t)
	users := filepath.Join(t.TempDir(), "users.acl")
	const own = "harness"
	require.NoError(t, os.WriteFile(users, []byte(strings.Join([]string{
		"user default off",
		"user " + own + " on >" + own + " ~* &* +@all",
		"user " + s.Username + " on >" + s.Password + " " + strings.Join(acl, " "), "",
	}, "\n")), 0o600))
	s.Redis = startRedis(t, port, rueidis.ClientOption{TLSConfig: &tls.Config{InsecureSkipVerify: true}, Username: own, Password: own},
		"--port", "0", "--tls-port", fmt.Sprint(port), "--tls-cert-file", s.CA, "--tls-key-file", s.CA, "--tls-ca-cert-file", s.CA,
		"--tls-auth-clients", "no", "--aclfile", users)
	return s
}

// argument returns the value of one of the server's arguments.
func (s *Redis) argument(name string) string {
	for i, a := range s.arguments[:len(s.arguments)-1] {
		if a == name {
			return s.arguments[i+1]
		}
	}
	return ""
}

// text runs a command and returns its answer, a text.
func (s *Redis) text(t testing.TB, command ...string) string {
	t.Helper()
	answer := s.Do(t, command...)
	text, err := answer.ToString()
	require.NoError(t, err, "%v", command)
	return strings.TrimPrefix(text, "txt:") // which says of what kind it is
}

// StopReplicating has a replica lag behind its master from now on.
func (s *Redis) StopReplicating(t testing.TB, master *Redis) {
	t.Helper()
	s.Do(t, "CONFIG", "SET", "masteruser", "nobody", "masterauth", "nothing") // whom the master refuses
	master.Do(t, "CLIENT", "KILL", "TYPE", "replica")
	require.Eventually(t, func() bool { return strings.Contains(s.text(t, "INFO", "replication"), "master_link_status:down") },
		Patience, 20*time.Millisecond, "a replica still replicates: %s", s.printed)
}

// WaitReplicated waits until the replicas have all that the master has.
func (s *Redis) WaitReplicated(t testing.TB) {
	t.Helper()
	var offsets []string
	require.Eventually(t, func() bool {
		offsets = nil
		for line := range strings.Lines(s.text(t, "INFO", "replication")) {
			line = strings.TrimSpace(line)
			if offset, ok := strings.CutPrefix(line, "master_repl_offset:"); ok {
				offsets = append(offsets, offset)
			} else if _, rest, ok := strings.Cut(line, ",offset="); ok {
				offset, _, _ := strings.Cut(rest, ",")
				offsets = append(offsets, offset)
			}
		}
		return len(offsets) > 1 && len(slices.Compact(offsets)) == 1
	}, Patience, 10*time.Millisecond, "replicas lag behind: %v", offsets)
}

// Calls returns how often clients and scripts have run a command so far.
func (s *Redis) Calls(t testing.TB, command string) int64 {
	t.Helper()
	_, rest, ok := strings.Cut(s.text(t, "INFO", "commandstats"), "cmdstat_"+command+":calls=")
	if !ok {
		return 0
	}
	calls, _, _ := strings.Cut(rest, ",")
	n, err := strconv.ParseInt(calls, 10, 64)
	require.NoError(t, err)
	return n
}

// isDead reports whether the server was killed.
func (s *Redis) isDead() bool {
	select {
	case <-s.exited:
		return true
	default:
		return false
	}
}

// WaitSynced waits until a replica has what its master has.
func (s *Redis) WaitSynced(t testing.TB) {
	t.Helper()
	require.Eventually(t, func() bool { return strings.Contains(s.text(t, "INFO", "replication"), "master_link_status:up") },
		Patience, 20*time.Millisecond, "a replica does not find its master: %s", s.printed)
}
