package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// TestDemo_TwoTabs opens the demo in two tabs of a real browser. The first one
// shows that it was superseded; its plain EventSource asks once more, gets a
// 204, and is closed for ever.
func TestDemo_TwoTabs(t *testing.T) {
	log, demo := harness.StartSSEProxy(t)
	browser := harness.StartBrowser(t)
	first := browser.NewTab(t, demo)
	first.WaitState(t, "live")
	second := browser.NewTab(t, demo)
	second.WaitState(t, "live")
	first.WaitState(t, "closed")

	assert.Equal(t, "2", first.Eval(t, "window.__source.readyState"))
	assert.Contains(t, first.Eval(t, `document.querySelector('[data-testid="panel"]').innerText`), harness.Duplicated)
	harness.Rest(t, 10*time.Second)
	assert.Equal(t, []int64{200, 204}, first.Answers("/events"), "exactly one reconnect")
	assert.Equal(t, []int64{200}, second.Answers("/events"))
	assert.Equal(t, "live", second.Eval(t, "document.body.dataset.state"))
	assert.Equal(t, 1, strings.Count(log.String(), `"msg":"stream ended"`))
	assert.NotContains(t, log.String(), "aborting")

	// "Use here" takes the stream back.
	first.Click(t, `[data-testid="use-here"]`)
	first.WaitState(t, "live")
	second.WaitState(t, "closed")

	harness.RequireLivePage(t, browser, demo+"/operate/", 1)
}
