package guard

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/sse-guard/sse-guard/caddymodule/event"
	"github.com/sse-guard/sse-guard/caddymodule/identity"
)

// tellUntracked tells that the request's stream holds no key of its guard, and why.
func (q *request) tellUntracked() {
	e := event.Untracked{Stream: q.holder, Cause: q.untracked(), Request: q.r}
	if e.Cause == event.UntrackedKey {
		e.Part = q.lacks
	}
	q.tell(e)
}

// untracked is why the request's stream holds no key.
func (q *request) untracked() event.UntrackedCause {
	switch {
	case !q.governed:
		return event.UntrackedMethod
	case q.verdict.coveredBy != nil:
		return event.UntrackedCovered
	case q.anonymous():
		return event.UntrackedAnonymous
	case q.holder.Token.IsZero() && (q.lacks == "" || strings.Contains(q.lacks, tokenPlaceholder)):
		return event.UntrackedToken
	default:
		return event.UntrackedKey
	}
}

// Placeholders of the guard as they are written in a key.
const (
	tokenPlaceholder  = "{sse_guard.token}" //nolint:gosec // a name, no credential
	clientPlaceholder = "{sse_guard.client}"
)

// untrackedEvery is how often a line above debug says of one cause that streams pass
// untracked.
const untrackedEvery = time.Hour

// untrackedLog says that streams pass untracked, and what to do about it: a guard
// that is there and does nothing looks like one that works.
type untrackedLog struct {
	guard *Config
	lines seldom
}

// Observe implements event.Observer.
func (l *untrackedLog) Observe(e event.Event) {
	u, ok := e.(event.Untracked)
	if !ok {
		return
	}
	level := zap.DebugLevel
	if l.lines.may(string(u.Cause)+" "+u.Part, untrackedEvery) {
		level = l.level(u.Cause)
	}
	if c := l.guard.Logger.Check(level, "a stream passes untracked: "+l.why(u)); c != nil {
		c.Write(append([]zap.Field{
			zap.String("zone", l.guard.Zone.Name),
			zap.String("cause", string(u.Cause)),
			zap.String("method", u.Request.Method),
		}, l.details(u)...)...)
	}
}

// level is that of the first line in an hour. What the configuration says so is no
// warning.
func (l *untrackedLog) level(cause event.UntrackedCause) zapcore.Level {
	switch {
	case cause == event.UntrackedAnonymous,
		cause == event.UntrackedMethod && (len(l.guard.Key) == 0 || len(l.guard.Methods) > 0):
		return zap.InfoLevel
	default:
		return zap.WarnLevel
	}
}

// why is the cause in words, with what to do.
func (l *untrackedLog) why(u event.Untracked) string {
	switch u.Cause {
	case event.UntrackedMethod:
		if l.level(u.Cause) == zap.WarnLevel {
			return "requests of its method do not count, although there is a key; to count them all, write: methods any"
		}
		return "requests of its method do not count"
	case event.UntrackedToken:
		return "it has no token where the guard looks for one; name the place with the option token, or refuse such streams with require_token"
	case event.UntrackedAnonymous:
		return "it has no token, which jwt optional allows"
	case event.UntrackedCovered:
		return "a guard further out counts it by the same key in the same zone, so this one does not; give it another key or zone, or leave it out"
	default:
		return fmt.Sprintf("the part %s of its key is empty; change the key, or refuse such streams with missing_key deny", u.Part)
	}
}

// details are names that help to mend the configuration: where the guard has looked,
// and what was there. They hold no values.
func (l *untrackedLog) details(u event.Untracked) []zap.Field {
	switch {
	case u.Cause == event.UntrackedToken:
		return append([]zap.Field{places("looked_in", l.guard.Identity.Tokens())}, presented(u.Request, l.guard.Identity)...)
	case u.Cause == event.UntrackedKey && strings.Contains(u.Part, clientPlaceholder):
		return append([]zap.Field{places("looked_in", l.guard.Identity.Clients())}, presented(u.Request, l.guard.Identity)...)
	case u.Cause == event.UntrackedKey:
		return []zap.Field{zap.String("part", u.Part)}
	default:
		return nil
	}
}

func places[T fmt.Stringer](name string, sources []T) zap.Field {
	texts := make([]string, len(sources))
	for i, s := range sources {
		texts[i] = s.String()
	}
	return zap.Strings(name, texts)
}

// presented names what else r has that may be a token.
func presented(r *http.Request, x *identity.Extractor) (fields []zap.Field) {
	p := identity.PresentedBy(r)
	if len(p.Schemes) > 0 {
		fields = append(fields, zap.Strings("authorization_schemes", p.Schemes))
	}
	others := slices.DeleteFunc(p.Sources, func(s identity.TokenSource) bool { return slices.Contains(x.Tokens(), s) })
	return append(fields, places("found", others))
}

// tellUnknown says that a handler behind the guard uses a placeholder of the guard's
// that there is none of. Its own options are looked at when the configuration is loaded.
func (g *Guard) tellUnknown(name string) {
	if g.lines.may("unknown placeholder", untrackedEvery) {
		g.Logger.Warn("a handler behind the guard uses a placeholder that the guard does not set, and gets nothing for it",
			g.zoneField(), zap.String("placeholder", "{"+name+"}"))
	}
}

// twoTokensEvery is how often a guard says that it refuses requests for two tokens.
const twoTokensEvery = time.Minute

// tellTwoTokens says between which places the request's tokens differ, and how to name
// the one that counts. The client is told 400, but cannot do anything about a cookie
// that some other application has set.
func (q *request) tellTwoTokens() {
	g := q.guard
	if !g.lines.may("two tokens", twoTokensEvery) {
		return
	}
	fields := []zap.Field{g.zoneField(), zap.String("client_ip", q.env.ClientIP())}
	two := g.Identity.Differing(q.r)
	if len(two) == 0 {
		two = g.Identity.Tokens() // handlers further in have changed the request
	}
	fields = append(fields, places("sources", two))
	what := "two different tokens in one request, refused with 400: one place holds both"
	if two[0] != two[len(two)-1] {
		lines := make([]string, len(two))
		for i, s := range two {
			lines[i] = "token " + s.String()
		}
		what = "two different tokens in one request, refused with 400; if one of them is no token, name the place of the other: write " + strings.Join(lines, ", or ")
	}
	g.Logger.Warn(what, fields...)
}
