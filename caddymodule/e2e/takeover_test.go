package e2e

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const duplicated = "DUPLICATED_CONNECTION"

// noticeData is the data of an event that the guard injects.
type noticeData struct {
	Code        string `json:"code"`
	Reason      string `json:"reason"`
	Message     string `json:"message"`
	Time        string `json:"time"`
	LastEventID string `json:"lastEventId"`
}

func noticeOf(t testing.TB, e sseEvent) noticeData {
	t.Helper()
	var data noticeData
	require.NoError(t, json.Unmarshal([]byte(e.Data), &data), e.Data)
	return data
}

// requireEnded waits for the end of a stream that the guard ended: its last
// event is the notice, and its end is clean.
func requireEnded(t testing.TB, s *sseStream, eventType, reason string) sseEvent {
	t.Helper()
	notice := s.nextOfType(t, eventType)
	end := s.wait(t)
	require.NoError(t, end.Err)
	require.False(t, end.Torn)
	require.Empty(t, s.rest(t), "events after the notice")
	require.Equal(t, reason, noticeOf(t, notice).Reason)
	return notice
}

// TestTakeover is problem P1: the older of two streams with one token gets its
// events, then the notice, then a clean end; the backend sees it leave.
func TestTakeover(t *testing.T) {
	for _, protocol := range []protocol{http1, h2c, http2, http3} {
		for _, path := range []string{"/sse", "/raw"} {
			t.Run(string(protocol)+path, func(t *testing.T) {
				app := startFastAPI(t)
				start := startCaddy
				if protocol == http2 || protocol == http3 {
					start = startCaddyTLS
				}
				server := start(t, "sse_guard\nreverse_proxy "+app.URL)
				older := newSSEClient(t, protocol).open(t, server.URL+path, withBearer("alice"))
				require.Equal(t, 200, older.Status)
				first, second := older.next(t), older.next(t)
				assert.Equal(t, "1", first.ID)
				assert.Equal(t, "2", second.ID)

				newer := newSSEClient(t, protocol).open(t, server.URL+path, withBearer("alice"))
				newer.next(t)
				notice := requireEnded(t, older, duplicated, "superseded")
				data := noticeOf(t, notice)
				assert.Equal(t, duplicated, data.Code)
				assert.NotEmpty(t, data.Message)
				_, err := time.Parse(time.RFC3339, data.Time)
				assert.NoError(t, err)
				assert.NotEmpty(t, data.LastEventID)
				assert.Contains(t, notice.ID, "sse-guard")

				stats := app.waitOpen(t, 1)
				ended := stats.Streams[0]
				assert.Equal(t, "client", ended.EndedBy)
				assert.Less(t, *ended.ClosedAt-stats.Streams[1].OpenedAt, 1.0)
				newer.next(t)
				newer.close()
				app.waitOpen(t, 0)

				lines := server.waitLogs(t, 2)
				require.Len(t, lines, 2, "%v", lines)
				for _, line := range lines {
					assert.Equal(t, "default", line.Zone)
					assert.NotEmpty(t, line.Key)
					assert.NotContains(t, line.raw, "alice")
					switch line.Logger {
					case securityLogger:
						assert.Equal(t, "warn", line.Level)
						assert.NotEmpty(t, line.HolderIP)
						assert.NotEmpty(t, line.NewcomerIP)
					default:
						assert.Equal(t, guardLogger, line.Logger)
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
