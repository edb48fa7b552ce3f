package e2e

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestMaxAge_RotatesAStreamWithoutALoss: the client comes back with the last id
// that it saw, and the application goes on from there.
func TestMaxAge_RotatesAStreamWithoutALoss(t *testing.T) {
	app := startFastAPI(t)
	server := startCaddy(t, "sse_guard {\nmax_age 1s\n}\nreverse_proxy "+app.URL)
	client := newSSEClient(t, http1)
	last := 0
	for range 2 {
		var options []requestOption
		if last > 0 {
			options = append(options, withHeader("Last-Event-ID", strconv.Itoa(last)))
		}
		s := client.open(t, server.URL+"/raw?interval=0.005", append(options, withBearer("alice"))...)
		end := s.wait(t)
		require.NoError(t, end.Err)
		require.False(t, end.Torn, "ended between two events")
		require.NotNil(t, s.retry())
		require.LessOrEqual(t, *s.retry(), 2*time.Second)
		for _, e := range s.rest(t) {
			id, err := strconv.Atoi(e.ID)
			require.NoError(t, err, "no event of the guard's")
			require.Equal(t, last+1, id)
			last = id
		}
	}
	require.Greater(t, last, 50)
	app.waitOpen(t, 0)
	require.Empty(t, server.handlerLogs(t))
}

// TestHeartbeat_ShowsOnlyOnIdleStreams, over each protocol.
func TestHeartbeat_ShowsOnlyOnIdleStreams(t *testing.T) {
	for _, protocol := range []protocol{http1, http2, http3} {
		t.Run(string(protocol), func(t *testing.T) {
			app := startFastAPI(t)
			start := startCaddyTLS
			if protocol == http1 {
				start = startCaddy
			}
			server := start(t, "sse_guard {\nheartbeat 300ms\ndead_after 1s\n}\nreverse_proxy "+app.URL)
			client := newSSEClient(t, protocol)
			idle := client.open(t, server.URL+"/emitter", withBearer("idle"))
			busy := client.open(t, server.URL+"/raw?interval=0.05", withBearer("busy"))
			for range 40 { // two seconds: twice dead_after
				busy.next(t)
			}
			require.True(t, app.emit(t, "idle", "still there"))
			require.Equal(t, "still there", dataOf(t, idle.next(t)).Data)
			require.GreaterOrEqual(t, strings.Count(string(idle.bytes()), ":\n\n"), 4)
			require.NotContains(t, string(busy.bytes()), ":\n\n")
		})
	}
}
