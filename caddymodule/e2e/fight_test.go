package e2e

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// TestFight is problem P2 with pages that know nothing of tombstones: two of them
// come to rest, and when the one that has the stream is closed, the other gets it.
func TestFight(t *testing.T) {
	app := harness.StartFastAPI(t)
	server := harness.StartCaddy(t, "sse_guard\nreverse_proxy "+app.URL)
	browser := harness.StartBrowser(t)
	pages := []*harness.Tab{browser.NewTab(t, server.URL+"/login"), browser.NewTab(t, server.URL+"/login")}
	for _, p := range pages {
		p.Eval(t, harness.Fighting)
	}
	takeovers := func() int { return harness.CountLogs(t, "stream superseded", server.CaddyLog) }
	parked := func() bool {
		return harness.CountLogs(t, "newcomer parked: it takes the key back again and again", server.CaddyLog) > 0
	}
	require.Eventually(t, parked, harness.Patience, 50*time.Millisecond, "they fight on")
	fought := takeovers()
	require.LessOrEqual(t, fought, 7) // 6, and one more where the machine is late
	harness.Rest(t, 4*time.Second)
	require.Equal(t, fought, takeovers(), "they are at rest")
	app.WaitOpen(t, 1)

	holder, waiting := harness.WhoHears(t, pages[0], pages[1])
	closed := time.Now()
	holder.Close()
	require.Eventually(t, func() bool { return harness.Hears(t, waiting) }, harness.Patience, 20*time.Millisecond)
	require.Less(t, time.Since(closed), 4*time.Second, "the page itself waits for a second")
	t.Logf("%d takeovers; the waiting page had the stream after %s", fought, time.Since(closed))
}
