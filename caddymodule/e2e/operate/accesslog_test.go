package operate

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// accessLine is what log_append adds to a line of the access log.
type accessLine struct {
	Status                int
	Stream, State, Reason string
}

// TestAccessLog_TellsWhatBecameOfAStream by placeholders that log_append takes.
func TestAccessLog_TellsWhatBecameOfAStream(t *testing.T) {
	access := filepath.Join(t.TempDir(), "access.log")
	server := harness.StartCaddy(t, "log {\noutput file "+access+" {\nroll_disabled\n}\n}\n"+
		"log_append stream {sse_guard.stream}\nlog_append state {sse_guard.state}\nlog_append reason {sse_guard.reason}\n"+
		"sse_guard {\nrequire_token\n}\nrespond /page hello\nreverse_proxy "+startTicking(t))
	client := harness.NewClient(t, harness.HTTP1)
	older := client.Open(t, server.URL+"/a", harness.WithBearer("ann"))
	older.Next(t)
	newer := client.Open(t, server.URL+"/a", harness.WithBearer("ann"))
	newer.Next(t)
	harness.RequireEnded(t, older, harness.Duplicated, "superseded")
	newer.Close()
	client.Open(t, server.URL+"/a?short", harness.WithBearer("bob")).Wait(t)
	harness.Get(t, server.URL+"/a", harness.WithHeader("Accept", "text/event-stream"))
	harness.Get(t, server.URL+"/page")

	var lines []accessLine
	require.Eventually(t, func() bool {
		content, err := os.ReadFile(access)
		if !assert.NoError(t, err) {
			return false
		}
		lines = nil
		for line := range strings.Lines(string(content)) {
			var l accessLine
			if json.Unmarshal([]byte(line), &l) != nil {
				return false // it is being written
			}
			assert.Equal(t, l.State == "live", len(l.Stream) == 32, line)
			l.Stream = ""
			lines = append(lines, l)
		}
		return len(lines) == 5
	}, harness.Patience, 10*time.Millisecond)
	require.ElementsMatch(t, []accessLine{
		{Status: 200, State: "live", Reason: "superseded"},
		{Status: 200, State: "live", Reason: "left"},
		{Status: 200, State: "live", Reason: "finished"},
		{Status: 401, State: "refused", Reason: "unauthorized"},
		{Status: 200},
	}, lines)
}

// TestTracing_TheSpanTellsWhatBecameOfAStream has Caddy's own tracing print spans.
func TestTracing_TheSpanTellsWhatBecameOfAStream(t *testing.T) {
	t.Setenv("OTEL_TRACES_EXPORTER", "console")
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
	url := fmt.Sprintf("http://localhost:%d", harness.FreePort(t))
	p, _ := harness.StartCaddySites(t, url+"/page", "", url+" {\ntracing {\nspan events\n}\nsse_guard\nrespond /page hello\nreverse_proxy "+startTicking(t)+"\n}")
	client := harness.NewClient(t, harness.HTTP1)
	client.Open(t, url+"/a?short", harness.WithBearer("s3cr3t")).Wait(t)
	require.Eventually(t, func() bool {
		printed := p.String()
		return strings.Contains(printed, `"sse_guard.reason"`) && strings.Contains(printed, `"finished"`) && strings.Contains(printed, `"sse_guard.zone"`)
	}, harness.Patience, 10*time.Millisecond, "%s", p)
	require.NotContains(t, p.String(), "s3cr3t")
}
