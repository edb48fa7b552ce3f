package e2e

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// TestPassThrough: what is no stream is none of the guard's business, even
// where it demands a token.
func TestPassThrough(t *testing.T) {
	app := harness.StartFastAPI(t)
	server := harness.StartCaddy(t, "sse_guard {\nrequire_token\n}\nreverse_proxy "+app.URL)

	for _, path := range []string{"/login", "/api/items", "/status/404", "/status/500", "/status/204", "/redirect", "/download?size=300000"} {
		for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodOptions} {
			direct, want := harness.Send(t, method, app.URL+path)
			response, body := harness.Send(t, method, server.URL+path)
			assert.Equal(t, direct.StatusCode, response.StatusCode, "%s %s", method, path)
			assert.Equal(t, sha256.Sum256([]byte(want)), sha256.Sum256([]byte(body)), "%s %s", method, path)
			for _, name := range []string{"Content-Type", "Content-Length", "Location", "Allow"} {
				assert.Equal(t, direct.Header.Get(name), response.Header.Get(name), "%s %s: %s", method, path, name)
			}
		}
	}
	head, _ := harness.Send(t, http.MethodHead, server.URL+"/raw")
	assert.Equal(t, http.StatusMethodNotAllowed, head.StatusCode, "FastAPI's own answer")
	preflight, _ := harness.Send(t, http.MethodOptions, server.URL+"/cors",
		harness.WithHeader("Origin", "https://app.example"), harness.WithHeader("Access-Control-Request-Method", "GET"))
	assert.Equal(t, http.StatusOK, preflight.StatusCode)
	assert.Equal(t, "https://app.example", preflight.Header.Get("Access-Control-Allow-Origin"))
}

// TestEarlyHintsAndTrailers pass.
func TestEarlyHintsAndTrailers(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("Trailer", "X-Sum")
		_, _ = io.WriteString(w, "hello")
		w.(http.Flusher).Flush()
		w.Header().Set("X-Sum", "5")
		w.Header().Set(http.TrailerPrefix+"X-Late", "yes")
	}))
	defer upstream.Close()
	server := harness.StartCaddy(t, "sse_guard\nreverse_proxy "+upstream.URL)

	var hints []string
	trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		hints = append(hints, h.Get("Link"))
		return nil
	}}
	response, body := harness.Get(t, server.URL, func(r *http.Request) {
		*r = *r.WithContext(httptrace.WithClientTrace(r.Context(), trace))
	})
	assert.Equal(t, "hello", body)
	assert.Equal(t, []string{"</style.css>; rel=preload"}, hints)
	assert.Equal(t, "5", response.Trailer.Get("X-Sum"))
	assert.Equal(t, "yes", response.Trailer.Get("X-Late"))
}

// TestWebSocket_PassesUntouched: the connection is handed over.
func TestWebSocket_PassesUntouched(t *testing.T) {
	app := harness.StartFastAPI(t)
	server := harness.StartCaddy(t, "sse_guard {\nrequire_token\n}\nreverse_proxy "+app.URL)
	conn, err := net.Dial("tcp", strings.TrimPrefix(server.URL, "http://"))
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(harness.Patience)))
	_, err = io.WriteString(conn, "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	require.NoError(t, err)
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, nil)
	require.NoError(t, err)
	defer response.Body.Close()
	require.Equal(t, http.StatusSwitchingProtocols, response.StatusCode)
	// A masked text frame "hey" (RFC 6455 section 5), and its echo, unmasked.
	_, err = conn.Write([]byte{0x81, 0x83, 0, 0, 0, 0, 'h', 'e', 'y'})
	require.NoError(t, err)
	echo := make([]byte, 5)
	_, err = io.ReadFull(reader, echo)
	require.NoError(t, err)
	assert.Equal(t, append([]byte{0x81, 3}, "hey"...), echo)
}

// TestUpgrade_IsNoWayAroundTheGuard: a backend that ignores the wish streams.
func TestUpgrade_IsNoWayAroundTheGuard(t *testing.T) {
	app := harness.StartFastAPI(t)
	server := harness.StartCaddy(t, "sse_guard\nreverse_proxy "+app.URL)
	client := harness.NewClient(t, harness.HTTP1)
	older := client.Open(t, server.URL+"/raw", harness.WithBearer("alice"))
	older.Next(t)
	client.Open(t, server.URL+"/raw", harness.WithBearer("alice"), harness.WithHeader("Connection", "Upgrade"), harness.WithHeader("Upgrade", "nothing")).Next(t)
	harness.RequireEnded(t, older, harness.Duplicated, "superseded")
}

// TestErrors_OfTheUpstreamPass: its own refusals reach the page as they are.
func TestErrors_OfTheUpstreamPass(t *testing.T) {
	app := harness.StartFastAPI(t)
	server := harness.StartCaddy(t, "sse_guard\nreverse_proxy "+app.URL)
	client := harness.NewClient(t, harness.HTTP1)
	holder := client.Open(t, server.URL+"/secured", harness.WithBearer("alice"))
	holder.Next(t)
	for token, status := range map[string]int{"forbidden": 403, "": 401} {
		direct, refused := client.Open(t, app.URL+"/secured", harness.WithBearer(token)), client.Open(t, server.URL+"/secured", harness.WithBearer(token))
		direct.Wait(t)
		refused.Wait(t)
		assert.Equal(t, status, refused.Status)
		assert.True(t, bytes.Equal(direct.Bytes(), refused.Bytes()))
		assert.Equal(t, direct.Header.Get("WWW-Authenticate"), refused.Header.Get("WWW-Authenticate"))
	}
	holder.Next(t)
}
