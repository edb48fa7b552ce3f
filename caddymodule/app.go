package caddymodule

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/sse-guard/sse-guard/caddymodule/guard"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/zone"
)

func init() {
	caddy.RegisterModule(App{})
}

// App is what the guards and the matchers of one configuration share. It has no
// options, and need not be configured.
type App struct {
	// verifiers by the options that they were made of: guards with the same ones
	// share a verifier and what it remembers.
	verifiers map[string]*jwtVerifier
	// guards by zone; the matchers take the first.
	guards map[string][]member
	wants  []want
	// pages are the status pages.
	pages []*Status
	// registries are those of the guards' zones, that have something to start.
	registries []registry.Starter
	// renewals have those that an older configuration has opened do as this one says.
	renewals []func()
	ctx      caddy.Context // of the configuration
	logger   *zap.Logger
}

// member is a guard of a zone.
type member struct {
	guard       *guard.Guard
	fingerprint string
	trust       string
}

// want is a matcher that needs a zone to exist.
type want struct {
	matcher, zone string
	claims        bool // verified ones
}

const appName = "sse_guard"

// CaddyModule returns the Caddy module information.
func (App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: appName, New: func() caddy.Module { return new(App) }}
}

// Provision sets up the app.
func (a *App) Provision(ctx caddy.Context) error {
	a.verifiers = make(map[string]*jwtVerifier)
	a.guards = make(map[string][]member)
	a.ctx, a.logger = ctx, ctx.Logger()
	return nil
}

// appOf returns the app of a configuration, which its first user makes.
func appOf(ctx caddy.Context) (*App, error) {
	app, err := ctx.App(appName)
	if err != nil {
		return nil, err
	}
	return app.(*App), nil
}

// verifier returns the one verifier for the options j.
func (a *App) verifier(j *JWT) (*jwtVerifier, error) {
	key, err := json.Marshal(j)
	if err != nil {
		return nil, err
	}
	if v := a.verifiers[string(key)]; v != nil {
		return v, nil
	}
	v, err := j.verifier(a.logger)
	if err != nil {
		return nil, err
	}
	a.verifiers[string(key)] = v
	return v, nil
}

// join makes a guard known to the matchers.
func (a *App) join(zone string, m member) { a.guards[zone] = append(a.guards[zone], m) }

// starts has a registry start with the app, renewed if there is who does so.
func (a *App) starts(r registry.Registry, renewer registry.Renewer) {
	if renewer != nil {
		a.renewals = append(a.renewals, func() { renewer.Renew(r) })
	}
	if s, ok := registry.As[registry.Starter](r); ok {
		a.registries = append(a.registries, s)
	}
}

// guard returns the guard that answers for a zone; nil if there is none, which
// Start has refused.
func (a *App) guard(zone string) *guard.Guard {
	if members := a.guards[zone]; len(members) > 0 {
		return members[0].guard
	}
	return nil
}

// Start checks what can be checked only when all guards and matchers are known, and
// starts the registries.
func (a *App) Start() error {
	for zone, members := range a.guards {
		var first string
		for _, m := range members {
			switch {
			case m.trust == "" || m.trust == first:
			case first == "":
				first = m.trust
			default:
				return fmt.Errorf("the guards of zone %q trust different keys or issuers in their jwt blocks, so that one issuer's users could be another's; give them zones of their own", zone)
			}
		}
	}
	for _, w := range a.wants {
		if err := a.check(w); err != nil {
			return err
		}
	}
	if err := a.checkPlacements(); err != nil {
		return err
	}
	for _, renew := range a.renewals {
		renew()
	}
	for _, r := range a.registries {
		if err := r.Start(); err != nil {
			return fmt.Errorf("starting a registry: %w", err)
		}
	}
	hasRun.Store(true)
	return a.showMetrics()
}

// showMetrics has Caddy's metrics show those of the zones, all of which are known now.
func (a *App) showMetrics() error {
	zones := make(map[string][]*zone.Zone, len(a.guards))
	for name, members := range a.guards {
		for _, m := range members {
			if !slices.Contains(zones[name], m.guard.Zone) {
				zones[name] = append(zones[name], m.guard.Zone)
			}
		}
	}
	if err := a.ctx.GetMetricsRegistry().Register(collector{zones}); err != nil {
		return fmt.Errorf("showing metrics: %w", err)
	}
	return nil
}

func (a *App) check(w want) error {
	members := a.guards[w.zone]
	if len(members) == 0 {
		zones := slices.Sorted(maps.Keys(a.guards))
		if len(zones) == 0 {
			return fmt.Errorf("%s: zone %q has no guard, nor has any other; add the directive sse_guard", w.matcher, w.zone)
		}
		return fmt.Errorf("%s: zone %q has no guard; the zones are: %s", w.matcher, w.zone, strings.Join(zones, ", "))
	}
	for _, m := range members[1:] {
		if m.fingerprint != members[0].fingerprint {
			return fmt.Errorf("%s: the guards of zone %q have different options token, client, jwt or registry; give them the same, or zones of their own", w.matcher, w.zone)
		}
	}
	if g := members[0].guard; w.claims && (g.Verifier == nil || g.Unverified) {
		return fmt.Errorf("%s: the guards of zone %q do not verify tokens; give them a jwt block with keys", w.matcher, w.zone)
	}
	return nil
}

// Stop has nothing to stop.
func (*App) Stop() error { return nil }

// Cleanup gives back the key sets.
func (a *App) Cleanup() error {
	for _, v := range a.verifiers {
		v.close()
	}
	return nil
}

// Interface guards
var (
	_ caddy.App          = (*App)(nil)
	_ caddy.Provisioner  = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
)
