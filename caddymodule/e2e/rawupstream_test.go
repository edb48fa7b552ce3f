package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// bothWays is a site that has the upstream twice: under /plain/ without the
// guard, and elsewhere with it.
func bothWays(upstream, options string) string {
	return fmt.Sprintf(`
		handle_path /plain/* {
			reverse_proxy %[1]s
		}
		handle {
			sse_guard {
				%[2]s
			}
			reverse_proxy %[1]s
		}`, upstream, options)
}

// receive waits for what should come at once.
func receive[T any](t testing.TB, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(harness.Patience):
		require.FailNow(t, "nothing came")
		panic("unreachable")
	}
}

// rawRequest sends the head of a request, written with LF, and returns the
// connection that the answer comes on.
func rawRequest(t testing.TB, server, head string) net.Conn {
	t.Helper()
	u, err := url.Parse(server)
	require.NoError(t, err)
	conn, err := net.Dial("tcp", u.Host)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(harness.Patience)))
	_, err = io.WriteString(conn, strings.ReplaceAll(head, "\n", "\r\n")+"\r\n\r\n")
	require.NoError(t, err)
	return conn
}

// TestRawUpstream_WhatIsNoStreamIsTheSameOnTheWire: not a byte of the answer
// differs from what the site without the guard sends, head included.
func TestRawUpstream_WhatIsNoStreamIsTheSameOnTheWire(t *testing.T) {
	const date = "\nDate: Fri, 02 Jan 2026 03:04:05 GMT"
	answers := map[string]string{
		"/401":      "401 Unauthorized" + date + "\nWWW-Authenticate: Bearer realm=\"app\"\nContent-Type: application/json\nContent-Length: 17\n\n{\"error\":\"token\"}",
		"/403":      "403 Forbidden" + date + "\nContent-Type: text/event-stream\nContent-Length: 9\n\ndata: no\n",
		"/404":      "404 Not Found" + date + "\nContent-Length: 0\n\n",
		"/500":      "500 Internal Server Error" + date + "\nContent-Type: text/html\nX-Trace: 1\nX-Trace: 2\nContent-Length: 5\n\n<h1>!",
		"/503":      "503 Service Unavailable" + date + "\nRetry-After: 7\nContent-Type: text/event-stream\nContent-Length: 0\n\n",
		"/redirect": "302 Found" + date + "\nLocation: /login?next=%2Fsse\nSet-Cookie: a=1\nSet-Cookie: b=2; Path=/\nContent-Length: 0\n\n",
		"/204":      "204 No Content" + date + "\nContent-Type: text/event-stream\n\n",
		"/205":      "205 Reset Content" + date + "\nContent-Type: text/event-stream\nContent-Length: 0\n\n",
		"/json":     "200 OK" + date + "\nContent-Type: application/json\nEtag: \"1\"\nContent-Length: 2\n\n{}",
		"/chunked":  "200 OK" + date + "\nContent-Type: text/plain\nTransfer-Encoding: chunked\n\n5\nhello\n0\n\n",
		"/similar":  "200 OK" + date + "\nContent-Type: text/event-stream-2\nContent-Length: 9\n\ndata: a\n\n",
		"/gzip":     "200 OK" + date + "\nContent-Type: text/html\nContent-Encoding: gzip\nContent-Length: 4\n\n\x1f\x8b\x08\x00",
		"/unnamed":  "200 OK" + date + "\nContent-Length: 9\n\ndata: a\n\n",
		"/short":    "200 OK" + date + "\nContent-Type: text/plain\nContent-Length: 100\n\ncut off",
		"/stream":   "200 OK" + date + "\nContent-Type: text/event-stream\nContent-Length: 9\n\n",
		"/options":  "200 OK" + date + "\nContent-Type: text/html\nContent-Length: 5\n\n<h1>!",
	}
	upstream := harness.StartRawUpstream(t, func(c *net.TCPConn, r *http.Request) {
		head, body, _ := strings.Cut(answers[r.URL.Path], "\n\n")
		if r.URL.Path == "/chunked" {
			body = strings.ReplaceAll(body, "\n", "\r\n")
		}
		_, _ = io.WriteString(c, "HTTP/1.1 "+strings.ReplaceAll(head, "\n", "\r\n")+"\r\n\r\n"+body)
	})
	server := harness.StartCaddy(t, bothWays(upstream, "require_token"))
	for path := range answers {
		method, header := http.MethodGet, "\nAccept: text/event-stream\nAuthorization: Bearer alice"
		switch path {
		case "/stream": // a HEAD that names no stream needs no token, nor does what answers OPTIONS with no stream
			method, header = http.MethodHead, ""
		case "/options":
			method, header = http.MethodOptions, "\nAccept: */*"
		}
		exchange := func(prefix string) string {
			conn := rawRequest(t, server.URL, method+" "+prefix+path+" HTTP/1.1\nHost: localhost\nConnection: close\nAccept-Encoding: gzip"+header)
			answer, err := io.ReadAll(conn)
			require.NoError(t, err)
			return string(answer)
		}
		plain, guarded := exchange("/plain"), exchange("")
		assert.Equal(t, plain, guarded, path)
		if path != "/short" { // of which nothing arrives
			status, _, _ := strings.Cut(answers[path], "\n")
			assert.True(t, strings.HasPrefix(guarded, "HTTP/1.1 "+status+"\r\n"), guarded)
		}
	}
}

