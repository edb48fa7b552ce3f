package e2e

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestClientLeft_BeforeTheHeader is a 499, and no failure of the upstream: with
// passive health checks one strike would take it out for a minute.
func TestClientLeft_BeforeTheHeader(t *testing.T) {
	app := startFastAPI(t)
	access := filepath.Join(t.TempDir(), "access.log")
	server := startCaddy(t, `log {
			output file `+access+` {
				roll_disabled
			}
		}
		sse_guard
		reverse_proxy `+app.URL+` {
			fail_duration 1m
			max_fails 1
		}`)
	client := newSSEClient(t, http1)
	for range 5 {
		request, err := startRequest(t, client, server.URL+"/slow-header?delay=30", "alice")
		app.waitStats(t, func(appStats) bool {
			requests := app.requests(t)
			return len(requests) > 0 && requests[len(requests)-1].Path == "/slow-header"
		})
		request()
		require.Error(t, <-err)
		app.reset(t)
	}
	client.open(t, server.URL+"/raw", withBearer("alice")).next(t)
	require.Eventually(t, func() bool {
		content, err := os.ReadFile(access)
		return err == nil && strings.Count(string(content), `"status":499`) == 5
	}, patience, 10*time.Millisecond)
	for _, line := range server.handlerLogs(t) {
		assert.Equal(t, "http.log.access.log0", line.Logger, line.raw)
	}
}

// startRequest sends a request that is not answered, and returns what cancels it.
func startRequest(t testing.TB, client *sseClient, url, token string) (leave func(), failed <-chan error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	errs := make(chan error, 1)
	go func() {
		s, err := client.connect(ctx, url, "", withBearer(token))
		if err == nil {
			s.close()
		}
		errs <- err
	}()
	return cancel, errs
}

// TestClientLeft_InMidStream leaves no line in the log, and the backend sees it.
func TestClientLeft_InMidStream(t *testing.T) {
	for _, protocol := range []protocol{http1, http2, http3} {
		t.Run(string(protocol), func(t *testing.T) {
			app := startFastAPI(t)
			server := startCaddyTLS(t, "sse_guard\nreverse_proxy "+app.URL)
			for _, path := range []string{"/sse", "/raw?interval=0.001", "/raw?interval=60"} {
				s := newSSEClient(t, protocol).open(t, server.URL+path, withBearer("alice"))
				s.next(t)
				left := time.Now()
				s.close()
				stats := app.waitOpen(t, 0)
				closed := *stats.Streams[len(stats.Streams)-1].ClosedAt
				assert.Less(t, closed-float64(left.UnixMilli())/1000, 1.0)
			}
			server.reload(t, "respond bye") // whatever was to be logged is
			assert.Empty(t, server.handlerLogs(t))
		})
	}
}

// TestOpensAndCloses leave nothing behind.
func TestOpensAndCloses(t *testing.T) {
	app := startFastAPI(t)
	server := startCaddy(t, "sse_guard\nreverse_proxy "+app.URL)
	client := newSSEClient(t, http1)
	open := func() {
		s := client.open(t, server.URL+"/raw?count=2&interval=0.001", withBearer("alice"))
		s.next(t)
		s.close()
	}
	open()
	app.waitOpen(t, 0)
	before := runtime.NumGoroutine()
	for range 200 {
		open()
	}
	app.waitOpen(t, 0)
	require.Eventually(t, func() bool { return runtime.NumGoroutine() <= before+5 }, patience, 20*time.Millisecond,
		"%d goroutines before", before)
}

// TestLog_HoldsNoToken: not in the guard's lines, whatever happens.
func TestLog_HoldsNoToken(t *testing.T) {
	const token = "s3cr3t-t0ken"
	app := startFastAPI(t)
	server := startCaddy(t, `
		@reject path /sse
		sse_guard @reject {
			policy reject
		}
		@supersede path /raw
		sse_guard @supersede
		reverse_proxy `+app.URL)
	client := newSSEClient(t, http1)
	for _, path := range []string{"/sse", "/raw"} {
		one := client.open(t, server.URL+path, withBearer(token), withHeader("X-Client-Id", "cl13nt"))
		one.next(t)
		two := client.open(t, server.URL+path, withHeader("Cookie", "access_token="+token))
		two.next(t)
		raw := string(one.bytes()) + string(two.bytes())
		for line := range strings.Lines(raw) {
			if strings.HasPrefix(line, "data: {\"code\"") {
				assert.NotContains(t, line, token)
			}
		}
	}
	lines := server.waitLogs(t, 3)
	for _, line := range lines {
		assert.NotContains(t, line.raw, token)
		assert.NotContains(t, line.raw, "cl13nt")
		assert.True(t, json.Valid([]byte(line.raw)))
	}
}
