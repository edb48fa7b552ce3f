//go:build compat

package compat

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

var update = flag.Bool("update", false, "write what was measured into README's table of clients")

func TestMain(m *testing.M) { harness.Main(m) }

// clients are the rows of the table, in their order.
var clients = []client{
	{name: "EventSource in Chromium", version: installed("chromium", "chromium-browser", "google-chrome"), prepare: chromium("eventsource")},
	{name: "EventSource in Firefox", version: installed("firefox-esr"), prepare: firefox("eventsource")},
	{name: "a page that rebuilds, in Chromium", version: installed("chromium", "chromium-browser", "google-chrome"), prepare: chromium("rebuilding")},
	{name: "a page that rebuilds, in Firefox", version: installed("firefox-esr"), prepare: firefox("rebuilding")},
	{name: "htmx-ext-sse", version: npm("htmx-ext-sse"), prepare: chromium("htmx")},
	{name: "VueUse useEventSource", version: npm("@vueuse/core"), prepare: chromium("vueuse")},
	{name: "@microsoft/fetch-event-source", version: npm("@microsoft/fetch-event-source"), prepare: chromium("fetch-event-source")},
	{name: "@fortaine/fetch-event-source", version: npm("@fortaine/fetch-event-source"), prepare: chromium("fortaine")},
	{name: "event-source-polyfill", version: npm("event-source-polyfill"), prepare: chromium("event-source-polyfill")},
	{name: "event-source-plus", version: npm("event-source-plus"), slow: true, prepare: chromium("event-source-plus")},
	{name: "sse.js", version: npm("sse.js"), prepare: chromium("sse")},
	{name: "urql", version: npm("@urql/core"), path: "/graphql/ticks", site: llmSite, prepare: chromium("urql")},
	{name: "npm eventsource", version: npm("eventsource"), prepare: node("eventsource.mjs")},
	{name: "openai (JS)", version: npm("openai"), path: "/v1/", site: llmSite, prepare: node("openai.mjs")},
	{name: "anthropic (JS)", version: npm("@anthropic-ai/sdk"), path: "/v1/", site: anthropicSite, prepare: node("anthropic.mjs")},
	{name: "AI SDK", version: npm("ai"), path: "/v1/", site: llmSite, prepare: node("ai-sdk.mjs")},
	{name: "mcp (TS)", version: npm("@modelcontextprotocol/sdk"), path: "/mcp", slow: true, prepare: node("mcp.mjs")},
	{name: "httpx-sse", version: pip("httpx-sse"), prepare: python("client_httpx_sse.py")},
	{name: "sseclient", version: pip("sseclient"), prepare: python("client_sseclient.py")},
	{name: "requests-sse", version: pip("requests-sse"), prepare: python("client_requests_sse.py")},
	{name: "aiohttp-sse-client2", version: pip("aiohttp-sse-client2"), prepare: python("client_aiohttp_sse.py")},
	{name: "LaunchDarkly (Python)", version: pip("launchdarkly-eventsource"), slow: true, prepare: python("client_launchdarkly.py")},
	{name: "openai (Python)", version: pip("openai"), path: "/v1/", site: llmSite, prepare: python("client_openai.py")},
	{name: "langchain-openai", version: pip("langchain-openai"), path: "/v1/", site: llmSite, prepare: python("client_langchain_openai.py")},
	{name: "anthropic (Python)", version: pip("anthropic"), path: "/v1/", site: anthropicSite, prepare: python("client_anthropic.py")},
	{name: "mcp (Python)", version: pip("mcp"), path: "/mcp", slow: true, prepare: python("client_mcp.py")},
	{name: "tmaxmax/go-sse", version: module("github.com/tmaxmax/go-sse"), slow: true, prepare: golang("go-sse")},
	{name: "r3labs/sse", version: module("github.com/r3labs/sse/v2"), prepare: golang("r3labs")},
	{name: "LaunchDarkly (Go)", version: module("github.com/launchdarkly/eventsource"), slow: true, prepare: golang("launchdarkly")},
	{name: "openai (Go)", version: module("github.com/openai/openai-go/v3"), path: "/v1/", site: llmSite, prepare: golang("openai")},
	{name: "LaunchDarkly (Java)", version: maven("okhttp-eventsource"), slow: true, prepare: java("LaunchDarkly")},
	{name: "okhttp-sse", version: maven("okhttp-sse"), prepare: java("OkHttpSse")},
	{name: "WebFlux WebClient, in Spring Boot", version: maven("spring-boot-dependencies"), prepare: java("WebFlux")},
}

