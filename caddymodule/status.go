package caddymodule

import (
	"fmt"
	"net"
	"net/http"
	"net/url"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/sse-guard/sse-guard/caddymodule/livepage"
	"github.com/sse-guard/sse-guard/caddymodule/steer"
)

func init() {
	caddy.RegisterModule(Status{})
	httpcaddyfile.RegisterDirective("sse_guard_status", parseStatus)
	// Behind basic_auth and forward_auth, and before sse_guard, which is before invoke and
	// would guard its feed.
	httpcaddyfile.RegisterDirectiveOrder("sse_guard_status", httpcaddyfile.After, "templates")
}

// Status serves a page on which an administrator sees the streams of all zones and
// nodes as they are, ends them, and sends them events. It answers all requests that come
// to it. The page is at the paths that end with a slash, and its files beside it.
//
// Who sees the page can end every stream. So there must be an authentication handler
// before it in its route, such as that of the directives `basic_auth` and `forward_auth`.
type Status struct {
	// Serves the page although no authentication handler is before it: to whoever can
	// reach it. For addresses that only administrators reach, or client certificates.
	// Default: off.
	Insecure bool `json:"insecure,omitempty"`

	// Where it is defined, for errors. The Caddyfile adapter sets it.
	DefinedAt string `json:"defined_at,omitempty"`

	page *livepage.Page // nil: not provisioned
}

// statusOptions are the options in the block of the directive sse_guard_status.
var statusOptions = []option[*Status]{
	toggle(option[*Status]{
		name: "insecure", defDoc: "off",
		doc: "Serve the page without an authentication handler before it.",
	}, func(s *Status) *bool { return &s.Insecure }),
}

// CaddyModule returns the Caddy module information.
func (Status) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.sse_guard_status", New: func() caddy.Module { return new(Status) }}
}

func parseStatus(h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	if !h.Next() {
		return nil, h.ArgErr()
	}
	matcher, err := h.ExtractMatcherSet()
	if err != nil {
		return nil, err
	}
	s := new(Status)
	if err := s.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	s.DefinedAt = definedAt(h)
	return h.NewRoute(matcher, s), nil
}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. Syntax:
//
//	sse_guard_status [<matcher>] {
//	    insecure
//	}
func (s *Status) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // directive name
	if d.NextArg() {
		return d.Errf("sse_guard_status takes no argument but a matcher, got %q; options go in a block", d.Val())
	}
	seen := make(map[string]bool)
	for d.NextBlock(0) {
		if err := unmarshalOption(d, s, "sse_guard_status", statusOptions, seen); err != nil {
			return err
		}
	}
	return nil
}

// boards keeps the one board of all status pages over reloads, so that its chart goes on.
var boards = caddy.NewUsagePool()

const theBoard = "board"

// pooledBoard is the board in the pool.
type pooledBoard struct{ *livepage.Board }

// Destruct implements caddy.Destructor. No page is left.
func (b pooledBoard) Destruct() error {
	b.Close()
	return nil
}

// Provision sets up the handler.
func (s *Status) Provision(ctx caddy.Context) error {
	app, err := appOf(ctx)
	if err != nil {
		return err
	}
	board, _, err := boards.LoadOrNew(theBoard, func() (caddy.Destructor, error) {
		return pooledBoard{livepage.NewBoard(&steer.API{Zones: openZones, Logger: lastingLogger().Named("status")})}, nil
	})
	if err != nil {
		return err
	}
	s.page = livepage.New(board.(pooledBoard).Board)
	if srv, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok {
		srv.RegisterOnShutdown(s.page.Close) // it waits for its requests
	}
	app.pages = append(app.pages, s)
	return nil
}

// Cleanup gives the board back.
func (s *Status) Cleanup() error {
	if s.page == nil {
		return nil // Provision failed
	}
	s.page.Close()
	_, err := boards.Delete(theBoard)
	return err
}

// checkPages refuses pages that nobody has to authenticate for.
func (a *App) checkPages(authenticated map[*Status]bool) error {
	for _, s := range a.pages {
		switch {
		case authenticated[s]:
		case s.Insecure:
			a.logger.Warn("sse_guard_status insecure: whoever reaches the page sees and ends streams", zap.String("defined_at", s.DefinedAt))
		default:
			place := s.DefinedAt
			if place != "" {
				place += ": "
			}
			return fmt.Errorf("%ssse_guard_status: no authentication handler is before it in its route for all of its requests, and who sees the page can end every stream; "+
				"put basic_auth, forward_auth or another one before it, with the same path or none; or, if only administrators reach it, write in its block: insecure", place)
		}
		s.page.Begin()
	}
	return nil
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (s *Status) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	// The browser's path, which its files are beside, and the client's address, which
	// lines of the log tell.
	seen := *r
	if u := originalURL(r); u != nil {
		seen.URL = u
	}
	if seen.URL.Path == "" {
		seen.URL = &url.URL{Path: "/", RawQuery: seen.URL.RawQuery}
	}
	if ip := (&environment{r: r}).ClientIP(); ip != "" {
		seen.RemoteAddr = net.JoinHostPort(ip, "0")
	}
	s.page.ServeHTTP(w, &seen)
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Status)(nil)
	_ caddy.CleanerUpper          = (*Status)(nil)
	_ caddyfile.Unmarshaler       = (*Status)(nil)
	_ caddyhttp.MiddlewareHandler = (*Status)(nil)
)
