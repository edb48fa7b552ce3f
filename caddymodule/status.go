package caddymodule

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"

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

	// Names by which browsers reach an insecure page, besides those that the site is for,
	// `localhost` and addresses. By another name, a page of somebody else's could be asking
	// (DNS rebinding). Default: none.
	Hosts []string `json:"hosts,omitempty"`

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
	words(option[*Status]{
		name: "hosts", syntax: "<name...>", defDoc: "none",
		doc:      "Names by which browsers reach an `insecure` page, besides those of the site, `localhost` and addresses.",
		validate: (*Status).validateHosts,
	}, func(s *Status) *[]string { return &s.Hosts }),
}

func (s *Status) validateHosts() error {
	for _, host := range s.Hosts {
		if host == "" || strings.ContainsAny(host, ":/*{} \t") {
			return fmt.Errorf("hosts: %q is not allowed; write names of hosts, without scheme, port and wildcards: hosts status.example.com", host)
		}
	}
	return nil
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
//	    hosts    <name...>
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

// Validate implements caddy.Validator.
func (s *Status) Validate() error { return validateEach(statusOptions, s) }

// Provision sets up the handler.
func (s *Status) Provision(ctx caddy.Context) error {
	app, err := appOf(ctx)
	if err != nil {
		return err
	}
	board, _, err := boards.LoadOrNew(theBoard, func() (caddy.Destructor, error) {
		return pooledBoard{livepage.NewBoard(&steer.API{Zones: openZones, Logger: lastingLogger().Named("status"), User: authenticatedUser})}, nil
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

// authenticatedUser names who has come through basic_auth, or another such handler.
func authenticatedUser(r *http.Request) string {
	repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if !ok {
		return ""
	}
	user, _ := repl.GetString("http.auth.user.id")
	return user
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

// checkPages refuses pages that nobody has to authenticate for, and lets the others begin.
func (a *App) checkPages(found map[*Status]*mounting) error {
	for _, s := range a.pages {
		m := cmp.Or(found[s], &mounting{vague: true})
		if err := s.check(m); err != nil {
			place := s.DefinedAt
			if place != "" {
				place += ": "
			}
			return fmt.Errorf("%ssse_guard_status: %w", place, err)
		}
		at := livepage.Mount{AnyHost: m.authenticated || m.named, Hosts: s.Hosts}
		if !m.vague {
			at.Paths = m.paths
		}
		if !m.authenticated {
			a.logger.Warn("sse_guard_status insecure: whoever reaches the page sees and ends streams", zap.String("defined_at", s.DefinedAt))
		}
		s.page.Begin(at)
	}
	return nil
}

func (s *Status) check(m *mounting) error {
	switch {
	case m.authenticated && len(s.Hosts) == 0:
		return nil
	case m.authenticated || !s.Insecure && len(s.Hosts) > 0:
		return errors.New("hosts: it is for an insecure page without an authentication handler before it; leave it out")
	case !s.Insecure:
		return errors.New("no authentication handler is before it in its route for all of its requests, in all the ways that they come, and who sees the page can end every stream; " +
			"put basic_auth, forward_auth or another one before it, with the same path or none; or, if only administrators reach it, write in its block: insecure")
	case m.vague:
		return errors.New("insecure: it is not known at which paths the page is, so that what protects some of them could be evaded; write them as its matcher, or around it: sse_guard_status /status*")
	default:
		return nil
	}
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (s *Status) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	browser := r.URL // what is asked for, the routes before have seen in r.URL.Path
	if u := originalURL(r); u != nil {
		browser = u
	}
	seen := *r
	if ip := (&environment{r: r}).ClientIP(); ip != "" { // lines of the log tell it
		seen.RemoteAddr = net.JoinHostPort(ip, "0")
	}
	s.page.Serve(w, &seen, browser.Path)
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Status)(nil)
	_ caddy.Validator             = (*Status)(nil)
	_ caddy.CleanerUpper          = (*Status)(nil)
	_ caddyfile.Unmarshaler       = (*Status)(nil)
	_ caddyhttp.MiddlewareHandler = (*Status)(nil)
)
