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
	// Unlisted tells a request that only its method keeps from being one, although
	// nobody said which methods are meant; nil: none.
	Unlisted func(*http.Request) bool
	// Path is what the requests' path is to be, for log lines.
	Path string
	// Success tells whether the upstream has logged out, by its status.
	Success func(status int) bool
	// Scope is whose streams end.
	Scope LogoutScope
	// Deny is how long a token is denied that has no end of its own. Applications use
	// the ids of their sessions again.
	Deny time.Duration
}

// LogoutScope is whose streams a logout ends.
type LogoutScope string

const (
	// LogoutDefault is LogoutClient where the request has a client id that a stream
	// has too, else LogoutToken.
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

// unlistedLogout returns what r, which logs out nothing, would log out but for its
// method; nil if nothing.
func (g *Guard) unlistedLogout(r *http.Request) *Logout {
	for i := range g.Logouts {
		l := &g.Logouts[i]
		if l.Unlisted != nil && r.Method != http.MethodOptions && r.Method != http.MethodHead && l.Unlisted(r) {
			return l
		}
	}
	return nil
}

// mostOutlasted is for how long a request that logs out goes on without its client.
const mostOutlasted = 30 * time.Second

// outlast returns r with a context that goes on when the client leaves: a page may log
// out and go elsewhere at once, and is logged out all the same. It does not go on for
// ever, nor while the server stops. What done ends must not be used any more after it.
func (g *Guard) outlast(r *http.Request) (outlasting *http.Request, done func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	stop := context.AfterFunc(r.Context(), func() {
		timer := time.NewTimer(mostOutlasted)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-g.Zone.DrainBegan():
		case <-ctx.Done():
		}
		cancel()
	})
	return r.WithContext(ctx), func() {
		stop()
		cancel()
	}
}

// logOut does what the request asked for, now that the upstream has agreed. The
// streams end before the answer goes out.
func (q *request) logOut(l *Logout) {
	g, ctx := q.guard, context.WithoutCancel(q.r.Context()) // what the client asked for is done
	out := leaving{sender: &q.sender, deniedFor: l.Deny}
	if why := out.aim(ctx, l.Scope); why != "" {
		q.endedNothing(l, why)
		return
	}
	if err := out.end(ctx); err != nil {
		g.Logger.Error("a logout may have left streams open: asking the registry",
			g.zoneField(), zap.String("scope", string(out.scope)), zap.Error(err))
	}
	q.tell(event.LoggedOut{By: q.self(), Scope: string(out.scope), Streams: len(out.holders)})
	if len(out.holders) == 0 {
		q.endedNothing(l, "no stream is held by its "+string(out.scope))
	}
	g.awaitDeparture(q.r.Context(), out.departed...)
}

// aim finds out whose streams the logout ends, as far as the request names them. It
// returns why nobody's do; empty: somebody's may.
func (l *leaving) aim(ctx context.Context, scope LogoutScope) (why string) {
	switch {
	case l.tokenErr != nil:
		return "it carries two different tokens"
	case l.holder.Token.IsZero():
		return "it carries no token"
	}
	if scope != LogoutToken && errors.Is(l.claimsErr, identity.ErrNoKeys) {
		l.verify(true) // whose client, or which user, only the claims tell
	}
	if l.denied() {
		return "its token is logged out already"
	}
	switch {
	case l.claimsErr != nil:
		l.dead = true
		l.scope = LogoutToken // whoever has found an old token is not its user
	case scope == LogoutDefault:
		l.scope = LogoutToken
		if !l.holder.Client.IsZero() && l.carried(ctx) {
			l.scope = LogoutClient
		}
	case scope == LogoutUser && l.holder.Subject.IsZero():
		l.guard.Logger.Warn("a logout names no user: its token does not tell one; only the token is logged out", l.guard.zoneField())
		l.scope = LogoutToken
	case scope == LogoutClient && l.holder.Client.IsZero():
		return "it carries no client id"
	default:
		l.scope = scope
	}
	return ""
}

// carried reports whether a stream has the request's client id. An EventSource cannot
// send one in a header as the page that logs out does.
func (l *leaving) carried(ctx context.Context) bool {
	if l.guard.Zone.Arrivals.Has(l.holder.Client) {
		return true
	}
	held, _, err := l.guard.Zone.Registry.Find(ctx, registry.Selector{Client: l.holder.Client}, "", 1)
	return len(held) > 0 || err != nil
}

// leaving is a logout under way, and who it has ended so far.
type leaving struct {
	*sender
	scope LogoutScope
	// dead says that the token was good once: it logs out nothing but itself.
	dead bool
	// deniedFor is how long a token is denied that has no end.
	deniedFor time.Duration
	holders   []*registry.Holder
	departed  []<-chan struct{}
}

// end denies first, so that no newcomer slips through, and then ends. The ended
// streams' own tokens are denied after that, and whoever was admitted with one of
// them meanwhile is ended too.
func (l *leaving) end(ctx context.Context) error {
	sel := l.selector()
	if err := l.deny(ctx, l.denials(ctx)); err != nil {
		return err
	}
	l.logOutArrivals()
	if err := l.endSelected(ctx, sel); err != nil {
		return err
	}
	if l.scope == LogoutToken && !l.dead {
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

// logOutArrivals has the requests know that are under way: the upstream may have
// authorised them before. A token that never held a stream is not denied for them:
// anybody can have such a request under way.
func (l *leaving) logOutArrivals() {
	if l.scope == LogoutClient {
		l.guard.Zone.Arrivals.LogOut(registry.ID{}, l.holder.Client)
	} else {
		l.guard.Zone.Arrivals.LogOut(l.holder.Token, registry.ID{})
	}
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
// verified only those are kept that hold a stream, or have lately: others would be for
// anyone to fill the list with.
func (l *leaving) denials(ctx context.Context) []registry.Denial {
	g, now := l.guard, time.Now()
	token := registry.Denial{Token: l.holder.Token, Until: g.tokenEnd(l.claims, now, l.deniedFor)}
	switch {
	case l.scope == LogoutUser:
		ds := []registry.Denial{token, {
			Subject:      l.holder.Subject,
			IssuedBefore: now.Truncate(time.Second).Add(-g.Leeway),
			Until:        watermarkEnd(l.claims, now),
		}}
		for recent, expires := range g.Zone.Recent.Of(l.holder.Subject) {
			if expires.IsZero() {
				expires = now.Add(l.deniedFor)
			}
			ds = append(ds, registry.Denial{Token: recent, Until: expires})
		}
		return ds
	case !l.known(ctx):
		return nil
	case l.scope == LogoutClient:
		token.Client = l.holder.Client
	}
	return []registry.Denial{token}
}

// known reports whether the token is anybody's: it was verified, or the upstream has
// answered it with a stream, or may have on a node that is cut off: that ends the stream
// once it hears of the denial.
func (l *leaving) known(ctx context.Context) bool {
	z := l.guard.Zone
	if l.claims != nil || !z.Held.Until(l.holder.Token).IsZero() || z.MayMissStreams() {
		return true
	}
	held, _, err := z.Registry.Find(ctx, registry.Selector{Token: l.holder.Token}, "", 1)
	return len(held) > 0 || err != nil
}

// watermarkEnd is when no token of the user's is valid any more that was issued
// until now: one of the issuer's tokens tells how long they live.
func watermarkEnd(c *identity.Claims, now time.Time) time.Time {
	life := tokenLife
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
			d.Until = time.Now().Add(l.deniedFor)
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
		l.guard.warnOfDenials()
		return nil
	}
	return err
}
