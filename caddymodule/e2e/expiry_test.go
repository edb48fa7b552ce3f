package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// requireExpired waits for the end of a stream whose token's life is over, which
// is not before that time.
func requireExpired(t testing.TB, s *sseStream, at time.Time) {
	t.Helper()
	notice := requireEnded(t, s, tokenExpired, "expired")
	require.False(t, time.Now().Before(at), "it ended too early")
	require.Equal(t, tokenExpired, noticeOf(t, notice).Code)
	require.NotContains(t, notice.ID, "sse-guard", "it may come back with a fresh token")
}

// refresh sends what a page does once it has a new token.
func refresh(t testing.TB, url, token string) {
	t.Helper()
	answer, _ := get(t, url, withPost(""), withBearer(token))
	require.Equal(t, 200, answer.StatusCode)
}

// expiryGuards are guards for requests of the given modes, by query.
func expiryGuards(key string, modes map[string]string) string {
	var guards strings.Builder
	for mode, options := range modes {
		jwt, options, _ := strings.Cut(options, ";")
		fmt.Fprintf(&guards, "@%s query mode=%[1]s\n%s\n", mode,
			verifyingGuard("@"+mode, key+"\n"+jwt, byUser, "zone "+mode, options))
	}
	return guards.String()
}

// TestExpiry_OfStreamsInEveryMode lets tokens of a few seconds expire, of streams
// that were refreshed meanwhile or not.
func TestExpiry_OfStreamsInEveryMode(t *testing.T) {
	app := startFastAPI(t)
	i := newIssuer(t, "ES256")
	server := startCaddy(t, expiryGuards(i.keyOption(t), map[string]string{
		"renew": ";", "end": ";on_expiry end", "keep": ";on_expiry keep", "lenient": "leeway 2s;",
	})+"reverse_proxy "+app.URL)

	first := time.Unix(time.Now().Unix()+2, 0) // when the tokens expire
	then := first.Add(2 * time.Second)         // when the refreshed ones do
	sid := func(id string) tokenOption { return withClaim("sid", id) }
	tests := map[string]struct {
		mode    string
		refresh []tokenOption // of the later token; nil: none comes
		end     time.Time     // zero: none
	}{
		"left alone":           {"renew", nil, first},
		"refreshed":            {"renew", []tokenOption{sid("1")}, then},
		"another session's":    {"renew", []tokenOption{sid("2")}, first},
		"another user's":       {"renew", []tokenOption{sid("1"), withSub("mallory")}, first},
		"not verified":         {"renew", []tokenOption{sid("1"), withKid("unknown")}, first},
		"an earlier one":       {"renew", []tokenOption{sid("1"), withExp(first.Add(-time.Second))}, first},
		"never expires":        {"renew", []tokenOption{sid("1"), withClaim("exp", nil)}, time.Time{}},
		"end, left alone":      {"end", nil, first},
		"end, refreshed":       {"end", []tokenOption{sid("1")}, first},
		"keep":                 {"keep", nil, time.Time{}},
		"leeway":               {"lenient", nil, first.Add(2 * time.Second)},
		"leeway and refreshed": {"lenient", []tokenOption{sid("1")}, then.Add(2 * time.Second)},
	}
	client := newSSEClient(t, http1)
	streams := make(map[string]*sseStream)
	for name, test := range tests {
		sub := []tokenOption{withSub(name), sid("1")}
		open := func(token string) *sseStream {
			return client.open(t, server.URL+"/raw?mode="+test.mode, withBearer(token))
		}
		streams[name] = open(i.token(t, append(sub, withExp(first))...))
		requireAdmitted(t, streams[name])
		if test.refresh == nil {
			continue
		}
		later := i
		if name == "not verified" {
			later = newIssuer(t, "ES256")
		}
		refresh(t, server.URL+"/refresh?mode="+test.mode, later.token(t, append(append(sub, withExp(then)), test.refresh...)...))
	}
	// A page that does not refresh its token finds that out, once.
	source := newEventSource(t, client, server.URL+"/raw?mode=renew", withBearer(i.token(t, withSub("page"), withExp(first))))

	for name, test := range tests {
		if !test.end.IsZero() {
			t.Run(name, func(t *testing.T) { requireExpired(t, streams[name], test.end) })
		}
	}
	require.Equal(t, []int{200, 401}, source.waitClosed(t))
	for name, test := range tests {
		if test.end.IsZero() {
			t.Run(name, func(t *testing.T) { requireLive(t, streams[name]) })
		}
	}
	app.waitOpen(t, 2)
}

