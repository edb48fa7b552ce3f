package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// requireExpired waits for the end of a stream whose token's life is over, which
// is not before that time.
func requireExpired(t testing.TB, s *harness.Stream, at time.Time) {
	t.Helper()
	notice := harness.RequireEnded(t, s, harness.TokenExpired, "expired")
	require.False(t, time.Now().Before(at), "it ended too early")
	require.Equal(t, harness.TokenExpired, harness.NoticeOf(t, notice).Code)
	require.NotContains(t, notice.ID, "sse-guard", "it may come back with a fresh token")
}

// refresh sends what a page does once it has a new token.
func refresh(t testing.TB, url, token string) {
	t.Helper()
	answer, _ := harness.Get(t, url, harness.WithPost(""), harness.WithBearer(token))
	require.Equal(t, 200, answer.StatusCode)
}

// expiryGuards are guards for requests of the given modes, by query.
func expiryGuards(key string, modes map[string]string) string {
	var guards strings.Builder
	for mode, options := range modes {
		jwt, options, _ := strings.Cut(options, ";")
		fmt.Fprintf(&guards, "@%s query mode=%[1]s\n%s\n", mode,
			harness.VerifyingGuard("@"+mode, key+"\n"+jwt, harness.ByUser, "zone "+mode, options))
	}
	return guards.String()
}

// TestExpiry_OfStreamsInEveryMode lets tokens of a few seconds expire, of streams
// that were refreshed meanwhile or not.
func TestExpiry_OfStreamsInEveryMode(t *testing.T) {
	app := harness.StartFastAPI(t)
	i := harness.NewIssuer(t, "ES256")
	server := harness.StartCaddy(t, expiryGuards(i.KeyOption(t), map[string]string{
		"renew": ";", "end": ";on_expiry end", "keep": ";on_expiry keep", "lenient": "leeway 2s;",
	})+"reverse_proxy "+app.URL)

	first := time.Unix(time.Now().Unix()+4, 0) // when the tokens expire
	then := first.Add(2 * time.Second)         // when the refreshed ones do
	sid := func(id string) harness.TokenOption { return harness.WithClaim("sid", id) }
	tests := map[string]struct {
		mode    string
		refresh []harness.TokenOption // of the later token; nil: none comes
		end     time.Time             // zero: none
	}{
		"left alone":           {"renew", nil, first},
		"refreshed":            {"renew", []harness.TokenOption{sid("1")}, then},
		"another session's":    {"renew", []harness.TokenOption{sid("2")}, first},
		"another user's":       {"renew", []harness.TokenOption{sid("1"), harness.WithSub("mallory")}, first},
		"not verified":         {"renew", []harness.TokenOption{sid("1"), harness.WithKID("unknown")}, first},
		"an earlier one":       {"renew", []harness.TokenOption{sid("1"), harness.WithExp(first.Add(-time.Second))}, first},
		"never expires":        {"renew", []harness.TokenOption{sid("1"), harness.WithClaim("exp", nil)}, time.Time{}},
		"end, left alone":      {"end", nil, first},
		"end, refreshed":       {"end", []harness.TokenOption{sid("1")}, first},
		"keep":                 {"keep", nil, time.Time{}},
		"leeway":               {"lenient", nil, first.Add(2 * time.Second)},
		"leeway and refreshed": {"lenient", []harness.TokenOption{sid("1")}, then.Add(2 * time.Second)},
	}
	client := harness.NewClient(t, harness.HTTP1)
	streams := make(map[string]*harness.Stream)
	for name, test := range tests {
		sub := []harness.TokenOption{harness.WithSub(name), sid("1")}
		open := func(token string) *harness.Stream {
			return client.Open(t, server.URL+"/raw?mode="+test.mode, harness.WithBearer(token))
		}
		streams[name] = open(i.Token(t, append(sub, harness.WithExp(first))...))
		harness.RequireAdmitted(t, streams[name])
		if test.refresh == nil {
			continue
		}
		later := i
		if name == "not verified" {
			later = harness.NewIssuer(t, "ES256")
		}
		refresh(t, server.URL+"/refresh?mode="+test.mode, later.Token(t, append(append(sub, harness.WithExp(then)), test.refresh...)...))
	}
	// A page that does not refresh its token finds that out, once.
	source := harness.NewEventSource(t, client, server.URL+"/raw?mode=renew", harness.WithBearer(i.Token(t, harness.WithSub("page"), harness.WithExp(first))))

	for name, test := range tests {
		if !test.end.IsZero() {
			t.Run(name, func(t *testing.T) { requireExpired(t, streams[name], test.end) })
		}
	}
	require.Equal(t, []int{200, 401}, source.WaitClosed(t))
	for name, test := range tests {
		if test.end.IsZero() {
			t.Run(name, func(t *testing.T) { harness.RequireLive(t, streams[name]) })
		}
	}
	app.WaitOpen(t, 2)
}