// results are what the parallel tests measured.
type results struct {
	mu   sync.Mutex // guards rows; nothing is called with it held
	rows map[string]Row
}

func (r *results) set(client string, scene Scene, cell Cell) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rows[client].Cells[scene] = cell
}

// TestClients plays every scene with every client, and holds the results to what
// README promises, or writes them there.
func TestClients(t *testing.T) {
	readme := filepath.Join(harness.Root(t), "README.md")
	promised := readTable(t, readme)
	measured := &results{rows: map[string]Row{}}
	app := startApplication(t)
	sites := startSites(t, app.url)

	t.Run("all", func(t *testing.T) {
		for _, c := range clients {
			measured.rows[c.name] = Row{Client: c.name, Version: c.version(t), Cells: map[Scene]Cell{}}
			// -run takes a slash for the end of a name.
			t.Run(strings.ReplaceAll(c.name, "/", " "), func(t *testing.T) {
				t.Parallel()
				startInstance := c.prepare(t)
				for scene, perform := range performances {
					t.Run(string(scene), func(t *testing.T) {
						t.Parallel()
						p := &play{
							client: c, scene: scene, app: app, site: sites[scene][c.site],
							token: fmt.Sprintf("%s-%s", scene, strings.Map(plainLetters, c.name)),
							begin: startInstance,
						}
						p.token = strings.ReplaceAll(p.token, " ", "-")
						for scene, cell := range perform(t, p) {
							t.Logf("%s: %s", scene, cell)
							measured.set(c.name, scene, cell)
						}
					})
				}
			})
		}
	})

	var order []string
	var rows []Row
	for _, c := range clients {
		order = append(order, c.name)
		if row := measured.rows[c.name]; len(row.Cells) > 0 {
			rows = append(rows, row)
		}
	}
	t.Logf("measured:\n%s", Render(rows))
	if *update {
		writeTable(t, readme, Merge(order, promised, rows))
		return
	}
	promises := map[string]Row{}
	for _, row := range promised {
		promises[row.Client] = row
	}
	for _, row := range rows {
		promise, ok := promises[row.Client]
		assert.True(t, ok, "README has no row for %s: run `make compat ARGS=-update`", row.Client)
		for scene, cell := range row.Cells {
			assert.Empty(t, cell.WorseThan(promise.Cells[scene]), "%s, %s: promised is %q, measured %q", row.Client, scene, promise.Cells[scene], cell)
		}
	}
}

// plainLetters leaves those that every client takes in a token.
func plainLetters(r rune) rune {
	if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
		return r
	}
	return -1
}

// The table stands between these in README.
const (
	tableStart = "<!-- clients -->\n\n"
	tableEnd   = "\n<!-- end -->\n"
)

// cutReadme returns what is before the table, the table, and what is behind it.
func cutReadme(t *testing.T, file string) (before, table, after string) {
	t.Helper()
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	before, rest, found := strings.Cut(string(content), tableStart)
	require.True(t, found, "README has no table of clients")
	table, after, found = strings.Cut(rest, tableEnd)
	require.True(t, found, "README's table of clients has no end")
	return before, table, after
}

func readTable(t *testing.T, file string) []Row {
	t.Helper()
	_, table, _ := cutReadme(t, file)
	rows, err := Parse(table)
	require.NoError(t, err)
	return rows
}

