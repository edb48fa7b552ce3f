package e2e

import (
	"bufio"
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
)

// startRawUpstream answers every connection's request with what play writes
// to it, byte by byte as it likes, and closes the connection after.
func startRawUpstream(t testing.TB, play func(conn *net.TCPConn, r *http.Request)) (url string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				if r, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
					play(conn.(*net.TCPConn), r)
				}
			}()
		}
	}()
	t.Cleanup(func() {
		ln.Close()
		<-done
	})
	return "http://" + ln.Addr().String()
}

const sseHeader = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"

// waitClosed waits until the proxy has closed the connection.
func waitClosed(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }

// TestUpstream_OddOnesLookTheSameThroughTheGuard compares what a client gets
// from a site with the guard and from one without.
func TestUpstream_OddOnesLookTheSameThroughTheGuard(t *testing.T) {
	chunk := func(s string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(s), s) }
	const chunked = sseHeader + "Transfer-Encoding: chunked\r\n\r\n"
	big := "data: " + strings.Repeat("x", 10<<20) + "\n\n"
	for name, play := range map[string]func(conn *net.TCPConn){
		"ends normally":       func(c *net.TCPConn) { _, _ = io.WriteString(c, chunked+chunk("data: a\n\n")+"0\r\n\r\n") },
		"ends in mid-event":   func(c *net.TCPConn) { _, _ = io.WriteString(c, chunked+chunk("data: a\n\ndata: b")+"0\r\n\r\n") },
		"is cut in mid-event": func(c *net.TCPConn) { _, _ = io.WriteString(c, chunked+chunk("data: a\n\ndata: b")) },
		"ends by closing":     func(c *net.TCPConn) { _, _ = io.WriteString(c, sseHeader+"\r\ndata: a\n\ndata: b\n\n") },
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
			upstream := startRawUpstream(t, func(c *net.TCPConn, _ *http.Request) { play(c) })
			server := startCaddy(t, "handle_path /plain/* {\nreverse_proxy "+upstream+"\n}\nhandle {\nsse_guard\nreverse_proxy "+upstream+"\n}")
			client := newSSEClient(t, http1)
			plain, guarded := client.open(t, server.URL+"/plain/", withBearer("alice")), client.open(t, server.URL+"/", withBearer("alice"))
			plainEnd, end := plain.wait(t), guarded.wait(t)
			assert.True(t, bytes.Equal(plain.bytes(), guarded.bytes()), "%d bytes, and %d through the guard", len(plain.bytes()), len(guarded.bytes()))
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
		upstream := startRawUpstream(t, func(c *net.TCPConn, _ *http.Request) {
			_, _ = io.WriteString(c, sseHeader+"Transfer-Encoding: chunked\r\n\r\n14\r\ndata: a\n\ndata: torn!\r\n")
			<-received
			_ = c.SetLinger(0)
		})
		server := startCaddy(t, "handle_path /plain/* {\nreverse_proxy "+upstream+"\n}\nhandle {\nsse_guard\nreverse_proxy "+upstream+"\n}")
		s := newSSEClient(t, http1).open(t, server.URL+path, withBearer("alice"))
		s.next(t)
		close(received)
		assert.ErrorIs(t, s.wait(t).Err, io.ErrUnexpectedEOF, path)
		assert.Equal(t, "data: a\n\ndata: torn!", string(s.bytes()), path)
	}
}

// TestUpstream_StallsInMidEvent: the half event never reaches a client that is
// superseded meanwhile.
func TestUpstream_StallsInMidEvent(t *testing.T) {
	for name, half := range map[string]string{"small": "data: half", "too large to hold": "data: " + strings.Repeat("x", 2<<20)} {
		t.Run(name, func(t *testing.T) {
			var released atomic.Int32
			upstream := startRawUpstream(t, func(c *net.TCPConn, _ *http.Request) {
				_, _ = io.WriteString(c, sseHeader+"\r\nid: 9\ndata: whole\n\n"+half)
				waitClosed(c)
				released.Add(1)
			})
			server := startCaddy(t, "sse_guard {\nend_timeout 300ms\n}\nreverse_proxy "+upstream)
			client := newSSEClient(t, http1)
			older := client.open(t, server.URL, withBearer("alice"))
			older.next(t)
			if name != "small" {
				require.Eventually(t, func() bool { return len(older.bytes()) > 2<<20 }, patience, time.Millisecond)
			}
			client.open(t, server.URL, withBearer("alice")).next(t)
			if name == "small" {
				assert.Equal(t, "9", noticeOf(t, requireEnded(t, older, duplicated, "superseded")).LastEventID)
				assert.NotContains(t, string(older.bytes()), "half")
			} else {
				end := older.wait(t)
				assert.NoError(t, end.Err, "a clean end, without the event")
				assert.Empty(t, older.rest(t))
			}
			require.Eventually(t, func() bool { return released.Load() == 1 }, patience, time.Millisecond)
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
	server := startCaddy(t, "sse_guard\nreverse_proxy "+upstream.URL)
	client := newSSEClient(t, http1)
	open := func() *sseStream {
		s := client.open(t, server.URL, withBearer("alice"), withHeader("Accept-Encoding", "gzip"))
		require.Eventually(t, func() bool { return len(s.bytes()) == body.Len() }, patience, time.Millisecond)
		return s
	}
	first, second := open(), open()
	third := open()
	for _, s := range []*sseStream{first, second} {
		assert.NoError(t, s.wait(t).Err)
		assert.Equal(t, body.Bytes(), s.bytes())
	}
	third.close()
	warnings := 0
	for _, line := range server.waitLogs(t, 5) {
		if strings.Contains(line.Msg, "compresses") {
			warnings++
		}
	}
	assert.Equal(t, 1, warnings)
}

// TestUpstream_SendsContentLength for a stream that the guard adds an event to.
func TestUpstream_SendsContentLength(t *testing.T) {
	upstream := startRawUpstream(t, func(c *net.TCPConn, _ *http.Request) {
		_, _ = io.WriteString(c, sseHeader+"Content-Length: 1000\r\n\r\ndata: a\n\n")
		waitClosed(c)
	})
	server := startCaddy(t, "sse_guard {\nretry 3s\n}\nreverse_proxy "+upstream)
	client := newSSEClient(t, http1)
	older := client.open(t, server.URL, withBearer("alice"))
	assert.Empty(t, older.Header.Get("Content-Length"))
	older.next(t)
	assert.True(t, strings.HasPrefix(string(older.bytes()), "retry: 3000\n\n"))
	client.open(t, server.URL, withBearer("alice")).next(t)
	requireEnded(t, older, duplicated, "superseded")
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
			server := startCaddyTLS(t, "sse_guard\nreverse_proxy "+transport)
			for _, protocol := range []protocol{http1, http2, http3} {
				client := newSSEClient(t, protocol)
				older := client.open(t, server.URL, withBearer(string(protocol)))
				older.next(t)
				newer := client.open(t, server.URL, withBearer(string(protocol)))
				newer.next(t)
				requireEnded(t, older, duplicated, "superseded")
				require.Eventually(t, func() bool { return open.Load() == 1 }, patience, time.Millisecond)
				newer.close()
				require.Eventually(t, func() bool { return open.Load() == 0 }, patience, time.Millisecond)
			}
			assert.Len(t, server.waitLogs(t, 6), 6, "two lines for each takeover, none for a closed tab")
		})
	}
}
