package attack

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// twoIssuers are trusted by one guard. Both may have a user alice.
func twoIssuers(t *testing.T) (a, b *harness.Issuer, jwt string) {
	a, b = harness.NewIssuer(t, "ES256"), harness.NewIssuer(t, "HS256")
	return a, b, "jwt {\n" + a.KeyOption(t) + " issuer A\n" + b.KeyOption(t) + " issuer B\n}"
}

func of(iss string) harness.TokenOption { return harness.WithClaim("iss", iss) }

// TestAttack_SignForAnotherIssuer: whoever has B's key signs for A's users.
func TestAttack_SignForAnotherIssuer(t *testing.T) {
	a, b, jwt := twoIssuers(t)
	backend := startBackend(t)
	server := harness.StartCaddy(t, backend.behind(jwt, harness.ByUser, "takeover request"))
	client := harness.NewClient(t, harness.HTTP1)
	alice := client.Open(t, server.URL+"/events", harness.WithBearer(a.Token(t, of("A"))))
	alice.Next(t)
	for _, forged := range []string{b.Token(t, of("A")), a.Token(t, of("B")), b.Token(t), b.Token(t, of("C"))} {
		s := client.Open(t, server.URL+"/events", harness.WithBearer(forged))
		s.Wait(t)
		assert.Equal(t, http.StatusUnauthorized, s.Status)
	}
	require.False(t, alice.Ended())
	backend.requireOpen(t, 1)
	assert.EqualValues(t, 1, backend.reached.Load())
}

// TestAttack_BeAnotherIssuersUser: B's alice ends, or logs out, A's.
func TestAttack_BeAnotherIssuersUser(t *testing.T) {
	a, b, jwt := twoIssuers(t)
	backend := startBackend(t)
	server := harness.StartCaddy(t, backend.behind(jwt, harness.ByUser, "takeover request", "logout POST /logout user"))
	client := harness.NewClient(t, harness.HTTP1)
	older := a.Token(t, of("A"))
	alice := client.Open(t, server.URL+"/events", harness.WithBearer(older))
	alice.Next(t)
	bs := b.Token(t, of("B"))
	other := client.Open(t, server.URL+"/events", harness.WithBearer(bs))
	other.Next(t)
	backend.requireOpen(t, 2)
	answer, _ := harness.Send(t, http.MethodPost, server.URL+"/logout", harness.WithBearer(bs))
	require.Equal(t, http.StatusOK, answer.StatusCode)
	harness.RequireLoggedOut(t, other)
	backend.requireOpen(t, 1)
	require.False(t, alice.Ended())

	newer := client.Open(t, server.URL+"/events", harness.WithBearer(a.Token(t, of("A"))))
	newer.Next(t)
	harness.RequireEnded(t, alice, harness.Duplicated, "superseded")
}
