package e2e

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
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
	app := startFastAPI(t)
	i := newIssuer(t, "ES256")
	verified := verifyingGuard("", i.keyOption(t), byUser, tabs)
	opaque := "sse_guard {\n" + tabs + "\n}"
	proxy := "\nreverse_proxy " + app.URL + "\n"
	for name, site := range map[string]string{
		"at the top":       verified + "\n" + onlyTheHolder + proxy,
		"in a handle":      verified + "\nhandle {\n" + onlyTheHolder + proxy + "}",
		"in a route":       "route {\n" + verified + "\n" + onlyTheHolder + proxy + "}",
		"of another zone":  verifyingGuard("", i.keyOption(t), byUser, tabs, "zone quiz") + "\n@watches not sse_guard_holder quiz\nhandle /game/* {\nrespond @watches 409\n" + proxy + "}\n" + proxy,
		"of a path":        "@play path /user-stream /game/*\n" + verifyingGuard("@play", i.keyOption(t), byUser, tabs) + "\n" + onlyTheHolder + proxy,
		"of opaque tokens": opaque + "\n" + onlyTheHolder + proxy,
	} {
		t.Run(name, func(t *testing.T) {
			app.reset(t)
			app.verifyWith(t, i)
			url := startCaddy(t, site).URL
			alice := withBearer(i.token(t))
			play := func(tab string, options ...requestOption) int {
				answer, _ := get(t, url+"/game/answer"+tab, append([]requestOption{withPost("42")}, options...)...)
				return answer.StatusCode
			}
			open := func(tab string, options ...requestOption) *sseStream {
				s := newSSEClient(t, http1).open(t, url+"/user-stream?max=2"+tab, options...)
				requireAdmitted(t, s)
				return s
			}
			require.Equal(t, 409, play("?tab=1", alice), "nobody plays yet")
			open("&tab=2", withBearer(i.token(t, withSub("bob"))))

			first := open("&tab=1", alice)
			require.Equal(t, 200, play("?tab=1", alice))
			require.Equal(t, 200, play("", alice), "its token is the holder's")
			require.Equal(t, 409, play("?tab=2", alice))
			require.Equal(t, 409, play("?tab=1"), "no token")
			require.Equal(t, 409, play("?tab=1", withBearer("made up")))
			require.Equal(t, 409, play("?tab=1", withBearer(i.token(t, withSub("bob")))), "bob's tab of that name")

			second := open("&tab=2", alice)
			requireEnded(t, first, duplicated, "superseded")
			require.Equal(t, 409, play("?tab=1", alice))
			require.Equal(t, 200, play("?tab=2", alice))

			second.close()
			require.Eventually(t, func() bool { return play("?tab=2", alice) == 409 }, patience, 10*time.Millisecond)
			answer, _ := get(t, url+"/api/items", alice)
			require.Equal(t, 200, answer.StatusCode, "who watches may do the rest")
			for _, request := range app.requests(t) {
				if request.Path == "/game/answer" {
					require.Equal(t, 200, *request.Status)
				}
			}
		})
	}
}

// TestHolder_ARefreshedTokenOfItsUserMayPlay as long as it names the tab.
func TestHolder_ARefreshedTokenOfItsUserMayPlay(t *testing.T) {
	site := startUserSite(t, "client query tab tab", onlyTheHolder)
	url := site.server.URL
	requireAdmitted(t, newSSEClient(t, http1).open(t, url+"/user-stream?tab=1", withBearer(site.token(t))))
	refreshed := withBearer(site.token(t))
	for target, status := range map[string]int{"?tab=1": 200, "?tab=2": 409, "": 409} {
		answer, _ := get(t, url+"/game/answer"+target, withPost(""), refreshed)
		require.Equal(t, status, answer.StatusCode, target)
	}
}
