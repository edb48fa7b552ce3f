package harness

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// CaddyLog is the file that a Caddy writes its log to, as JSON lines.
type CaddyLog struct{ path string }

// newCaddyLog names a file in dir, for a Caddy that is yet to start. The log is
// shown if the test fails.
func newCaddyLog(t testing.TB, dir string) *CaddyLog {
	t.Helper()
	l := &CaddyLog{path: filepath.Join(dir, "caddy.log")}
	t.Cleanup(func() {
		if t.Failed() {
			content, _ := os.ReadFile(l.path)
			t.Logf("Caddy's log:\n%s", content)
		}
	})
	return l
}

// HandlerLogs returns the lines of request handlers and of access logs so far, and
// all others that are no information, except those that every start causes.
func (l *CaddyLog) HandlerLogs(t testing.TB) []LogLine {
	t.Helper()
	content, err := os.ReadFile(l.path)
	require.NoError(t, err)
	var lines []LogLine
	for text := range strings.Lines(string(content)) {
		line := LogLine{Raw: strings.TrimSuffix(text, "\n")}
		require.NoError(t, json.Unmarshal([]byte(text), &line), text)
		ofHandler := strings.HasPrefix(line.Logger, "http.handlers") || strings.HasPrefix(line.Logger, "http.log")
		if ofHandler && line.Msg != "server running" || line.Level != "info" && !startupWarnings[line.Msg] {
			lines = append(lines, line)
		}
	}
	return lines
}

// CountLogs counts the lines of HandlerLogs, of all those logs, that say msg.
func CountLogs(t testing.TB, msg string, logs ...*CaddyLog) (n int) {
	t.Helper()
	for _, log := range logs {
		for _, line := range log.HandlerLogs(t) {
			if line.Msg == msg {
				n++
			}
		}
	}
	return n
}

// WaitLogs waits until there are at least n of the lines of HandlerLogs, and
// returns them.
func (l *CaddyLog) WaitLogs(t testing.TB, n int) []LogLine {
	t.Helper()
	var lines []LogLine
	require.Eventually(t, func() bool {
		lines = l.HandlerLogs(t)
		return len(lines) >= n
	}, Patience, 10*time.Millisecond, "fewer than %d log lines: %v", n, lines)
	return lines
}

// RequireNotTold asserts that neither the log nor the answers, given as one
// text, holds a token or the payload or signature of one.
func (l *CaddyLog) RequireNotTold(t testing.TB, answers string, tokens ...string) {
	t.Helper()
	content, err := os.ReadFile(l.path)
	require.NoError(t, err)
	log := string(content)
	for _, token := range tokens {
		for _, part := range append(strings.Split(token, ".")[1:], token) {
			if len(part) > 8 {
				require.False(t, strings.Contains(log, part), "the log holds %.40s", part)
				require.False(t, strings.Contains(answers, part), "an answer holds %.40s", part)
			}
		}
	}
}

// LogLine is one line of Caddy's log, with the fields that the guard's lines have.
type LogLine struct {
	Level  string `json:"level"`
	Logger string `json:"logger"`
	Msg    string `json:"msg"`

	Zone       string   `json:"zone"`
	Key        string   `json:"key"`
	Reason     string   `json:"reason"`
	Cause      string   `json:"cause"` // why a stream passes untracked
	EventSent  bool     `json:"event_sent"`
	Age        float64  `json:"age"` // in seconds
	Events     int      `json:"events"`
	Bytes      int      `json:"bytes"`
	ClientIP   string   `json:"client_ip"`
	HolderIP   string   `json:"holder_ip"`
	HolderIPs  []string `json:"holder_ips"`
	NewcomerIP string   `json:"newcomer_ip"`

	Raw string `json:"-"` // the line as it was written
}

// Names of the guard's loggers.
const (
	GuardLogger    = "http.handlers.sse_guard"
	SecurityLogger = "http.handlers.sse_guard.security"
)

// startupWarnings are the messages that any configuration of the tests gets.
var startupWarnings = map[string]bool{
	"admin endpoint disabled":                true,
	"HTTP/2 skipped because it requires TLS": true,
	"HTTP/3 skipped because it requires TLS": true,
}
