//go:build compat

package compat

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/websocket"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// firefoxBrowser is a headless Firefox, driven by WebDriver BiDi.
type firefoxBrowser struct {
	conn *websocket.Conn
	read chan struct{} // closed once nothing is read from conn any more

	mu      sync.Mutex // guards next, waiting, and writes to conn
	next    int
	waiting map[int]chan bidiAnswer // closed where no answer comes
}

// bidiAnswer is what Firefox answers a command.
type bidiAnswer struct {
	ID      int
	Type    string
	Error   string
	Message string
	Result  json.RawMessage
}

// firefoxPrefs keep Firefox from the network, and from slowing down windows that it
// takes for hidden.
const firefoxPrefs = `user_pref("app.update.enabled", false);
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("browser.startup.page", 0);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("dom.min_background_timeout_value", 4);
user_pref("dom.timeout.enable_budget_timer_throttling", false);
user_pref("extensions.update.enabled", false);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
user_pref("services.settings.server", "http://127.0.0.1:9");
user_pref("toolkit.telemetry.enabled", false);
`

// startFirefox starts a Firefox with a profile of its own, which ends with the test.
func startFirefox(t *testing.T) *firefoxBrowser {
	t.Helper()
	profile := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(profile, "user.js"), []byte(firefoxPrefs), 0o600))
	port := harness.FreePort(t)
	cmd := exec.Command("firefox-esr", "--headless", "--no-remote", "--profile", profile,
		"--remote-debugging-port", fmt.Sprint(port), "--remote-allow-origins", "http://localhost", "about:blank")
	cmd.Env = append(os.Environ(), "HOME="+profile, "MOZ_CRASHREPORTER_DISABLE=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // with its child processes
		_ = cmd.Wait()
	})
	f := &firefoxBrowser{read: make(chan struct{}), waiting: map[int]chan bidiAnswer{}}
	require.Eventually(t, func() (up bool) {
		var err error
		f.conn, err = websocket.Dial(fmt.Sprintf("ws://127.0.0.1:%d/session", port), "", "http://localhost")
		return err == nil
	}, startTime, 200*time.Millisecond, "Firefox does not listen")
	go f.readAnswers()
	t.Cleanup(func() {
		f.conn.Close()
		<-f.read
	})
	f.call(t, "session.new", `{"capabilities":{}}`, nil)
	return f
}

// readAnswers ends with the connection.
func (f *firefoxBrowser) readAnswers() {
	defer close(f.read)
	for {
		var answer bidiAnswer
		err := websocket.JSON.Receive(f.conn, &answer)
		f.mu.Lock()
		if err != nil {
			for id, waiting := range f.waiting {
				close(waiting)
				delete(f.waiting, id)
			}
			f.waiting = nil
			f.mu.Unlock()
			return
		}
		waiting := f.waiting[answer.ID]
		delete(f.waiting, answer.ID)
		f.mu.Unlock()
		if waiting != nil {
			waiting <- answer // which has room
		}
	}
}

// call sends a command, and reads the answer into result unless that is nil.
func (f *firefoxBrowser) call(t *testing.T, method, params string, result any) {
	t.Helper()
	answered := make(chan bidiAnswer, 1)
	f.mu.Lock()
	if f.waiting == nil {
		f.mu.Unlock()
		require.FailNow(t, "Firefox is gone", method)
	}
	f.next++
	f.waiting[f.next] = answered
	_, err := fmt.Fprintf(f.conn, `{"id":%d,"method":%q,"params":%s}`, f.next, method, params)
	f.mu.Unlock()
	require.NoError(t, err)
	answer, ok := <-answered
	require.True(t, ok, "Firefox ended during %s", method)
	require.Equal(t, "success", answer.Type, "%s: %s: %s", method, answer.Error, answer.Message)
	if result != nil {
		require.NoError(t, json.Unmarshal(answer.Result, result))
	}
}

// open opens the page in a window of its own.
func (f *firefoxBrowser) open(t *testing.T, url string) *page {
	t.Helper()
	var window struct{ Context string }
	f.call(t, "browsingContext.create", `{"type":"window"}`, &window)
	f.call(t, "browsingContext.navigate", fmt.Sprintf(`{"context":%q,"url":%q,"wait":"complete"}`, window.Context, url), nil)
	return &page{
		url: url,
		eval: func(t *testing.T, expression string) string {
			var value struct {
				Type   string
				Result struct{ Value string }
			}
			f.call(t, "script.evaluate", fmt.Sprintf(`{"expression":%s,"target":{"context":%q},"awaitPromise":false}`,
				quoted("String("+expression+")"), window.Context), &value)
			require.Equal(t, "success", value.Type)
			return value.Result.Value
		},
		close: func() { f.call(t, "browsingContext.close", fmt.Sprintf(`{"context":%q}`, window.Context), nil) },
	}
}
