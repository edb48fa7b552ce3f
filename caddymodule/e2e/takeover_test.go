package e2e

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// TestTakeover is problem P1: the older of two streams with one token gets its
// events, then the notice, then a clean end; the backend sees it leave.
func TestTakeover(t *testing.T) {
	for _, protocol := range []harness.Protocol{harness.HTTP1, harness.H2C, harness.HTTP2, harness.HTTP3} {
		for _, path := range []string{"/sse", "/raw"} {
			t.Run(string(protocol)+path, func(t *testing.T) {
				app := harness.StartFastAPI(t)
				start := harness.StartCaddy
				if protocol == harness.HTTP2 || protocol == harness.HTTP3 {
					start = harness.StartCaddyTLS
				}
				server := start(t, "sse_guard\nreverse_proxy "+app.URL)
				older := harness.NewClient(t, protocol).Open(t, server.URL+path, harness.WithBearer("alice"))
				require.Equal(t, 200, older.Status)
				first, second := older.Next(t), older.Next(t)
				assert.Equal(t, "1", first.ID)
				assert.Equal(t, "2", second.ID)

				newer := harness.NewClient(t, protocol).Open(t, server.URL+path, harness.WithBearer("alice"))
				newer.Next(t)
				notice := harness.RequireEnded(t, older, harness.Duplicated, "superseded")
				data := harness.NoticeOf(t, notice)
				assert.Equal(t, harness.Duplicated, data.Code)
				assert.NotEmpty(t, data.Message)
				_, err := time.Parse(time.RFC3339, data.Time)
				assert.NoError(t, err)
				assert.NotEmpty(t, data.LastEventID)
				assert.Contains(t, notice.ID, "sse-guard")

				stats := app.WaitOpen(t, 1)
				ended := stats.Streams[0]
				assert.Equal(t, "client", ended.EndedBy)
				assert.Less(t, *ended.ClosedAt-stats.Streams[1].OpenedAt, 1.0)
				newer.Next(t)
				newer.Close()
				app.WaitOpen(t, 0)

				lines := server.WaitLogs(t, 2)
				require.Len(t, lines, 2, "%v", lines)
				for _, line := range lines {
					assert.Equal(t, "default", line.Zone)
					assert.NotEmpty(t, line.Key)
					assert.NotContains(t, line.Raw, "alice")
					switch line.Logger {
					case harness.SecurityLogger:
						assert.Equal(t, "warn", line.Level)
						assert.NotEmpty(t, line.HolderIP)
						assert.NotEmpty(t, line.NewcomerIP)
					default:
						assert.Equal(t, harness.GuardLogger, line.Logger)
						assert.Equal(t, "info", line.Level)
						assert.Equal(t, "superseded", line.Reason)
						assert.True(t, line.EventSent)
						assert.GreaterOrEqual(t, line.Events, 2)
						assert.Positive(t, line.Bytes)
						assert.NotEmpty(t, line.ClientIP)
						assert.Positive(t, line.Age)
					}
				}
			})
		}
	}
}
