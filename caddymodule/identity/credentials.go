package identity

import (
	"context"
	"crypto/sha256"
	"slices"
)

// Credentials is what a request presents, as it is written there. It is a value
// that holds raw tokens: it stays with its request.
type Credentials struct {
	token string
	// others are the further texts that differ from token.
	others []string
	client string
	tab    bool
}

// add notes a token's text.
func (c *Credentials) add(text string) {
	switch {
	case text == "" || text == c.token || slices.Contains(c.others, text):
	case c.token == "":
		c.token = text
	default:
		c.others = append(c.others, text)
	}
}

// Token returns the token, or the zero Token if there is none. A value that is
// empty, or just the word Bearer, is none.
//
// The error is ErrTokensDiffer (test with errors.Is) if the configured places
// hold two different tokens, or one token that backends read as two different
// ones. The Token is then zero, but the request is not one without a token.
func (c *Credentials) Token() (Token, error) {
	if c.token == "" {
		return Token{}, nil
	}
	hash, agreed := hashToken(c.token)
	if !agreed {
		return Token{}, errDecodersDisagree
	}
	for _, text := range c.others {
		other, agreed := hashToken(text)
		switch {
		case !agreed:
			return Token{}, errDecodersDisagree
		case other != hash:
			return Token{}, ErrTokensDiffer
		}
	}
	return Token{hash, c.token}, nil
}

// Client returns the hash of the client id in the first configured place with a
// value, and whether it names a tab. Clients choose their ids, so the hash covers
// scope, the token's hash or the verified subject's: within another scope the same
// id is another client. Without a scope, or an id, it is zero.
func (c *Credentials) Client(scope Hash) (id Hash, tab bool) {
	if scope.IsZero() || c.client == "" {
		return Hash{}, false
	}
	return hashClient(scope, c.client, c.tab), c.tab
}

func hashClient(scope Hash, value string, tab bool) Hash {
	domain := deviceDomain
	if tab {
		domain = tabDomain
	}
	var stack [512]byte
	buf := append(stack[:0], domain...)
	buf = append(buf, scope[:]...)
	return sha256.Sum256(append(buf, value...))
}

// String keeps the raw texts out of logs and errors.
func (Credentials) String() string { return "credentials" }

// GoString is String, for %#v.
func (Credentials) GoString() string { return "credentials" }

// Tokenless reports whether there is no token, good or not.
func (c *Credentials) Tokenless() bool { return c.token == "" }

// Verify asks v about the token, of which there must be one.
func (c *Credentials) Verify(ctx context.Context, v Verifier) (*Claims, error) {
	return v.Verify(ctx, c.token)
}

// VerifyNow is Verify without waiting.
func (c *Credentials) VerifyNow(v Verifier) (*Claims, error) { return v.VerifyNow(c.token) }
