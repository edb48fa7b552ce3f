package attack

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// Every ES256 signature has a twin, and libraries accept both: the backend sees one
// token, the guard must not see two.

// twinSites are guards that verify the token, and that leave it to the backend.
func twinSites(t *testing.T) (issuer *harness.Issuer, sites map[string][]string) {
	issuer = harness.NewIssuer(t, "ES256")
	return issuer, map[string][]string{
		"verified":              {"jwt {\n" + issuer.KeyOption(t) + "\n}", "key {sse_guard.token}"},
		"left to the backend":   {"require_token", "key {sse_guard.token}"},
		"believed once through": {"token header Authorization", "jwt {\nunverified\n}"},
	}
}

// TestAttack_SecondStreamWithTheTwinOfAToken, where a token may have one.
func TestAttack_SecondStreamWithTheTwinOfAToken(t *testing.T) {
	issuer, sites := twinSites(t)
	for name, options := range sites {
		t.Run(name, func(t *testing.T) {
			backend := startBackend(t)
			server := harness.StartCaddy(t, backend.behind(options...))
			client := harness.NewClient(t, harness.HTTP1)
			token := issuer.Token(t)
			older := client.Open(t, server.URL+"/events", harness.WithBearer(token))
			older.Next(t)
			newer := client.Open(t, server.URL+"/events", harness.WithBearer(harness.Twin(t, token)))
			require.Equal(t, http.StatusOK, newer.Status, "its signature is good")
			newer.Next(t)
			harness.RequireEnded(t, older, harness.Duplicated, "superseded")
			backend.requireOpen(t, 1)
		})
	}
}

// TestAttack_OutliveALogoutWithTheTwinOfAToken: the token is logged out, its twin opens
// streams on.
func TestAttack_OutliveALogoutWithTheTwinOfAToken(t *testing.T) {
	issuer, sites := twinSites(t)
	for name, options := range sites {
		t.Run(name, func(t *testing.T) {
			backend := startBackend(t)
			server := harness.StartCaddy(t, backend.behind(append(options, "logout POST /logout token")...))
			client := harness.NewClient(t, harness.HTTP1)
			token := issuer.Token(t)
			twin := harness.Twin(t, token)
			stream := client.Open(t, server.URL+"/events", harness.WithBearer(twin))
			stream.Next(t)
			answer, _ := harness.Send(t, http.MethodPost, server.URL+"/logout", harness.WithBearer(token))
			assert.Equal(t, http.StatusOK, answer.StatusCode)
			harness.RequireLoggedOut(t, stream)
			harness.RequireDenied(t, server.URL+"/events", harness.WithBearer(twin))
			harness.RequireDenied(t, server.URL+"/events", harness.WithBearer(token))
			backend.requireOpen(t, 0)
		})
	}
}
