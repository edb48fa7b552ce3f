package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/fcgi"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// takesLong is what is held up for three seconds, and those who ask.
const takesLong = 2500 * time.Millisecond

// TestReturn_TombstoneIsAnsweredBeforeTheBackend: whatever the client accepts, and
// wherever it puts the id, a backend that keeps one emitter per user does not hear of
// it, or it would silence the holder.
func TestReturn_TombstoneIsAnsweredBeforeTheBackend(t *testing.T) {
	for _, takeover := range []string{"auto", "response"} {
		t.Run(takeover, func(t *testing.T) {
			app := harness.StartFastAPI(t)
			server := harness.StartCaddy(t, "sse_guard {\ntakeover "+takeover+"\n}\nreverse_proxy "+app.URL)
			older := harness.NewClient(t, harness.HTTP1).Open(t, server.URL+"/emitter", harness.WithBearer("alice"))
			require.True(t, app.Emit(t, "alice", "one"))
			older.Next(t)
			newer := harness.NewClient(t, harness.HTTP1).Open(t, server.URL+"/emitter", harness.WithBearer("alice"))
			notice := harness.RequireEnded(t, older, harness.Duplicated, "superseded")
			require.NotNil(t, notice.Retry)
			assert.Equal(t, time.Second, *notice.Retry)

			client := harness.NewClient(t, harness.HTTP1)
			for _, accept := range []string{"text/event-stream", "*/*", "application/json, text/event-stream"} {
				for _, name := range []string{"", "lastEventId", "lastEventID", "Last-Event-ID", "last_event_id"} {
					options := []harness.RequestOption{harness.WithBearer("alice"), harness.WithHeader("Accept", accept)}
					url := server.URL + "/emitter"
					if name == "" {
						options = append(options, harness.WithHeader("Last-Event-ID", notice.ID))
					} else {
						url += "?" + name + "=" + notice.ID
					}
					assert.Equal(t, 204, client.Open(t, url, options...).Status, "%s %s", accept, name)
				}
			}
			assert.Equal(t, 2, app.Stats(t).Opened)
			if takeover == "auto" { // else the older one's end has removed the emitter
				require.True(t, app.Emit(t, "alice", "two"), "the holder's emitter is there")
				assert.Contains(t, newer.Next(t).Data, "two")
			}
			assert.False(t, newer.Ended())
			harness.RequireNoTombstoneSeen(t, app)
		})
	}
}

// TestReturn_TheHolderIsGone: who keeps the last id for ever gets what nobody holds;
// at once if it is free for long, else when it is clear that it stays free.
func TestReturn_TheHolderIsGone(t *testing.T) {
	app := harness.StartFastAPI(t)
	server := harness.StartCaddy(t, "sse_guard\nreverse_proxy "+app.URL)
	tombstone, newer := supersede(t, server.URL+"/raw", "alice")
	newer.Close()
	app.WaitOpen(t, 0)
	client := harness.NewClient(t, harness.HTTP1)
	for _, long := range []bool{true, false} {
		asked := time.Now()
		s := client.Open(t, server.URL+"/raw", harness.WithBearer("alice"), harness.WithHeader("Last-Event-ID", tombstone))
		require.Equal(t, 200, s.Status)
		require.Equal(t, "1", s.Next(t).ID, "it begins anew")
		assert.Equal(t, long, time.Since(asked) > takesLong)
		assert.Equal(t, 204, client.Open(t, server.URL+"/raw", harness.WithBearer("alice"), harness.WithHeader("Last-Event-ID", tombstone)).Status)
		s.Close()
		app.WaitOpen(t, 0)
		freed := time.Now()
		require.Eventually(t, func() bool { return time.Since(freed) > 3*time.Second }, harness.Patience, 10*time.Millisecond)
	}
	harness.RequireNoTombstoneSeen(t, app)
}

// TestReturn_ATombstoneIsNotShownForEver: who gets the stream back has its tombstone taken
// away by the first event, though the application sends no ids. It would be told to
// stay away by its own stream else, if a network was lost that the guard still waits for.
func TestReturn_ATombstoneIsNotShownForEver(t *testing.T) {
	left := make(chan struct{}, 10)
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: a\n\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		left <- struct{}{}
	}))
	t.Cleanup(backend.Close)
	server := harness.StartCaddy(t, "sse_guard\nreverse_proxy "+backend.URL)
	connect := func(lastID string) *harness.Stream {
		s, err := harness.NewClient(t, harness.HTTP1).Connect(t.Context(), server.URL, lastID, harness.WithBearer("alice"))
		require.NoError(t, err)
		t.Cleanup(s.Close)
		return s
	}
	first := connect("")
	first.Next(t)
	second := connect("")
	second.Next(t)
	harness.RequireEnded(t, first, harness.Duplicated, "superseded")
	require.NotEmpty(t, first.LastID())
	receive(t, left)
	second.Close()
	receive(t, left) // the key is free by now

	back := connect(first.LastID())
	assert.Equal(t, "a", back.Next(t).Data)
	assert.Empty(t, back.LastID())
	again := connect(back.LastID())
	assert.Equal(t, http.StatusOK, again.Status)
	assert.Equal(t, "a", again.Next(t).Data)
}

