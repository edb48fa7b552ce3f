package guard

import (
	"context"
	"errors"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/sse-guard/sse-guard/caddymodule/event"
	"github.com/sse-guard/sse-guard/caddymodule/identity"
	"github.com/sse-guard/sse-guard/caddymodule/reason"
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
func (q *request) logOut(l *Logout) {
	g := q.guard
	if q.holder.Token.IsZero() || q.tokenErr != nil {
		g.Logger.Debug("a logout without one token ends nothing", g.zoneField())
		return
	}
	out := leaving{sender: &q.sender, scope: q.logoutScope(l)}
	// The client may leave, but what it asked for is done.
	if err := out.end(context.WithoutCancel(q.r.Context())); err != nil {
		g.Logger.Error("a logout may have left streams open: asking the registry",
			g.zoneField(), zap.String("scope", string(out.scope)), zap.Error(err))
	}
	q.tell(event.LoggedOut{By: q.self(), Scope: string(out.scope), Streams: len(out.holders)})
	g.awaitDeparture(q.r.Context(), out.departed...)
}

// logoutScope is whose streams the logout ends, as far as the request names them.
func (s *sender) logoutScope(l *Logout) LogoutScope {
	scope := l.Scope
	if scope != LogoutToken && errors.Is(s.claimsErr, identity.ErrNoKeys) {
		s.verify(true) // whose client, or which user, only the claims tell
	}
	switch {
	case scope == LogoutDefault && !s.holder.Client.IsZero():
		return LogoutClient
	case scope == LogoutDefault:
		return LogoutToken
	case scope == LogoutUser && s.holder.Subject.IsZero():
		s.guard.Logger.Warn("a logout names no user: its token does not tell one, or is not good; only the token is logged out",
			s.guard.zoneField(), zap.NamedError("token", s.claimsErr))
		return LogoutToken
	default:
		return scope
	}
}

// leaving is a logout under way, and who it has ended so far.
type leaving struct {
	*sender
	scope    LogoutScope
	holders  []*registry.Holder
	departed []<-chan struct{}
}

// end denies first, so that no newcomer slips through, and then ends. The ended
// streams' own tokens are denied after that, and whoever was admitted with one of
// them meanwhile is ended too.
func (l *leaving) end(ctx context.Context) error {
	sel := l.selector()
	if sel.IsZero() {
		l.guard.Logger.Debug("a logout names nobody and ends nothing",
			l.guard.zoneField(), zap.String("scope", string(l.scope)))
		return nil
	}
	if err := l.deny(ctx, l.denials(ctx)); err != nil {
		return err
	}
	if err := l.endSelected(ctx, sel); err != nil {
		return err
	}
	if l.scope == LogoutToken {
		if err := l.endRenewed(ctx); err != nil {
			return err
		}
	}
	others := l.denialsOfEnded()
	if err := l.deny(ctx, others); err != nil {
		return err
	}
	for _, d := range others {
		// Not by subject: whoever logs in again at this moment is welcome.
		if l.scope == LogoutUser {
			sel = registry.Selector{Token: d.Token}
		}
		if err := l.endSelected(ctx, sel); err != nil {
			return err
		}
	}
	return nil
}

// selector names the streams in the scope; it is zero if the request does not.
func (l *leaving) selector() registry.Selector {
	switch l.scope {
	case LogoutClient:
		return registry.Selector{Client: l.holder.Client}
	case LogoutUser:
		return registry.Selector{Subject: l.holder.Subject}
	case LogoutToken, LogoutDefault:
	}
	return registry.Selector{Token: l.holder.Token}
}

func (l *leaving) endSelected(ctx context.Context, sel registry.Selector) error {
	ended, err := l.guard.Zone.Registry.End(ctx, sel, registry.Ending{Reason: reason.Logout, By: l.holder.Addr})
	l.holders = append(l.holders, ended.Holders...)
	if ended.Departed != nil {
		l.departed = append(l.departed, ended.Departed)
	}
	return err
}

// endRenewed ends the streams that live on by this token although they were
// opened with an earlier one: their page has refreshed its token.
func (l *leaving) endRenewed(ctx context.Context) error {
	if l.claims == nil {
		return nil
	}
	for _, id := range l.guard.Zone.Sessions.RenewedBy(registry.ID(l.claims.Session), l.holder.Token) {
		if err := l.endSelected(ctx, registry.Selector{ID: id}); err != nil {
			return err
		}
	}
	return nil
}

// denials lists what is no longer welcome after a logout. Of tokens that nobody
// verified only those are kept that hold a stream, or ask for one now: others
// would be for anyone to fill the list with.
func (l *leaving) denials(ctx context.Context) []registry.Denial {
	g, now := l.guard, time.Now()
	token := registry.Denial{Token: l.holder.Token, Until: g.tokenEnd(l.claims, now)}
	switch {
	case l.scope == LogoutUser:
		ds := []registry.Denial{token, {
			Subject:      l.holder.Subject,
			IssuedBefore: now.Truncate(time.Second).Add(-g.Leeway),
			Until:        watermarkEnd(l.claims, now),
		}}
		for recent, expires := range g.Zone.Recent.Of(l.holder.Subject) {
			if expires.IsZero() {
				expires = now.Add(denialLife)
			}
			ds = append(ds, registry.Denial{Token: recent, Until: expires})
		}
		return ds
	case !l.known(ctx):
		return nil
	case l.scope == LogoutClient:
		token.Client = l.holder.Client
	}
	ds := []registry.Denial{token}
	if l.scope == LogoutClient {
		for _, arriving := range g.Zone.Arrivals.Tokens(l.holder.Client) {
			ds = append(ds, registry.Denial{Token: arriving, Client: l.holder.Client, Until: now.Add(denialLife)})
		}
	}
	return ds
}

// known reports whether the token is anybody's.
func (l *leaving) known(ctx context.Context) bool {
	z := l.guard.Zone
	if l.claims != nil || z.Arrivals.Has(l.holder.Token) {
		return true
	}
	held, _, err := z.Registry.Find(ctx, registry.Selector{Token: l.holder.Token}, "", 1)
	return len(held) > 0 || err != nil
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

// denialsOfEnded denies the tokens with which ended streams were opened: after a
// logout by client or user they may be others than the request's, and where tokens
// are not verified only the stream knows how long its own is good.
func (l *leaving) denialsOfEnded() []registry.Denial {
	var ds []registry.Denial
	for _, h := range l.holders {
		if h.Token.IsZero() || h.Token == l.holder.Token && l.claims != nil {
			continue
		}
		d := registry.Denial{Token: h.Token, Until: h.Expires}
		if d.Until.IsZero() {
			d.Until = time.Now().Add(denialLife)
		}
		if l.scope == LogoutClient {
			d.Client = h.Client
		}
		ds = append(ds, d)
	}
	return ds
}

// deny puts denials in force. Where the list is full, others were forgotten for
// them, which is worth a warning and no error.
func (l *leaving) deny(ctx context.Context, ds []registry.Denial) error {
	if len(ds) == 0 {
		return nil
	}
	err := l.guard.Zone.Registry.Deny(ctx, ds...)
	if errors.Is(err, registry.ErrManyDenials) {
		l.guard.Logger.Warn("too many logged-out tokens to remember: the first to expire are forgotten", l.guard.zoneField())
		return nil
	}
	return err
}
