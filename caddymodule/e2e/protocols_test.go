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
)

// TestTakeover_AcrossProtocols: a key is held whatever the client speaks.
func TestTakeover_AcrossProtocols(t *testing.T) {
	app := startFastAPI(t)
	server := startCaddyTLS(t, "sse_guard\nreverse_proxy "+app.URL)
	var older *sseStream
	for _, protocol := range []protocol{http1, http2, http3, http1} {
		newer := newSSEClient(t, protocol).open(t, server.URL+"/raw", withBearer("alice"))
		newer.next(t)
		if older != nil {
			requireEnded(t, older, duplicated, "superseded")
		}
		older = newer
	}
	app.waitOpen(t, 1)
}

// TestEnd_LeavesTheOtherStreamsOfAConnection alone: on HTTP/2 and HTTP/3 one
// connection has many.
func TestEnd_LeavesTheOtherStreamsOfAConnection(t *testing.T) {
	for _, protocol := range []protocol{http2, http3} {
		t.Run(string(protocol), func(t *testing.T) {
			app := startFastAPI(t)
			server := startCaddyTLS(t, "sse_guard\nreverse_proxy "+app.URL)
			client := newSSEClient(t, protocol)
			alice := client.open(t, server.URL+"/raw", withBearer("alice"))
			bob := client.open(t, server.URL+"/raw", withBearer("bob"))
			alice.next(t)
			bob.next(t)
			again := client.open(t, server.URL+"/raw", withBearer("alice"))
			again.next(t)
			requireEnded(t, alice, duplicated, "superseded")
			bob.next(t)
			app.waitOpen(t, 2)
		})
	}
}

// TestEnd_LeavesTheConnectionUsable: over HTTP/1.1 the last chunk ends the
// response, and the next request uses the same connection.
func TestEnd_LeavesTheConnectionUsable(t *testing.T) {
	app := startFastAPI(t)
	server := startCaddy(t, "sse_guard\nreverse_proxy "+app.URL)
	conn, err := net.Dial("tcp", strings.TrimPrefix(server.URL, "http://"))
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
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
	newSSEClient(t, http1).open(t, server.URL+"/raw", withHeader("Cookie", "access_token=alice")).next(t)
	body, err := io.ReadAll(older.Body)
	require.NoError(t, err)
	assert.Contains(t, string(body), "event: "+duplicated)
	items := ask("/api/items")
	assert.Equal(t, http.StatusOK, items.StatusCode)
}