// TestRawUpstream_FailsAlikeOverEveryProtocol: a client learns of a broken
// upstream what it would without the guard, in the words of its protocol.
func TestRawUpstream_FailsAlikeOverEveryProtocol(t *testing.T) {
	for _, how := range []string{"closed", "reset"} {
		for _, protocol := range []harness.Protocol{harness.HTTP1, harness.H2C, harness.HTTP2, harness.HTTP3} {
			t.Run(how+" "+string(protocol), func(t *testing.T) {
				received := make(chan struct{}, 2)
				upstream := harness.StartRawUpstream(t, func(c *net.TCPConn, _ *http.Request) {
					_, _ = io.WriteString(c, harness.SSEHeader+"Transfer-Encoding: chunked\r\n\r\n14\r\ndata: a\n\ndata: torn!\r\n")
					<-received
					if how == "reset" {
						_ = c.SetLinger(0)
					}
				})
				start := harness.StartCaddy
				if protocol == harness.HTTP2 || protocol == harness.HTTP3 {
					start = harness.StartCaddyTLS
				}
				server := start(t, bothWays(upstream, ""))
				fail := func(path string) (end harness.StreamEnd, body string) {
					s := harness.NewClient(t, protocol).Open(t, server.URL+path, harness.WithBearer("alice"))
					assert.Equal(t, "a", s.Next(t).Data)
					received <- struct{}{}
					return s.Wait(t), string(s.Bytes())
				}
				plainEnd, plain := fail("/plain/")
				end, body := fail("/")
				require.Error(t, plainEnd.Err)
				require.Error(t, end.Err)
				assert.Equal(t, plainEnd.Err.Error(), end.Err.Error())
				if protocol == harness.HTTP3 {
					// A QUIC reset may overtake the last bytes.
					assert.Contains(t, []string{"data: a\n\n", plain}, body)
				} else {
					assert.Equal(t, plain, body)
				}
			})
		}
	}
}

