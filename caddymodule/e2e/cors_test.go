package e2e

import (
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// startShared is a backend whose streams pages of every origin may read, and a page of
// another origin than any site's. seen counts the requests that are no preflights.
func startShared(t testing.TB) (backend, page string, seen *atomic.Int32) {
	t.Helper()
	seen = new(atomic.Int32)
	b := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", r.Header.Get("Origin"))
		w.Header().Add("Vary", "Origin")
		if r.Method == http.MethodOptions {
			w.Header().Set("Access-Control-Allow-Headers", "authorization, last-event-id")
			return
		}
		seen.Add(1)
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: a\n\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	t.Cleanup(b.Close)
	p := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<!doctype html><body>")
	}))
	t.Cleanup(p.Close)
	return b.URL, p.URL, seen
}

// TestCORS_APageOfAnotherOriginReadsEveryRefusal, in Chromium: what it could not read
// looks like a lost network, and it would ask for ever.
func TestCORS_APageOfAnotherOriginReadsEveryRefusal(t *testing.T) {
	backend, page, seen := startShared(t)
	server := harness.StartCaddy(t, "sse_guard {\nrequire_token\nsecret 0123456789abcdef\n}\nreverse_proxy "+backend)
	tab := harness.StartBrowser(t).NewTab(t, page)

	// A request with such a header has a preflight, which tells the guard enough.
	fetched := func(headers string) string {
		tab.Eval(t, `(() => {
			delete document.body.dataset.state
			fetch("`+server.URL+`/", {headers: {"Accept": "text/event-stream", `+headers+`}})
				.then(r => document.body.dataset.state = r.status, () => document.body.dataset.state = "unreadable")
		})()`)
		require.Eventually(t, func() bool { return tab.Eval(t, "document.body.dataset.state") != "undefined" }, harness.Patience, 20*time.Millisecond)
		return tab.Eval(t, "document.body.dataset.state")
	}
	assert.Equal(t, "401", fetched(`"Last-Event-ID": "7"`))
	assert.Zero(t, seen.Load(), "the backend saw the preflight only")

	older := harness.NewClient(t, harness.HTTP1).Open(t, server.URL, harness.WithBearer("alice"))
	older.Next(t)
	harness.NewClient(t, harness.HTTP1).Open(t, server.URL, harness.WithBearer("alice")).Next(t)
	tombstone := harness.RequireEnded(t, older, harness.Duplicated, "superseded").ID
	assert.Equal(t, "204", fetched(`"Authorization": "Bearer alice", "Last-Event-ID": "`+tombstone+`"`))
	assert.EqualValues(t, 2, seen.Load())
}

// TestCORS_AnEventSourceWithoutAPreflightIsRefusedAtTheHeader once, and closes.
func TestCORS_AnEventSourceWithoutAPreflightIsRefusedAtTheHeader(t *testing.T) {
	backend, page, seen := startShared(t)
	server := harness.StartCaddy(t, "sse_guard {\nrequire_token\n}\nreverse_proxy "+backend)
	client := harness.NewClient(t, harness.HTTP1)
	for range 3 {
		s := client.Open(t, server.URL, harness.WithHeader("Origin", page))
		s.Wait(t)
		assert.Equal(t, http.StatusUnauthorized, s.Status)
		assert.Equal(t, page, s.Header.Get("Access-Control-Allow-Origin"))
		assert.Equal(t, "Origin", s.Header.Get("Vary"))
	}
	assert.EqualValues(t, 1, seen.Load(), "from then on the guard knows")
}

// TestCORS_ADeferredHeaderDirectiveLetsTheNextPageTakeOver, in Chromium: nothing in the
// header that the guard decides by says that pages can read their streams.
func TestCORS_ADeferredHeaderDirectiveLetsTheNextPageTakeOver(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: a\n\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	t.Cleanup(backend.Close)
	_, page, _ := startShared(t)
	server := harness.StartCaddy(t, "sse_guard {\nsecret 0123456789abcdef\n}\n"+
		"header >Access-Control-Allow-Origin {header.Origin}\nheader >Access-Control-Allow-Credentials true\nreverse_proxy "+backend.URL)
	browser := harness.StartBrowser(t)
	listen := func() *harness.Tab {
		tab := browser.NewTab(t, page)
		tab.Eval(t, `(() => {
			const source = window.__source = new EventSource("`+server.URL+`/?token=alice", {withCredentials: true})
			source.onmessage = () => document.body.dataset.state = "open"
			source.addEventListener("DUPLICATED_CONNECTION", () => document.body.dataset.state = "ended")
		})()`)
		tab.WaitState(t, "open")
		return tab
	}
	older := listen()
	for range 3 {
		newer := listen()
		older.WaitState(t, "ended")
		older = newer
	}
}
