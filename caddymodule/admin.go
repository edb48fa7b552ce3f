package caddymodule

import (
	"fmt"
	"net/http"

	"github.com/caddyserver/caddy/v2"

	"github.com/sse-guard/sse-guard/caddymodule/steer"
	"github.com/sse-guard/sse-guard/caddymodule/zone"
)

func init() {
	caddy.RegisterModule(new(Admin))
}

// Admin adds paths below /sse_guard/ to Caddy's admin endpoint, at which streams are
// listed, counted, ended and notified, on all nodes. The rules of the admin endpoint
// hold for them: its address, its origins and, for remote administration, who may use
// which path and method. It has no options.
//
// Path | What it does
// -----|-------------
// `GET /sse_guard/streams` | Lists streams, page by page
// `POST /sse_guard/end` | Ends streams
// `POST /sse_guard/notify` | Sends an event to streams
// `GET /sse_guard/stats` | Counts streams
// `GET /sse_guard/events` | Tells what happens, as an event stream
// `GET /sse_guard/health` | 200, or 503 while streams are not admitted as usual
//
// README describes them, and package steer each field.
type Admin struct{ api steer.API }

// CaddyModule returns the Caddy module information.
func (*Admin) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "admin.api.sse_guard",
		New: func() caddy.Module { return new(Admin) },
	}
}

// Provision sets up the paths. Each admin endpoint has a module of its own.
func (a *Admin) Provision(caddy.Context) error {
	a.api.Zones, a.api.Logger, a.api.User = openZones, caddy.Log().Named("admin.api.sse_guard"), remoteAdmin
	return nil
}

// remoteAdmin names who has a client certificate, as remote administrators do.
func remoteAdmin(r *http.Request) string {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return ""
	}
	c := r.TLS.PeerCertificates[0]
	return fmt.Sprintf("%s (certificate %x)", c.Subject, c.SerialNumber)
}

// Routes implements caddy.AdminRouter.
func (a *Admin) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{{Pattern: steer.Prefix, Handler: caddy.AdminHandlerFunc(a.serve)}}
}

func (a *Admin) serve(w http.ResponseWriter, r *http.Request) error {
	a.api.ServeHTTP(w, r)
	return nil
}

// openZones lists the zones that guards use.
func openZones() (open []*zone.Zone) {
	zones.Range(func(_, value any) bool {
		open = append(open, value.(pooledZone).Zone)
		return true
	})
	return open
}

// Interface guards
var (
	_ caddy.AdminRouter = (*Admin)(nil)
	_ caddy.Provisioner = (*Admin)(nil)
)
