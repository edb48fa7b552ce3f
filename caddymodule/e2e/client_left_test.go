package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// TestClientLeft_BeforeTheHeader is a 499, and no failure of the upstream: with
// passive health checks one strike would take it out for a minute.
func TestClientLeft_BeforeTheHeader(t *testing.T) {
	app := harness.StartFastAPI(t)
	access := filepath.Join(t.TempDir(), "access.log")
	server := harness.StartCaddy(t, `log {
			output file `+access+` {
				roll_disabled
			}
		}
		sse_guard
		reverse_proxy `+app.URL+` {
			fail_duration 1m
			max_fails 1
		}`)
	client := harness.NewClient(t, harness.HTTP1)
	for range 5 {
		request, err := client.StartRequest(t, server.URL+"/slow-header?delay=30", harness.WithBearer("alice"))
		app.WaitStats(t, func(harness.AppStats) bool {
			requests := app.Requests(t)
			return len(requests) > 0 && requests[len(requests)-1].Path == "/slow-header"
		})
		request()
		require.Error(t, <-err)
		app.Reset(t)
	}
	client.Open(t, server.URL+"/raw", harness.WithBearer("alice")).Next(t)
	require.Eventually(t, func() bool {
		content, err := os.ReadFile(access)
		return err == nil && strings.Count(string(content), `"status":499`) == 5
	}, harness.Patience, 10*time.Millisecond)
	for _, line := range server.HandlerLogs(t) {
		assert.Equal(t, "http.log.access.log0", line.Logger, line.Raw)
	}
}

// TestClientLeft_InMidStream leaves no line in the log, and the backend sees it.
func TestClientLeft_InMidStream(t *testing.T) {
	for _, protocol := range []harness.Protocol{harness.HTTP1, harness.HTTP2, harness.HTTP3} {
		t.Run(string(protocol), func(t *testing.T) {
			app := harness.StartFastAPI(t)
			server := harness.StartCaddyTLS(t, "sse_guard\nreverse_proxy "+app.URL)
			for _, path := range []string{"/sse", "/raw?interval=0.001", "/raw?interval=60"} {
				s := harness.NewClient(t, protocol).Open(t, server.URL+path, harness.WithBearer("alice"))
				s.Next(t)
				left := time.Now()
				s.Close()
				stats := app.WaitOpen(t, 0)
				closed := *stats.Streams[len(stats.Streams)-1].ClosedAt
				assert.Less(t, closed-float64(left.UnixMilli())/1000, 1.0)
			}
			server.Reload(t, "respond bye") // whatever was to be logged is
			assert.Empty(t, server.HandlerLogs(t))
		})
	}
}

// TestOpensAndCloses leave nothing behind.
func TestOpensAndCloses(t *testing.T) {
	app := harness.StartFastAPI(t)
	server := harness.StartCaddy(t, "sse_guard\nreverse_proxy "+app.URL)
	client := harness.NewClient(t, harness.HTTP1)
	open := func() {
		s := client.Open(t, server.URL+"/raw?count=2&interval=0.001", harness.WithBearer("alice"))
		s.Next(t)
		s.Close()
	}
	open()
	app.WaitOpen(t, 0)
	before := runtime.NumGoroutine()
	for range 200 {
		open()
	}
	app.WaitOpen(t, 0)
	require.Eventually(t, func() bool { return runtime.NumGoroutine() <= before+5 }, harness.Patience, 20*time.Millisecond,
		"%d goroutines before", before)
}

// TestLog_HoldsNoToken: not in the guard's lines, whatever happens.
func TestLog_HoldsNoToken(t *testing.T) {
	const token = "s3cr3t-t0ken"
	app := harness.StartFastAPI(t)
	server := harness.StartCaddy(t, `
		@reject path /sse
		sse_guard @reject {
			policy reject
		}
		@supersede path /raw
		sse_guard @supersede
		reverse_proxy `+app.URL)
	client := harness.NewClient(t, harness.HTTP1)
	for _, path := range []string{"/sse", "/raw"} {
		one := client.Open(t, server.URL+path, harness.WithBearer(token), harness.WithHeader("X-Client-Id", "cl13nt"))
		one.Next(t)
		two := client.Open(t, server.URL+path, harness.WithHeader("Cookie", "access_token="+token))
		two.Next(t)
		raw := string(one.Bytes()) + string(two.Bytes())
		for line := range strings.Lines(raw) {
			if strings.HasPrefix(line, "data: {\"code\"") {
				assert.NotContains(t, line, token)
			}
		}
	}
	lines := server.WaitLogs(t, 3)
	for _, line := range lines {
		assert.NotContains(t, line.Raw, token)
		assert.NotContains(t, line.Raw, "cl13nt")
		assert.True(t, json.Valid([]byte(line.Raw)))
	}
}