func writeTable(t *testing.T, file string, rows []Row) {
	t.Helper()
	before, _, after := cutReadme(t, file)
	require.NoError(t, os.WriteFile(file, []byte(before+tableStart+Render(rows)+tableEnd+after), 0o600))
}

// play is one client in one scene.
type play struct {
	client client
	scene  Scene
	app    *application
	site   site
	token  string
	begin  func(*testing.T, start) instance
}

// Times of the scenes.
const (
	counted  = 20 * time.Second // in which requests are counted
	quietFor = 8 * time.Second  // without a request: the client rests
	restBy   = 40 * time.Second // that pages which rebuild are given until they rest
	returned = 12 * time.Second // that a client is given to come back

	slowlyReturned = 35 * time.Second // that one is given which waits ever longer

	// startTime bounds how long a client may take to start. Some work for seconds when
	// nothing else does, and many start at once.
	startTime = 5 * time.Minute
)

// start begins an instance of the client, and waits until the application has a stream of it.
func (p *play) start(t *testing.T, number string) instance {
	t.Helper()
	i := p.ask(t, number)
	p.waitHolder(t, number, i)
	return i
}

// ask begins an instance of the client.
func (p *play) ask(t *testing.T, number string) instance {
	t.Helper()
	return p.begin(t, start{p.site.url, p.token, number})
}

func (p *play) waitHolder(t *testing.T, number string, i instance) {
	t.Helper()
	require.Eventually(t, func() bool { return p.app.holder(p.token) == number }, startTime, 50*time.Millisecond,
		"instance %s has no stream", number)
}

// hold has a client that does nothing else open a stream of the same token.
func (p *play) hold(t *testing.T) *harness.Stream {
	t.Helper()
	options := []harness.RequestOption{harness.WithBearer(p.token), harness.WithHeader("X-Instance", "holder")}
	path := p.client.streams()
	switch {
	case p.client.path == "/v1/" && p.client.site == anthropicSite:
		path = "/v1/messages"
		options = append(options, harness.WithPost("{}"))
	case p.client.path == "/v1/":
		path = "/v1/chat/completions"
		options = append(options, harness.WithPost("{}"))
	case p.client.path == "/graphql/ticks":
		options = append(options, harness.WithPost("{}"))
	}
	s := harness.NewClient(t, harness.HTTP1).Open(t, p.site.url+path, options...)
	require.Equal(t, 200, s.Status)
	require.Equal(t, "holder", p.app.holder(p.token))
	return s
}

// requests counts those that began within the time after since. The client's
// instances have to be stopped, or their open requests are not counted.
func (p *play) requests(t *testing.T, since time.Time, within time.Duration) (n int) {
	t.Helper()
	for _, began := range p.site.requests(t, p.token, p.client.streams()) {
		if !began.Before(since.Truncate(time.Millisecond)) && began.Before(since.Add(within)) {
			n++
		}
	}
	return n
}

// stopAndCount is requests after these instances have been stopped and their
// requests have been logged.
func (p *play) stopAndCount(t *testing.T, since time.Time, within time.Duration, instances ...instance) int {
	t.Helper()
	for _, i := range instances {
		i.stop(t)
	}
	require.Eventually(t, func() bool { return p.app.holder(p.token) == "" }, harness.Patience, 50*time.Millisecond)
	pause(t, time.Second) // for parked ones, of which the application does not know
	return p.requests(t, since, within)
}

// rests waits until no request has come for a while, at most until that time after since.
// On a machine that is busy clients ask more slowly, and what has the guard act is how
// often they do: it goes on until there was a request a second, too, for three times
// as long at most.
func (p *play) rests(t *testing.T, since time.Time, by time.Duration) Word {
	t.Helper()
	for {
		last, asked := since, 0
		for _, began := range p.site.requests(t, p.token, p.client.streams()) {
			if began.After(since) {
				asked++
			}
			if began.After(last) {
				last = began
			}
		}
		for _, s := range p.app.of(p.token) {
			if s.began.After(last) {
				last = s.began
			}
		}
		switch {
		case last.After(since.Add(by)) && asked >= int(by/time.Second), last.After(since.Add(3 * by)):
			return GoesOn
		case time.Since(last) > quietFor && time.Since(since) >= counted:
			return Rests
		}
		pause(t, 200*time.Millisecond)
	}
}

