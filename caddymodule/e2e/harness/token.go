package harness

import (
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// TokenDraft is a token before it is signed.
type TokenDraft struct {
	Header map[string]any
	Claims jwt.MapClaims
}

// TokenOption changes a token before it is signed.
type TokenOption func(*TokenDraft)

// WithClaim sets a claim to anything that encoding/json can write; nil leaves
// the claim out.
func WithClaim(name string, value any) TokenOption {
	return func(d *TokenDraft) { setOrDelete(d.Claims, name, value) }
}

// WithSub sets the user whom the token is for.
func WithSub(sub string) TokenOption { return WithClaim("sub", sub) }

// WithExp sets the end of the token's life, in whole seconds as issuers do: the
// token ends up to a second before.
func WithExp(at time.Time) TokenOption { return WithClaim("exp", at.Unix()) }

// WithKID names another key in the header than the one that signs; "" names none.
func WithKID(kid string) TokenOption {
	return func(d *TokenDraft) {
		if kid == "" {
			delete(d.Header, "kid")
		} else {
			d.Header["kid"] = kid
		}
	}
}

func setOrDelete(m map[string]any, name string, value any) {
	if value == nil {
		delete(m, name)
	} else {
		m[name] = value
	}
}
