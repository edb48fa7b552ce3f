package operate

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

var screenshots = flag.String("screenshots", "", "directory to write screenshots of the live page into")

// statusSite has the page behind basic_auth, and streams of verified users.
const statusSite = `
handle /status* {
	basic_auth {
		# see and steer
		admin $2a$04$AeT0N1W8qfraLCdrdQ53FusEb849D5hnOWzwWuh7C.VfM.4C.eZ1y
	}
	sse_guard_status
}
handle {
	sse_guard {
		key {sse_guard.claims.sub}
		label room {query.room}
		jwt {
			%s
			optional
		}
	}
	reverse_proxy %s
}`

// crowd are streams of a test, each over a connection of its own, which nobody reads.
type crowd struct {
	t      testing.TB
	client *http.Client
	url    string
}

func newCrowd(t testing.TB, url string) *crowd {
	transport := &http.Transport{DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &crowd{t, &http.Client{Transport: transport}, url}
}

// open opens a stream. ended is closed when it has ended.
func (c *crowd) open(path, token string) (ended <-chan struct{}) {
	t := c.t
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url+path, nil)
	require.NoError(t, err)
	r.Header.Set("Accept", "text/event-stream")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := c.client.Do(r)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, response.StatusCode)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer response.Body.Close()
		for s := bufio.NewScanner(response.Body); s.Scan(); {
		}
	}()
	return done
}

// startQuietBackend starts a backend whose streams have one event.
func startQuietBackend(t *testing.T) (url string) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = w.Write([]byte("data: hello\n\n"))
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return server.URL
}

// tenThousandRows has the page's table show so many, sorts them, and scrolls through.
const tenThousandRows = `() => void import("./table.js").then(({ Table }) => {
	const [grid, header, body, none, shown] = Array.from({ length: 5 }, () => document.createElement("div"));
	grid.id = "grid";
	grid.append(header, body);
	document.body.append(grid);
	const table = new Table({ grid, header, body, none, shown, now: Date.now, open() {} });
	const put = Array.from({ length: 10000 }, (_, i) => ({
		id: i.toString(16).padStart(32, "0"), zone: "default", state: "live", key: (i * 7919 % 10007).toString(16), remote_ip: "192.0.2.1",
		path: "/events", since: new Date(1e12 + i).toISOString(), events: i % 17, bytes: i, labels: {},
	}));
	const timed = (f) => { const began = performance.now(); f(); return (performance.now() - began).toFixed(1) + " ms"; };
	const told = ["put " + timed(() => table.apply({ put }))];
	for (const name of ["key", "events", "since"]) told.push("sort by " + name + " " + timed(() => table.sortBy(name, false)));
	told.push("find " + timed(() => table.find("192.0.2.1 /ev", "")));
	window.mostRows = 0;
	told.push("100 scrolls " + timed(() => {
		for (let i = 0; i < 100; i++) {
			grid.scrollTop = i * 3000;
			table.draw();
			window.mostRows = Math.max(window.mostRows, body.children.length);
		}
	}));
	if (grid.scrollTop < 290000 || !body.textContent.includes("192.0.2.1")) throw new Error("it does not scroll: " + grid.scrollTop);
	grid.remove();
	window.measured = told.join(", ");
})`