// TestExpiry_AfterAReload: streams from before end with their tokens, and are
// renewed as the new configuration says.
func TestExpiry_AfterAReload(t *testing.T) {
	site := startUserSite(t, "")
	site.server.reload(t, "respond nothing")
	key := site.issuer.keyOption(t)
	proxy := "\nreverse_proxy " + site.app.URL
	site.directives = expiryGuards(key, map[string]string{"stays": ";", "strict": ";"}) + proxy
	site.reload(t)

	expires := time.Unix(time.Now().Unix()+2, 0)
	client := newSSEClient(t, http1)
	open := func(mode, sub string) *sseStream {
		s := client.open(t, site.server.URL+"/raw?mode="+mode, withBearer(site.token(t, withSub(sub), withExp(expires))))
		requireAdmitted(t, s)
		return s
	}
	alone, renewed, strict := open("stays", "alone"), open("stays", "renewed"), open("strict", "strict")
	site.directives = expiryGuards(key, map[string]string{"stays": ";", "strict": ";on_expiry end"}) + proxy
	site.reload(t)
	for mode, sub := range map[string]string{"stays": "renewed", "strict": "strict"} {
		refresh(t, site.server.URL+"/refresh?mode="+mode, site.token(t, withSub(sub), withExp(expires.Add(time.Second))))
	}
	requireExpired(t, alone, expires)
	requireExpired(t, strict, expires)
	requireExpired(t, renewed, expires.Add(time.Second))
}

// TestExpiry_LogoutWithARefreshedToken ends the stream that was opened with the
// token before, and denies both.
func TestExpiry_LogoutWithARefreshedToken(t *testing.T) {
	for name, shown := range map[string]bool{"shown before": true, "shown by the logout": false} {
		t.Run(name, func(t *testing.T) {
			site := startUserSite(t, "logout POST /logout token")
			url := site.server.URL
			token := site.token(t)
			alice := newSSEClient(t, http1).open(t, url+"/user-stream", withBearer(token))
			requireAdmitted(t, alice)
			refreshed := site.token(t, withExp(time.Now().Add(2*time.Hour)))
			if shown {
				refresh(t, url+"/refresh", refreshed)
			}
			require.Equal(t, 200, logOut(t, url+"/logout", withBearer(refreshed)))
			requireLoggedOut(t, alice)
			requireDenied(t, url+"/user-stream", withBearer(token))
			requireDenied(t, url+"/user-stream", withBearer(refreshed))
			requireAdmitted(t, newSSEClient(t, http1).open(t, url+"/user-stream", withBearer(site.token(t))))
		})
	}
}

// TestExpiry_ALoggedOutTokenRenewsNothing: what was logged out does not keep
// another stream of the user alive.
func TestExpiry_ALoggedOutTokenRenewsNothing(t *testing.T) {
	site := startUserSite(t, "limit 9\nlogout POST /logout token")
	url := site.server.URL
	expires := time.Unix(time.Now().Unix()+2, 0)
	gone := site.token(t)
	first := newSSEClient(t, http1).open(t, url+"/user-stream?max=9", withBearer(gone))
	requireAdmitted(t, first)
	require.Equal(t, 200, logOut(t, url+"/logout", withBearer(gone)))
	requireLoggedOut(t, first)
	second := newSSEClient(t, http1).open(t, url+"/user-stream?max=9", withBearer(site.token(t, withExp(expires))))
	requireAdmitted(t, second)
	refresh(t, url+"/refresh", gone)
	requireExpired(t, second, expires)
}
