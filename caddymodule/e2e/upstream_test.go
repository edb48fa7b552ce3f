package e2e

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// TestUpstream_OddOnesLookTheSameThroughTheGuard compares what a client gets
// from a site with the guard and from one without.
func TestUpstream_OddOnesLookTheSameThroughTheGuard(t *testing.T) {
	chunk := func(s string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(s), s) }
	const chunked = harness.SSEHeader + "Transfer-Encoding: chunked\r\n\r\n"
	big := "data: " + strings.Repeat("x", 10<<20) + "\n\n"
	for name, play := range map[string]func(conn *net.TCPConn){
		"ends normally":       func(c *net.TCPConn) { _, _ = io.WriteString(c, chunked+chunk("data: a\n\n")+"0\r\n\r\n") },
		"ends in mid-event":   func(c *net.TCPConn) { _, _ = io.WriteString(c, chunked+chunk("data: a\n\ndata: b")+"0\r\n\r\n") },
		"is cut in mid-event": func(c *net.TCPConn) { _, _ = io.WriteString(c, chunked+chunk("data: a\n\ndata: b")) },
		"ends by closing":     func(c *net.TCPConn) { _, _ = io.WriteString(c, harness.SSEHeader+"\r\ndata: a\n\ndata: b\n\n") },
		"one byte at a time": func(c *net.TCPConn) {
			_, _ = io.WriteString(c, chunked)
			for _, b := range []byte("\ufeffid: 1\r\ndata: a\r\n\r\n: beat\r\ndata: b\rdata: c\r\rdata: d\n\n") {
				_, _ = io.WriteString(c, chunk(string(b)))
			}
			_, _ = io.WriteString(c, "0\r\n\r\n")
		},
		"10 MB events": func(c *net.TCPConn) { _, _ = io.WriteString(c, chunked+chunk(big)+chunk(big)+"0\r\n\r\n") },
		"empty":        func(c *net.TCPConn) { _, _ = io.WriteString(c, chunked+"0\r\n\r\n") },
		"a second charset": func(c *net.TCPConn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: Text/Event-Stream; charset=utf-8\r\n\r\ndata: a\n\n")
		},
	} {
		t.Run(name, func(t *testing.T) {
			upstream := harness.StartRawUpstream(t, func(c *net.TCPConn, _ *http.Request) { play(c) })
			server := harness.StartCaddy(t, "handle_path /plain/* {\nreverse_proxy "+upstream+"\n}\nhandle {\nsse_guard\nreverse_proxy "+upstream+"\n}")
			client := harness.NewClient(t, harness.HTTP1)
			plain, guarded := client.Open(t, server.URL+"/plain/", harness.WithBearer("alice")), client.Open(t, server.URL+"/", harness.WithBearer("alice"))
			plainEnd, end := plain.Wait(t), guarded.Wait(t)
			assert.True(t, bytes.Equal(plain.Bytes(), guarded.Bytes()), "%d bytes, and %d through the guard", len(plain.Bytes()), len(guarded.Bytes()))
			assert.Equal(t, plainEnd.Err, end.Err)
			assert.Equal(t, plainEnd.Torn, end.Torn)
		})
	}
}

// TestUpstream_ResetInMidEvent breaks the client's stream as it would without
// the guard, with all bytes that came.
func TestUpstream_ResetInMidEvent(t *testing.T) {
	for _, path := range []string{"/plain/", "/"} {
		received := make(chan struct{})
		upstream := harness.StartRawUpstream(t, func(c *net.TCPConn, _ *http.Request) {
			_, _ = io.WriteString(c, harness.SSEHeader+"Transfer-Encoding: chunked\r\n\r\n14\r\ndata: a\n\ndata: torn!\r\n")
			<-received
			_ = c.SetLinger(0)
		})
		server := harness.StartCaddy(t, "handle_path /plain/* {\nreverse_proxy "+upstream+"\n}\nhandle {\nsse_guard\nreverse_proxy "+upstream+"\n}")
		s := harness.NewClient(t, harness.HTTP1).Open(t, server.URL+path, harness.WithBearer("alice"))
		s.Next(t)
		close(received)
		assert.ErrorIs(t, s.Wait(t).Err, io.ErrUnexpectedEOF, path)
		assert.Equal(t, "data: a\n\ndata: torn!", string(s.Bytes()), path)
	}
}

// TestUpstream_StallsInMidEvent: the half event never reaches a client that is
// superseded meanwhile.
func TestUpstream_StallsInMidEvent(t *testing.T) {
	for name, half := range map[string]string{"small": "data: half", "too large to hold": "data: " + strings.Repeat("x", 2<<20)} {
		t.Run(name, func(t *testing.T) {
			var released atomic.Int32
			upstream := harness.StartRawUpstream(t, func(c *net.TCPConn, _ *http.Request) {
				_, _ = io.WriteString(c, harness.SSEHeader+"\r\nid: 9\ndata: whole\n\n"+half)
				harness.WaitClosed(c)
				released.Add(1)
			})
			server := harness.StartCaddy(t, "sse_guard {\nend_timeout 300ms\nhold 1h\n}\nreverse_proxy "+upstream)
			client := harness.NewClient(t, harness.HTTP1)
			older := client.Open(t, server.URL, harness.WithBearer("alice"))
			older.Next(t)
			if name != "small" {
				require.Eventually(t, func() bool { return len(older.Bytes()) > 2<<20 }, harness.Patience, time.Millisecond)
			}
			client.Open(t, server.URL, harness.WithBearer("alice")).Next(t)
			if name == "small" {
				assert.Equal(t, "9", harness.NoticeOf(t, harness.RequireEnded(t, older, harness.Duplicated, "superseded")).LastEventID)
				assert.NotContains(t, string(older.Bytes()), "half")
			} else {
				end := older.Wait(t)
				assert.True(t, end.Cut(), "without the event, and not as if all were there")
				assert.True(t, end.Torn)
				assert.Empty(t, older.Rest(t))
			}
			require.Eventually(t, func() bool { return released.Load() == 1 }, harness.Patience, time.Millisecond)
		})
	}
}

