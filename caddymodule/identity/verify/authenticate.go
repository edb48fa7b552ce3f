package verify

import (
	"context"
	"iter"
	"slices"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/identity"
)

// authenticate checks that t is signed with one of the keys. If none that is
// known has signed it, and there are JWK sets that may have such a key by now,
// it leaves the answer to lack.
func (v *Verifier) authenticate(t *signedToken, lack func(*signedToken, []*JWKS) error) error {
	if !slices.Contains(v.algorithms, t.algorithm) {
		return errAlgorithm
	}
	if v.isSigned(t) {
		return nil
	}
	if lacking := v.lacking(t); len(lacking) > 0 {
		return lack(t, lacking)
	}
	return v.refusal(t)
}

// isSigned reports whether a key that is known has signed t.
func (v *Verifier) isSigned(t *signedToken) bool {
	for key := range v.candidates(t) {
		if t.isSignedWith(key) {
			return true
		}
	}
	return false
}

// candidates are the known keys that t, by its kid and its iss, may be signed with.
func (v *Verifier) candidates(t *signedToken) iter.Seq[Key] {
	return func(yield func(Key) bool) {
		for _, key := range v.keys.named(t.kid) {
			if t.isOf(key.issuers) && !yield(key) {
				return
			}
		}
		if t.kid != "" {
			// Who configures a key without a kid means any token.
			for _, key := range v.keys.anonymous() {
				if t.isOf(key.issuers) && !yield(key) {
					return
				}
			}
		}
		for j := range v.published(t) {
			for _, key := range j.keys().named(t.kid) {
				if !yield(key) {
					return
				}
			}
		}
	}
}

// published are the JWK sets that may vouch for t.
func (v *Verifier) published(t *signedToken) iter.Seq[*JWKS] {
	return func(yield func(*JWKS) bool) {
		for _, j := range v.jwks {
			if t.isOf(v.issuersOf[j]) && !yield(j) {
				return
			}
		}
	}
}

// lacking returns the JWK sets that do not have the key of t, as far as it is
// known, but may have it once they are fetched. A kid that a static key has is
// never looked for elsewhere.
func (v *Verifier) lacking(t *signedToken) (lacking []*JWKS) {
	if !slices.Contains(publicAlgorithms, t.algorithm) {
		return nil
	}
	if t.kid != "" && slices.ContainsFunc(v.keys.named(t.kid), func(key Key) bool { return t.isOf(key.issuers) }) {
		return nil
	}
	known := false
	for j := range v.published(t) {
		known = known || j.keys().knows(t.kid)
	}
	for j := range v.published(t) {
		// Two issuers may give their keys the same kid, so a set that has never
		// been seen may have it as well.
		if !known || j.keys() == nil {
			lacking = append(lacking, j)
		}
	}
	return lacking
}

// fetch looks for the key of t in what is published now.
func (v *Verifier) fetch(ctx context.Context, t *signedToken, lacking []*JWKS) error {
	arrived := time.Now()
	ctx, cancel := context.WithTimeout(ctx, waitForKeys)
	defer cancel()
	fetches := make([]*fetch, len(lacking))
	for i, j := range lacking {
		fetches[i] = j.demand()
	}
	for _, f := range fetches {
		f.wait(ctx)
	}
	if v.isSigned(t) {
		return nil
	}
	still := v.lacking(t)
	for i, j := range lacking {
		if slices.Contains(still, j) && !fetches[i].settles(arrived, t.issuedBefore(v.rules.leeway)) {
			return identity.ErrNoKeys
		}
	}
	return v.refusal(t)
}

// refusal says why no key has signed t.
func (v *Verifier) refusal(t *signedToken) error {
	if !v.hasKeyOf(t) {
		return errIssuer
	}
	err := errUnknownKey
	for key := range v.candidates(t) {
		if key.fits(t.algorithm) {
			return errSignature
		}
		err = errAlgorithmKey
	}
	return err
}

// hasKeyOf reports whether any key, known or not, may vouch for the issuer of t.
func (v *Verifier) hasKeyOf(t *signedToken) bool {
	for range v.published(t) {
		return true
	}
	return slices.ContainsFunc(v.keys.all, func(key Key) bool { return t.isOf(key.issuers) })
}

// issuedBefore returns the time before which t was issued if iat is true, by a
// clock that is off by up to leeway. It is zero if t does not say. Nobody has
// signed iat yet: it may only decide whether a client shall come back.
func (t *signedToken) issuedBefore(leeway time.Duration) time.Time {
	iat := identity.NewClaims(t.claims).IssuedAt
	if iat.IsZero() {
		return time.Time{}
	}
	return iat.Add(time.Second + leeway) // iat is rounded down, mostly
}

// generation changes when the published keys do.
func (v *Verifier) generation() (sum uint64) {
	for _, j := range v.jwks {
		sum += j.generation()
	}
	return sum
}
