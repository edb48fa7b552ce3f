package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// userSite is a guard that knows users by their tokens, before an application
// that verifies the same tokens and refuses a user more streams than it allows.
type userSite struct {
	server     *caddyServer
	app        *fastAPI
	issuer     *issuer
	directives string
}

// siteSecret spares the guard to make one on first use, which may be for the event
// of a stream whose client is gone, and the test with it: it would be written to a
// directory that is being removed.
const siteSecret = "secret 0123456789abcdef"

// startUserSite has the guard hold a stream per user, unless the options say
// otherwise. The other directives go before it.
func startUserSite(t testing.TB, options string, directives ...string) *userSite {
	t.Helper()
	s := &userSite{app: startFastAPI(t), issuer: newIssuer(t, "ES256")}
	s.app.verifyWith(t, s.issuer)
	s.directives = strings.Join(append(directives, verifyingSite(s.app, s.issuer.keyOption(t), byUser, siteSecret, options)), "\n")
	s.server = startCaddy(t, s.directives)
	return s
}

// reload has the same directives in force, and others before them. It waits until
// the server from before takes no connections any more.
func (s *userSite) reload(t testing.TB, directives ...string) {
	t.Helper()
	mark := fmt.Sprint(tokensMade.Add(1))
	s.server.reload(t, strings.Join(append(directives, "header X-Reloaded "+mark, s.directives), "\n"))
	client := newSSEClient(t, http1)
	require.Eventually(t, func() bool {
		defer client.http.CloseIdleConnections()
		answer, err := client.http.Get(s.server.URL + "/api/items")
		if err != nil {
			return false
		}
		answer.Body.Close()
		return answer.Header.Get("X-Reloaded") == mark
	}, patience, 10*time.Millisecond)
}

// token makes a token as the issuer does when a user logs in.
func (s *userSite) token(t testing.TB, options ...tokenOption) string {
	t.Helper()
	return s.issuer.token(t, options...)
}

// requireAdmitted waits for the first event of a stream.
func requireAdmitted(t testing.TB, s *sseStream) {
	t.Helper()
	require.Equal(t, 200, s.Status, "%s", s.bytes())
	require.Equal(t, "message", s.next(t).Type)
}

const loggedOut = "LOGGED_OUT"

// logOut sends POST /logout and returns the status of the answer.
func logOut(t testing.TB, url string, options ...requestOption) int {
	t.Helper()
	answer, _ := get(t, url, append([]requestOption{withPost("")}, options...)...)
	return answer.StatusCode
}

// TestScenario_LogOutHereBeFreeThere is problem P4: who logs out on one device
// is admitted on another at once, by a backend that would refuse a second
// stream.
func TestScenario_LogOutHereBeFreeThere(t *testing.T) {
	const rounds = 20
	for _, scope := range []string{"token", "client", "user"} {
		t.Run(scope, func(t *testing.T) {
			site := startUserSite(t, "takeover request\nlogout POST /logout "+scope)
			url := site.server.URL
			client := newSSEClient(t, http1)
			here := site.token(t)
			stream := client.open(t, url+"/user-stream", withBearer(here), withHeader("X-Client-Id", "0"))
			requireAdmitted(t, stream)
			for round := range rounds {
				device := fmt.Sprint(round)
				require.Equal(t, 200, logOut(t, url+"/logout", withBearer(here), withHeader("X-Client-Id", device)))
				there := site.token(t)
				next := client.open(t, url+"/user-stream", withBearer(there), withHeader("X-Client-Id", fmt.Sprint(round+1)))
				requireAdmitted(t, next)
				requireEnded(t, stream, loggedOut, "logout")
				here, stream = there, next
			}
			require.Equal(t, rounds+1, site.app.stats(t).Opened)
			site.app.waitOpen(t, 1)
		})
	}
}

// TestScenario_ThreeTabsLogOutInOne: all three end, and stay ended.
func TestScenario_ThreeTabsLogOutInOne(t *testing.T) {
	site := startUserSite(t, "limit 3\nlogout POST /logout")
	url, token := site.server.URL, site.token(t)
	var tabs []*eventSourceLike
	for range 3 {
		tab := newEventSource(t, newSSEClient(t, http1), url+"/user-stream?max=3", withBearer(token))
		require.Equal(t, "message", tab.next(t).Type)
		tabs = append(tabs, tab)
	}
	require.Equal(t, 200, logOut(t, url+"/logout", withBearer(token)))
	for _, tab := range tabs {
		require.Equal(t, []int{200, 204}, tab.waitClosed(t))
		var last sseEvent
		for last = range tab.events {
		}
		require.Equal(t, loggedOut, last.Type)
	}
	require.Equal(t, 3, site.app.stats(t).Opened)
	site.app.waitOpen(t, 0)
}