// told tells whether the instance had an event of one of these names, or was told an error that says one.
func told(t *testing.T, i instance, names ...string) Word {
	t.Helper()
	for _, s := range i.seen(t) {
		for _, name := range names {
			if s.Saw == "event" && s.Name == name || s.Saw == "error" && strings.Contains(s.Text, name) {
				return Told
			}
		}
	}
	return NotTold
}

// back waits until the instance has a stream that began after since: by itself or, after
// a while, asked by its user. before is what it had seen until then.
func (p *play) back(t *testing.T, number string, i instance, since time.Time) (how Word, before []sight) {
	t.Helper()
	within := returned
	if p.client.slow {
		within = slowlyReturned
	}
	until := func(d time.Duration) bool {
		for end := time.Now().Add(d); time.Now().Before(end); pause(t, 50*time.Millisecond) {
			for _, s := range p.app.of(p.token) {
				if s.open && s.instance == number && s.began.After(since) {
					return true
				}
			}
		}
		return false
	}
	if until(within) {
		return ByItself, i.seen(t)
	}
	before = i.seen(t)
	i.again(t)
	if until(returned) {
		return WhenAsked, before
	}
	return Never, before
}

// comesBack is back for a stream that was to come back: who does not by itself may
// know at least that more was to come.
func (p *play) comesBack(t *testing.T, i instance) []Word {
	t.Helper()
	first := p.app.of(p.token)[0].began
	require.Eventually(t, func() bool { return !p.app.of(p.token)[0].open }, harness.Patience, 50*time.Millisecond, "the stream does not end")
	back, before := p.back(t, "1", i, first)
	if back == ByItself {
		return []Word{back}
	}
	for _, s := range before {
		if s.Saw == "error" {
			return []Word{Raises, back}
		}
	}
	return []Word{LooksEnded, back}
}

// performances are the scenes. Each returns how the client fared, in one column of
// the table or more.
var performances = map[Scene]func(*testing.T, *play) map[Scene]Cell{
	Superseded: superseded,
	Rejected:   rejected,
	Parked:     rejected,
	Idle:       idle,
	Rotated:    rotated,
	Drained:    drained,
	LoggedOut:  loggedOut,
}

// superseded: the client is opened twice. When both rest, the one that has the stream is closed.
func superseded(t *testing.T, p *play) map[Scene]Cell {
	first := p.start(t, "1")
	began := time.Now()
	second := p.ask(t, "2")
	p.waitHolder(t, "2", second)
	rest := p.rests(t, began, restBy)
	word := told(t, first, harness.Duplicated, "took over this stream")

	holder, loser, number := second, first, "1"
	if p.app.holder(p.token) == "1" {
		holder, loser, number = first, second, "2"
	}
	left := time.Now()
	holder.stop(t)
	back, _ := p.back(t, number, loser, left)
	n := p.stopAndCount(t, began, counted, first, second)
	return map[Scene]Cell{
		Superseded:  {Words: []Word{word, rest}, Counted: true, Requests: n},
		GoneAndBack: {Words: []Word{back}},
	}
}

// rejected: the key is held by somebody else, who leaves after a while. The scene parked is the same.
func rejected(t *testing.T, p *play) map[Scene]Cell {
	holder := p.hold(t)
	asked := time.Now()
	i := p.ask(t, "1")
	// Some clients take seconds to start.
	require.Eventually(t, func() bool {
		return len(i.seen(t)) > 0 || len(p.site.requests(t, p.token, p.client.streams())) > 0
	}, startTime, 100*time.Millisecond, "the client does not ask")
	within := time.Since(asked) + counted
	pause(t, counted)
	word := told(t, i, "DUPLICATE_SESSION", "holds this stream already", harness.Duplicated)
	left := time.Now()
	holder.Close()
	back, _ := p.back(t, "1", i, left)
	return map[Scene]Cell{p.scene: {Words: []Word{word, back}, Counted: true, Requests: p.stopAndCount(t, asked, within, i)}}
}

