package e2e

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// securityLine is what only some security lines say.
type securityLine struct {
	harness.LogLine
	Sub         string   `json:"sub"`
	Attempts    int      `json:"attempts"`
	NewcomerIPs []string `json:"newcomer_ips"`
}

// securityLogs returns the lines of the security log with that message.
func securityLogs(t testing.TB, server *harness.Caddy, msg string) (lines []securityLine) {
	t.Helper()
	for _, line := range server.HandlerLogs(t) {
		if line.Logger == harness.SecurityLogger && line.Msg == msg {
			var s securityLine
			require.NoError(t, json.Unmarshal([]byte(line.Raw), &s))
			lines = append(lines, s)
		}
	}
	return lines
}

// from is the address of the client, as a proxy in between tells it.
func from(addr string) harness.RequestOption { return harness.WithHeader("X-Forwarded-For", addr) }

// TestSecurityLog_NamesTheUser and never shows a token, whatever happened.
func TestSecurityLog_NamesTheUser(t *testing.T) {
	for name, test := range map[string]struct {
		msg     string
		options string
	}{
		"superseded":       {"stream superseded", "logout POST /logout user"},
		"superseded early": {"stream superseded", "takeover request\nlogout POST /logout user"},
		"rejected":         {"newcomer rejected", "policy reject\nlogout POST /logout user"},
	} {
		t.Run(name, func(t *testing.T) {
			site := harness.StartUserSite(t, test.options)
			url := site.Server.URL
			client := harness.NewClient(t, harness.HTTP1)
			older, newer := site.Token(t), site.Token(t)
			harness.RequireAdmitted(t, client.Open(t, url+"/user-stream?max=9", harness.WithQueryToken(older)))
			client.Open(t, url+"/user-stream?max=9", harness.WithBearer(newer)).Next(t)
			client.Open(t, url+"/user-stream", harness.WithBearer(harness.Tampered(t, newer, "mallory"))).Wait(t)
			require.Equal(t, 200, harness.LogOut(t, url+"/logout", harness.WithBearer(newer)))
			client.Open(t, url+"/user-stream", harness.WithBearer(newer)).Wait(t)

			lines := securityLogs(t, site.Server, test.msg)
			require.Len(t, lines, 1)
			require.Equal(t, "alice", lines[0].Sub)
			site.Server.RequireNotTold(t, "", older, newer)
			for _, line := range site.Server.HandlerLogs(t) {
				require.NotContains(t, line.Raw, "mallory")
			}
		})
	}
}

// TestSecurityLog_RepeatedAttemptsAreCounted, not told one by one: the first at
// once, and those that follow in one line, at the latest when the guard goes.
func TestSecurityLog_RepeatedAttemptsAreCounted(t *testing.T) {
	const attempts = 20
	site := harness.StartUserSite(t, "policy reject")
	client := harness.NewClient(t, harness.HTTP1)
	token := site.Token(t)
	harness.RequireAdmitted(t, client.Open(t, site.Server.URL+"/user-stream", harness.WithBearer(token)))
	count := func() (counts []int) {
		for _, line := range securityLogs(t, site.Server, "newcomer rejected") {
			require.Equal(t, "alice", line.Sub)
			counts = append(counts, line.Attempts)
		}
		return counts
	}
	for range attempts {
		refused := client.Open(t, site.Server.URL+"/user-stream", harness.WithBearer(token))
		harness.RequireRejected(t, refused)
		require.Equal(t, []int{1}, count())
	}
	site.Server.Reload(t, "respond bye")
	require.Eventually(t, func() bool { return len(count()) == 2 }, harness.Patience, 10*time.Millisecond, "the zone has closed")
	require.Equal(t, []int{1, attempts - 1}, count())
}

// TestSecurityLog_ASharedAccount is told once, when a key went to so many
// addresses.
func TestSecurityLog_ASharedAccount(t *testing.T) {
	for name, test := range map[string]struct {
		option string
		told   []string
	}{
		"three in a minute": {"shared_account 3 1m", []string{"192.0.2.2", "192.0.2.3", "192.0.2.4"}},
		"off":               {"shared_account off", nil},
		"the default":       {"", []string{"192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5", "192.0.2.6"}},
	} {
		t.Run(name, func(t *testing.T) {
			site := harness.StartUserSite(t, test.option)
			client := harness.NewClient(t, harness.HTTP1)
			for i := range 8 {
				addr := fmt.Sprintf("192.0.2.%d", i+1)
				harness.RequireAdmitted(t, client.Open(t, site.Server.URL+"/user-stream?max=9", harness.WithBearer(site.Token(t)), from(addr)))
			}
			superseded := securityLogs(t, site.Server, "stream superseded")
			require.Len(t, superseded, 7)
			require.Equal(t, "192.0.2.1", superseded[0].HolderIP)
			require.Equal(t, "192.0.2.2", superseded[0].NewcomerIP)
			var told []string
			for _, line := range securityLogs(t, site.Server, "shared account?") {
				require.Equal(t, "alice", line.Sub)
				require.Equal(t, "warn", line.Level)
				told = append(told, line.NewcomerIPs...)
			}
			require.Equal(t, test.told, told)
		})
	}
}

// TestSecurityLog_OneAddressIsNoSharedAccount however often it takes over.
func TestSecurityLog_OneAddressIsNoSharedAccount(t *testing.T) {
	site := harness.StartUserSite(t, "shared_account 2 1m")
	client := harness.NewClient(t, harness.HTTP1)
	for range 6 {
		harness.RequireAdmitted(t, client.Open(t, site.Server.URL+"/user-stream?max=9", harness.WithBearer(site.Token(t)), from("192.0.2.1")))
	}
	require.Eventually(t, func() bool { return len(securityLogs(t, site.Server, "stream superseded")) == 5 }, harness.Patience, 10*time.Millisecond)
	require.Empty(t, securityLogs(t, site.Server, "shared account?"))
}