// TestScenario_ThreeTabsOfABrowser is the same with the browser's own
// EventSource, and a cookie.
func TestScenario_ThreeTabsOfABrowser(t *testing.T) {
	site := startUserSite(t, "limit 3\nretry 100ms\nlogout POST /logout", "rewrite /events /user-stream?max=3")
	browser := startBrowser(t)
	token := site.token(t)
	var tabs []*tab
	for range 3 {
		tb := newTab(browser, t, site.server.URL+"/login")
		tb.eval(t, fmt.Sprintf(`(() => {
			document.cookie = "access_token=%s"
			const source = window.__source = new EventSource("/events")
			source.onmessage = () => document.body.dataset.state = "live"
			source.addEventListener("LOGGED_OUT", () => document.body.dataset.state = "logged out")
		})()`, token))
		tb.waitState(t, "live")
		tabs = append(tabs, tb)
	}
	tabs[0].eval(t, `fetch("/logout", {method: "POST"})`)
	for _, tb := range tabs {
		tb.waitState(t, "logged out")
		require.Eventually(t, func() bool { return tb.eval(t, "window.__source.readyState") == "2" }, patience, 20*time.Millisecond)
		require.Equal(t, []int64{200, 204}, tb.answers())
	}
	require.Equal(t, 3, site.app.stats(t).Opened)
	site.app.waitOpen(t, 0)
}

// TestScenario_NetworkCutAndBack is problem P4 again: the lost connection's
// stream is a zombie, for proxy and backend alike, when its client comes back.
func TestScenario_NetworkCutAndBack(t *testing.T) {
	for name, refresh := range map[string]bool{"with its token": false, "with a refreshed token": true} {
		t.Run(name, func(t *testing.T) {
			// A newcomer that waits for the time-out fails by the test's own.
			site := startUserSite(t, "takeover request\nend_timeout 10m")
			c := newCable(t, site.server.URL)
			token := site.token(t)
			for range 3 {
				lost := newSSEClient(t, http1).open(t, c.URL+"/user-stream", withBearer(token))
				requireAdmitted(t, lost)
				c.cut(t)
				if refresh {
					token = site.token(t)
				}
				back := newSSEClient(t, http1).open(t, c.URL+"/user-stream", withBearer(token))
				requireAdmitted(t, back)
				require.False(t, lost.ended(), "it does not know")
				require.Equal(t, []string{"alice"}, usersOf(site.app.waitOpen(t, 1)))
				back.close()
				site.app.waitOpen(t, 0)
			}
			require.Equal(t, 6, site.app.stats(t).Opened)
		})
	}
}

func usersOf(s appStats) (users []string) {
	for _, open := range s.Open {
		users = append(users, open.User)
	}
	return users
}

// TestScenario_TabKilledAndBack: a tab that goes without a word and comes back at
// once is admitted.
//
// If it is so quick that the backend finds its request beside the news of the
// closed connection, and looks at that last, it is the backend that refuses, as
// it would without a proxy. That is seldom, and over once the backend has looked.
func TestScenario_TabKilledAndBack(t *testing.T) {
	const rounds, seldom = 20, 4
	for name, kill := range map[string]func(*cable, *sseStream){
		"closed": func(_ *cable, s *sseStream) { s.close() },
		"reset":  func(c *cable, _ *sseStream) { c.close() },
	} {
		t.Run(name, func(t *testing.T) {
			site := startUserSite(t, "takeover request")
			token, refused := site.token(t), 0
			for range rounds {
				c := newCable(t, site.server.URL)
				open := func() *sseStream {
					return newSSEClient(t, http1).open(t, c.URL+"/user-stream", withBearer(token))
				}
				s := open()
				if s.Status == 409 {
					refused++
					site.app.waitOpen(t, 0)
					s = open()
				}
				requireAdmitted(t, s)
				kill(c, s)
			}
			require.LessOrEqual(t, refused, seldom)
			require.Equal(t, rounds, site.app.waitOpen(t, 0).Opened)
		})
	}
}
