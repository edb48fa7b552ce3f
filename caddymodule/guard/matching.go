package guard

import (
	"net/http"

	"github.com/sse-guard/sse-guard/caddymodule/identity"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// Claims returns what the request's good token says, nil if it has none.
func (g *Guard) Claims(r *http.Request) *identity.Claims {
	token, err := g.Identity.Token(r)
	if err != nil {
		return nil
	}
	claims, err := g.claims(r, token)
	if err != nil || claims == nil {
		return nil
	}
	client, _ := g.Identity.Client(r, claims.Subject)
	if g.Zone.Registry.Denied(&registry.Holder{
		Token:    registry.ID(token.Hash),
		Subject:  registry.ID(claims.Subject),
		IssuedAt: claims.IssuedAt,
		Client:   registry.ID(client),
	}) {
		return nil
	}
	return claims
}

// claims returns what the token says, with an error what it said once.
func (g *Guard) claims(r *http.Request, token identity.Token) (*identity.Claims, error) {
	switch {
	case token.IsZero() || g.Verifier == nil || g.Unverified:
		return nil, nil
	case identity.AsksForStream(r):
		return token.Verify(r.Context(), g.Verifier)
	default:
		return token.VerifyNow(g.Verifier)
	}
}

// Holds reports whether the sender of r holds a key of the zone now: by its
// client id if it has one, else by its token.
func (g *Guard) Holds(r *http.Request) (bool, error) {
	token, err := g.Identity.Token(r)
	if err != nil || token.IsZero() {
		return false, nil //nolint:nilerr // two tokens are nobody's
	}
	scope := token.Hash
	// Whose client it is, an expired token tells as well.
	if claims, _ := g.claims(r, token); claims != nil && !claims.Subject.IsZero() {
		scope = claims.Subject
	}
	sel := registry.Selector{Token: registry.ID(token.Hash)}
	if client, _ := g.Identity.Client(r, scope); !client.IsZero() {
		sel = registry.Selector{Client: registry.ID(client)}
	}
	holders, _, err := g.Zone.Registry.Find(r.Context(), sel, "", 1)
	return len(holders) > 0, err
}
