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
	// How many times within Window are too many. 0: none are.
	Count int `json:"count"`
	// Within what time. At least 1s.
	Window caddy.Duration `json:"window,omitempty"`
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

// flapsSettle is a little more than Chromium's EventSource takes to reconnect, and
// to show the tombstone that tells a tab at rest from one that fights.
const flapsSettle = 4 * time.Second

// leastLiveness is the least of those durations: the timing wheel that visits
// streams is not more precise.
const leastLiveness = 100 * time.Millisecond

func (f *Flap) validate() error {
	switch {
	case f == nil || f.Count == 0:
		return nil
	case f.Count < 1 || f.Count > conflict.MaxFlaps:
		return fmt.Errorf("flap: %d times is not allowed; it is 1 to %d, or write: flap off", f.Count, conflict.MaxFlaps)
	default:
		return atLeast("flap", f.Window, caddy.Duration(leastWindow))
	}
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