// TestRawUpstream_NoticeDoesNotWaitForTheRestOfAnEvent, nor for end_timeout:
// what is held of the event was never sent.
func TestRawUpstream_NoticeDoesNotWaitForTheRestOfAnEvent(t *testing.T) {
	upstream := harness.StartRawUpstream(t, func(c *net.TCPConn, _ *http.Request) {
		_, _ = io.WriteString(c, harness.SSEHeader+"\r\nid: 9\ndata: whole\n\nid: 10\ndata: half")
		harness.WaitClosed(c)
	})
	server := harness.StartCaddy(t, "sse_guard {\nend_timeout 1h\nhold 1h\n}\nreverse_proxy "+upstream)
	client := harness.NewClient(t, harness.HTTP1)
	older := client.Open(t, server.URL, harness.WithBearer("alice"))
	older.Next(t)
	_, opened := client.StartRequest(t, server.URL, harness.WithBearer("alice"))
	notice := harness.RequireEnded(t, older, harness.Duplicated, "superseded")
	assert.Equal(t, "9", harness.NoticeOf(t, notice).LastEventID)
	assert.NotContains(t, string(older.Bytes()), "half")
	require.NoError(t, receive(t, opened))
}

// TestRawUpstream_LargeEventIsWholeBeforeTheNotice: what the client has half of
// already is finished, even where it is larger than what would be held.
func TestRawUpstream_LargeEventIsWholeBeforeTheNotice(t *testing.T) {
	const half = 5 << 20
	finish := make(chan struct{})
	finishNow := sync.OnceFunc(func() { close(finish) })
	defer finishNow()
	var connections atomic.Int32
	upstream := harness.StartRawUpstream(t, func(c *net.TCPConn, _ *http.Request) {
		if connections.Add(1) > 1 {
			_, _ = io.WriteString(c, harness.SSEHeader+"\r\ndata: newer\n\n")
		} else {
			_, _ = io.WriteString(c, harness.SSEHeader+"\r\nid: 1\ndata: "+strings.Repeat("x", half))
			<-finish
			_, _ = io.WriteString(c, strings.Repeat("y", half)+"\n\n")
		}
		harness.WaitClosed(c)
	})
	server := harness.StartCaddy(t, "sse_guard {\nend_timeout 1h\n}\nreverse_proxy "+upstream)
	client := harness.NewClient(t, harness.HTTP1)
	older := client.Open(t, server.URL, harness.WithBearer("alice"))
	require.Eventually(t, func() bool { return len(older.Bytes()) > half }, harness.Patience, time.Millisecond)
	_, opened := client.StartRequest(t, server.URL, harness.WithBearer("alice"))
	server.WaitLogs(t, 1) // it was asked to end
	assert.False(t, older.Ended())
	finishNow()
	large := older.Next(t)
	assert.Equal(t, strings.Repeat("x", half)+strings.Repeat("y", half), large.Data)
	notice := harness.RequireEnded(t, older, harness.Duplicated, "superseded")
	assert.Equal(t, "1", harness.NoticeOf(t, notice).LastEventID)
	require.NoError(t, receive(t, opened))
}

// eventsOf parses a whole stream.
func eventsOf(t testing.TB, stream string) (events []harness.Event) {
	t.Helper()
	parser := harness.NewParser("", func(e harness.Event) { events = append(events, e) })
	_, err := io.WriteString(parser, stream)
	require.NoError(t, err)
	return events
}

