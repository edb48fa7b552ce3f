package harness

import (
	"context"
	"net/url"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// Browser is a headless Chromium with a profile of its own, which chromedp makes and
// removes.
type Browser struct {
	ctx context.Context // of chromedp
}

// StartBrowser starts a Chromium, which ends with the test.
func StartBrowser(t testing.TB) *Browser {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	require.NotEmpty(t, path, "no Chromium: run `make deps`")
	networkStays.by(t)
	allocator, stop := chromedp.NewExecAllocator(context.Background(),
		chromedp.ExecPath(path),
		chromedp.Flag("headless", true),
		chromedp.Flag("no-sandbox", true),
		chromedp.Flag("disable-gpu", true),
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("ignore-certificate-errors", true),
		chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true),
	)
	t.Cleanup(stop)
	ctx, closeBrowser := chromedp.NewContext(allocator)
	t.Cleanup(func() {
		// A browser that is killed leaves a directory behind.
		patient, cancel := context.WithTimeout(ctx, Patience)
		defer cancel()
		if err := chromedp.Cancel(patient); err != nil {
			t.Logf("closing Chromium: %v", err)
		}
		closeBrowser()
	})
	require.NoError(t, chromedp.Do(ctx, chromedp.Navigate("about:blank")))
	return &Browser{ctx}
}

// Tab is one page of the browser. It notes what its requests are answered.
type Tab struct {
	ctx      context.Context // of chromedp
	closeTab context.CancelFunc

	mu       sync.Mutex         // guards what follows; nothing is called with it held
	statuses map[string][]int64 // by path
	problems []string
}

// NewTab opens the page, a URL, in a new tab, which the test's end closes.
func (b *Browser) NewTab(t testing.TB, page string) *Tab {
	t.Helper()
	ctx, closeTab := chromedp.NewContext(b.ctx)
	t.Cleanup(closeTab)
	tb := &Tab{ctx: ctx, closeTab: closeTab, statuses: map[string][]int64{}}
	require.NoError(t, chromedp.Do(ctx, chromedp.Navigate("about:blank")))
	require.NoError(t, chromedp.Listen(ctx, func(event any) {
		tb.noteProblem(event)
		if e, ok := event.(*network.EventResponseReceived); ok {
			if u, err := url.Parse(e.Response.URL); err == nil {
				tb.mu.Lock()
				tb.statuses[u.Path] = append(tb.statuses[u.Path], e.Response.Status)
				tb.mu.Unlock()
			}
		}
	}))
	require.NoError(t, chromedp.Do(ctx, chromedp.Navigate(page)))
	return tb
}

// Answers returns the statuses that the page's requests for that path got, in
// order.
func (tb *Tab) Answers(path string) []int64 {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	return slices.Clone(tb.statuses[path])
}

// Eval evaluates a JavaScript expression in the page, and returns its value as
// String() does.
func (tb *Tab) Eval(t testing.TB, expression string) string {
	t.Helper()
	result, err := tb.eval(expression)
	require.NoError(t, err)
	return result
}

// Peek is Eval in a page that is about to take the place of another one: it returns ""
// where that happens just then.
func (tb *Tab) Peek(t testing.TB, expression string) string {
	t.Helper()
	result, err := tb.eval(expression)
	if err != nil && strings.Contains(err.Error(), "navigated") {
		return ""
	}
	require.NoError(t, err)
	return result
}

func (tb *Tab) eval(expression string) (string, error) {
	return chromedp.Run(tb.ctx, chromedp.Evaluate[string]("String("+expression+")"))
}

// Click clicks the element that the CSS selector finds.
func (tb *Tab) Click(t testing.TB, selector string) {
	t.Helper()
	require.NoError(t, chromedp.Do(tb.ctx, chromedp.Click(chromedp.CSS(selector))))
}

// WaitState waits until the page's body has that data-state.
func (tb *Tab) WaitState(t testing.TB, state string) {
	t.Helper()
	require.Eventually(t, func() bool { return tb.Eval(t, "document.body.dataset.state") == state }, Patience, 50*time.Millisecond,
		"the page does not show %q", state)
}

// Close closes the tab, as its user does.
func (tb *Tab) Close() { tb.closeTab() }

// RequireLivePage requires that the live page at url says how many streams are live.
func RequireLivePage(t testing.TB, b *Browser, url string, live int) {
	t.Helper()
	page := b.NewTab(t, url)
	require.Eventually(t, func() bool {
		return page.Eval(t, `document.getElementById("count-live").textContent`) == strconv.Itoa(live)
	},
		Patience, 50*time.Millisecond, "the live page does not say that %d streams are live", live)
}
