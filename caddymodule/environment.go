package caddymodule

import (
	"context"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-guard/sse-guard/caddymodule/guard"
	"github.com/sse-guard/sse-guard/caddymodule/stream"
	"github.com/sse-guard/sse-guard/caddymodule/tcp"
)

// environment is the Caddy server around one request.
type environment struct {
	r    *http.Request
	repl *caddy.Replacer
	// own are the placeholders of the request's guards, in the environment of the
	// outermost; nil: they were not published here.
	own func(string) string
}

const ownPlaceholders = "sse_guard."

// Expand implements guard.Env. The guard's own placeholders come from own, not
// from the replacer: there they may be those of a guard further out.
func (e *environment) Expand(template string, own func(string) string) string {
	out, err := e.repl.ReplaceFunc(template, func(name string, val any) (any, error) {
		if strings.HasPrefix(name, ownPlaceholders) {
			return own(name), nil
		}
		if (name == "http.request.uri.path" || name == "http.request.orig_uri.path") && val == "" {
			// As in GET http://host HTTP/1.1, which is the same (RFC 9110 section 4.2.3): a
			// client must not lack a part of its key by that.
			return "/", nil
		}
		return val, nil
	})
	if err != nil {
		return "" // a malformed template has no value
	}
	return out
}

// Publish implements guard.Env.
func (e *environment) Publish(own func(string) string) {
	e.own = own
	e.repl.Map(func(name string) (any, bool) {
		if !strings.HasPrefix(name, ownPlaceholders) {
			return nil, false
		}
		return own(name), true
	})
}

// Path implements guard.Env.
func (e *environment) Path() string {
	if u := e.Original(); u != nil {
		return u.Path
	}
	return e.r.URL.Path
}

// Original implements guard.Env.
func (e *environment) Original() *url.URL { return originalURL(e.r) }

// originalURL is the URL that the client asked for, before any rewrite; nil: that is
// not known.
func originalURL(r *http.Request) *url.URL {
	orig, _ := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request)
	return orig.URL
}

// routeGroups is where Caddy notes which groups of routes have had their match: of
// handle blocks that exclude each other, only the first serves a request.
const routeGroups = caddy.CtxKey("route_group")

// Snapshot implements guard.Env. Placeholders stay as they are: handlers set theirs
// anew.
func (e *environment) Snapshot() (restore func()) {
	vars, _ := e.r.Context().Value(caddyhttp.VarsCtxKey).(map[string]any)
	groups, _ := e.r.Context().Value(routeGroups).(map[string]struct{})
	varsBefore, groupsBefore := maps.Clone(vars), maps.Clone(groups)
	return func() {
		clear(vars)
		maps.Copy(vars, varsBefore)
		clear(groups)
		maps.Copy(groups, groupsBefore)
	}
}

// WriteDeadline implements guard.Env.
func (e *environment) WriteDeadline() time.Time {
	srv, _ := e.r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	began, ok := caddyhttp.GetVar(e.r.Context(), "start_time").(time.Time)
	if srv == nil || srv.WriteTimeout <= 0 || !ok {
		return time.Time{}
	}
	return began.Add(time.Duration(srv.WriteTimeout))
}

// FullDuplex implements guard.Env.
func (e *environment) FullDuplex() bool {
	server, ok := e.r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	return ok && server.EnableFullDuplex
}

// ClientIP implements guard.Env.
func (e *environment) ClientIP() string {
	ip, _ := caddyhttp.GetVar(e.r.Context(), caddyhttp.ClientIPVarKey).(string)
	return ip
}

// ForwardedHosts implements guard.Env.
func (e *environment) ForwardedHosts() []string {
	if trusted, _ := caddyhttp.GetVar(e.r.Context(), caddyhttp.TrustedProxyVarKey).(bool); !trusted {
		return nil
	}
	return e.r.Header["X-Forwarded-Host"]
}

// Connection implements guard.Env.
func (e *environment) Connection() stream.Connection {
	c, ok := e.r.Context().Value(connKey{}).(*connection)
	if !ok {
		return stream.Connection{}
	}
	c.once.Do(func() { c.Connection.TCP = tcp.Of(c.Net) })
	return c.Connection
}

// Users implements guard.Env.
func (e *environment) Users() *stream.Users {
	c, ok := e.r.Context().Value(connKey{}).(*connection)
	if !ok {
		return nil
	}
	return &c.users
}

// connection is one that the server has accepted. Most never carry a stream, so
// its TCP connection is looked for when the first one comes.
type connection struct {
	stream.Connection
	once  sync.Once
	users stream.Users
}

type connKey struct{}

// withConn remembers the connection of a server's requests. Every guard
// registers it; the first one counts.
func withConn(ctx context.Context, conn net.Conn) context.Context {
	if ctx.Value(connKey{}) != nil {
		return ctx
	}
	return context.WithValue(ctx, connKey{}, &connection{Connection: stream.Connection{Net: conn}})
}

// Interface guard
var _ guard.Env = (*environment)(nil)