// TestRawUpstream_NoticeFitsEveryLineEnd: it is one whole event, and changes
// none before it, whatever the upstream ends its lines with.
func TestRawUpstream_NoticeFitsEveryLineEnd(t *testing.T) {
	streams := map[string]struct {
		passes string // at once
		held   string // and never seen
		lastID string
	}{
		"/LF":                 {"id: 1\ndata: a\n\nid: 2\ndata: b\n\n", "", "2"},
		"/CR":                 {"id: 1\rdata: a\r\rid: 2\rdata: b\r\r", "", "2"},
		"/CRLF":               {"id: 1\r\ndata: a\r\n\r\nid: 2\r\ndata: b\r\n\r\n", "", "2"},
		"/mixed":              {"id: 1\rdata: a\n\r\nid: 2\r\ndata: b\rdata: c\n\n", "", "2"},
		"/cut-in-CRLF":        {"id: 1\r\ndata: a\r\n\r", "", "1"},
		"/BOM":                {"\ufeffid: 1\ndata: a\n\n", "", "1"},
		"/BOM-CR":             {"\ufeffid: 1\rdata: a\r\r", "", "1"},
		"/heartbeat":          {"data: a\n\n: beat\n", "", ""},
		"/first-heartbeat":    {":\n", "", ""},
		"/heartbeat-CRLF":     {": beat\r\n", "", ""},
		"/heartbeat-held":     {"data: a\n\n: beat\n", "data: b\n: not between events\n", ""},
		"/held-LF":            {"id: 1\ndata: a\n\n", "id: 2\ndata: b\n", "1"},
		"/held-CR":            {"id: 1\rdata: a\r\r", "id: 2\rdata: b\r", "1"},
		"/held-CRLF":          {"id: 1\r\ndata: a\r\n\r\n", "id: 2\r\ndata: b\r\n", "1"},
		"/held-heartbeat":     {"data: a\n\n", ": be", ""},
		"/blank-lines":        {"\n\n\nid: 1\ndata: a\n\n\n\n", "", "1"},
		"/no-space-no-colon":  {"id:1\ndata\ndata:a\n\n", "", "1"},
		"/id-without-data":    {"data: a\n\nid: 7\n\n", "", "7"},
		"/field-named-id-ish": {"idea: 3\ndata: a\n\n", "", ""},
	}
	upstream := harness.StartRawUpstream(t, func(c *net.TCPConn, r *http.Request) {
		stream := streams[r.URL.Path].passes + streams[r.URL.Path].held
		_, _ = io.WriteString(c, harness.SSEHeader+"\r\n")
		if r.URL.RawQuery == "" {
			_, _ = io.WriteString(c, stream)
		}
		for i := range len(stream) {
			if r.URL.RawQuery != "" {
				_, _ = c.Write([]byte{stream[i]})
			}
		}
		harness.WaitClosed(c)
	})
	server := harness.StartCaddy(t, "sse_guard {\nhold 1h\n}\nreverse_proxy "+upstream)
	client := harness.NewClient(t, harness.HTTP1)
	for path, stream := range streams {
		for _, how := range []string{"", "?bytewise"} {
			older := client.Open(t, server.URL+path+how, harness.WithBearer("alice"))
			require.Eventually(t, func() bool { return string(older.Bytes()) == stream.passes }, harness.Patience, time.Millisecond,
				"%s%s: %q", path, how, older.Bytes())
			newer := client.Open(t, server.URL+path+how, harness.WithBearer("alice"))
			assert.NoError(t, older.Wait(t).Err, path)

			notice, found := strings.CutPrefix(string(older.Bytes()), stream.passes)
			require.True(t, found, path)
			require.Len(t, eventsOf(t, notice), 1, path)
			events := eventsOf(t, string(older.Bytes()))
			before := eventsOf(t, stream.passes)
			require.Len(t, events, len(before)+1, path)
			for i, e := range before {
				assert.Equal(t, e, events[i], path)
			}
			assert.Equal(t, harness.Duplicated, events[len(before)].Type, path)
			assert.Equal(t, stream.lastID, harness.NoticeOf(t, events[len(before)]).LastEventID, path)
			newer.Close()
		}
	}
}

// TestRawUpstream_RetryOpensTheStream, and then no byte order mark spoils the
// upstream's first field.
func TestRawUpstream_RetryOpensTheStream(t *testing.T) {
	for name, stream := range map[string]string{"plain": "data: a\n\n", "with BOM": "\ufeffdata: a\n\n"} {
		t.Run(name, func(t *testing.T) {
			upstream := harness.StartRawUpstream(t, func(c *net.TCPConn, _ *http.Request) {
				_, _ = io.WriteString(c, harness.SSEHeader+"\r\n")
				for i := range len(stream) {
					_, _ = c.Write([]byte{stream[i]})
				}
			})
			server := harness.StartCaddy(t, "sse_guard {\nretry 3s\n}\nreverse_proxy "+upstream)
			s := harness.NewClient(t, harness.HTTP1).Open(t, server.URL, harness.WithBearer("alice"))
			assert.True(t, s.Wait(t).Clean())
			assert.Equal(t, "retry: 3000\ndata: a\n\n", string(s.Bytes()))
			assert.Equal(t, 3*time.Second, *s.Retry())
		})
	}
}

