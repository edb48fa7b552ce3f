package guard

import (
	"net/http"

	"github.com/sse-guard/sse-guard/caddymodule/identity"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// Claims returns what the request's good token says, nil if it has none.
func (g *Guard) Claims(r *http.Request) *identity.Claims {
	token, err := g.Identity.Token(r)
	if err != nil || token.IsZero() || g.Verifier == nil || g.Unverified {
		return nil
	}
	var claims *identity.Claims
	if identity.AsksForStream(r) {
		claims, err = token.Verify(r.Context(), g.Verifier)
	} else {
		claims, err = token.VerifyNow(g.Verifier)
	}
	if err != nil {
		return nil
	}
	return claims
}

// Holds reports whether the sender of r holds a key of the zone now: by its
// client id if it has one, else by its token.
func (g *Guard) Holds(r *http.Request) (bool, error) {
	token, err := g.Identity.Token(r)
	if err != nil || token.IsZero() {
		return false, nil //nolint:nilerr // two tokens are nobody's
	}
	scope := token.Hash
	if claims := g.Claims(r); claims != nil && !claims.Subject.IsZero() {
		scope = claims.Subject
	}
	index, id := registry.ByToken, registry.ID(token.Hash)
	if client, _ := g.Identity.Client(r, scope); !client.IsZero() {
		index, id = registry.ByClient, registry.ID(client)
	}
	return g.Zone.Registry.Holds(r.Context(), index, id)
}
