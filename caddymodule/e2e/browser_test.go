package e2e

import (
	"context"
	"net/url"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// startBrowser starts a Chromium of its own.
func startBrowser(t testing.TB) context.Context {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	require.NotEmpty(t, path, "no Chromium: run `make deps`")
	allocator, stop := chromedp.NewExecAllocator(context.Background(),
		chromedp.ExecPath(path),
		chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("headless", true),
		chromedp.Flag("no-sandbox", true),
		chromedp.Flag("disable-gpu", true),
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true),
	)
	t.Cleanup(stop)
	browser, closeBrowser := chromedp.NewContext(allocator)
	t.Cleanup(closeBrowser)
	require.NoError(t, chromedp.Do(browser, chromedp.Navigate("about:blank")))
	return browser
}

// tab is one page of the browser, with the answers that its requests got.
type tab struct {
	ctx   context.Context
	close func()

	mu       sync.Mutex
	statuses []int64 // of /events
}

func newTab(browser context.Context, t testing.TB, page string) *tab {
	t.Helper()
	ctx, closeTab := chromedp.NewContext(browser)
	t.Cleanup(closeTab)
	tb := &tab{ctx: ctx, close: closeTab}
	require.NoError(t, chromedp.Do(ctx, chromedp.Navigate("about:blank")))
	require.NoError(t, chromedp.Listen(ctx, func(event any) {
		if e, ok := event.(*network.EventResponseReceived); ok {
			if u, err := url.Parse(e.Response.URL); err == nil && u.Path == "/events" {
				tb.mu.Lock()
				tb.statuses = append(tb.statuses, e.Response.Status)
				tb.mu.Unlock()
			}
		}
	}))
	require.NoError(t, chromedp.Do(ctx, chromedp.Navigate(page)))
	return tb
}

func (tb *tab) answers() []int64 {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	return append([]int64(nil), tb.statuses...)
}

func (tb *tab) eval(t testing.TB, expression string) string {
	t.Helper()
	result, err := chromedp.Run(tb.ctx, chromedp.Evaluate[string]("String("+expression+")"))
	require.NoError(t, err)
	return result
}

func (tb *tab) waitState(t testing.TB, state string) {
	t.Helper()
	require.Eventually(t, func() bool { return tb.eval(t, "document.body.dataset.state") == state }, patience, 50*time.Millisecond,
		"the page does not show %q", state)
}

// TestDemo_TwoTabs opens the demo in two tabs of a real browser. The first one
// shows that it was superseded; its plain EventSource asks once more, gets a
// 204, and is closed for ever.
func TestDemo_TwoTabs(t *testing.T) {
	demo, log := startSSEProxy(t)
	browser := startBrowser(t)
	first := newTab(browser, t, demo)
	first.waitState(t, "live")
	second := newTab(browser, t, demo)
	second.waitState(t, "live")
	first.waitState(t, "closed")

	assert.Equal(t, "2", first.eval(t, "window.__source.readyState"))
	assert.Contains(t, first.eval(t, `document.querySelector('[data-testid="panel"]').innerText`), duplicated)
	restUntil := time.Now().Add(10 * time.Second)
	require.Eventually(t, func() bool { return time.Now().After(restUntil) }, 2*patience, 100*time.Millisecond)
	assert.Equal(t, []int64{200, 204}, first.answers(), "exactly one reconnect")
	assert.Equal(t, []int64{200}, second.answers())
	assert.Equal(t, "live", second.eval(t, "document.body.dataset.state"))
	assert.Equal(t, 1, strings.Count(log.String(), `"msg":"stream ended"`))
	assert.NotContains(t, log.String(), "aborting")

	// "Use here" takes the stream back.
	require.NoError(t, chromedp.Do(first.ctx, chromedp.Click(chromedp.CSS(`[data-testid="use-here"]`))))
	first.waitState(t, "live")
	second.waitState(t, "closed")
}
