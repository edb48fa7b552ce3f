package e2e

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// onlyTheHolder is the quiz game's rule: who watches in another tab does not
// answer.
const onlyTheHolder = `@cheat {
	method POST
	path /game/*
	not sse_guard_holder
}
respond @cheat "You play in another tab" 409
`

// TestHolder_OnlyItsTabMayPlay: wherever the matcher stands, and whoever
// verifies the token.
func TestHolder_OnlyItsTabMayPlay(t *testing.T) {
	const tabs = "client query tab tab"
	app := harness.StartFastAPI(t)
	i := harness.NewIssuer(t, "ES256")
	verified := harness.VerifyingGuard("", i.KeyOption(t), harness.ByUser, tabs)
	opaque := "sse_guard {\n" + tabs + "\n}"
	proxy := "\nreverse_proxy " + app.URL + "\n"
	for name, site := range map[string]string{
		"at the top":       verified + "\n" + onlyTheHolder + proxy,
		"in a handle":      verified + "\nhandle {\n" + onlyTheHolder + proxy + "}",
		"in a route":       "route {\n" + verified + "\n" + onlyTheHolder + proxy + "}",
		"of another zone":  harness.VerifyingGuard("", i.KeyOption(t), harness.ByUser, tabs, "zone quiz") + "\n@watches not sse_guard_holder quiz\nhandle /game/* {\nrespond @watches 409\n" + proxy + "}\n" + proxy,
		"of a path":        "@play path /user-stream /game/*\n" + harness.VerifyingGuard("@play", i.KeyOption(t), harness.ByUser, tabs) + "\n" + onlyTheHolder + proxy,
		"of opaque tokens": opaque + "\n" + onlyTheHolder + proxy,
	} {
		t.Run(name, func(t *testing.T) {
			app.Reset(t)
			app.VerifyWith(t, i)
			url := harness.StartCaddy(t, site).URL
			alice := harness.WithBearer(i.Token(t))
			play := func(tab string, options ...harness.RequestOption) int {
				answer, _ := harness.Get(t, url+"/game/answer"+tab, append([]harness.RequestOption{harness.WithPost("42")}, options...)...)
				return answer.StatusCode
			}
			open := func(tab string, options ...harness.RequestOption) *harness.Stream {
				s := harness.NewClient(t, harness.HTTP1).Open(t, url+"/user-stream?max=2"+tab, options...)
				harness.RequireAdmitted(t, s)
				return s
			}
			require.Equal(t, 409, play("?tab=1", alice), "nobody plays yet")
			open("&tab=2", harness.WithBearer(i.Token(t, harness.WithSub("bob"))))

			first := open("&tab=1", alice)
			require.Equal(t, 200, play("?tab=1", alice))
			require.Equal(t, 200, play("", alice), "its token is the holder's")
			require.Equal(t, 409, play("?tab=2", alice))
			require.Equal(t, 409, play("?tab=1"), "no token")
			require.Equal(t, 409, play("?tab=1", harness.WithBearer("made up")))
			require.Equal(t, 409, play("?tab=1", harness.WithBearer(i.Token(t, harness.WithSub("bob")))), "bob's tab of that name")

			second := open("&tab=2", alice)
			harness.RequireEnded(t, first, harness.Duplicated, "superseded")
			require.Equal(t, 409, play("?tab=1", alice))
			require.Equal(t, 200, play("?tab=2", alice))

			second.Close()
			require.Eventually(t, func() bool { return play("?tab=2", alice) == 409 }, harness.Patience, 10*time.Millisecond)
			answer, _ := harness.Get(t, url+"/api/items", alice)
			require.Equal(t, 200, answer.StatusCode, "who watches may do the rest")
			for _, request := range app.Requests(t) {
				if request.Path == "/game/answer" {
					require.Equal(t, 200, *request.Status)
				}
			}
		})
	}
}

// TestHolder_ARefreshedTokenOfItsUserMayPlay as long as it names the tab.
func TestHolder_ARefreshedTokenOfItsUserMayPlay(t *testing.T) {
	site := harness.StartUserSite(t, "client query tab tab", onlyTheHolder)
	url := site.Server.URL
	harness.RequireAdmitted(t, harness.NewClient(t, harness.HTTP1).Open(t, url+"/user-stream?tab=1", harness.WithBearer(site.Token(t))))
	refreshed := harness.WithBearer(site.Token(t))
	for target, status := range map[string]int{"?tab=1": 200, "?tab=2": 409, "": 409} {
		answer, _ := harness.Get(t, url+"/game/answer"+target, harness.WithPost(""), refreshed)
		require.Equal(t, status, answer.StatusCode, target)
	}
}
