package e2e

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// securityLine is what only some security lines say.
type securityLine struct {
	logLine
	Sub         string   `json:"sub"`
	Attempts    int      `json:"attempts"`
	NewcomerIPs []string `json:"newcomer_ips"`
}

// securityLogs returns the lines of the security log with that message.
func (c *caddyServer) securityLogs(t testing.TB, msg string) (lines []securityLine) {
	t.Helper()
	for _, line := range c.handlerLogs(t) {
		if line.Logger == securityLogger && line.Msg == msg {
			var s securityLine
			require.NoError(t, json.Unmarshal([]byte(line.raw), &s))
			lines = append(lines, s)
		}
	}
	return lines
}

// from is the address of the client, as a proxy in between tells it.
func from(addr string) requestOption { return withHeader("X-Forwarded-For", addr) }

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
			site := startUserSite(t, test.options)
			url := site.server.URL
			client := newSSEClient(t, http1)
			older, newer := site.token(t), site.token(t)
			requireAdmitted(t, client.open(t, url+"/user-stream?max=9", withQueryToken(older)))
			client.open(t, url+"/user-stream?max=9", withBearer(newer)).next(t)
			client.open(t, url+"/user-stream", withBearer(tampered(t, newer, "mallory"))).wait(t)
			require.Equal(t, 200, logOut(t, url+"/logout", withBearer(newer)))
			client.open(t, url+"/user-stream", withBearer(newer)).wait(t)

			lines := site.server.securityLogs(t, test.msg)
			require.Len(t, lines, 1)
			require.Equal(t, "alice", lines[0].Sub)
			site.server.requireNotTold(t, "", older, newer)
			for _, line := range site.server.handlerLogs(t) {
				require.NotContains(t, line.raw, "mallory")
			}
		})
	}
}

// TestSecurityLog_RepeatedAttemptsAreCounted, not told one by one: the first at
// once, and those that follow in one line, at the latest when the guard goes.
func TestSecurityLog_RepeatedAttemptsAreCounted(t *testing.T) {
	const attempts = 20
	site := startUserSite(t, "policy reject")
	client := newSSEClient(t, http1)
	token := site.token(t)
	requireAdmitted(t, client.open(t, site.server.URL+"/user-stream", withBearer(token)))
	count := func() (counts []int) {
		for _, line := range site.server.securityLogs(t, "newcomer rejected") {
			require.Equal(t, "alice", line.Sub)
			counts = append(counts, line.Attempts)
		}
		return counts
	}
	for range attempts {
		refused := client.open(t, site.server.URL+"/user-stream", withBearer(token))
		requireEnded(t, refused, duplicateSession, "rejected")
		require.Equal(t, []int{1}, count())
	}
	site.server.reload(t, "respond bye")
	require.Eventually(t, func() bool { return len(count()) == 2 }, patience, 10*time.Millisecond, "the zone has closed")
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
			site := startUserSite(t, test.option)
			client := newSSEClient(t, http1)
			for i := range 8 {
				addr := fmt.Sprintf("192.0.2.%d", i+1)
				requireAdmitted(t, client.open(t, site.server.URL+"/user-stream?max=9", withBearer(site.token(t)), from(addr)))
			}
			superseded := site.server.securityLogs(t, "stream superseded")
			require.Len(t, superseded, 7)
			require.Equal(t, "192.0.2.1", superseded[0].HolderIP)
			require.Equal(t, "192.0.2.2", superseded[0].NewcomerIP)
			var told []string
			for _, line := range site.server.securityLogs(t, "shared account?") {
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
	site := startUserSite(t, "shared_account 2 1m")
	client := newSSEClient(t, http1)
	for range 6 {
		requireAdmitted(t, client.open(t, site.server.URL+"/user-stream?max=9", withBearer(site.token(t)), from("192.0.2.1")))
	}
	require.Eventually(t, func() bool { return len(site.server.securityLogs(t, "stream superseded")) == 5 }, patience, 10*time.Millisecond)
	require.Empty(t, site.server.securityLogs(t, "shared account?"))
}
