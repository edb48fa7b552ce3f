package identity

import (
	"context"
	"errors"
)

// Verifier tells what a token says, if it is to be believed. Package verify has
// the ones for JWTs.
//
// Its errors are an *InvalidTokenError or ErrNoKeys (test with errors.Is and
// errors.As), and hold nothing of the token.
type Verifier interface {
	// Verify returns what the token says. It may wait a few seconds for a key
	// that is not known yet, or until ctx is done.
	Verify(ctx context.Context, token string) (*Claims, error)
	// VerifyNow is Verify with the keys at hand: it never waits, and returns
	// ErrNoKeys where Verify would.
	VerifyNow(token string) (*Claims, error)
}

// InvalidTokenError says why a token is not accepted. Asking again with the same
// token does not help.
type InvalidTokenError struct {
	// Why is a sentence for the error_description of RFC 6750 section 3: printable
	// ASCII without quotes and backslashes.
	Why string
}

func (e *InvalidTokenError) Error() string { return "invalid token: " + e.Why }

// ErrExpired is the error of a token whose end of life is the only thing wrong
// with it. Its Claims are returned along with it, since they are as true as they
// ever were: they tell who logs out, but open no stream.
var ErrExpired error = &InvalidTokenError{Why: "The token has expired"}

// ErrNoKeys says that nobody can tell yet: the keys could not be fetched.
var ErrNoKeys = errors.New("the keys that tokens are verified with are not at hand")

// Verify asks v about t, which must not be zero.
func (t Token) Verify(ctx context.Context, v Verifier) (*Claims, error) { return v.Verify(ctx, t.text) }

// VerifyNow is Verify without waiting.
func (t Token) VerifyNow(v Verifier) (*Claims, error) { return v.VerifyNow(t.text) }
