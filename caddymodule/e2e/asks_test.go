package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// assistant is a backend that has streams, and JSON for who accepts that too. It
// reads a request to its end before it answers, as most frameworks do.
type assistant struct {
	*httptest.Server
	// reached counts the requests whose header has come.
	reached atomic.Int32
}

func startAssistant(t testing.TB) *assistant {
	t.Helper()
	a := new(assistant)
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.reached.Add(1)
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		switch {
		case r.URL.Query().Get("status") != "":
			w.Header().Set("Content-Type", "text/event-stream")
			w.WriteHeader(http.StatusNoContent)
		case strings.Contains(r.Header.Get("Accept"), "json"):
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"answer":42}`)
		default:
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, "data: a\n\n")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}
	}))
	t.Cleanup(a.Close)
	return a
}

// waitReached waits until the backend has seen so many requests.
func (a *assistant) waitReached(t testing.TB, n int32) {
	t.Helper()
	require.Eventually(t, func() bool { return a.reached.Load() == n }, harness.Patience, time.Millisecond)
}

// requireStays asserts that the stream still is there once a later stream of another
// token has come.
func requireStays(t testing.TB, s *harness.Stream, url string) {
	t.Helper()
	harness.NewClient(t, harness.HTTP1).Open(t, url, harness.WithBearer("another")).Next(t)
	require.False(t, s.Ended(), "%s", s.Bytes())
}

// TestAsks_WhoAcceptsJSONTooGetsIt, and ends nobody's stream: so MCP clients send
// every call, and urql every query.
func TestAsks_WhoAcceptsJSONTooGetsIt(t *testing.T) {
	for name, options := range map[string]string{"supersede": "", "reject": "policy reject", "park": "policy reject\non_reject park"} {
		t.Run(name, func(t *testing.T) {
			backend := startAssistant(t)
			server := harness.StartCaddy(t, "sse_guard {\nkey {sse_guard.token}\nmethods any\n"+options+"\n}\nreverse_proxy "+backend.URL)
			stream := harness.NewClient(t, harness.HTTP1).Open(t, server.URL, harness.WithBearer("alice"))
			stream.Next(t)
			both := harness.WithHeader("Accept", "application/json, text/event-stream")
			for _, method := range []harness.RequestOption{harness.WithPost(`{"method":"tools/call"}`), func(*http.Request) {}} {
				answer, body := harness.Get(t, server.URL, harness.WithBearer("alice"), both, method)
				assert.Equal(t, http.StatusOK, answer.StatusCode)
				assert.Equal(t, "application/json", answer.Header.Get("Content-Type"))
				assert.Equal(t, `{"answer":42}`, body)
			}
			requireStays(t, stream, server.URL)
		})
	}
}

// TestAsks_ARequestThatIsNeverCompleteEndsNobody: the backend waits for it.
func TestAsks_ARequestThatIsNeverCompleteEndsNobody(t *testing.T) {
	for name, fields := range map[string]string{
		"a length":     "Content-Length: 5",
		"chunks":       "Transfer-Encoding: chunked",
		"100-continue": "Content-Length: 5\nExpect: 100-continue",
	} {
		t.Run(name, func(t *testing.T) {
			backend := startAssistant(t)
			server := harness.StartCaddy(t, "sse_guard\nreverse_proxy "+backend.URL)
			stream := harness.NewClient(t, harness.HTTP1).Open(t, server.URL, harness.WithBearer("alice"))
			stream.Next(t)
			conn := rawRequest(t, server.URL, "GET / HTTP/1.1\nHost: localhost\nAccept: text/event-stream\nAuthorization: Bearer alice\n"+fields)
			backend.waitReached(t, 2)
			requireStays(t, stream, server.URL)
			conn.Close()
		})
	}
}

// TestAsks_ARequestThatIsNeverCompleteEndsNobody_ThoughItIsAnswered: most backends do
// not wait for a body that they do not look at. The answer's header waits for it.
func TestAsks_ARequestThatIsNeverCompleteEndsNobody_ThoughItIsAnswered(t *testing.T) {
	for name, fields := range map[string]string{
		"a length":     "Content-Length: 5",
		"chunks":       "Transfer-Encoding: chunked",
		"100-continue": "Content-Length: 5\nExpect: 100-continue",
	} {
		t.Run(name, func(t *testing.T) {
			answered := make(chan struct{}, 10)
			backend := harness.StartRawUpstream(t, func(conn *net.TCPConn, _ *http.Request) {
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: a\n\n")
				answered <- struct{}{}
				harness.WaitClosed(conn)
			})
			server := harness.StartCaddy(t, "sse_guard\nreverse_proxy "+backend)
			stream := harness.NewClient(t, harness.HTTP1).Open(t, server.URL, harness.WithBearer("alice"))
			stream.Next(t)
			receive(t, answered)
			head := "GET / HTTP/1.1\nHost: localhost\nAccept: text/event-stream\nAuthorization: Bearer alice\n" + fields
			conn := rawRequest(t, server.URL, head)
			receive(t, answered)
			requireStays(t, stream, server.URL)
			conn.Close()
			requireStays(t, stream, server.URL)

			conn = rawRequest(t, server.URL, head)
			rest := "12345"
			if name == "chunks" {
				rest = "0\r\n\r\n"
			}
			_, err := io.WriteString(conn, rest)
			require.NoError(t, err)
			harness.RequireEnded(t, stream, harness.Duplicated, "superseded")
			conn.Close()
		})
	}
}

// TestAsks_ARequestOverHTTP3IsKnownToBeComplete though it does not say so, and one
// that is not ends nobody.
func TestAsks_ARequestOverHTTP3IsKnownToBeComplete(t *testing.T) {
	var mu sync.Mutex // guards diary
	var diary []string
	note := func(what string) {
		mu.Lock()
		defer mu.Unlock()
		diary = append(diary, what)
	}
	read := func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(diary)
	}
	olderOut := make(chan struct{})
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		note(r.Header.Get("X-Name") + " in")
		defer func() {
			note(r.Header.Get("X-Name") + " out")
			if r.Header.Get("X-Name") == "older" {
				close(olderOut)
			}
		}()
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		if r.Header.Get("X-Name") == "newer" {
			select { // what is decided at the header waits for this answer
			case <-olderOut:
			case <-time.After(harness.Patience / 2):
				note("the newer one is answered first")
			}
		}
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: a"+string(body)+"\n\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	t.Cleanup(backend.Close)
	server := harness.StartCaddyTLS(t, "sse_guard\nreverse_proxy "+backend.URL)
	client := harness.NewClient(t, harness.HTTP3)
	alice := harness.WithBearer("alice")
	named := func(name string) harness.RequestOption { return harness.WithHeader("X-Name", name) }
	older := client.Open(t, server.URL, alice, named("older"))
	older.Next(t)
	newer := client.Open(t, server.URL, alice, named("newer"))
	newer.Next(t)
	harness.RequireEnded(t, older, harness.Duplicated, "superseded")
	assert.ElementsMatch(t, []string{"older in", "older out", "newer in"}, read(), "it was decided before the backend was asked")

	body, rest := io.Pipe()
	leave, _ := client.StartRequest(t, server.URL, alice, named("open"), func(r *http.Request) { r.Body, r.ContentLength = body, -1 })
	_, err := rest.Write([]byte("b"))
	require.NoError(t, err)
	require.Eventually(t, func() bool { return slices.Contains(read(), "open in") }, harness.Patience, time.Millisecond)
	requireStays(t, newer, server.URL)
	require.NoError(t, rest.Close())
	harness.RequireEnded(t, newer, harness.Duplicated, "superseded")
	leave()

	// One whose body does not even begin.
	holder := client.Open(t, server.URL, alice, named("holder"))
	holder.Next(t)
	silent, end := io.Pipe()
	leave, _ = client.StartRequest(t, server.URL, alice, named("silent"), func(r *http.Request) { r.Body, r.ContentLength = silent, -1 })
	require.Eventually(t, func() bool { return slices.Contains(read(), "silent in") }, harness.Patience, time.Millisecond)
	requireStays(t, holder, server.URL)
	leave()
	end.Close()
	require.Eventually(t, func() bool { return slices.Contains(read(), "silent out") }, harness.Patience, time.Millisecond)
}

// TestAsks_WhatIsNoStreamEndsNobody: an uptime probe, or a backend that has nothing
// to say, with the media type of streams.
func TestAsks_WhatIsNoStreamEndsNobody(t *testing.T) {
	backend := startAssistant(t)
	server := harness.StartCaddy(t, "sse_guard {\ntakeover response\nkey {sse_guard.token}\nmethods any\n}\nreverse_proxy "+backend.URL)
	alice, asking := harness.WithBearer("alice"), harness.WithHeader("Accept", "text/event-stream")
	stream := harness.NewClient(t, harness.HTTP1).Open(t, server.URL, alice)
	stream.Next(t)
	head, _ := harness.Send(t, http.MethodHead, server.URL+"?status=204", alice, asking)
	assert.Equal(t, http.StatusNoContent, head.StatusCode)
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		answer, _ := harness.Send(t, method, server.URL+"?status=204", alice, asking)
		assert.Equal(t, http.StatusNoContent, answer.StatusCode)
		assert.Equal(t, "text/event-stream", answer.Header.Get("Content-Type"))
	}
	requireStays(t, stream, server.URL)
}

// TestAsks_EverySuccessIsAStream, not only 200.
func TestAsks_EverySuccessIsAStream(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, "data: a\n\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	t.Cleanup(backend.Close)
	server := harness.StartCaddy(t, "sse_guard\nreverse_proxy "+backend.URL)
	client := harness.NewClient(t, harness.HTTP1)
	older := client.Open(t, server.URL, harness.WithBearer("alice"))
	assert.Equal(t, http.StatusCreated, older.Status)
	older.Next(t)
	client.Open(t, server.URL, harness.WithBearer("alice")).Next(t)
	harness.RequireEnded(t, older, harness.Duplicated, "superseded")
}

// TestMethods_PostsCountWhereTheyAreToldTo: an API key may run two completions at
// once, and a key alone does not change that.
func TestMethods_PostsCountWhereTheyAreToldTo(t *testing.T) {
	app := harness.StartFastAPI(t)
	site := func(path, options string) string {
		return fmt.Sprintf("handle_path /%s/* {\nsse_guard {\nzone %[1]s\n%[2]s\n}\nreverse_proxy %[3]s\n}\n", path, options, app.URL)
	}
	server := harness.StartCaddy(t, site("default", "")+site("keyed", "key {sse_guard.token}")+
		site("any", "methods any")+site("post", "key {sse_guard.token}\nmethods post")+site("get", "key {sse_guard.token}\nmethods GET"))
	client := harness.NewClient(t, harness.HTTP1)
	chat := func(path string) *harness.Stream {
		s := client.Open(t, server.URL+path, harness.WithPost("{}"), harness.WithBearer("key"))
		s.Next(t)
		return s
	}
	for _, path := range []string{"/default", "/keyed", "/get"} {
		for _, s := range []*harness.Stream{chat(path + "/chat?n=10"), chat(path + "/chat?n=10")} {
			events := s.Rest(t)
			assert.Equal(t, "[DONE]", events[len(events)-1].Data, path)
			assert.True(t, s.Wait(t).Clean(), path)
		}
	}
	for _, path := range []string{"/any", "/post"} {
		older := chat(path + "/chat?n=0")
		chat(path + "/chat?n=0")
		harness.RequireEnded(t, older, harness.Duplicated, "superseded")
	}

	told := make(map[string]string) // by zone
	for _, line := range server.HandlerLogs(t) {
		if line.Cause != "" {
			assert.Equal(t, "method", line.Cause)
			assert.NotContains(t, told, line.Zone, "once")
			told[line.Zone] = line.Level
		}
	}
	assert.Equal(t, map[string]string{"default": "info", "keyed": "warn", "get": "info"}, told)
}
