package livepage

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/sse-guard/sse-guard/caddymodule/event"
	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/registry/memory"
	"github.com/sse-guard/sse-guard/caddymodule/steer"
	"github.com/sse-guard/sse-guard/caddymodule/zone"
)

// patience is how long tests wait for what must happen.
const patience = 20 * time.Second

// newSite serves the page of one zone at /status/.
func newSite(t *testing.T) (url string, page *Page, z *zone.Zone) {
	z, err := zone.New("default", func(n registry.Node) (registry.Registry, error) { return memory.New(n), nil }, event.NoMetrics{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, z.Close()) })
	board := NewBoard(&steer.API{Zones: func() []*zone.Zone { return []*zone.Zone{z} }, Logger: zap.NewNop()})
	t.Cleanup(board.Close)
	page = New(board)
	page.Begin(Mount{Paths: []string{"/status/"}, AnyHost: true})
	server := httptest.NewServer(page)
	t.Cleanup(func() {
		page.Close()
		server.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	return server.URL + "/status/", page, z
}

func do(t *testing.T, method, url, body string, fields map[string]string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	require.NoError(t, err)
	for name, value := range fields {
		r.Header.Set(name, value)
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Do(r)
	require.NoError(t, err)
	t.Cleanup(func() { response.Body.Close() })
	return response
}

func TestPage_FilesAreBesideIt(t *testing.T) {
	url, _, _ := newSite(t)
	for name, mediaType := range map[string]string{
		"": "text/html; charset=utf-8", "page.js": "text/javascript; charset=utf-8",
		"page.css": "text/css; charset=utf-8", "icon.svg": "image/svg+xml",
	} {
		response := do(t, http.MethodGet, url+name, "", nil)
		require.Equal(t, http.StatusOK, response.StatusCode, name)
		require.Equal(t, mediaType, response.Header.Get("Content-Type"))
		require.Equal(t, policy, response.Header.Get("Content-Security-Policy"))
		require.Equal(t, "DENY", response.Header.Get("X-Frame-Options"))
		again := do(t, http.MethodGet, url+name, "", map[string]string{"If-None-Match": response.Header.Get("ETag")})
		require.Equal(t, http.StatusNotModified, again.StatusCode)
	}
	redirected := do(t, http.MethodGet, strings.TrimSuffix(url, "/")+"?a=b", "", nil)
	require.Equal(t, http.StatusTemporaryRedirect, redirected.StatusCode)
	require.Equal(t, "./status/?a=b", redirected.Header.Get("Location"))
	elsewhere := do(t, http.MethodGet, strings.TrimSuffix(url, "/status/")+"//evil.example", "", nil)
	require.NotContains(t, elsewhere.Header.Get("Location"), "//", "it leads to no other site")
	require.Equal(t, http.StatusNotFound, do(t, http.MethodGet, url+"page.php", "", nil).StatusCode)
	require.Equal(t, http.StatusMethodNotAllowed, do(t, http.MethodPost, url, "{}", nil).StatusCode)
	require.Equal(t, http.StatusMethodNotAllowed, do(t, http.MethodGet, url+"end", "", nil).StatusCode)
}

// A policy without inline scripts and styles is of use only if the page has none.
func TestPage_HasNothingInline(t *testing.T) {
	html, err := files.ReadFile("page/index.html")
	require.NoError(t, err)
	require.NotRegexp(t, `(?i)<style|\sstyle=|\son[a-z]+=|<script[^>]*>[^<]|https?://`, string(html))
}

// TestPage_OnlyItselfMaySteer: browsers send credentials along with what other pages ask.
func TestPage_OnlyItselfMaySteer(t *testing.T) {
	url, _, _ := newSite(t)
	own := strings.TrimSuffix(url, "/status/")
	const body = `{"select":{},"all":true}`
	for name, test := range map[string]struct {
		fields map[string]string
		want   int
	}{
		"the page":                         {map[string]string{"Sec-Fetch-Site": "same-origin", "Content-Type": "application/json"}, http.StatusOK},
		"the page, without TLS":            {map[string]string{"Origin": own, "Content-Type": "application/json"}, http.StatusOK},
		"another site":                     {map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": own, "Content-Type": "application/json"}, http.StatusForbidden},
		"another host of the site":         {map[string]string{"Sec-Fetch-Site": "same-site", "Content-Type": "application/json"}, http.StatusForbidden},
		"a typed address":                  {map[string]string{"Sec-Fetch-Site": "none", "Content-Type": "application/json"}, http.StatusForbidden},
		"another origin, without TLS":      {map[string]string{"Origin": "http://evil.example", "Content-Type": "application/json"}, http.StatusForbidden},
		"a frame without an origin":        {map[string]string{"Origin": "null", "Content-Type": "application/json"}, http.StatusForbidden},
		"an origin of another port":        {map[string]string{"Origin": own + "1", "Content-Type": "application/json"}, http.StatusForbidden},
		"who does not say":                 {map[string]string{"Content-Type": "application/json"}, http.StatusForbidden},
		"a form, of the page":              {map[string]string{"Sec-Fetch-Site": "same-origin", "Content-Type": "text/plain"}, http.StatusUnsupportedMediaType},
		"a form, of the page, URL-encoded": {map[string]string{"Sec-Fetch-Site": "same-origin", "Content-Type": "application/x-www-form-urlencoded"}, http.StatusUnsupportedMediaType},
	} {
		t.Run(name, func(t *testing.T) {
			response := do(t, http.MethodPost, url+"end", body, test.fields)
			require.Equal(t, test.want, response.StatusCode)
		})
	}
	response := do(t, http.MethodGet, url+"feed", "", map[string]string{"Sec-Fetch-Site": "cross-site"})
	require.Equal(t, http.StatusForbidden, response.StatusCode)
}

// TestPage_IsNowhereElse: a rule for one path is not evaded by another.
func TestPage_IsNowhereElse(t *testing.T) {
	url, page, _ := newSite(t)
	own := strings.TrimSuffix(url, "/status/")
	fields := map[string]string{"Sec-Fetch-Site": "same-origin", "Content-Type": "application/json"}
	const body = `{"select":{},"all":true}`
	for path, want := range map[string]int{
		"/status/end": http.StatusOK, "/STATUS/end": http.StatusOK,
		"/status/x/end": http.StatusNotFound, "/status//end": http.StatusNotFound, "/status/x/../end": http.StatusNotFound,
		"/statusx/end": http.StatusNotFound, "/end": http.StatusNotFound, "/status/END": http.StatusMethodNotAllowed,
		"/status/end/": http.StatusNotFound, "/status%2f%2fend": http.StatusNotFound,
	} {
		require.Equal(t, want, do(t, http.MethodPost, own+path, body, fields).StatusCode, path)
	}
	require.Equal(t, http.StatusNotFound, do(t, http.MethodGet, url+"x/feed", "", nil).StatusCode)
	require.Equal(t, http.StatusNotFound, do(t, http.MethodGet, url+"x/", "", nil).StatusCode)

	page.Begin(Mount{AnyHost: true}) // where it is not known at which path the page is
	require.Equal(t, http.StatusOK, do(t, http.MethodPost, own+"/status/x/end", body, fields).StatusCode)
}

// TestPage_NobodyIsAskedForByAnotherName: a page of a stranger's, whose name leads here
// once it is loaded, is of the same origin to a browser.
func TestPage_NobodyIsAskedForByAnotherName(t *testing.T) {
	url, page, _ := newSite(t)
	page.Begin(Mount{Paths: []string{"/status/"}, Hosts: []string{"Status.example"}})
	for host, want := range map[string]int{
		"127.0.0.1:8084": http.StatusOK, "[::1]:8084": http.StatusOK, "[::1]": http.StatusOK, "192.0.2.1": http.StatusOK,
		"localhost:8084": http.StatusOK, "LOCALHOST": http.StatusOK, "app.localhost": http.StatusOK, "localhost.": http.StatusOK,
		"status.example": http.StatusOK, "status.example:8084": http.StatusOK, "status.example.": http.StatusOK,
		"evil.example": http.StatusForbidden, "evil.example:8084": http.StatusForbidden, "status.example.evil.example": http.StatusForbidden,
		"127.0.0.1.evil.example": http.StatusForbidden, "evillocalhost": http.StatusForbidden, "localhost.evil.example": http.StatusForbidden,
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"end", strings.NewReader(`{"select":{},"all":true}`))
		require.NoError(t, err)
		r.Host = host
		r.Header.Set("Origin", "http://"+host)
		r.Header.Set("Content-Type", "application/json")
		response, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		response.Body.Close()
		require.Equal(t, want, response.StatusCode, host)
	}
}

// TestPage_AnswersOnceItHasBegun: before that, it is not known whether the configuration
// is refused.
func TestPage_AnswersOnceItHasBegun(t *testing.T) {
	_, began, _ := newSite(t)
	page := New(began.board)
	answer := httptest.NewRecorder()
	page.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/status/", nil))
	require.Equal(t, http.StatusServiceUnavailable, answer.Code)
}

// reader reads the events of a feed.
type reader struct {
	t     *testing.T
	lines *bufio.Scanner
}

func openFeed(t *testing.T, url string) *reader {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"feed", nil)
	require.NoError(t, err)
	response, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	t.Cleanup(func() { response.Body.Close() })
	require.Equal(t, "text/event-stream", response.Header.Get("Content-Type"))
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 1<<20)
	return &reader{t, lines}
}

