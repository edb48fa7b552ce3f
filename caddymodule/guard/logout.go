package guard

import (
	"context"
	"errors"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/sse-guard/sse-guard/caddymodule/identity"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// Logout describes requests that log somebody out. They pass to the upstream as
// always. When it answers with success, the streams in the scope end.
type Logout struct {
	// Matches tells such a request.
	Matches func(*http.Request) bool
	// Success tells whether the upstream has logged out, by its status.
	Success func(status int) bool
	// Scope is whose streams end.
	Scope LogoutScope
}

// LogoutScope is whose streams a logout ends.
type LogoutScope string

const (
	// LogoutDefault is LogoutClient where the request has a client id, else
	// LogoutToken.
	LogoutDefault LogoutScope = ""
	// LogoutClient ends the streams of the request's client id, within its
	// verified user or token.
	LogoutClient LogoutScope = "client"
	// LogoutUser ends all streams of the verified user.
	LogoutUser LogoutScope = "user"
	// LogoutToken ends the streams of the request's token.
	LogoutToken LogoutScope = "token"
)

// logoutOf returns what r logs out, nil if nothing.
func (g *Guard) logoutOf(r *http.Request) *Logout {
	for i := range g.Logouts {
		// Browsers send a preflight, and HEAD may be anybody's, before or without
		// a logout.
		if r.Method != http.MethodOptions && r.Method != http.MethodHead && g.Logouts[i].Matches(r) {
			return &g.Logouts[i]
		}
	}
	return nil
}

// logOut does what the request asked for, now that the upstream has agreed. The
// streams end before the answer goes out.
func (v *visit) logOut(l *Logout) {
	if v.token.IsZero() || v.tokenErr != nil {
		v.guard.Logger.Debug("a logout without one token ends nothing", v.zone())
		return
	}
	scope := l.Scope
	if scope != LogoutToken && errors.Is(v.claimsErr, identity.ErrNoKeys) {
		v.verify(true) // whose client, or which user, only the claims tell
	}
	switch {
	case scope == LogoutDefault && !v.stream.Client.IsZero():
		scope = LogoutClient
	case scope == LogoutDefault:
		scope = LogoutToken
	case scope == LogoutUser && v.stream.Subject.IsZero():
		v.guard.Logger.Warn("a logout names no user: its token does not tell one, or is not good; only the token is logged out", v.zone(), zap.NamedError("token", v.claimsErr))
		scope = LogoutToken
	}

	// The client may leave, but what it asked for is done.
	ctx := context.WithoutCancel(v.r.Context())
	ended, err := v.endLoggedOut(ctx, scope)
	if err != nil {
		v.guard.Logger.Error("a logout may have left streams open: asking the registry", v.zone(), zap.String("scope", string(scope)), zap.Error(err))
	}
	v.guard.Logger.Info("logout", v.zone(), v.sub(),
		zap.String("scope", string(scope)),
		zap.Int("streams", len(ended)),
		zap.String("client_ip", v.stream.Addr),
	)
	v.waitGone(ended)
}

// endLoggedOut denies first, so that no newcomer slips through, and then ends.
// The ended streams' own tokens are denied after that, and whoever was admitted
// with one of them meanwhile is ended too.
func (v *visit) endLoggedOut(ctx context.Context, scope LogoutScope) ([]*registry.Stream, error) {
	index, id := registry.ByToken, v.stream.Token
	switch scope {
	case LogoutClient:
		index, id = registry.ByClient, v.stream.Client
	case LogoutUser:
		index, id = registry.BySubject, v.stream.Subject
	}
	if id.IsZero() {
		v.guard.Logger.Debug("a logout names nobody and ends nothing", v.zone(), zap.String("scope", string(scope)))
		return nil, nil
	}
	if err := v.deny(ctx, v.denials(ctx, scope)); err != nil {
		return nil, err
	}
	ending := registry.Ending{Reason: registry.Logout, By: v.stream.Addr}
	z := v.guard.Zone
	ended, err := z.Registry.EndAll(ctx, index, id, ending)
	if err != nil {
		return ended, err
	}
	renewed, err := v.endRenewed(ctx, scope)
	ended = append(ended, renewed...)
	if err != nil {
		return ended, err
	}
	others := v.denialsOf(ended, scope)
	if len(others) == 0 {
		return ended, nil
	}
	if err := v.deny(ctx, others); err != nil {
		return ended, err
	}
	for _, d := range others {
		// Not by subject: whoever logs in again at this moment is welcome.
		if scope == LogoutUser {
			index, id = registry.ByToken, d.Token
		}
		late, err := z.Registry.EndAll(ctx, index, id, ending)
		ended = append(ended, late...)
		if err != nil {
			return ended, err
		}
	}
	return ended, nil
}

// endRenewed ends the streams that live on by this token although they were
// opened with an earlier one: their page has refreshed its token.
func (v *visit) endRenewed(ctx context.Context, scope LogoutScope) ([]*registry.Stream, error) {
	if scope != LogoutToken || v.claims == nil {
		return nil, nil
	}
	z := v.guard.Zone
	var victims []registry.Victim
	for _, s := range z.deadlines.RenewedBy(registry.ID(v.claims.Session), v.stream.Token) {
		victims = append(victims, registry.Victim{Stream: s, Reason: registry.Logout})
	}
	if len(victims) == 0 {
		return nil, nil
	}
	evicted, err := z.Registry.Evict(ctx, victims, v.stream.Addr)
	return streamsOf(evicted), err
}

// denials lists what is no longer welcome after a logout. Of tokens that nobody
// verified only those are kept that hold a stream, or ask for one now: others
// would be for anyone to fill the list with.
func (v *visit) denials(ctx context.Context, scope LogoutScope) []registry.Denial {
	now := time.Now()
	token := registry.Denial{Token: v.stream.Token, Until: v.guard.tokenEnd(v.claims, now)}
	switch {
	case scope == LogoutUser:
		ds := []registry.Denial{token, {
			Subject:      v.stream.Subject,
			IssuedBefore: now.Truncate(time.Second).Add(-v.guard.Leeway),
			Until:        watermarkEnd(v.claims, now),
		}}
		for recent, expires := range v.guard.Zone.recent.of(v.stream.Subject) {
			if expires.IsZero() {
				expires = now.Add(denialLife)
			}
			ds = append(ds, registry.Denial{Token: recent, Until: expires})
		}
		return ds
	case !v.known(ctx):
		return nil
	case scope == LogoutClient:
		token.Client = v.stream.Client
	}
	ds := []registry.Denial{token}
	if scope == LogoutClient {
		for _, arriving := range v.guard.Zone.arrivals.tokens(v.stream.Client) {
			ds = append(ds, registry.Denial{Token: arriving, Client: v.stream.Client, Until: now.Add(denialLife)})
		}
	}
	return ds
}

// known reports whether the token is anybody's.
func (v *visit) known(ctx context.Context) bool {
	z := v.guard.Zone
	if v.claims != nil || z.arrivals.has(v.stream.Token) {
		return true
	}
	held, err := z.Registry.Holds(ctx, registry.ByToken, v.stream.Token)
	return held || err != nil
}

// watermarkEnd is when no token of the user's is valid any more that was issued
// until now: one of the issuer's tokens tells how long they live.
func watermarkEnd(c *identity.Claims, now time.Time) time.Time {
	life := denialLife
	if c != nil && !c.Expires.IsZero() && !c.IssuedAt.IsZero() {
		life = max(life, c.Expires.Sub(c.IssuedAt))
	}
	return now.Add(life)
}

// denialsOf denies the tokens with which ended streams were opened: after a
// logout by client or user they may be others than the request's, and where tokens
// are not verified only the stream knows how long its own is good.
func (v *visit) denialsOf(ended []*registry.Stream, scope LogoutScope) []registry.Denial {
	var ds []registry.Denial
	for _, s := range ended {
		if s.Token.IsZero() || s.Token == v.stream.Token && v.claims != nil {
			continue
		}
		d := registry.Denial{Token: s.Token, Until: time.Now().Add(denialLife)}
		if old, ok := s.Handle.(*visit); ok {
			d.Until = old.guard.tokenEnd(old.claims, time.Now())
		}
		if scope == LogoutClient {
			d.Client = s.Client
		}
		ds = append(ds, d)
	}
	return ds
}

func (v *visit) deny(ctx context.Context, ds []registry.Denial) error {
	if len(ds) == 0 {
		return nil
	}
	full, err := v.guard.Zone.deny(ctx, ds...)
	if full {
		v.guard.Logger.Warn("too many logged-out tokens to remember: the first to expire are forgotten", v.zone())
	}
	return err
}
