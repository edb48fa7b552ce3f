package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// TestScenario_LogOutHereBeFreeThere is problem P4: who logs out on one device
// is admitted on another at once, by a backend that would refuse a second
// stream.
func TestScenario_LogOutHereBeFreeThere(t *testing.T) {
	const rounds = 20
	for _, scope := range []string{"token", "client", "user"} {
		t.Run(scope, func(t *testing.T) {
			site := harness.StartUserSite(t, "takeover request\nlogout POST /logout "+scope)
			url := site.Server.URL
			client := harness.NewClient(t, harness.HTTP1)
			here := site.Token(t)
			stream := client.Open(t, url+"/user-stream", harness.WithBearer(here), harness.WithHeader("X-Client-Id", "0"))
			harness.RequireAdmitted(t, stream)
			for round := range rounds {
				device := fmt.Sprint(round)
				require.Equal(t, 200, harness.LogOut(t, url+"/logout", harness.WithBearer(here), harness.WithHeader("X-Client-Id", device)))
				there := site.Token(t)
				next := client.Open(t, url+"/user-stream", harness.WithBearer(there), harness.WithHeader("X-Client-Id", fmt.Sprint(round+1)))
				harness.RequireAdmitted(t, next)
				harness.RequireEnded(t, stream, harness.LoggedOut, "logout")
				here, stream = there, next
			}
			require.Equal(t, rounds+1, site.App.Stats(t).Opened)
			site.App.WaitOpen(t, 1)
		})
	}
}

// TestScenario_ThreeTabsLogOutInOne: all three end, and stay ended.
func TestScenario_ThreeTabsLogOutInOne(t *testing.T) {
	site := harness.StartUserSite(t, "limit 3\nlogout POST /logout")
	url, token := site.Server.URL, site.Token(t)
	var tabs []*harness.EventSource
	for range 3 {
		tab := harness.NewEventSource(t, harness.NewClient(t, harness.HTTP1), url+"/user-stream?max=3", harness.WithBearer(token))
		require.Equal(t, "message", tab.Next(t).Type)
		tabs = append(tabs, tab)
	}
	require.Equal(t, 200, harness.LogOut(t, url+"/logout", harness.WithBearer(token)))
	for _, tab := range tabs {
		require.Equal(t, []int{200, 204}, tab.WaitClosed(t))
		var last harness.Event
		for last = range tab.Events() {
		}
		require.Equal(t, harness.LoggedOut, last.Type)
	}
	require.Equal(t, 3, site.App.Stats(t).Opened)
	site.App.WaitOpen(t, 0)
}

// TestScenario_ThreeTabsOfABrowser is the same with the browser's own
// EventSource, and a cookie.
func TestScenario_ThreeTabsOfABrowser(t *testing.T) {
	site := harness.StartUserSite(t, "limit 3\nretry 100ms\nlogout POST /logout", "rewrite /events /user-stream?max=3")
	browser := harness.StartBrowser(t)
	token := site.Token(t)
	var tabs []*harness.Tab
	for range 3 {
		tb := browser.NewTab(t, site.Server.URL+"/login")
		tb.Eval(t, fmt.Sprintf(`(() => {
			document.cookie = "access_token=%s"
			const source = window.__source = new EventSource("/events")
			source.onmessage = () => document.body.dataset.state = "live"
			source.addEventListener("LOGGED_OUT", () => document.body.dataset.state = "logged out")
		})()`, token))
		tb.WaitState(t, "live")
		tabs = append(tabs, tb)
	}
	tabs[0].Eval(t, `fetch("/logout", {method: "POST"})`)
	for _, tb := range tabs {
		tb.WaitState(t, "logged out")
		require.Eventually(t, func() bool { return tb.Eval(t, "window.__source.readyState") == "2" }, harness.Patience, 20*time.Millisecond)
		require.Equal(t, []int64{200, 204}, tb.Answers("/events"))
	}
	require.Equal(t, 3, site.App.Stats(t).Opened)
	site.App.WaitOpen(t, 0)
}

// TestScenario_NetworkCutAndBack is problem P4 again: the lost connection's
// stream is a zombie, for proxy and backend alike, when its client comes back.
func TestScenario_NetworkCutAndBack(t *testing.T) {
	for name, refresh := range map[string]bool{"with its token": false, "with a refreshed token": true} {
		t.Run(name, func(t *testing.T) {
			// A newcomer that waits for the time-out fails by the test's own.
			site := harness.StartUserSite(t, "takeover request\nend_timeout 10m")
			c := harness.NewCable(t, site.Server.URL)
			token := site.Token(t)
			for range 3 {
				lost := harness.NewClient(t, harness.HTTP1).Open(t, c.URL+"/user-stream", harness.WithBearer(token))
				harness.RequireAdmitted(t, lost)
				c.Cut(t)
				if refresh {
					token = site.Token(t)
				}
				back := harness.NewClient(t, harness.HTTP1).Open(t, c.URL+"/user-stream", harness.WithBearer(token))
				harness.RequireAdmitted(t, back)
				require.False(t, lost.Ended(), "it does not know")
				require.Equal(t, []string{"alice"}, usersOf(site.App.WaitOpen(t, 1)))
				back.Close()
				site.App.WaitOpen(t, 0)
			}
			require.Equal(t, 6, site.App.Stats(t).Opened)
		})
	}
}

func usersOf(s harness.AppStats) (users []string) {
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
	for name, kill := range map[string]func(*harness.Cable, *harness.Stream){
		"closed": func(_ *harness.Cable, s *harness.Stream) { s.Close() },
		"reset":  func(c *harness.Cable, _ *harness.Stream) { c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			site := harness.StartUserSite(t, "takeover request")
			token, refused := site.Token(t), 0
			for range rounds {
				c := harness.NewCable(t, site.Server.URL)
				open := func() *harness.Stream {
					return harness.NewClient(t, harness.HTTP1).Open(t, c.URL+"/user-stream", harness.WithBearer(token))
				}
				s := open()
				if s.Status == 409 {
					refused++
					site.App.WaitOpen(t, 0)
					s = open()
				}
				harness.RequireAdmitted(t, s)
				kill(c, s)
			}
			require.LessOrEqual(t, refused, seldom)
			require.Equal(t, rounds, site.App.WaitOpen(t, 0).Opened)
		})
	}
}
