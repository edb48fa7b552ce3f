package guard

import (
	"errors"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/sse-guard/sse-guard/caddymodule/conflict"
	"github.com/sse-guard/sse-guard/caddymodule/event"
	"github.com/sse-guard/sse-guard/caddymodule/identity"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/zone"
)

// sender is who sends a request, as far as that is known.
type sender struct {
	guard *Guard
	r     *http.Request // as the guard received it
	env   Env
	// reader is who reads the answer.
	reader identity.Reader
	// asked is when the request came to the outermost of its guards.
	asked time.Time

	// credentials are what the request presented on entry.
	credentials identity.Credentials
	// holder describes the stream that is asked for. It is nil until somebody wants
	// to know who asks, and not changed once a registry has it.
	holder *registry.Holder

	// lacks is the first part of the configured key that was empty when the key was
	// computed last; empty: none was, or the default key lacks its token.
	lacks string

	// tokenErr says why the credentials are not those of one token.
	tokenErr error
	// claims is what a verified token says; with claimsErr, what it said once.
	claims    *identity.Claims
	claimsErr error
}

// identify finds out who asks, as far as the request alone tells. With wait, it
// waits for keys that tokens are verified with.
func (s *sender) identify(id registry.StreamID, wait bool) {
	s.holder = &registry.Holder{ID: id, Addr: s.env.ClientIP(), Asked: s.asked}
	var token identity.Token
	token, s.tokenErr = s.credentials.Token()
	s.holder.Token = registry.ID(token.Hash)
	s.verify(wait)
	if s.holder.Subject.IsZero() {
		s.findClient(token.Hash)
	}
	s.holder.Fingerprint = conflict.Fingerprint(s.holder, s.r.UserAgent())
}

// verify asks the verifier what the token says.
func (s *sender) verify(wait bool) {
	g := s.guard
	if g.Verifier == nil || g.Unverified || s.holder.Token.IsZero() {
		return
	}
	if wait {
		s.claims, s.claimsErr = s.credentials.Verify(s.r.Context(), g.Verifier)
	} else {
		s.claims, s.claimsErr = s.credentials.VerifyNow(g.Verifier)
	}
	if s.claims == nil {
		return
	}
	s.takeClaims()
	if s.claimsErr == nil {
		s.judgeLife()
	}
}

// takeClaims has the holder say what the claims do.
func (s *sender) takeClaims() {
	h, c := s.holder, s.claims
	h.Subject, h.IssuedAt = registry.ID(c.Subject), c.IssuedAt
	if !h.Subject.IsZero() {
		s.findClient(c.Subject)
	}
	h.Fingerprint = conflict.Fingerprint(h, s.r.UserAgent())
}

// believe takes the claims of a token that the upstream has verified. What the
// guard cannot read as the same token is refused all the same: without claims it
// would evade its key.
func (s *sender) believe() {
	s.claims, s.claimsErr = s.credentials.VerifyNow(s.guard.Verifier)
	if s.guard.OnExpiry == ExpiryKeep && errors.Is(s.claimsErr, identity.ErrExpired) {
		s.claimsErr = nil
	}
}

// judgeLife notes a good token, unless it was logged out: then its claims count no
// more than those of an expired one.
func (s *sender) judgeLife() {
	if s.denied() {
		s.claimsErr = errLoggedOut
		return
	}
	s.noteToken()
}

// errLoggedOut is the error of a token that was good.
var errLoggedOut error = &identity.InvalidTokenError{Why: "The token was logged out, or revoked"}

// findClient looks for a client id. It counts within scope only, since clients
// choose their ids.
func (s *sender) findClient(scope identity.Hash) {
	client, tab := s.credentials.Client(scope)
	s.holder.Client, s.holder.Tab = registry.ID(client), tab
}

// demandsToken reports whether every stream needs a token.
func (g *Guard) demandsToken() bool { return g.RequireToken || g.Verifier != nil && !g.Optional }

// verified reports whether the token was verified here, and is good.
func (s *sender) verified() bool {
	return s.claims != nil && s.claimsErr == nil && !s.guard.Unverified
}

// hopeless reports whether the token is not good, and will not be.
func (s *sender) hopeless() bool {
	return s.claimsErr != nil && !errors.Is(s.claimsErr, identity.ErrNoKeys)
}

// anonymous reports whether the stream is one that needs no token and has none:
// it holds nothing.
func (s *sender) anonymous() bool { return s.guard.Optional && s.holder.Token.IsZero() }

// denied reports whether the token was logged out.
func (s *sender) denied() bool { return s.guard.Zone.Registry.Denied(s.holder) }

// noteToken makes a good token known to those whom it concerns besides its own
// request: a later logout of its user, and the user's streams that would end
// with an earlier token.
func (s *sender) noteToken() {
	z, c := s.guard.Zone, s.claims
	if s.holder.Subject.IsZero() {
		return
	}
	now := time.Now()
	r := zone.RecentToken{Expires: c.Expires, Until: s.guard.tokenEnd(c, now, tokenLife)}
	if !c.IssuedAt.IsZero() {
		r.Until = c.IssuedAt.Add(s.guard.Leeway + 2*time.Second)
	}
	z.Recent.Saw(s.holder.Subject, s.holder.Token, r, now)

	if z.Sessions.Len() == 0 || s.guard.OnExpiry != ExpiryRenew {
		return
	}
	moved := z.Sessions.Renew(registry.ID(c.Session), s.holder.Token, s.guard.deadline(c))
	if moved > 0 && s.denied() {
		// The token was logged out meanwhile, by who found nothing renewed yet.
		l := leaving{sender: s, scope: LogoutToken} // it denies nobody
		if err := l.endRenewed(s.r.Context()); err != nil {
			s.guard.Logger.Error("a logged-out token may have kept streams open: asking the registry",
				s.guard.zoneField(), zap.Error(err))
		}
	}
}

// self is the sender, for observers.
func (s *sender) self() event.Who {
	who := event.Who{Holder: s.holder}
	if s.verified() {
		who.Sub = s.claims.Sub
	}
	return who
}

// tokenLife is how long tokens live, as far as it matters here, that do not say when
// they expire.
const tokenLife = 24 * time.Hour

// tokenEnd is when a token is not accepted any more, or, if it has no end, the given
// time from now.
func (g *Guard) tokenEnd(c *identity.Claims, now time.Time, endless time.Duration) time.Time {
	if c == nil || c.Expires.IsZero() {
		return now.Add(endless)
	}
	return c.Expires.Add(g.Leeway)
}

// expired reports whether a token that was good has come to its end.
func (g *Guard) expired(c *identity.Claims) bool {
	return !c.Expires.IsZero() && !time.Now().Before(c.Expires.Add(g.Leeway))
}

// deadline is when a stream of a token ends; zero: never.
func (g *Guard) deadline(c *identity.Claims) time.Time {
	if c == nil || c.Expires.IsZero() || g.OnExpiry == ExpiryKeep {
		return time.Time{}
	}
	return c.Expires.Add(g.Leeway)
}
