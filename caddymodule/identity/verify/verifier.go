// Package verify believes JWTs, or does not: it checks their signatures with
// keys that are configured or published as a JWK set, and what they say about
// their time, issuer and audience. golang-jwt does the cryptography; which key
// may vouch for which token is decided here, by the kind of the key and never
// by what a token says of itself (RFC 8725 sections 3.1 and 3.2).
//
// It knows nothing of Caddy, and no error of it holds a byte of a token.
package verify

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/identity"
)

// waitForKeys is how long Verify waits for a fetch of keys: a client that asks
// for a stream is patient for about that long.
const waitForKeys = 5 * time.Second

// Config says which tokens are to be believed.
type Config struct {
	// Keys are known from the start and for ever.
	Keys []Key
	// JWKS are sets of keys that are published elsewhere. Their owner closes
	// them; they may outlive the Verifier.
	JWKS []*JWKS
	// IssuersOf are the issuers (iss) whose tokens the keys of a set are good for. A set
	// that is not in it is good for anybody's.
	IssuersOf map[*JWKS][]string
	// Algorithms narrows what the kinds of the keys allow, by the names of RFC
	// 7518 section 3.1 and RFC 8037 section 3.1; empty: not narrowed.
	Algorithms []string
	// Issuers are the accepted values of iss; empty: iss is not looked at, but where
	// keys are bound to issuers. If there are several, no key may be anybody's, unless
	// it is the only one: it could sign in the name of all.
	Issuers []string
	// Audiences are those of which aud must name one; empty: aud is not looked at.
	Audiences []string
	// Leeway is how far the clocks of the issuers may be off.
	Leeway time.Duration
	// Require names claims that must be present, in the manner of
	// identity.Claims.Present.
	Require []string
}

// Verifier is an identity.Verifier for signed JWTs (RFC 7519). It is safe for
// concurrent use.
type Verifier struct {
	keys       *keySet
	jwks       []*JWKS
	issuersOf  map[*JWKS][]string
	algorithms []string
	rules      rules
	cache      cache
}

var _ identity.Verifier = (*Verifier)(nil)

// New returns a Verifier. The error says what in config makes no sense.
func New(config Config) (*Verifier, error) {
	if len(config.Keys) == 0 && len(config.JWKS) == 0 {
		return nil, errors.New("verifying JWTs needs a key: an HMAC secret, a public key or a JWKS")
	}
	algorithms, err := narrow(usable(config.Keys, config.JWKS), config.Algorithms)
	if err != nil {
		return nil, err
	}
	if err := checkIssuers(config); err != nil {
		return nil, err
	}
	rules, err := newRules(config)
	if err != nil {
		return nil, err
	}
	return &Verifier{
		keys:       newKeySet(config.Keys),
		jwks:       slices.Clone(config.JWKS),
		issuersOf:  maps.Clone(config.IssuersOf),
		algorithms: algorithms,
		rules:      rules,
	}, nil
}

// checkIssuers refuses keys that could sign in the name of an issuer that has others.
func checkIssuers(config Config) error {
	bound, free := 0, 0
	count := func(issuers []string) {
		if len(issuers) > 0 {
			bound++
		} else {
			free++
		}
	}
	for _, key := range config.Keys {
		count(key.issuers)
	}
	for _, j := range config.JWKS {
		count(config.IssuersOf[j])
	}
	if free > 0 && (bound > 0 || len(config.Issuers) > 1 && free > 1) {
		return errors.New("there are several issuers and several keys, of which some are bound to no issuer: " +
			"whoever has one of these could sign in the name of every issuer")
	}
	return nil
}

// usable returns the algorithms that at least one of the keys could verify, now
// or once it is published.
func usable(keys []Key, jwks []*JWKS) (algorithms []string) {
	for _, key := range keys {
		algorithms = append(algorithms, key.algorithms...)
	}
	if len(jwks) > 0 {
		algorithms = append(algorithms, publicAlgorithms...)
	}
	return algorithms
}

// narrow returns the wanted ones of the usable algorithms.
func narrow(usable, wanted []string) ([]string, error) {
	if len(wanted) == 0 {
		return usable, nil
	}
	for _, algorithm := range wanted {
		switch {
		case slices.Contains(usable, algorithm):
		case slices.Contains(publicAlgorithms, algorithm), slices.Contains(hmacAlgorithms, algorithm):
			return nil, fmt.Errorf("JWT algorithm %s fits none of the configured keys, expected one of %s",
				algorithm, oneEach(usable))
		default:
			return nil, fmt.Errorf("unknown JWT algorithm %q, expected one of %s", algorithm, oneEach(usable))
		}
	}
	return slices.Clone(wanted), nil
}

func oneEach(algorithms []string) string {
	return strings.Join(slices.Compact(slices.Sorted(slices.Values(algorithms))), ", ")
}

// Verify implements identity.Verifier. It waits when no key that is known has
// signed the token, and a JWK set may hold a newer one.
func (v *Verifier) Verify(ctx context.Context, token string) (*identity.Claims, error) {
	return v.verify(token, func(t *signedToken, lacking []*JWKS) error {
		return v.fetch(ctx, t, lacking)
	})
}

// VerifyNow implements identity.Verifier. It has a key fetched that is not known,
// but does not wait for it.
func (v *Verifier) VerifyNow(token string) (*identity.Claims, error) {
	return v.verify(token, func(_ *signedToken, lacking []*JWKS) error {
		for _, j := range lacking {
			j.demand()
		}
		return identity.ErrNoKeys
	})
}

// verify is Verify and VerifyNow, which differ in what they do if one of the
// JWK sets that lack the token's key may have it by now.
func (v *Verifier) verify(text string, lack func(*signedToken, []*JWKS) error) (*identity.Claims, error) {
	if len(text) > maxToken {
		return nil, errTooLong
	}
	keys := v.generation() // before any key is looked at
	id := idOf(text)
	if claims := v.cache.get(id, keys, time.Now()); claims != nil {
		return claims, nil
	}
	t, err := parse(text)
	if err != nil {
		return nil, err
	}
	if err := v.authenticate(t, lack); err != nil {
		return nil, err
	}
	now := time.Now()
	claims, err := v.rules.apply(t.claims, now)
	if err == nil {
		v.cache.put(id, keys, claims, now, v.rules.leeway)
	}
	return claims, err
}