// TestReturn_ASecondTabIsLoadedAgain: the first one's tombstone is held up, and
// answered 204 once the second is back.
func TestReturn_ASecondTabIsLoadedAgain(t *testing.T) {
	app := harness.StartFastAPI(t)
	server := harness.StartCaddy(t, "sse_guard\nreverse_proxy "+app.URL)
	tombstone, second := supersede(t, server.URL+"/raw", "alice")
	second.Close()
	app.WaitOpen(t, 0)
	answered := make(chan int, 1)
	go func() {
		s, err := harness.NewClient(t, harness.HTTP1).Connect(t.Context(), server.URL+"/raw", tombstone, harness.WithBearer("alice"))
		if err != nil {
			answered <- 0
			return
		}
		answered <- s.Status
		s.Close()
	}()
	held := time.Now()
	require.Never(t, func() bool { return len(answered) > 0 }, 300*time.Millisecond, 20*time.Millisecond)
	again := harness.NewClient(t, harness.HTTP1).Open(t, server.URL+"/raw", harness.WithBearer("alice"))
	again.Next(t)
	require.Equal(t, 204, <-answered)
	assert.Less(t, time.Since(held), takesLong)
	assert.Equal(t, 3, app.Stats(t).Opened)
	harness.RequireLive(t, again)
}

// TestReturn_ATabThatReplacesItsOwnStreamIsNotDead: a page that the browser restores
// reconnects as any other.
func TestReturn_ATabThatReplacesItsOwnStreamIsNotDead(t *testing.T) {
	app := harness.StartFastAPI(t)
	// It is not back before the application has answered the newer one.
	server := harness.StartCaddy(t, "sse_guard {\nclient query tab tab\nretry 1s\n}\nreverse_proxy "+app.URL)
	url := server.URL + "/raw?tab=1"
	restored := harness.NewEventSource(t, harness.NewClient(t, harness.HTTP1), url, harness.WithBearer("alice"))
	restored.Next(t)
	newer := harness.NewClient(t, harness.HTTP1).Open(t, url, harness.WithBearer("alice"))
	notice := harness.RequireEnded(t, newer, harness.Duplicated, "replaced")
	// The restored one may be back before the application has sent the first.
	last := ""
	for _, id := range regexp.MustCompile(`(?m)^id: (\d+)$`).FindAllStringSubmatch(string(newer.Bytes()), -1) {
		last = id[1]
	}
	assert.Equal(t, last, notice.ID, "the application's last one")
	assert.Nil(t, notice.Retry)
	assert.NotContains(t, restored.Answers(), 204)
}

// TestReturn_ForGuardsOnly has a FastCGI application, which is told the URL as the
// server received it.
func TestReturn_ForGuardsOnly(t *testing.T) {
	queries := make(chan string, 10)
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = fcgi.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			queries <- r.URL.RawQuery + " " + r.Header.Get("X-SSE-Guard")
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = fmt.Fprint(w, "data: a\n\n")
		}))
	}()
	t.Cleanup(func() {
		require.NoError(t, listener.Close())
		<-served
	})
	server := harness.StartCaddy(t, "sse_guard\nreverse_proxy "+listener.Addr().String()+" {\ntransport fastcgi\n}")
	const id = "sse-guard.1.anything"
	client := harness.NewClient(t, harness.HTTP1)
	for query, want := range map[string]string{
		"a=1&sse_guard=take":        "a=1",
		"lastEventId=" + id + "&b":  "b",
		"last_event_id=" + id:       "",
		"Last-Event-ID=7&x=" + id:   "Last-Event-ID=7",
		"sse_guard=take&y=" + id:    "",
		"sse_guard=take&sse_guard=": "sse_guard=",
	} {
		s := client.Open(t, server.URL+"/events?"+query, harness.WithBearer("alice"), harness.WithHeader("X-SSE-Guard", "take"))
		require.Equal(t, 200, s.Status)
		require.Equal(t, want+" ", <-queries, query)
	}
}

// rebuilding is what a page does that builds a new EventSource once the old one is
// closed, which is to say after the answer to its tombstone.
const rebuilding = `(() => {
	document.cookie = "access_token=alice"
	const connect = () => {
		const source = window.__source = new EventSource("/raw")
		source.onmessage = () => { window.__last = Date.now() }
		source.onerror = () => { if (source.readyState === 2) setTimeout(connect, 1000) }
	}
	connect()
})()`

