package verify

import (
	"context"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/identity"
)

// Unverified is an identity.Verifier that believes whatever a token says, where
// only the backend has the keys. It is for tokens that the backend has accepted:
// anybody can write one.
type Unverified struct {
	// Leeway is how long after its end a token still counts.
	Leeway time.Duration
}

var _ identity.Verifier = Unverified{}

// Verify implements identity.Verifier. It never waits.
func (u Unverified) Verify(_ context.Context, token string) (*identity.Claims, error) {
	return u.VerifyNow(token)
}

// VerifyNow implements identity.Verifier.
func (u Unverified) VerifyNow(token string) (*identity.Claims, error) {
	t, err := parse(token)
	if err != nil {
		return nil, err
	}
	rules := rules{leeway: u.Leeway}
	return rules.apply(t.claims, time.Now())
}
