package e2e

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// TestMaxAge_RotatesAStreamWithoutALoss: the client comes back with the last id
// that it saw, and the application goes on from there.
func TestMaxAge_RotatesAStreamWithoutALoss(t *testing.T) {
	app := harness.StartFastAPI(t)
	server := harness.StartCaddy(t, "sse_guard {\nmax_age 1s\n}\nreverse_proxy "+app.URL)
	client := harness.NewClient(t, harness.HTTP1)
	last := 0
	for range 2 {
		var options []harness.RequestOption
		if last > 0 {
			options = append(options, harness.WithHeader("Last-Event-ID", strconv.Itoa(last)))
		}
		s := client.Open(t, server.URL+"/raw?interval=0.005", append(options, harness.WithBearer("alice"))...)
		require.LessOrEqual(t, harness.RequireCut(t, s), 2*time.Second)
		for _, e := range s.Rest(t) {
			id, err := strconv.Atoi(e.ID)
			require.NoError(t, err, "no event of the guard's")
			require.Equal(t, last+1, id)
			last = id
		}
	}
	require.Greater(t, last, 50)
	app.WaitOpen(t, 0)
	require.Empty(t, server.HandlerLogs(t))
}

// TestHeartbeat_ShowsOnlyOnIdleStreams, over each protocol. A stream on which the machine
// let nothing come for as long as half a heartbeat was not busy: it does not count.
func TestHeartbeat_ShowsOnlyOnIdleStreams(t *testing.T) {
	for _, protocol := range []harness.Protocol{harness.HTTP1, harness.HTTP2, harness.HTTP3} {
		t.Run(string(protocol), func(t *testing.T) {
			app := harness.StartFastAPI(t)
			start := harness.StartCaddyTLS
			if protocol == harness.HTTP1 {
				start = harness.StartCaddy
			}
			server := start(t, "sse_guard {\nheartbeat 1s\ndead_after 2s\n}\nreverse_proxy "+app.URL)
			client := harness.NewClient(t, protocol)
			idle := client.Open(t, server.URL+"/emitter", harness.WithBearer("idle"))
			for counts, tries := false, 1; !counts; tries++ {
				require.LessOrEqual(t, tries, 10, "no stream was busy")
				busy := client.Open(t, server.URL+"/raw?interval=0.1", harness.WithBearer("busy"))
				counts = true
				for range 40 { // four seconds: twice dead_after
					asked := time.Now()
					busy.Next(t)
					counts = counts && time.Since(asked) < time.Second/2
				}
				if counts {
					require.NotContains(t, string(busy.Bytes()), ":\n")
				}
			}
			require.True(t, app.Emit(t, "idle", "still there"))
			require.Equal(t, "still there", harness.DataOf(t, idle.Next(t)).Data)
			require.GreaterOrEqual(t, strings.Count(string(idle.Bytes()), ":\n"), 2)
		})
	}
}
