package demo_test

import (
	"html"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPage_GivesATokenToABrowserWithoutOne(t *testing.T) {
	server := serve(t)
	seen := make(map[string]bool)
	for _, cookie := range []string{"", "access_token=", "other=1"} {
		v := visitor{t: t, server: server}
		r := v.request(http.MethodGet, "/")
		r.Header.Set("Cookie", cookie)
		response, _ := v.send(r)
		require.Len(t, response.Cookies(), 1)

		given := response.Cookies()[0]
		require.Equal(t, "access_token", given.Name)
		require.GreaterOrEqual(t, len(given.Value), 26) // 128 bits and more
		require.True(t, given.HttpOnly)
		require.Equal(t, http.SameSiteLaxMode, given.SameSite)
		require.Equal(t, "/", given.Path)
		require.False(t, seen[given.Value], "two visitors have one token")
		seen[given.Value] = true
	}
}

func TestPage_KeepsTheTokenOfABrowserWithOne(t *testing.T) {
	response, _ := visitor{t: t, server: serve(t), token: "a"}.get("/")
	require.Empty(t, response.Cookies())
}

func TestPage_LoadsOnlyItsOwnFiles(t *testing.T) {
	v := visitor{t: t, server: serve(t), token: "a"}
	response, page := v.get("/")
	require.Equal(t, "text/html; charset=utf-8", response.Header.Get("Content-Type"))
	require.Equal(t, "no-store", response.Header.Get("Cache-Control"))
	policy := response.Header.Get("Content-Security-Policy")
	require.Contains(t, policy, "default-src 'none'")
	require.NotContains(t, policy, "unsafe")
	// What the policy forbids would fail in silence.
	require.NotRegexp(t, `(?i)<style|\sstyle=|\son\w+=|<script(?:\s+defer)?>`, page)

	types := map[string]string{
		"/demo.css":  "text/css; charset=utf-8",
		"/demo.js":   "text/javascript; charset=utf-8",
		"/live.svg":  "image/svg+xml",
		"/ended.svg": "image/svg+xml",
	}
	for _, found := range regexp.MustCompile(`(?:src|href)="([^"#]+)"`).FindAllStringSubmatch(page, -1) {
		require.True(t, strings.HasPrefix(found[1], "/") && !strings.HasPrefix(found[1], "//"), found[1])
		if found[1] == "/operate/" {
			continue // it is Caddy's: the live page
		}
		response, _ := v.get(found[1])
		require.Equal(t, http.StatusOK, response.StatusCode, found[1])
	}
	for path, want := range types {
		response, body := v.get(path)
		require.Equal(t, want, response.Header.Get("Content-Type"), path)
		require.Equal(t, "nosniff", response.Header.Get("X-Content-Type-Options"), path)
		body = strings.ReplaceAll(body, "http://www.w3.org/2000/svg", "") // a name, not an address
		require.NotRegexp(t, `https?://|url\(|@import`, body, path)
	}
}

func TestAssets_AreAskedForAgainAndAnswered304(t *testing.T) {
	v := visitor{t: t, server: serve(t)}
	response, _ := v.get("/demo.js")
	require.Equal(t, "no-cache", response.Header.Get("Cache-Control"))

	r := v.request(http.MethodGet, "/demo.js")
	r.Header.Set("If-None-Match", response.Header.Get("ETag"))
	response, _ = v.send(r)
	require.Equal(t, http.StatusNotModified, response.StatusCode)
}

func TestPage_ShowsTheCodeItRuns(t *testing.T) {
	v := visitor{t: t, server: serve(t), token: "a"}
	_, page := v.get("/")
	_, script := v.get("/demo.js")
	shown := regexp.MustCompile(`(?s)<code id="client">(.*?)</code>`).FindStringSubmatch(page)
	require.Len(t, shown, 2)
	code := html.UnescapeString(regexp.MustCompile(`<[^>]+>`).ReplaceAllString(shown[1], ""))
	indented := "  " + strings.ReplaceAll(code, "\n", "\n  ")
	require.Contains(t, script, "function connect(url) {\n"+indented+"\n  return source;\n}")
}

func TestPage_NeverClosesItsEventSource(t *testing.T) {
	v := visitor{t: t, server: serve(t)}
	_, script := v.get("/demo.js")
	require.NotRegexp(t, `\.close\b`, script)
	require.Equal(t, 1, strings.Count(script, "new EventSource"))
	require.Equal(t, 1, strings.Count(script, "= connect(url)"))
}

func TestPage_HasWhatItsScriptLooksFor(t *testing.T) {
	v := visitor{t: t, server: serve(t), token: "a"}
	_, page := v.get("/")
	_, script := v.get("/demo.js")
	found := regexp.MustCompile(`(?:\$|\bstep)\("([^"]+)"`).FindAllStringSubmatch(script, -1)
	require.NotEmpty(t, found)
	for _, id := range found {
		require.Equal(t, 1, strings.Count(page, ` id="`+id[1]+`"`), id[1])
	}
}

func TestPage_HasTheHooksOfBrowserTests(t *testing.T) {
	v := visitor{t: t, server: serve(t), token: "a"}
	_, page := v.get("/")
	_, script := v.get("/demo.js")
	require.Contains(t, page, `<body data-state="connecting">`)
	require.Contains(t, page, `id="ticks"`)
	require.Contains(t, script, "window.__source")
	for _, id := range []string{
		"status", "tab", "stream", "ticks", "ready-state", "errors", "open", "second-tab", "panel", "panel-title",
		"explanation", "code", "reason", "message", "received", "last-event-id", "use-here", "timeline", "verdict", "log",
	} {
		require.Equal(t, 1, strings.Count(page, `data-testid="`+id+`"`), id)
	}
}
