package caddymodule

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

// checkPlacements looks at where the guards stand. It warns of those that see nothing,
// and refuses sites that would share holders by mistake.
func (a *App) checkPlacements() error {
	app, err := a.ctx.AppIfConfigured("http")
	if err != nil {
		return nil //nolint:nilerr // there are no sites
	}
	found, pages := walkThrough(app.(*caddyhttp.App))
	if err := a.checkPages(pages); err != nil {
		return err
	}
	for _, p := range found {
		a.warnOf(p)
	}
	a.warnOfLogouts(found)
	return checkZones(found)
}

// warnOf warns of a guard that will see nothing, or count nothing.
func (a *App) warnOf(p placement) {
	fields := []zap.Field{zap.String("zone", p.guard.Zone), zap.String("site", p.site.String())}
	if p.guard.DefinedAt != "" {
		fields = append(fields, zap.String("defined_at", p.guard.DefinedAt))
	}
	switch {
	case p.answered != "":
		a.logger.Warn("a guard sees no request: "+p.answered+" answers all of them before; put sse_guard before it, or leave out the global option: order sse_guard", fields...)
	case p.never != "":
		a.logger.Warn("a guard sees no request: its matcher asks for a path that none is; paths begin with /",
			append(fields, zap.String("path", p.never))...)
	case len(p.uncounted) > 0 && !p.guard.servesUncounted():
		a.logger.Warn("a guard counts no request: its matcher lets none through but by methods that do not count; write: methods "+strings.Join(p.uncounted, " "), fields...)
	}
}

// warnOfLogouts warns of logouts that never come to their guard, since the routes around
// it leave their paths out, nor to another guard of its zone.
func (a *App) warnOfLogouts(found []placement) {
	for _, p := range found {
		if p.answered != "" || p.never != "" {
			continue // told already
		}
		for _, l := range p.guard.Logout {
			elsewhere := slices.ContainsFunc(found, func(other placement) bool {
				return other.guard.zone.key == p.guard.zone.key && other.sees(l.Path) &&
					slices.ContainsFunc(other.guard.Logout, func(same Logout) bool { return same.Path == l.Path })
			})
			if !elsewhere {
				a.logger.Warn("a logout never comes to its guard: the routes around the guard take other paths only; put a guard of this zone, with this logout, where its path goes too",
					zap.String("zone", p.guard.Zone), zap.String("site", p.site.String()), zap.String("defined_at", p.guard.DefinedAt),
					zap.String("logout", l.Path), zap.Strings("paths", slices.Concat(p.paths...)))
			}
		}
	}
}

// sees reports whether a request with the path of a logout may come to the guard.
func (p placement) sees(path string) bool {
	return !slices.ContainsFunc(p.paths, func(patterns []string) bool { return !anyCovers(patterns, path) })
}

// servesUncounted reports whether the guard is of use to requests that do not count: it
// verifies their tokens, or logs out.
func (h *Handler) servesUncounted() bool {
	return h.RequireToken || h.JWT != nil || len(h.Logout) > 0
}

// String is the site as people know it.
func (s site) String() string { return cmp.Or(s.hosts, "any host of "+s.server) }

// checkZones refuses guards of two sites whose keys may be the same in one zone, where
// one names no zone: a user of one site could end the streams of the other's. The
// default key has the host in it.
func checkZones(found []placement) error {
	sites := sameSites(found)
	for i, a := range found {
		for _, b := range found[:i] {
			if a.guard.zoneNamed && b.guard.zoneNamed || a.guard.zone.key != b.guard.zone.key {
				continue
			}
			if sites[a.site] != sites[b.site] && mayMeet(a.guard.Key, b.guard.Key) {
				return fmt.Errorf("%s and %s: their guards have a key and share the zone %q, so that a user of one site could end the streams of another user of the other; "+
					"name a zone in both guards: %s, or the same one if their users are the same",
					b, a, a.guard.Zone, zoneLines(b, a))
			}
		}
	}
	return nil
}

// sameSites maps sites to the one that stands for them: those that one directive of a
// Caddyfile, or one guard, is in are one, and so are those of a host by HTTP and HTTPS.
func sameSites(found []placement) map[site]site {
	of := make(map[site]site)
	first := make(map[any]site)
	for _, p := range found {
		if _, known := of[p.site]; !known {
			of[p.site] = p.site
		}
		for _, sign := range p.signs() {
			other, known := first[sign]
			if !known {
				first[sign] = p.site
				continue
			}
			from, to := of[p.site], of[other]
			for s := range of {
				if of[s] == from {
					of[s] = to
				}
			}
		}
	}
	return of
}

// webHost is a host that is served by HTTP or HTTPS; empty: any.
type webHost string

// signs are what placements of one site have in common.
func (p placement) signs() (signs []any) {
	if p.guard.DefinedAt == "" {
		signs = append(signs, p.guard)
	} else {
		signs = append(signs, p.guard.DefinedAt)
	}
	if p.site.web {
		for host := range strings.SplitSeq(p.site.hosts, hostSeparator) {
			signs = append(signs, webHost(host))
		}
	}
	return signs
}

// mayMeet reports whether two configured keys may be the same for two requests of
// different sites. Keys are the same if all their parts are. The host tells sites apart
// as it does in the default key.
func mayMeet(a, b []string) bool {
	if len(a) == 0 || len(b) == 0 || len(a) != len(b) {
		return false
	}
	for i := range a {
		words := !strings.Contains(a[i], "{") && !strings.Contains(b[i], "{")
		if words && a[i] != b[i] || hasHost(a[i]) && hasHost(b[i]) {
			return false
		}
	}
	return true
}

// hasHost reports whether a part of a key has the host.
func hasHost(part string) bool {
	return strings.Contains(part, "{http.request.host}") || strings.Contains(part, "{http.request.hostport}")
}

// String names the guard's place for people.
func (p placement) String() string {
	if p.guard.DefinedAt == "" {
		return p.site.String()
	}
	return p.guard.DefinedAt + " (" + p.site.String() + ")"
}

// zoneLines are the lines that name the zones of two guards after their sites, or
// otherwise if those have no names of their own.
func zoneLines(a, b placement) string {
	first, _, _ := strings.Cut(a.site.hosts, hostSeparator)
	second, _, _ := strings.Cut(b.site.hosts, hostSeparator)
	if first == second {
		first, second = "a", "b"
	}
	lines := fmt.Sprintf("different ones, such as `zone %s` and `zone %s`", cmp.Or(first, "a"), cmp.Or(second, "b"))
	placeA, _, _ := strings.Cut(a.guard.DefinedAt, importSeparator)
	placeB, _, _ := strings.Cut(b.guard.DefinedAt, importSeparator)
	if placeA != "" && placeA == placeB {
		lines += " (or, since both import one snippet, an argument of that: `zone {args[0]}`)"
	}
	return lines
}
