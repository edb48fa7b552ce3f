package guard

import (
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/sse-guard/sse-guard/caddymodule/identity"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// denialLife is how long a token is denied that does not say when it expires.
const denialLife = 24 * time.Hour

// identify finds out who asks, as far as the request alone tells. Only a request
// that asks for a stream waits for keys; the others are verified with the keys
// at hand, and once more should their answer prove to be a stream.
func (v *visit) identify() {
	v.token, v.tokenErr = v.guard.Identity.Token(v.r)
	v.stream.Token = registry.ID(v.token.Hash)
	v.verify(v.asks)
	if v.stream.Subject.IsZero() {
		v.findClient(v.token.Hash)
	}
}

// verify asks the verifier what the token says.
func (v *visit) verify(wait bool) {
	g := v.guard
	if g.Verifier == nil || g.Unverified || v.token.IsZero() {
		return
	}
	if wait {
		v.claims, v.claimsErr = v.token.Verify(v.r.Context(), g.Verifier)
	} else {
		v.claims, v.claimsErr = v.token.VerifyNow(g.Verifier)
	}
	if v.claims == nil {
		return
	}
	defer v.judgeLife()
	v.stream.Subject = registry.ID(v.claims.Subject)
	v.stream.IssuedAt = v.claims.IssuedAt
	if !v.stream.Subject.IsZero() {
		v.findClient(v.claims.Subject)
	}
}

// judgeLife notes a good token, unless it was logged out: then its claims count no
// more than those of an expired one.
func (v *visit) judgeLife() {
	if v.claimsErr != nil {
		return
	}
	if denied, err := v.guard.Zone.Registry.Denied(v.r.Context(), &v.stream); denied && err == nil {
		v.claimsErr = errLoggedOut
		return
	}
	v.noteToken()
}

// errLoggedOut is the error of a token that was good.
var errLoggedOut error = &identity.InvalidTokenError{Why: "The token was logged out"}

// findClient looks for a client id. It counts within scope only, since clients
// choose their ids.
func (v *visit) findClient(scope identity.Hash) {
	client, tab := v.guard.Identity.Client(v.r, scope)
	v.stream.Client, v.stream.Tab = registry.ID(client), tab
}

// verified reports whether the token was verified here, and is good.
func (v *visit) verified() bool {
	return v.claims != nil && v.claimsErr == nil && !v.guard.Unverified
}

// noteToken makes a good token known to those whom it concerns besides its own
// request: a later logout of its user, and the user's streams that would end
// with an earlier token.
func (v *visit) noteToken() {
	z, c := v.guard.Zone, v.claims
	if v.stream.Subject.IsZero() {
		return
	}
	now := time.Now()
	r := recentToken{expires: c.Expires, until: v.guard.tokenEnd(c, now)}
	if !c.IssuedAt.IsZero() {
		r.until = c.IssuedAt.Add(v.guard.Leeway + 2*time.Second)
	}
	z.recent.saw(v.stream.Subject, v.stream.Token, r, now)

	if z.deadlines.Len() == 0 || v.guard.OnExpiry != ExpiryRenew {
		return
	}
	moved := z.deadlines.Renew(registry.ID(c.Session), v.stream.Token, v.guard.deadline(c))
	if moved > 0 && v.denied() {
		// The token was logged out meanwhile, by who found nothing renewed yet.
		if _, err := v.endRenewed(v.r.Context(), LogoutToken); err != nil {
			v.guard.Logger.Error("a logged-out token may have kept streams open: asking the registry", v.zone(), zap.Error(err))
		}
	}
}

// denied reports whether the token was logged out, as far as the registry tells.
func (v *visit) denied() bool {
	denied, err := v.guard.Zone.Registry.Denied(v.r.Context(), &v.stream)
	return denied || err != nil
}

// tokenEnd is when a token is not accepted any more: at its end, or, as far as it
// matters here, a day from now if it has none.
func (g *Guard) tokenEnd(c *identity.Claims, now time.Time) time.Time {
	if c == nil || c.Expires.IsZero() {
		return now.Add(denialLife)
	}
	return c.Expires.Add(g.Leeway)
}

// expired reports whether a token that was good has come to its end.
func (g *Guard) expired(c *identity.Claims) bool {
	return !c.Expires.IsZero() && !time.Now().Before(c.Expires.Add(g.Leeway))
}

// deadline is when a stream of a token ends; zero: never.
func (g *Guard) deadline(c *identity.Claims) time.Time {
	if c.Expires.IsZero() || g.OnExpiry == ExpiryKeep {
		return time.Time{}
	}
	return c.Expires.Add(g.Leeway)
}

// admissible refuses a request without the identity that the guard demands.
func (v *visit) admissible() *refusal {
	g := v.guard
	switch {
	case v.tokenErr != nil:
		return differingTokens()
	case v.token.IsZero() && (g.RequireToken || g.Verifier != nil && !g.Optional):
		return missingToken()
	case v.claimsErr != nil:
		return v.unverifiable(v.claimsErr)
	}
	denied, err := g.Zone.Registry.Denied(v.r.Context(), &v.stream)
	switch {
	case err != nil:
		return v.unreachable(err)
	case denied:
		return v.unverifiable(errLoggedOut)
	default:
		return nil
	}
}

// admissibleAtHeader is admissible for a stream that nobody asked for, or that
// was asked for long ago: its token is judged now.
func (v *visit) admissibleAtHeader() *refusal {
	if errors.Is(v.claimsErr, identity.ErrNoKeys) && !v.asks {
		v.verify(true)
		if len(v.guard.Key) > 0 {
			v.stream.Key = registry.ID{} // it may have parts that were not known yet
		}
	}
	if v.guard.Unverified && !v.token.IsZero() {
		// The upstream has verified it. What the guard cannot read as the same
		// token is refused all the same: without claims it would evade its key.
		v.claims, v.claimsErr = v.token.VerifyNow(v.guard.Verifier)
		if v.guard.OnExpiry == ExpiryKeep && errors.Is(v.claimsErr, identity.ErrExpired) {
			v.claimsErr = nil
		}
	}
	return v.admissible()
}

// anonymous reports whether the stream is one that needs no token and has none:
// it holds nothing.
func (v *visit) anonymous() bool { return v.guard.Optional && v.token.IsZero() }