// idle: the application sends nothing for three heartbeats, then something.
func idle(t *testing.T, p *play) map[Scene]Cell {
	i := p.start(t, "1")
	pause(t, 4500*time.Millisecond)
	p.app.sendLast(p.token)
	sawLast := func() bool {
		return slices.ContainsFunc(i.seen(t), func(s sight) bool { return s.Data == lastText })
	}
	for end := time.Now().Add(returned); !sawLast() && time.Now().Before(end); {
		pause(t, 100*time.Millisecond)
	}
	pause(t, time.Second)
	word := Disturbed
	var texts []string
	for _, s := range i.seen(t) {
		switch s.Saw {
		case "event":
			texts = append(texts, s.Data)
		case "error":
			texts = append(texts, s.Text)
		}
	}
	// LLM clients report deltas without a text, too.
	if got := strings.Trim(strings.Join(texts, "|"), "|"); got == openingText+"|"+lastText && len(p.app.of(p.token)) == 1 &&
		(p.client.path == "/v1/" || len(texts) == 2) {
		word = Quiet
	} else {
		t.Logf("it saw %q on %d streams", texts, len(p.app.of(p.token)))
	}
	i.stop(t)
	return map[Scene]Cell{Idle: {Words: []Word{word}}}
}

// undisturbed tells whether every event was one of the application's. Errors are no
// events: many clients report each end as one.
func (p *play) undisturbed(t *testing.T, i instance) Word {
	t.Helper()
	for _, s := range i.seen(t) {
		// LLM clients report deltas without a text, too.
		if s.Saw == "event" && s.Data != openingText && s.Data != ticking && (s.Data != "" || p.client.path != "/v1/") {
			t.Logf("it saw %+v", s)
			return Disturbed
		}
	}
	return Quiet
}

// rotated: the stream ends at its greatest age, several times.
func rotated(t *testing.T, p *play) map[Scene]Cell {
	i := p.start(t, "1")
	began := p.app.of(p.token)[0].began.Add(-time.Second)
	words := p.comesBack(t, i)
	pause(t, time.Until(began.Add(counted)))
	words = append(words, p.undisturbed(t, i))
	return map[Scene]Cell{Rotated: {Words: words, Counted: true, Requests: p.stopAndCount(t, began, counted, i)}}
}

// drained: Caddy stops, and another has taken its port by then.
func drained(t *testing.T, p *play) map[Scene]Cell {
	p.site = newSite(t, t.TempDir())
	block := p.site.block(Drained, p.client.site, p.app.url)
	old, _ := harness.StartCaddySites(t, p.site.url, globalOptions, block)
	i := p.start(t, "1")
	harness.StartCaddySites(t, p.site.url, globalOptions, strings.Replace(block, "{", "{\nheader X-Caddy new", 1))
	require.Eventually(t, func() bool {
		answer, _ := harness.Get(t, p.site.url+"/page/eventsource")
		return answer.Header.Get("X-Caddy") == "new"
	}, harness.Patience, 50*time.Millisecond, "the other Caddy does not answer")
	old.Stop(t)
	words := append(p.comesBack(t, i), p.undisturbed(t, i))
	i.stop(t)
	return map[Scene]Cell{Drained: {Words: words}}
}

// loggedOut: the user logs out.
func loggedOut(t *testing.T, p *play) map[Scene]Cell {
	i := p.start(t, "1")
	began := time.Now()
	require.Equal(t, 204, harness.LogOut(t, p.site.url+"/logout", harness.WithBearer(p.token)))
	rest := p.rests(t, began, counted+quietFor)
	word := told(t, i, harness.LoggedOut, "logged out")
	return map[Scene]Cell{LoggedOut: {Words: []Word{word, rest}, Counted: true, Requests: p.stopAndCount(t, began, counted, i)}}
}