// TestExpiry_AfterAReload: streams from before end with their tokens, and are
// renewed as the new configuration says.
func TestExpiry_AfterAReload(t *testing.T) {
	site := harness.StartUserSite(t, "")
	site.Server.Reload(t, "respond nothing")
	key := site.Issuer.KeyOption(t)
	proxy := "\nreverse_proxy " + site.App.URL
	site.Directives = expiryGuards(key, map[string]string{"stays": ";", "strict": ";"}) + proxy
	site.Reload(t)

	expires := time.Unix(time.Now().Unix()+4, 0)
	client := harness.NewClient(t, harness.HTTP1)
	open := func(mode, sub string) *harness.Stream {
		s := client.Open(t, site.Server.URL+"/raw?mode="+mode, harness.WithBearer(site.Token(t, harness.WithSub(sub), harness.WithExp(expires))))
		harness.RequireAdmitted(t, s)
		return s
	}
	alone, renewed, strict := open("stays", "alone"), open("stays", "renewed"), open("strict", "strict")
	site.Directives = expiryGuards(key, map[string]string{"stays": ";", "strict": ";on_expiry end"}) + proxy
	site.Reload(t)
	for mode, sub := range map[string]string{"stays": "renewed", "strict": "strict"} {
		refresh(t, site.Server.URL+"/refresh?mode="+mode, site.Token(t, harness.WithSub(sub), harness.WithExp(expires.Add(time.Second))))
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
			site := harness.StartUserSite(t, "logout POST /logout token")
			url := site.Server.URL
			token := site.Token(t)
			alice := harness.NewClient(t, harness.HTTP1).Open(t, url+"/user-stream", harness.WithBearer(token))
			harness.RequireAdmitted(t, alice)
			refreshed := site.Token(t, harness.WithExp(time.Now().Add(2*time.Hour)))
			if shown {
				refresh(t, url+"/refresh", refreshed)
			}
			require.Equal(t, 200, harness.LogOut(t, url+"/logout", harness.WithBearer(refreshed)))
			harness.RequireLoggedOut(t, alice)
			harness.RequireDenied(t, url+"/user-stream", harness.WithBearer(token))
			harness.RequireDenied(t, url+"/user-stream", harness.WithBearer(refreshed))
			harness.RequireAdmitted(t, harness.NewClient(t, harness.HTTP1).Open(t, url+"/user-stream", harness.WithBearer(site.Token(t))))
		})
	}
}

// TestExpiry_ALoggedOutTokenRenewsNothing: what was logged out does not keep
// another stream of the user alive.
func TestExpiry_ALoggedOutTokenRenewsNothing(t *testing.T) {
	site := harness.StartUserSite(t, "limit 9\nlogout POST /logout token")
	url := site.Server.URL
	expires := time.Unix(time.Now().Unix()+4, 0)
	gone := site.Token(t)
	first := harness.NewClient(t, harness.HTTP1).Open(t, url+"/user-stream?max=9", harness.WithBearer(gone))
	harness.RequireAdmitted(t, first)
	require.Equal(t, 200, harness.LogOut(t, url+"/logout", harness.WithBearer(gone)))
	harness.RequireLoggedOut(t, first)
	second := harness.NewClient(t, harness.HTTP1).Open(t, url+"/user-stream?max=9", harness.WithBearer(site.Token(t, harness.WithExp(expires))))
	harness.RequireAdmitted(t, second)
	refresh(t, url+"/refresh", gone)
	requireExpired(t, second, expires)
}
