package caddymodule

import (
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-guard/sse-guard/caddymodule/conflict"
)

// Flap says when pages that take the key from each other come to rest.
type Flap struct {
	// From how many times on that it was taken back. 0: never.
	Count int `json:"count"`
	// The time in which that number halves. At least 1s. Default: 1m.
	HalfLife caddy.Duration `json:"half_life,omitempty"`
}

// Drain says how all streams end when Caddy stops.
type Drain struct {
	// The time within which they end and their clients are told to come back. At
	// least 1s.
	Window caddy.Duration `json:"window"`
	// The least number that end a second. Default: 20, or what half of the window
	// demands.
	Rate int `json:"rate,omitempty"`
}

const leastWindow = time.Second

// defaultHalfLife is that of Flap.
const defaultHalfLife = time.Minute

// leastLiveness is the least of those durations: the timing wheel that visits
// streams is not more precise.
const leastLiveness = 100 * time.Millisecond

func (f *Flap) validate() error {
	switch {
	case f == nil || f.Count == 0:
		return nil
	case f.Count < 1 || f.Count > conflict.MaxCount:
		return fmt.Errorf("flap: %d times is not allowed; it is 1 to %d, or write: flap off", f.Count, conflict.MaxCount)
	case f.HalfLife == 0:
		return nil
	default:
		return atLeast("flap", f.HalfLife, caddy.Duration(leastWindow))
	}
}

// rule is what f means.
func (f *Flap) rule() conflict.Rule {
	r := conflict.Rule{Count: f.Count, HalfLife: time.Duration(f.HalfLife)}
	if r.HalfLife == 0 {
		r.HalfLife = defaultHalfLife
	}
	return r
}

func (d *Drain) validate() error {
	switch {
	case d == nil:
		return nil
	case d.Rate < 0:
		return fmt.Errorf("drain: a rate of %d is not allowed; it is how many streams may end a second, 1 or more", d.Rate)
	default:
		return atLeast("drain", d.Window, caddy.Duration(leastWindow))
	}
}

// drainWindow is the window, or as much of it as fits into Caddy's grace period,
// after which connections are cut.
func (h *Handler) drainWindow(ctx caddy.Context) time.Duration {
	window := time.Duration(h.Drain.Window)
	if app, err := ctx.AppIfConfigured("http"); err == nil {
		if grace := time.Duration(app.(*caddyhttp.App).GracePeriod); grace > 0 {
			window = min(window, grace)
		}
	}
	return window
}

// serverStops drains the zone when its server stops because Caddy does. On a
// reload it stops too, but its streams go on.
func (h *Handler) serverStops() {
	if caddy.Exiting() {
		h.guard.Zone.Drain(h.guard.Drain, lastingLogger())
	}
}
