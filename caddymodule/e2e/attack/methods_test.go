package attack

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// uncommon are methods that a backend may answer like a GET.
var uncommon = []string{http.MethodOptions, http.MethodTrace, http.MethodConnect, "get", "options", "QUERY", "SUBSCRIBE"}

// uncounted do not count unless they are told to.
var uncounted = []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, "post"}

func withMethod(m string) harness.RequestOption {
	return func(r *http.Request) { r.Method = m }
}

// withoutAccept asks for anything.
func withoutAccept(r *http.Request) { r.Header.Set("Accept", "*/*") }

// TestAttack_StreamWithoutTokenByAnotherMethod, or with a status that is a success as
// well.
func TestAttack_StreamWithoutTokenByAnotherMethod(t *testing.T) {
	issuer := harness.NewIssuer(t, "HS256")
	for name, demand := range map[string]string{
		"a token":      "require_token",
		"a good token": "jwt {\n" + issuer.KeyOption(t) + "\n}",
		"by a list":    "require_token\nmethods POST",
	} {
		t.Run(name, func(t *testing.T) {
			backend := startBackend(t)
			server := harness.StartCaddy(t, backend.behind(demand))
			client := harness.NewClient(t, harness.HTTP1)
			good := harness.WithBearer(issuer.Token(t))
			for _, m := range append(uncounted, uncommon...) {
				for _, status := range []int{200, 201, 203, 206} {
					backend.status.Store(int32(status))
					s := client.Open(t, server.URL+"/events", withMethod(m), withoutAccept)
					s.Wait(t)
					assert.Equal(t, http.StatusUnauthorized, s.Status, "%s %d", m, status)
					assert.NotContains(t, string(s.Bytes()), secretText, "%s %d", m, status)
				}
				s := client.Open(t, server.URL+"/events", withMethod(m), good)
				assert.Equal(t, "for its owner only", s.Next(t).Data, m)
				s.Close()
			}
			backend.requireOpen(t, 0)
		})
	}
}

// TestAttack_PaidCallWithoutToken: the backend does its work, and pays for it, before
// the guard refuses.
func TestAttack_PaidCallWithoutToken(t *testing.T) {
	issuer := harness.NewIssuer(t, "HS256")
	for name, demand := range map[string]string{
		"a token":      "require_token",
		"a good token": "jwt {\n" + issuer.KeyOption(t) + "\n}",
	} {
		t.Run(name, func(t *testing.T) {
			backend := startBackend(t)
			server := harness.StartCaddy(t, backend.behind(demand))
			client := harness.NewClient(t, harness.HTTP1)
			for _, m := range append(append(uncounted, uncommon...), http.MethodGet, http.MethodHead) {
				for _, accept := range []string{"text/event-stream", "application/json, Text/Event-Stream;q=0.1"} {
					s := client.Open(t, server.URL+"/v1/messages", withMethod(m), harness.WithHeader("Accept", accept))
					s.Wait(t)
					assert.Equal(t, http.StatusUnauthorized, s.Status, "%s %s", m, accept)
				}
			}
			s := client.Open(t, server.URL+"/v1/messages", harness.WithPost("{}"), harness.WithHeader("Origin", "https://elsewhere.example"))
			s.Wait(t)
			assert.Equal(t, http.StatusUnauthorized, s.Status, "from another origin")
			assert.Zero(t, backend.reached.Load())
		})
	}
}

// TestAttack_BeyondTheLimitByAnotherMethod: a second stream of a token that may have
// one.
func TestAttack_BeyondTheLimitByAnotherMethod(t *testing.T) {
	for name, test := range map[string]struct {
		methods []string
		options string
	}{
		"that is uncommon":          {uncommon, ""},
		"where any counts":          {append(uncounted, uncommon...), "methods any"},
		"where any counts, loudly":  {append(uncounted, uncommon...), "methods ANY"},
		"that the list has":         {uncounted, "methods Get Post put PATCH delete"},
		"with a key, and a success": {uncommon, "key {sse_guard.token}"},
	} {
		t.Run(name, func(t *testing.T) {
			backend := startBackend(t)
			backend.status.Store(http.StatusPartialContent)
			server := harness.StartCaddy(t, backend.behind(test.options))
			client := harness.NewClient(t, harness.HTTP1)
			alice := harness.WithBearer("alice")
			for _, m := range test.methods {
				older := client.Open(t, server.URL+"/events", alice)
				older.Next(t)
				newer := client.Open(t, server.URL+"/events", alice, withMethod(m))
				if m == http.MethodConnect { // no page reads its answer: it yields
					harness.RequireRejected(t, newer)
				} else {
					require.Equal(t, http.StatusPartialContent, newer.Status, m)
				}
				backend.requireOpen(t, 1)
				require.Eventually(t, func() bool { return older.Ended() != newer.Ended() }, harness.Patience, time.Millisecond, m)
				older.Close()
				newer.Close()
				backend.requireOpen(t, 0)
			}
		})
	}
}
