package attack

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// application knows its user, and answers everything at /events with a
// stream: also what asks for an image, or to go on as a WebSocket.
type application struct {
	*httptest.Server
	byCookie atomic.Bool // or else by the address
	// others counts the user's requests for streams that no page of the site's sent.
	others atomic.Int32
	// open counts the streams that there are.
	open atomic.Int32
}

func startApplication(t testing.TB) *application {
	t.Helper()
	app := new(application)
	app.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/events" {
			blank(w, r)
			return
		}
		cookie, err := r.Cookie("access_token")
		if app.byCookie.Load() && (err != nil || cookie.Value != "alice") {
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		if r.Header.Get("Sec-Fetch-Site") != "same-origin" {
			app.others.Add(1)
		}
		app.open.Add(1)
		defer app.open.Add(-1)
		tick(w, r)
	}))
	t.Cleanup(app.Close)
	return app
}

// blank answers with a page that has nothing.
func blank(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html")
	_, _ = io.WriteString(w, "<!doctype html><body>")
}

// means are what a page does to have its visitor's browser ask for URL.
var means = map[string]string{
	"fetch no-cors": `fetch(URL, {mode: "no-cors", credentials: "include"}).catch(() => 0)`,
	"fetch":         `fetch(URL, {credentials: "include", headers: {Accept: "text/event-stream"}}).catch(() => 0)`,
	"EventSource":   `window.__attack = new EventSource(URL, {withCredentials: true})`,
	"an image":      `new Image().src = URL`,
	"a script":      `document.body.appendChild(Object.assign(document.createElement("script"), {src: URL}))`,
	"a video":       `document.body.appendChild(Object.assign(document.createElement("video"), {src: URL, preload: "auto"}))`,
	"a frame":       `document.body.appendChild(Object.assign(document.createElement("iframe"), {src: URL}))`,
	"a link":        `location = URL`,
	"preload":       `document.head.appendChild(Object.assign(document.createElement("link"), {rel: "preload", as: "fetch", crossOrigin: "use-credentials", href: URL}))`,
	"prefetch":      `document.head.appendChild(Object.assign(document.createElement("link"), {rel: "prefetch", href: URL}))`,
	"WebSocket":     `window.__attack = new WebSocket(URL.replace("http", "ws"))`,
}

// elsewhere are the hosts of the attacker's page: of another port of the same site, to
// which cookies go that are Lax, and of another site. Browsers often send no cookies from
// there, but an application inside a network may know its users by their address.
var elsewhere = map[string]struct{ host, options string }{
	"another port": {"localhost", ""},
	"another site": {"127.0.0.1", "key {client_ip}"},
}

// forEachAttack runs test with the user's page, which is logged in, and what has the
// attacker's page ask for the user's stream, in another tab of the same browser.
func forEachAttack(t *testing.T, policy string, test func(t *testing.T, server *harness.Caddy, user *harness.Tab, attack func(tab string))) {
	app := startApplication(t)
	pages := httptest.NewServer(http.HandlerFunc(blank))
	t.Cleanup(pages.Close)
	u, err := url.Parse(pages.URL)
	require.NoError(t, err)
	for place, from := range elsewhere {
		t.Run(place, func(t *testing.T) {
			app.byCookie.Store(from.options == "")
			server := harness.StartCaddy(t, "sse_guard {\npolicy "+policy+"\nclient query tab tab\nsecret 0123456789abcdef\n"+from.options+"\n}\nreverse_proxy "+app.URL)
			browser := harness.StartBrowser(t)
			for how, script := range means {
				t.Run(strings.ReplaceAll(how, " ", "_"), func(t *testing.T) {
					user := browser.NewTab(t, server.URL)
					user.Eval(t, `document.cookie = "access_token=alice; SameSite=Lax"`)
					attacker := browser.NewTab(t, "http://"+from.host+":"+u.Port())
					test(t, server, user, func(id string) {
						before := app.others.Load()
						attacker.Eval(t, strings.ReplaceAll("(() => { "+script+" })()", "URL", fmt.Sprintf("%q", server.URL+"/events?tab="+id)))
						require.Eventually(t, func() bool { return app.others.Load() > before }, harness.Patience, 5*time.Millisecond,
							"the browser did not ask in the user's name")
					})
					user.Close()
					attacker.Close()
					require.Eventually(t, func() bool { return app.open.Load() == 0 }, harness.Patience, 5*time.Millisecond)
				})
			}
		})
	}
}