// deafPage is the response to a page that does not read.
type deafPage struct {
	*httptest.ResponseRecorder
	writes, free chan struct{}
}

func (d *deafPage) Write([]byte) (int, error) {
	close(d.writes)
	<-d.free
	return 0, io.ErrClosedPipe
}

// TestFeed_APageThatNeverReadsHoldsUpNothing, until it is dropped.
func TestFeed_APageThatNeverReadsHoldsUpNothing(t *testing.T) {
	url, page, z := newSite(t)
	deaf := &deafPage{httptest.NewRecorder(), make(chan struct{}), make(chan struct{})}
	var serving sync.WaitGroup
	serving.Go(func() { page.ServeHTTP(deaf, httptest.NewRequest(http.MethodGet, "/status/feed", nil)) })
	<-deaf.writes
	feed := openFeed(t, url)
	for range 2 * mostWaiting {
		z.Feed.Observe(event.Admitted{Stream: event.Who{Holder: &registry.Holder{}}})
	}
	z.Feed.Observe(event.Untracked{Stream: &registry.Holder{}, Cause: event.UntrackedToken})
	var lines []steer.Happened
	feed.next("lines", &lines)
	require.NotEmpty(t, lines)
	var streams change
	openFeed(t, url).next("streams", &streams)
	close(deaf.free)
	serving.Wait()
}