// TestStatus_APageOfTwoThousandStreams drives the page as an administrator does.
func TestStatus_APageOfTwoThousandStreams(t *testing.T) {
	const many = 2000
	issuer := harness.NewIssuer(t, "HS256")
	server := harness.StartAdminCaddy(t, fmt.Sprintf(statusSite, issuer.KeyOption(t), startQuietBackend(t)))
	users := newCrowd(t, server.URL) // all of whose streams last as long as this test
	tokens := make([]string, many)
	ends := make([]<-chan struct{}, many)
	for i := range many {
		tokens[i] = issuer.Token(t, harness.WithSub(fmt.Sprintf("user-%04d", i)))
		ends[i] = users.open(fmt.Sprintf("/events?room=%d", i%40), tokens[i])
	}
	response, _ := harness.Get(t, server.URL+"/status/")
	require.Equal(t, http.StatusUnauthorized, response.StatusCode)

	tab := harness.StartBrowser(t).NewTab(t, strings.Replace(server.URL, "//", "//admin:see%20and%20steer@", 1)+"/status")
	tab.Look(t, 1280, 900, "light")
	shows := func(what, expression, want string) {
		t.Helper()
		require.Eventually(t, func() bool { return tab.Eval(t, expression) == want }, harness.Patience, 10*time.Millisecond,
			"%s: %s is not %q but %q", what, expression, want, tab.Eval(t, expression))
	}
	const (
		live  = `document.getElementById("count-live").textContent`
		shown = `document.getElementById("shown").textContent`
	)
	require.Equal(t, "/status/", tab.Eval(t, "location.pathname"), "its files are beside it")
	shows("all are counted", live, "2,000")
	shows("all are in the table", shown, "2,000 of 2,000")
	require.Less(t, len(tab.Eval(t, `"x".repeat(document.querySelectorAll("#body .row").length)`)), 100, "rows out of sight are no elements")

	t.Run("a takeover and an untracked stream appear at once", func(t *testing.T) {
		began := time.Now()
		users.open("/events?room=7", tokens[7])
		shows("the takeover", `document.querySelectorAll('#lines [data-event="superseded"]').length`, "1")
		t.Logf("shown after %s", time.Since(began))
		users.open("/events?room=8", "")
		shows("the untracked stream", `document.querySelectorAll('#lines [data-event="untracked"]').length`, "1")
		require.Contains(t, tab.Eval(t, `document.getElementById("lines").innerText`), "no token", "its cause is told")
		shows("it is counted", `document.getElementById("count-untracked").textContent`, "1")
		shows("both are in the table", shown, "2,001 of 2,001")
	})
	t.Run("screenshots", func(t *testing.T) {
		shows("the chart has a point", `document.querySelectorAll("#chart .live").length`, "1")
		if *screenshots != "" { // something to see
			i := 10
			require.Eventually(t, func() bool {
				i++
				users.open("/events?room=7", tokens[i*7%900])
				users.open("/events?room=9", issuer.Token(t, harness.WithSub(fmt.Sprintf("late-%d", i))))
				if i%16 == 0 {
					users.open("/events?room=8", "")
				}
				return tab.Eval(t, `document.querySelectorAll("#chart .takeovers").length > 14`) == "true"
			}, 2*time.Minute, 200*time.Millisecond)
		}
		for _, look := range []struct {
			name          string
			width, height int64
			scheme        string
		}{{"light", 1280, 860, "light"}, {"dark", 1280, 860, "dark"}, {"phone", 390, 844, "light"}} {
			tab.Look(t, look.width, look.height, look.scheme)
			shows(look.name, "matchMedia(`(prefers-color-scheme: ${'"+look.scheme+"'})`).matches", "true")
			shows(look.name+": it fits", fmt.Sprintf("innerWidth === %d && document.documentElement.scrollWidth <= innerWidth", look.width), "true")
			png := tab.Screenshot(t)
			if *screenshots != "" {
				require.NoError(t, os.WriteFile(filepath.Join(*screenshots, look.name+".png"), indexed(t, png, 200), 0o600))
			}
		}
		tab.Look(t, 1280, 900, "light")
	})
	t.Run("a stream is found and ended by the keyboard", func(t *testing.T) {
		tab.Eval(t, "document.activeElement.blur()")
		tab.Press(t, "/user-1234")
		shows("the search has the words", `document.getElementById("search").value`, "user-1234")
		shows("one is found", shown+`.split(" ")[0]`, "1")
		tab.Press(t, kb.Enter)
		shows("the row is chosen", `document.querySelectorAll('[aria-selected="true"]').length`, "1")
		tab.Press(t, kb.Delete)
		shows("it is asked which", `document.getElementById("acting").open`, "true")
		tab.Press(t, kb.Tab+kb.Tab+"Call us."+kb.Tab+kb.Tab+kb.Enter)
		shows("it is asked whether", `document.getElementById("sure").textContent`, "This ends one stream now. Go on?")
		select {
		case <-ends[1234]:
			require.Fail(t, "it has ended before that was confirmed")
		default:
		}
		tab.Press(t, kb.Enter)
		<-ends[1234]
		shows("it says what was done", `document.getElementById("toast").textContent`, "Streams told to end: 1")
		shows("it is gone", shown+`.split(" ")[0]`, "0")
		shows("it is told", `document.querySelectorAll('#lines [data-event="ended"]').length`, "1")
		server.RequireNotTold(t, "", tokens[1234])
	})
	t.Run("it speaks Korean", func(t *testing.T) {
		tab.Eval(t, `(document.getElementById("language").value = "ko", document.getElementById("language").dispatchEvent(new Event("change")), "")`)
		shows("its title", `document.getElementById("happened-title").textContent`, "최근 사건")
	})
	t.Run("10,000 rows need no more elements", func(t *testing.T) {
		tab.Eval(t, "("+tenThousandRows+")()")
		shows("it is done", "window.measured !== undefined", "true")
		t.Logf("%s", tab.Eval(t, "window.measured"))
		require.Equal(t, "true", tab.Eval(t, "window.mostRows < 100"))
	})
	require.Empty(t, tab.Problems(), "the console has errors")

	t.Run("a lost connection says so and comes back", func(t *testing.T) {
		server.Kill()
		shows("it says so", `document.body.dataset.connection + document.getElementById("lost").hidden`, "closedfalse")
		server.Restart(t)
		shows("it comes back", `document.body.dataset.connection + document.getElementById("lost").hidden`, "opentrue")
	})
}

// TestStatus_AReloadKeepsTheChart and waits for no page.
func TestStatus_AReloadKeepsTheChart(t *testing.T) {
	site := "sse_guard_status /status* {\ninsecure\n}\nsse_guard\nreverse_proxy " + startQuietBackend(t)
	server := harness.StartAdminCaddy(t, site)
	client := harness.NewClient(t, harness.HTTP1)
	feed := client.Open(t, server.URL+"/status/feed")
	client.Open(t, server.URL+"/events") // untracked: it has no token
	line := feed.NextOfType(t, "lines")
	require.Contains(t, line.Data, `"cause":"token"`)
	server.Reload(t, site+"\nheader X-New yes")
	require.NoError(t, feed.Wait(t).Err, "it is finished, so that its page comes back at once")
	again := client.Open(t, server.URL+"/status/feed")
	require.Equal(t, line.Data, again.NextOfType(t, "lines").Data)
	require.Contains(t, again.NextOfType(t, "streams").Data, `"state":"untracked"`)
}

// TestStatus_StartsOnlyBehindAuthentication: Caddy refuses the configuration, and goes on
// with the one before.
func TestStatus_StartsOnlyBehindAuthentication(t *testing.T) {
	server := harness.StartAdminCaddy(t, "respond ok")
	response, body := harness.Send(t, http.MethodPost, server.Admin+"/load", harness.WithHeader("Content-Type", "text/caddyfile"),
		harness.WithPost(server.URL+" {\nsse_guard_status /status*\n}"))
	require.Equal(t, http.StatusBadRequest, response.StatusCode)
	require.Contains(t, body, "no authentication handler is before it")
	harness.WaitHandover(t, server.URL)
	_, body = harness.Get(t, server.URL)
	require.Equal(t, "ok", body)
}