// listening is what the user's page does.
const listening = `(() => {
	const source = window.__source = new EventSource("/events?tab=1")
	window.__ticks = 0
	window.__told = []
	source.onmessage = () => window.__ticks++
	for (const name of ["DUPLICATED_CONNECTION", "DUPLICATE_SESSION"])
		source.addEventListener(name, () => window.__told.push(name))
	source.onerror = () => window.__told.push("error")
})()`

// requireUndisturbed checks that the page hears more, and nothing else.
func requireUndisturbed(t testing.TB, user *harness.Tab) {
	t.Helper()
	before := user.Eval(t, "window.__ticks")
	require.Eventually(t, func() bool { return user.Eval(t, "window.__ticks > "+before+" + 10") == "true" }, harness.Patience, 10*time.Millisecond,
		"told: %s", user.Eval(t, "window.__told"))
	require.Empty(t, user.Eval(t, "window.__told"))
}

func TestAttack_EndAUsersStreamFromAnotherSite(t *testing.T) {
	forEachAttack(t, "supersede", func(t *testing.T, server *harness.Caddy, user *harness.Tab, attack func(tab string)) {
		user.Eval(t, listening)
		requireUndisturbed(t, user)
		attack("1")
		requireUndisturbed(t, user)
		for _, line := range server.HandlerLogs(t) {
			require.NotContains(t, line.Msg, "superseded")
		}
	})
}

func TestAttack_LockAUserOutFromAnotherSite(t *testing.T) {
	forEachAttack(t, "reject", func(t *testing.T, _ *harness.Caddy, user *harness.Tab, attack func(tab string)) {
		attack("2")
		user.Eval(t, listening)
		requireUndisturbed(t, user)
	})
}

// TestAttack_KeepAUserLoggedInByLeaving: a page logs out and goes elsewhere at once, as
// many do. The browser cancels the request.
func TestAttack_KeepAUserLoggedInByLeaving(t *testing.T) {
	answer, asked, canceled := make(chan struct{}), make(chan struct{}), make(chan struct{})
	app := startApplication(t)
	app.byCookie.Store(true)
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(asked)
		select {
		case <-answer:
		case <-r.Context().Done():
			close(canceled)
		}
	}))
	t.Cleanup(slow.Close)
	server := harness.StartCaddy(t, "sse_guard {\nlogout /logout\nsecret 0123456789abcdef\n}\n"+
		"reverse_proxy /logout "+slow.URL+"\nreverse_proxy "+app.URL)
	browser := harness.StartBrowser(t)
	user := browser.NewTab(t, server.URL)
	user.Eval(t, `document.cookie = "access_token=alice"`)
	stream := harness.NewClient(t, harness.HTTP1).Open(t, server.URL+"/events", harness.WithHeader("Cookie", "access_token=alice"))
	stream.Next(t)
	user.Eval(t, `(() => { window.__out = fetch("/logout", {method: "POST"}).catch(() => 0) })()`)
	<-asked
	user.Eval(t, `(() => { location = "/elsewhere" })()`)
	require.Eventually(t, func() bool { return user.Eval(t, "location.pathname") == "/elsewhere" }, harness.Patience, 10*time.Millisecond)
	select {
	case <-canceled:
		t.Fatal("the application does not hear of it")
	case <-time.After(300 * time.Millisecond):
	}
	close(answer)
	harness.RequireEnded(t, stream, harness.LoggedOut, "logout")
}
