package caddymodule

import (
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-guard/sse-guard/caddymodule/identity"
)

func init() {
	caddy.RegisterModule(MatchClaim{})
	caddy.RegisterModule(MatchHolder{})
}

// MatchClaim matches requests whose token was verified and has the given claims,
// so that, say, players and spectators get guards with different limits.
type MatchClaim struct {
	// The values of each claim, any of which matches. All claims must match. A
	// claim that is an array matches if one of its elements does. A name with
	// dots leads into objects: `realm_access.roles`.
	Claims map[string][]string `json:"claims"`

	// The zone whose guards say where the token is and how it is verified.
	// Default: `default`.
	Zone string `json:"zone,omitempty"`

	app *App
}

// CaddyModule returns the Caddy module information.
func (MatchClaim) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.matchers.sse_guard_claim",
		New: func() caddy.Module { return new(MatchClaim) },
	}
}

// UnmarshalCaddyfile sets up the matcher from Caddyfile tokens. Syntax:
//
//	sse_guard_claim <name> <value...> {
//	    zone <name>
//	}
func (m *MatchClaim) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	for d.Next() {
		args := d.RemainingArgs()
		if len(args) < 2 {
			return d.Errf("sse_guard_claim does not take %d arguments; write: sse_guard_claim <name> <value...>", len(args))
		}
		if m.Claims == nil {
			m.Claims = make(map[string][]string)
		}
		m.Claims[args[0]] = append(m.Claims[args[0]], args[1:]...)
		for d.NextBlock(0) {
			if d.Val() != "zone" {
				return d.Errf("unknown option %q of sse_guard_claim; the one option is: zone", d.Val())
			}
			if !d.Args(&m.Zone) || d.NextArg() || m.Zone == "" {
				return d.Errf("sse_guard_claim: write: zone <name>")
			}
		}
	}
	return nil
}

// Provision sets up the matcher.
func (m *MatchClaim) Provision(ctx caddy.Context) (err error) {
	setDefault(&m.Zone, defaultZone)
	if m.app, err = appOf(ctx); err != nil {
		return err
	}
	m.app.wants = append(m.app.wants, want{matcher: "sse_guard_claim", zone: m.Zone, claims: true})
	return nil
}

// Validate checks the options.
func (m *MatchClaim) Validate() error {
	if len(m.Claims) == 0 {
		return errors.New("sse_guard_claim: claims: none is given; expected at least one name with its values")
	}
	for name, values := range m.Claims {
		if name == "" || len(values) == 0 {
			return fmt.Errorf("sse_guard_claim: claims: %q has %d values; expected a name with at least one value", name, len(values))
		}
		for _, text := range append([]string{name}, values...) {
			if err := noPlaceholders("sse_guard_claim", text); err != nil {
				return err // it would never match
			}
		}
	}
	return nil
}

// MatchWithError reports whether the request's token has the claims.
func (m *MatchClaim) MatchWithError(r *http.Request) (bool, error) {
	claims := m.claims(r)
	if claims == nil {
		return false, nil
	}
	for name, values := range m.Claims {
		if !slices.ContainsFunc(values, func(value string) bool { return claims.Has(name, value) }) {
			return false, nil
		}
	}
	return true, nil
}

// claims returns the claims of the request's token, nil if it has no good one. It
// asks once: a matcher and its opposite must not both be false because a key
// came between them.
func (m *MatchClaim) claims(r *http.Request) *identity.Claims {
	name := "sse_guard.claims." + m.Zone
	if known, ok := caddyhttp.GetVar(r.Context(), name).(*identity.Claims); ok {
		return known
	}
	var claims *identity.Claims
	if g := m.app.guard(m.Zone); g != nil {
		claims = g.Claims(r)
	}
	caddyhttp.SetVar(r.Context(), name, claims)
	return claims
}

// MatchHolder matches requests of who holds a key now: the request's client id
// where it has one, else its token, has a live stream. So what only the holder
// may do can be refused to tabs and devices that merely watch.
type MatchHolder struct {
	// The zone whose streams count. Default: `default`.
	Zone string `json:"zone,omitempty"`

	app *App
}

// CaddyModule returns the Caddy module information.
func (MatchHolder) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.matchers.sse_guard_holder",
		New: func() caddy.Module { return new(MatchHolder) },
	}
}

// UnmarshalCaddyfile sets up the matcher from Caddyfile tokens. Syntax:
//
//	sse_guard_holder [<zone>]
func (m *MatchHolder) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	for d.Next() {
		args := d.RemainingArgs()
		if len(args) > 1 {
			return d.Errf("sse_guard_holder does not take %d arguments; write: sse_guard_holder [<zone>]", len(args))
		}
		if len(args) == 1 {
			m.Zone = args[0]
		}
		if d.NextBlock(0) {
			return d.Errf("sse_guard_holder takes no block; write: sse_guard_holder [<zone>]")
		}
	}
	return nil
}

// Provision sets up the matcher.
func (m *MatchHolder) Provision(ctx caddy.Context) (err error) {
	setDefault(&m.Zone, defaultZone)
	if m.app, err = appOf(ctx); err != nil {
		return err
	}
	m.app.wants = append(m.app.wants, want{matcher: "sse_guard_holder", zone: m.Zone})
	return nil
}

// MatchWithError reports whether the request's identity holds a key.
func (m *MatchHolder) MatchWithError(r *http.Request) (bool, error) {
	g := m.app.guard(m.Zone)
	if g == nil {
		return false, nil
	}
	holds, err := g.Holds(r)
	if err != nil {
		return false, caddyhttp.Error(http.StatusServiceUnavailable, fmt.Errorf("sse_guard_holder: asking the registry: %w", err))
	}
	return holds, nil
}

// Interface guards
var (
	_ caddy.Provisioner                 = (*MatchClaim)(nil)
	_ caddy.Validator                   = (*MatchClaim)(nil)
	_ caddyfile.Unmarshaler             = (*MatchClaim)(nil)
	_ caddyhttp.RequestMatcherWithError = (*MatchClaim)(nil)
	_ caddy.Provisioner                 = (*MatchHolder)(nil)
	_ caddyfile.Unmarshaler             = (*MatchHolder)(nil)
	_ caddyhttp.RequestMatcherWithError = (*MatchHolder)(nil)
)