// TestReturn_PagesThatRebuildRest has Chromium show two pages that know what a 204
// means, and begin anew all the same; the application has set a long retry. They come
// to rest within 40 seconds, and "use here" is obeyed afterwards.
func TestReturn_PagesThatRebuildRest(t *testing.T) {
	app := harness.StartFastAPI(t)
	server := harness.StartCaddy(t, "sse_guard {\nretry 30s\n}\nreverse_proxy "+app.URL)
	browser := harness.StartBrowser(t)
	pages := []*harness.Tab{browser.NewTab(t, server.URL+"/login"), browser.NewTab(t, server.URL+"/login")}
	began := time.Now()
	for _, p := range pages {
		p.Eval(t, rebuilding)
	}
	count := func(message string) (n int) {
		for _, line := range server.HandlerLogs(t) {
			if strings.HasPrefix(line.Msg, message) {
				n++
			}
		}
		return n
	}
	require.Eventually(t, func() bool { return count("newcomer parked") > 0 }, 40*time.Second, 50*time.Millisecond, "they fight on")
	rested, fought := time.Since(began), count("stream superseded")
	require.GreaterOrEqual(t, fought, 8, "they show their tombstones a second after each end")
	harness.Rest(t, 4*time.Second)
	require.Equal(t, fought, count("stream superseded"))
	app.WaitOpen(t, 1)

	_, waiting := harness.WhoHears(t, pages[0], pages[1])
	waiting.Eval(t, `(() => {
		window.__source.close()
		window.__source = new EventSource("/raw?sse_guard=take")
		window.__source.onmessage = () => { window.__last = Date.now() }
	})()`)
	require.Eventually(t, func() bool { return harness.Hears(t, waiting) }, harness.Patience, 50*time.Millisecond)
	for _, r := range app.Requests(t) {
		assert.Empty(t, r.Query)
	}
	t.Logf("they rested after %s and %d takeovers", rested, fought)
}

// TestReturn_TwelveTabs are opened by a person, one a second, in a real browser. Each
// shows its tombstone and rests, though the application has set a long retry; nobody is
// parked.
func TestReturn_TwelveTabs(t *testing.T) {
	app := harness.StartFastAPI(t)
	server := harness.StartCaddy(t, "sse_guard {\nretry 30s\n}\nreverse_proxy "+app.URL)
	browser := harness.StartBrowser(t)
	var tabs []*harness.Tab
	next := time.Now()
	for range 12 {
		require.Eventually(t, func() bool { return !time.Now().Before(next) }, harness.Patience, 10*time.Millisecond)
		next = next.Add(time.Second)
		tab := browser.NewTab(t, server.URL+"/login")
		tab.Eval(t, `(() => { document.cookie = "access_token=alice"; window.__source = new EventSource("/raw") })()`)
		tabs = append(tabs, tab)
	}
	for i, tab := range tabs {
		want := "2"
		if i == len(tabs)-1 {
			want = "1"
		}
		require.Eventually(t, func() bool { return tab.Eval(t, "window.__source.readyState") == want }, harness.Patience, 50*time.Millisecond, "tab %d", i)
	}
	for i, tab := range tabs[:11] {
		assert.Equal(t, []int64{200, 204}, tab.Answers("/raw"), "tab %d", i)
	}
	for _, line := range server.HandlerLogs(t) {
		assert.NotContains(t, line.Msg, "parked")
	}
	app.WaitOpen(t, 1)
}

// TestReturn_WhoIsBackTooEarlyIsHeldUp: a client that asks again at once whenever its
// stream ends, as some do whatever they are told, does so a few times a minute, not
// thirty times a second.
func TestReturn_WhoIsBackTooEarlyIsHeldUp(t *testing.T) {
	app := harness.StartFastAPI(t)
	server := harness.StartCaddy(t, "sse_guard {\npolicy reject\non_reject park\nretry 2s\n}\nreverse_proxy "+app.URL)
	holder := harness.NewClient(t, harness.HTTP1).Open(t, server.URL+"/raw", harness.WithBearer("alice"))
	holder.Next(t)
	client := harness.NewClient(t, harness.HTTP1)
	var left time.Time
	for i := range 3 {
		s := client.Open(t, server.URL+"/raw", harness.WithBearer("alice"))
		s.Next(t)
		if i > 0 {
			assert.Greater(t, time.Since(left), time.Second, "request %d", i)
		}
		left = time.Now()
		s.Close()
		require.Eventually(t, func() bool { return time.Since(left) > 100*time.Millisecond }, harness.Patience, 10*time.Millisecond)
	}
	harness.RequireLive(t, holder)
}
