package nodes

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// rights are those of README that a Redis user needs.
func rights(t *testing.T) []string {
	readme, err := os.ReadFile(filepath.Join(harness.Root(t), "README.md"))
	require.NoError(t, err)
	_, line, found := strings.Cut(string(readme), "ACL SETUSER guard on >secret ")
	require.True(t, found, "README does not say what a Redis user may do")
	line, _, _ = strings.Cut(line, "\n")
	return strings.Fields(line)
}

// requireOneStream has the same token open a stream on one node, then on another.
func requireOneStream(t *testing.T, urls []string) {
	older := open(t, urls[0])
	older.Next(t)
	newer := open(t, urls[1])
	newer.Next(t)
	harness.RequireEnded(t, older, harness.Duplicated, "superseded")
	newer.Next(t)
}

func TestNodes_ByTLSWithAUserOfFewRights(t *testing.T) {
	app, redis := harness.StartFastAPI(t), harness.StartSecureRedis(t, rights(t)...)
	t.Setenv("SSE_GUARD_TEST_USERNAME", redis.Username)
	t.Setenv("SSE_GUARD_TEST_PASSWORD", redis.Password)
	_, port, _ := strings.Cut(redis.Addr, ":")
	_, urls, logs := nodesBy(t, 2, app, fmt.Sprintf(`address rediss://localhost:%s
		username {env.SSE_GUARD_TEST_USERNAME}
		password {env.SSE_GUARD_TEST_PASSWORD}
		tls {
			ca %s
		}`, port, redis.CA), "")
	requireOneStream(t, urls)
	for _, log := range logs {
		requireNoError(t, log)
	}
}

func TestNodes_OnACluster(t *testing.T) {
	app, redis := harness.StartFastAPI(t), harness.StartRedisCluster(t, 3, 0, time.Minute)
	_, urls, logs := nodesBy(t, 2, app, "address "+strings.Join(redis.Addrs(), " "), "")
	requireOneStream(t, urls)
	for _, log := range logs {
		requireNoError(t, log)
	}
}

func TestNodes_WithSentinel(t *testing.T) {
	app, redis := harness.StartFastAPI(t), harness.StartRedisSentinel(t, 2*time.Second)
	_, urls, _ := nodesBy(t, 2, app, "address "+strings.Join(redis.Addrs(), " ")+"\nsentinel "+harness.SentinelMaster+"\non_error deny", "")
	requireOneStream(t, urls)
	lives := open(t, urls[0], harness.WithBearer("bob"))
	lives.Next(t)
	redis.Master.Kill()
	redis.WaitMaster(t, redis.Replica)
	var newer *harness.Stream
	require.Eventually(t, func() bool {
		newer = open(t, urls[1], harness.WithBearer("bob"))
		_, admitted := <-newer.Events() // who is refused is cut off
		return admitted
	}, harness.Patience, 50*time.Millisecond, "newcomers are refused after the failover")
	harness.RequireEnded(t, lives, harness.Duplicated, "superseded")
}

// TestRedis_WhosePasswordIsReplaced has an operator do so, whose configuration reads as
// before: the password is in a file.
func TestRedis_WhosePasswordIsReplaced(t *testing.T) {
	app, redis := harness.StartFastAPI(t), harness.StartRedis(t)
	redis.Do(t, "ACL", "SETUSER", "guard", "on", ">old", "~*", "&*", "+@all")
	file := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(file, []byte("old"), 0o600))
	site := fmt.Sprintf(`sse_guard {
		zone many
		key {sse_guard.token}
		registry redis {
			address %s
			username guard
			password {file.%s}
			on_error deny
		}
	}
	reverse_proxy %s`, redis.Addr, file, app.URL)
	caddy := harness.StartAdminCaddy(t, site)
	older := open(t, caddy.URL)
	older.Next(t)

	redis.Do(t, "ACL", "SETUSER", "guard", ">new")
	require.NoError(t, os.WriteFile(file, []byte("new"), 0o600))
	caddy.Reload(t, site+"\nheader X-Reloaded yes") // Caddy leaves alone what reads as before, but for --force
	require.Eventually(t, func() bool {
		return slices.ContainsFunc(caddy.HandlerLogs(t), func(line harness.LogLine) bool { return strings.HasPrefix(line.Msg, "connected to redis anew") })
	}, harness.Patience, 20*time.Millisecond)
	redis.Do(t, "ACL", "SETUSER", "guard", "<old")
	redis.Do(t, "CLIENT", "KILL", "USER", "guard")

	older.Next(t)
	var newer *harness.Stream
	require.Eventually(t, func() bool {
		newer = open(t, caddy.URL)
		_, admitted := <-newer.Events() // who is refused is cut off
		return admitted
	}, harness.Patience, 50*time.Millisecond, "the node cannot get in")
	harness.RequireEnded(t, older, harness.Duplicated, "superseded")
}

func requireNoError(t *testing.T, log *harness.CaddyLog) {
	for _, line := range log.HandlerLogs(t) {
		require.NotEqual(t, "error", line.Level, "%v", line)
	}
}

// TestRedis_ThatRefusesTheNode has a configuration that only Redis can find wrong.
func TestRedis_ThatRefusesTheNode(t *testing.T) {
	app, redis := harness.StartFastAPI(t), harness.StartSecureRedis(t, rights(t)...)
	_, port, _ := strings.Cut(redis.Addr, ":")
	other := harness.WriteCertificate(t, t.TempDir())
	for name, c := range map[string]struct{ address, user, password, ca, want string }{
		"password":   {"rediss://localhost:" + port, redis.Username, "wrong-" + redis.Password, redis.CA, "WRONGPASS"},
		"authority":  {"rediss://localhost:" + port, redis.Username, redis.Password, other, "certificate signed by unknown authority"},
		"name":       {"rediss://127.0.0.1:" + port, redis.Username, redis.Password, redis.CA, "127.0.0.1"},
		"encryption": {"localhost:" + port, redis.Username, redis.Password, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("SSE_GUARD_TEST_PASSWORD", c.password)
			lines := "address " + c.address + "\nusername " + c.user + "\npassword {env.SSE_GUARD_TEST_PASSWORD}\n"
			if c.ca != "" {
				lines += "tls {\nca " + filepath.ToSlash(c.ca) + "\n}\n"
			}
			for _, onError := range []string{"allow", "deny"} {
				_, urls, logs := nodesBy(t, 1, app, lines+"on_error "+onError, "")
				s := open(t, urls[0])
				if onError == "allow" {
					s.Next(t)
				} else {
					harness.RequireCut(t, s)
				}
				var told []string
				for _, line := range logs[0].HandlerLogs(t) {
					if strings.HasPrefix(line.Msg, "redis cannot be reached") {
						require.Equal(t, "error", line.Level)
						told = append(told, line.Raw)
					}
				}
				require.Len(t, told, 1, "it is told once a minute")
				require.Contains(t, told[0], c.want)
				logs[0].RequireNotTold(t, "", c.password)
				s.Close()
			}
		})
	}
}
