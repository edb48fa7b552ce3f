package harness

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// UserSite is a guard that knows users by their tokens, before an application
// that verifies the same tokens and refuses a user more streams than it allows.
type UserSite struct {
	Server *Caddy
	App    *FastAPI
	Issuer *Issuer // both trust it
	// Directives are those that StartUserSite made, and what Reload loads.
	Directives string
}

// siteSecret keeps the guard from making a secret on first use. That may be for the
// notice to a stream whose client is gone, at the test's end: the secret would be
// written to a directory that is being removed.
const siteSecret = "secret 0123456789abcdef"

// StartUserSite runs such a site over clear-text HTTP until the test ends. A user may
// have one stream, unless the options, lines of the guard's block, say otherwise. The
// other directives go before the guard.
func StartUserSite(t testing.TB, options string, directives ...string) *UserSite {
	t.Helper()
	s := &UserSite{App: StartFastAPI(t), Issuer: NewIssuer(t, "ES256")}
	s.App.VerifyWith(t, s.Issuer)
	s.Directives = strings.Join(append(directives, VerifyingSite(s.App, s.Issuer.KeyOption(t), ByUser, siteSecret, options)), "\n")
	s.Server = StartCaddy(t, s.Directives)
	return s
}

// Reload loads the directives again, with others before them. It waits until the
// server from before takes no connections any more.
func (s *UserSite) Reload(t testing.TB, directives ...string) {
	t.Helper()
	mark := fmt.Sprint(tokensMade.Add(1))
	s.Server.Reload(t, strings.Join(append(directives, "header X-Reloaded "+mark, s.Directives), "\n"))
	client := NewClient(t, HTTP1)
	require.Eventually(t, func() bool {
		defer client.HTTP.CloseIdleConnections()
		answer, err := client.HTTP.Get(s.Server.URL + "/api/items")
		if err != nil {
			return false
		}
		answer.Body.Close()
		return answer.Header.Get("X-Reloaded") == mark
	}, Patience, 10*time.Millisecond)
}

// Token makes a token as the issuer does when a user logs in.
func (s *UserSite) Token(t testing.TB, options ...TokenOption) string {
	t.Helper()
	return s.Issuer.Token(t, options...)
}

// LogOut sends POST /logout and returns the status of the answer.
func LogOut(t testing.TB, url string, options ...RequestOption) int {
	t.Helper()
	answer, _ := Get(t, url, append([]RequestOption{WithPost("")}, options...)...)
	return answer.StatusCode
}
