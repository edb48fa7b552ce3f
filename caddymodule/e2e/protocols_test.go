package e2e

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// TestTakeover_AcrossProtocols: a key is held whatever the client speaks.
func TestTakeover_AcrossProtocols(t *testing.T) {
	app := harness.StartFastAPI(t)
	server := harness.StartCaddyTLS(t, "sse_guard\nreverse_proxy "+app.URL)
	var older *harness.Stream
	for _, protocol := range []harness.Protocol{harness.HTTP1, harness.HTTP2, harness.HTTP3, harness.HTTP1} {
		newer := harness.NewClient(t, protocol).Open(t, server.URL+"/raw", harness.WithBearer("alice"))
		newer.Next(t)
		if older != nil {
			harness.RequireEnded(t, older, harness.Duplicated, "superseded")
		}
		older = newer
	}
	app.WaitOpen(t, 1)
}

// TestEnd_LeavesTheOtherStreamsOfAConnection alone: on HTTP/2 and HTTP/3 one
// connection has many.
func TestEnd_LeavesTheOtherStreamsOfAConnection(t *testing.T) {
	for _, protocol := range []harness.Protocol{harness.HTTP2, harness.HTTP3} {
		t.Run(string(protocol), func(t *testing.T) {
			app := harness.StartFastAPI(t)
			server := harness.StartCaddyTLS(t, "sse_guard\nreverse_proxy "+app.URL)
			client := harness.NewClient(t, protocol)
			alice := client.Open(t, server.URL+"/raw", harness.WithBearer("alice"))
			bob := client.Open(t, server.URL+"/raw", harness.WithBearer("bob"))
			alice.Next(t)
			bob.Next(t)
			again := client.Open(t, server.URL+"/raw", harness.WithBearer("alice"))
			again.Next(t)
			harness.RequireEnded(t, alice, harness.Duplicated, "superseded")
			bob.Next(t)
			app.WaitOpen(t, 2)
		})
	}
}

// TestEnd_LeavesTheConnectionUsable: over HTTP/1.1 the last chunk ends the
// response, and the next request uses the same connection.
func TestEnd_LeavesTheConnectionUsable(t *testing.T) {
	app := harness.StartFastAPI(t)
	server := harness.StartCaddy(t, "sse_guard\nreverse_proxy "+app.URL)
	conn, err := net.Dial("tcp", strings.TrimPrefix(server.URL, "http://"))
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(harness.Patience)))
	reader := bufio.NewReader(conn)
	ask := func(path string) *http.Response {
		_, err := io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\nAuthorization: Bearer alice\r\n\r\n")
		require.NoError(t, err)
		response, err := http.ReadResponse(reader, nil)
		require.NoError(t, err)
		t.Cleanup(func() { response.Body.Close() })
		return response
	}
	older := ask("/raw")
	harness.NewClient(t, harness.HTTP1).Open(t, server.URL+"/raw", harness.WithHeader("Cookie", "access_token=alice")).Next(t)
	body, err := io.ReadAll(older.Body)
	require.NoError(t, err)
	assert.Contains(t, string(body), "event: "+harness.Duplicated)
	items := ask("/api/items")
	assert.Equal(t, http.StatusOK, items.StatusCode)
}