// next returns the data of the next event of that name.
func (r *reader) next(name string, to any) {
	r.t.Helper()
	for found := false; r.lines.Scan(); {
		data, isData := strings.CutPrefix(r.lines.Text(), "data: ")
		if isData && found {
			require.NoError(r.t, json.Unmarshal([]byte(data), to))
			return
		}
		found = r.lines.Text() == "event: "+name
	}
	require.FailNow(r.t, "the feed has ended", "before an event %s: %v", name, r.lines.Err())
}

func TestFeed_TellsWhatHappens(t *testing.T) {
	url, page, z := newSite(t)
	feed := openFeed(t, url)
	var hello hello
	feed.next("hello", &hello)
	require.WithinDuration(t, time.Now(), hello.Time, patience)
	var first change
	feed.next("streams", &first)
	require.True(t, first.Reset)
	var counted counted
	feed.next("stats", &counted)
	require.Equal(t, "default", counted.Stats.Zones[0].Zone)

	z.Feed.Observe(event.Admitted{Stream: event.Who{Holder: &registry.Holder{Addr: "192.0.2.9"}}}) // no line
	z.Feed.Observe(event.Untracked{Stream: &registry.Holder{Addr: "192.0.2.1"}, Cause: event.UntrackedToken})
	var lines []steer.Happened
	feed.next("lines", &lines)
	require.Len(t, lines, 1)
	require.Equal(t, event.UntrackedToken, lines[0].Cause)
	require.Equal(t, "192.0.2.1", lines[0].RemoteIP)

	var samples []Sample
	feed.next("samples", &samples)
	require.Equal(t, 1, samples[0].Untracked)
	require.Equal(t, 1, samples[0].Admitted)

	late := openFeed(t, url) // is told what was before
	late.next("lines", &lines)
	require.Len(t, lines, 1)

	page.Close() // as when the server stops
	for feed.lines.Scan() {
	}
	require.NoError(t, feed.lines.Err(), "it ends, and is not cut")
}