// TestUpstream_Compresses though it was asked not to: the stream is relayed
// untouched, tracked, and ended without an event.
func TestUpstream_Compresses(t *testing.T) {
	var body bytes.Buffer
	zip := gzip.NewWriter(&body)
	_, _ = io.WriteString(zip, "data: a\n\n")
	require.NoError(t, zip.Flush())
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		assert.Equal(t, "identity", r.Header.Get("Accept-Encoding"))
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(body.Bytes())
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	defer upstream.Close()
	server := harness.StartCaddy(t, "sse_guard\nreverse_proxy "+upstream.URL)
	client := harness.NewClient(t, harness.HTTP1)
	open := func() *harness.Stream {
		s := client.Open(t, server.URL, harness.WithBearer("alice"), harness.WithHeader("Accept-Encoding", "gzip"))
		require.Eventually(t, func() bool { return len(s.Bytes()) == body.Len() }, harness.Patience, time.Millisecond)
		return s
	}
	first, second := open(), open()
	third := open()
	for _, s := range []*harness.Stream{first, second} {
		assert.NoError(t, s.Wait(t).Err)
		assert.Equal(t, body.Bytes(), s.Bytes())
	}
	third.Close()
	warnings := 0
	for _, line := range server.WaitLogs(t, 5) {
		if strings.Contains(line.Msg, "compresses") {
			warnings++
		}
	}
	assert.Equal(t, 1, warnings)
}

// TestUpstream_SendsContentLength for a stream that the guard adds an event to.
func TestUpstream_SendsContentLength(t *testing.T) {
	upstream := harness.StartRawUpstream(t, func(c *net.TCPConn, _ *http.Request) {
		_, _ = io.WriteString(c, harness.SSEHeader+"Content-Length: 1000\r\n\r\ndata: a\n\n")
		harness.WaitClosed(c)
	})
	server := harness.StartCaddy(t, "sse_guard {\nretry 3s\n}\nreverse_proxy "+upstream)
	client := harness.NewClient(t, harness.HTTP1)
	older := client.Open(t, server.URL, harness.WithBearer("alice"))
	assert.Empty(t, older.Header.Get("Content-Length"))
	older.Next(t)
	assert.True(t, strings.HasPrefix(string(older.Bytes()), "retry: 3000\ndata: a\n\n"))
	client.Open(t, server.URL, harness.WithBearer("alice")).Next(t)
	harness.RequireEnded(t, older, harness.Duplicated, "superseded")
}

// TestUpstream_OverHTTP2 ends as cleanly as over HTTP/1.1, and as quietly.
func TestUpstream_OverHTTP2(t *testing.T) {
	for _, scheme := range []string{"h2c", "https"} {
		t.Run(scheme, func(t *testing.T) {
			var open atomic.Int32
			upstream := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				assert.Equal(t, 2, r.ProtoMajor)
				open.Add(1)
				defer open.Add(-1)
				w.Header().Set("Content-Type", "text/event-stream")
				_, _ = io.WriteString(w, "data: a\n\n")
				w.(http.Flusher).Flush()
				<-r.Context().Done()
			}))
			var transport string
			if scheme == "h2c" {
				upstream.Config.Protocols = new(http.Protocols)
				upstream.Config.Protocols.SetUnencryptedHTTP2(true)
				upstream.Start()
				transport = "h2c://" + upstream.Listener.Addr().String()
			} else {
				upstream.EnableHTTP2 = true
				upstream.StartTLS()
				transport = upstream.URL + " {\ntransport http {\ntls_insecure_skip_verify\n}\n}"
			}
			defer upstream.Close()
			server := harness.StartCaddyTLS(t, "sse_guard\nreverse_proxy "+transport)
			for _, protocol := range []harness.Protocol{harness.HTTP1, harness.HTTP2, harness.HTTP3} {
				client := harness.NewClient(t, protocol)
				older := client.Open(t, server.URL, harness.WithBearer(string(protocol)))
				older.Next(t)
				newer := client.Open(t, server.URL, harness.WithBearer(string(protocol)))
				newer.Next(t)
				harness.RequireEnded(t, older, harness.Duplicated, "superseded")
				require.Eventually(t, func() bool { return open.Load() == 1 }, harness.Patience, time.Millisecond)
				newer.Close()
				require.Eventually(t, func() bool { return open.Load() == 0 }, harness.Patience, time.Millisecond)
			}
			assert.Len(t, server.WaitLogs(t, 6), 6, "two lines for each takeover, none for a closed tab")
		})
	}
}
