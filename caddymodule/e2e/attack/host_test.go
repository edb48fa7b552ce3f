package attack

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// TestAttack_SecondStreamUnderAnotherHost: caddy sse-proxy answers to any host, and the
// backend does not care.
func TestAttack_SecondStreamUnderAnotherHost(t *testing.T) {
	backend := startBackend(t)
	_, url := harness.StartSSEProxy(t, "--to", strings.TrimPrefix(backend.URL, "http://"))
	client := harness.NewClient(t, harness.HTTP1)
	older := client.Open(t, url+"/events", harness.WithBearer("alice"))
	older.Next(t)
	for _, host := range []string{"a.example", "127.0.0.1", "b.example:99"} {
		newer := client.Open(t, url+"/events", harness.WithBearer("alice"), func(r *http.Request) { r.Host = host })
		newer.Next(t)
		harness.RequireEnded(t, older, harness.Duplicated, "superseded")
		older = newer
	}
	client.Open(t, url+"/other", harness.WithBearer("alice")).Next(t)
	require.False(t, older.Ended(), "another path is another key")
}

// TestAttack_SecondStreamWithoutAPath: GET http://host HTTP/1.1 asks for the path /,
// though it has none. What lacks a part of its key would pass untracked.
func TestAttack_SecondStreamWithoutAPath(t *testing.T) {
	for name, path := range map[string]string{"as it is": "{path}", "as it was": "{http.request.orig_uri.path}"} {
		t.Run(name, func(t *testing.T) {
			backend := startBackend(t)
			server := harness.StartCaddy(t, backend.behind("key {sse_guard.token} "+path))
			older := harness.NewClient(t, harness.HTTP1).Open(t, server.URL+"/", harness.WithBearer("alice"))
			older.Next(t)
			conn, err := net.Dial("tcp", strings.TrimPrefix(server.URL, "http://"))
			require.NoError(t, err)
			require.NoError(t, conn.SetDeadline(time.Now().Add(harness.Patience)))
			_, err = io.WriteString(conn, "GET "+server.URL+" HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer alice\r\n\r\n")
			require.NoError(t, err)
			answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
			require.NoError(t, err)
			defer answer.Body.Close()
			defer conn.Close() // before the body, which is closed at its end
			require.Equal(t, http.StatusOK, answer.StatusCode)
			harness.RequireEnded(t, older, harness.Duplicated, "superseded")
			backend.requireOpen(t, 1)
		})
	}
}