func TestListing_TellsWhatChanges(t *testing.T) {
	at := time.Now()
	stream := func(id string, state registry.State, events uint64) steer.Stream {
		return steer.Stream{ID: id, State: state, Since: at, Events: events}
	}
	before := newListing(steer.Page{Streams: []steer.Stream{
		stream("a", registry.StateParked, 0), stream("b", registry.StateLive, 1), stream("c", registry.StateLive, 1), stream("d", registry.StateLive, 1),
	}})
	after := newListing(steer.Page{Streams: []steer.Stream{
		stream("a", registry.StateLive, 0), stream("b", registry.StateLive, 2), stream("c", registry.StateLive, 1), stream("e", registry.StateLive, 0),
	}})
	changes := before.changesTo(after)
	require.Len(t, changes, 1)
	c := changes[0]
	require.False(t, c.Reset)
	require.Len(t, c.Put, 2, "the one whose state changed, and the new one")
	require.Equal(t, []counts{{"b", uint64(2), int64(0), int64(0), int64(0)}}, c.Counts)
	require.Equal(t, []string{"d"}, c.Gone)
	require.Empty(t, after.changesTo(after), "nothing has changed")

	var nothing *listing
	changes = nothing.changesTo(newListing(steer.Page{}))
	require.Len(t, changes, 1)
	require.True(t, changes[0].Reset, "an empty table is told too")
	many := make([]steer.Stream, 2*mostRows+1)
	for i := range many {
		many[i] = stream(string(rune('a'+i)), registry.StateLive, 0)
	}
	changes = nothing.changesTo(newListing(steer.Page{Streams: many, Next: "x"}))
	require.Len(t, changes, 3)
	require.True(t, changes[0].Reset)
	require.False(t, changes[1].Reset)
	require.True(t, changes[2].Cut, "it says that there are more")
	require.Len(t, changes[2].Put, 1)
}

func TestJournal_KeepsTheLast(t *testing.T) {
	var j journal[int]
	for i := range 7 {
		j.add(i, 3)
	}
	require.Equal(t, []int{4, 5, 6}, j.since(0))
	require.Equal(t, []int{6}, j.since(6))
	require.Empty(t, j.since(7))
}

// TestText_BothLanguagesSayEverything that the page shows.
func TestText_BothLanguagesSayEverything(t *testing.T) {
	text, err := files.ReadFile("page/text.js")
	require.NoError(t, err)
	english, rest, found := strings.Cut(string(text), "  ko: {")
	require.True(t, found)
	korean, _, found := strings.Cut(rest, "\nconst stored")
	require.True(t, found)
	names := func(text string) map[string][]string {
		all := make(map[string][]string)
		for _, m := range regexp.MustCompile(`(\w+): "([^"]*)"`).FindAllStringSubmatch(text, -1) {
			all[m[1]] = placeholders(m[2])
		}
		return all
	}
	have := names(english)
	require.Equal(t, have, names(korean), "names, and what is replaced in their texts")

	var wanted []string
	pages, err := files.ReadDir("page")
	require.NoError(t, err)
	for _, file := range pages {
		content, err := files.ReadFile("page/" + file.Name())
		require.NoError(t, err)
		for _, m := range regexp.MustCompile(`(?:data-t(?:-\w+)?=|\bt\()"(\w+)"`).FindAllStringSubmatch(string(content), -1) {
			wanted = append(wanted, m[1])
		}
	}
	require.Greater(t, len(wanted), 50)
	for _, cause := range event.UntrackedCauses {
		wanted = append(wanted, "cause_"+string(cause))
	}
	for _, outcome := range event.Outcomes {
		switch outcome {
		case event.OutcomeAdmitted, event.OutcomeSuperseding, event.OutcomeUntracked: // no refusals
		default:
			wanted = append(wanted, "outcome_"+string(outcome))
		}
	}
	for _, r := range reason.All() {
		newcomer := r == reason.Rejected || r == reason.Parked // which has no stream to end
		if !newcomer && isWorthALine(event.Entry{What: event.WhatEnded, Reason: r}) {
			wanted = append(wanted, "why_"+string(r))
		}
	}
	for _, name := range wanted {
		require.Contains(t, have, name)
	}
}

func placeholders(text string) []string {
	words := make(map[string]bool)
	for _, m := range regexp.MustCompile(`\{\w+\}`).FindAllString(text, -1) {
		words[m] = true
	}
	return slices.Sorted(maps.Keys(words))
}

func TestFeed_TooManyPages(t *testing.T) {
	url, page, _ := newSite(t)
	for range mostReaders {
		require.True(t, page.board.enter())
	}
	response := do(t, http.MethodGet, url+"feed", "", nil)
	require.Equal(t, http.StatusServiceUnavailable, response.StatusCode)
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Contains(t, string(body), "Too many pages")
	page.board.leave()
	openFeed(t, url)
}