// TestAcceptEncoding_OnlyOfRequestsForAStreamIsChanged: the upstream is asked
// for identity there, and elsewhere for what it would be without the guard.
func TestAcceptEncoding_OnlyOfRequestsForAStreamIsChanged(t *testing.T) {
	var seen atomic.Value
	upstream := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		seen.Store(fmt.Sprint(r.Header.Values("Accept-Encoding")))
	}))
	defer upstream.Close()
	server := harness.StartCaddy(t, bothWays(upstream.URL, ""))
	ask := func(method, path, accept, encoding string) string {
		harness.Send(t, method, server.URL+path, func(r *http.Request) {
			r.Header.Set("Accept", accept)
			if encoding != "" {
				r.Header.Set("Accept-Encoding", encoding)
			}
		})
		return seen.Load().(string)
	}
	for _, encoding := range []string{"", "gzip", "gzip, deflate, br, zstd", "identity;q=0, br"} {
		for _, accept := range []string{"text/event-stream", "application/json, text/event-stream;q=0.5"} {
			assert.Equal(t, "[identity]", ask(http.MethodGet, "/", accept, encoding), "%q %q", accept, encoding)
			for _, method := range []string{http.MethodHead, http.MethodPost} {
				assert.Equal(t, ask(method, "/plain/", accept, encoding), ask(method, "/", accept, encoding), "%s %q", method, encoding)
			}
		}
		for _, accept := range []string{"text/html", "*/*", "text/event-stream;q=0"} {
			assert.Equal(t, ask(http.MethodGet, "/plain/", accept, encoding), ask(http.MethodGet, "/", accept, encoding), "%q %q", accept, encoding)
		}
	}
}

// TestStream_BetweenEarlyHintsAndTrailers: both come with a stream as they do
// with anything else, and a stream that is ended before its trailers still
// ends cleanly.
func TestStream_BetweenEarlyHintsAndTrailers(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</app.js>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Trailer", "X-Sum")
		_, _ = io.WriteString(w, "data: a\n\n")
		w.(http.Flusher).Flush()
		if r.URL.RawQuery != "" {
			<-r.Context().Done()
		}
		w.Header().Set("X-Sum", "1")
		w.Header().Set(http.TrailerPrefix+"X-Late", "yes")
	}))
	defer upstream.Close()
	server := harness.StartCaddyTLS(t, bothWays(upstream.URL, ""))
	for _, protocol := range []harness.Protocol{harness.HTTP1, harness.HTTP2} {
		t.Run(string(protocol), func(t *testing.T) {
			var hints []string
			traced := func(r *http.Request) {
				*r = *r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
					Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
						hints = append(hints, fmt.Sprint(code, h))
						return nil
					},
				}))
			}
			ask := func(path string) harness.StreamEnd {
				s := harness.NewClient(t, protocol).Open(t, server.URL+path, harness.WithBearer("alice"), traced)
				end := s.Wait(t)
				assert.NoError(t, end.Err)
				assert.Equal(t, "data: a\n\n", string(s.Bytes()))
				return end
			}
			plain, guarded := ask("/plain/"), ask("/")
			assert.Equal(t, http.Header{"X-Sum": {"1"}, "X-Late": {"yes"}}, plain.Trailer)
			assert.Equal(t, plain.Trailer, guarded.Trailer)
			require.Len(t, hints, 2)
			assert.Contains(t, hints[0], "app.js")
			assert.Equal(t, hints[0], hints[1])

			older := harness.NewClient(t, protocol).Open(t, server.URL+"/?endless", harness.WithBearer("alice"))
			older.Next(t)
			harness.NewClient(t, protocol).Open(t, server.URL+"/?endless", harness.WithBearer("alice")).Next(t)
			harness.RequireEnded(t, older, harness.Duplicated, "superseded")
		})
	}
}
