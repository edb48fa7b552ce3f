package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// plainPage is what most pages do with their stream.
const plainPage = `const source = new EventSource("/events");`

// TestBackForwardCache: Chromium keeps a page that its user has left, frozen and with
// its stream open, and shows it again on Back. Every page here opens the same stream,
// as pages of a site do, so the page that is shown again was superseded in the
// meantime, by one that is frozen now; under policy reject, the second page would be
// refused because of the first. A tab, and the page that README recommends, have events
// again; a plain page is closed, as README says.
func TestBackForwardCache(t *testing.T) {
	for _, tt := range []struct {
		name, options, script, source string
		again                         bool
	}{
		{
			name:    "client tab",
			options: "client query tab tab", again: true,
			script: plainPage, source: "/raw?tab=1",
		},
		{
			name:  "the page in README",
			again: true, script: readmePage(t), source: "/raw",
		},
		{
			name:    "client tab, policy reject",
			options: "client query tab tab\npolicy reject", again: true,
			script: plainPage, source: "/raw?tab=1",
		},
		{
			name:    "the page in README, policy reject",
			options: "policy reject", again: true,
			script: readmePage(t), source: "/raw",
		},
		{
			name:   "a plain page",
			script: plainPage, source: "/raw",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			app := harness.StartFastAPI(t)
			dir := t.TempDir()
			script := strings.ReplaceAll(tt.script, "/events", tt.source)
			require.Contains(t, script, tt.source)
			page := `<!doctype html><title>A page</title><script>
				document.cookie = "access_token=alice"
				addEventListener("pageshow", e => { window.__restored = e.persisted })
				` + script + `
			</script>`
			require.NoError(t, os.WriteFile(filepath.Join(dir, "page.html"), []byte(page), 0o600))
			server := harness.StartCaddy(t, "sse_guard {\n"+tt.options+"\n}\nhandle /page.html {\nroot "+dir+"\nfile_server\n}\nhandle {\nreverse_proxy "+app.URL+"\n}")
			tab := harness.StartBrowser(t).NewTab(t, server.URL+"/page.html?1")

			shows := func(query, restored string) {
				require.Eventually(t, func() bool {
					return tab.Peek(t, "location.search + window.__restored") == query+restored
				}, harness.Patience, 50*time.Millisecond, "%s is not shown, or from the cache: %s", query, restored)
			}
			streams := func(message string) {
				tab.Eval(t, `(() => { window.__heard = 0; source.addEventListener("message", () => { window.__heard++ }) })()`)
				require.Eventually(t, func() bool {
					return tab.Eval(t, "source.readyState === 1 && window.__heard > 1") == "true"
				}, harness.Patience, 50*time.Millisecond, message)
			}
			shows("?1", "false")
			streams("the first page")
			tab.Eval(t, `location.href = "/page.html?2"`)
			shows("?2", "false")
			streams("the second page")
			tab.Eval(t, "history.back()")
			shows("?1", "true")
			if !tt.again {
				require.Eventually(t, func() bool { return tab.Eval(t, "source.readyState") == "2" }, harness.Patience, 50*time.Millisecond)
				app.WaitOpen(t, 1)
				return
			}
			harness.Rest(t, 2*time.Second) // a reconnect that is answered 204 has come by then
			streams("the first page, again")
			tab.Eval(t, "history.forward()")
			shows("?2", "true")
			streams("the second page, again")
			app.WaitOpen(t, 1)
		})
	}
}

// readmePage is the script in README for pages that come back from the cache.
func readmePage(t testing.TB) string {
	t.Helper()
	readme, err := os.ReadFile(filepath.Join(harness.Root(t), "README.md"))
	require.NoError(t, err)
	for _, block := range regexp.MustCompile("(?s)```js\n(.*?)```").FindAllSubmatch(readme, -1) {
		if strings.Contains(string(block[1]), "pagehide") {
			return string(block[1])
		}
	}
	require.FailNow(t, "README has no page with pagehide")
	return ""
}
