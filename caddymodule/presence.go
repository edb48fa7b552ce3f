package caddymodule

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/sse-guard/sse-guard/caddymodule/eventstream"
	"github.com/sse-guard/sse-guard/caddymodule/guard"
	"github.com/sse-guard/sse-guard/caddymodule/presence"
)

// Presence tells the live streams that have one value of a label how many they are,
// whenever that changes, by an event between two of the application's.
type Presence struct {
	// The name of one of the labels.
	Label string `json:"label"`

	// The name of the event, whose data is `{"label":"room","value":"one","count":3}`.
	Event string `json:"event"`

	// The least time between two of them; what changes meanwhile is told as one. 100ms to
	// 1h. Default: `1s`.
	Interval caddy.Duration `json:"interval,omitempty"`
}

const (
	defaultPresence = time.Second
	leastPresence   = 100 * time.Millisecond
	mostPresence    = time.Hour
	longestPresence = 256
)

func parsePresence(h *Handler, args []string) (err error) {
	p := Presence{Label: args[0], Event: args[1]}
	if len(args) > 2 {
		if p.Interval, err = parseDuration("presence", args[2], leastPresence); err != nil {
			return err
		}
	}
	h.Presence = append(h.Presence, p)
	return nil
}

func (h *Handler) validatePresence() error {
	for i, p := range h.Presence {
		_, err := eventstream.Event{Name: p.Event}.Append(nil)
		interval := time.Duration(p.Interval)
		switch {
		case slices.ContainsFunc(h.Presence[:i], func(other Presence) bool { return other.Label == p.Label }):
			return fmt.Errorf("presence: the label %s is given twice, expected once", p.Label)
		case err != nil || strings.TrimSpace(p.Event) == "" || len(p.Event) > longestPresence:
			return fmt.Errorf("presence %s: the event name %q is not allowed; it is one line of text, %d bytes at most", p.Label, p.Event, longestPresence)
		case interval != 0 && (interval < leastPresence || interval > mostPresence):
			return fmt.Errorf("presence %s: the interval %s is not allowed; it is %s to %s", p.Label, interval, leastPresence, mostPresence)
		}
	}
	return nil
}

// validatePresenceLabels refuses groups of streams by a label that they do not have.
func (h *Handler) validatePresenceLabels() error {
	for _, p := range h.Presence {
		if _, defined := h.Labels[p.Label]; !defined {
			return fmt.Errorf("presence: there is no label %q; add one: label <name> <placeholder>", p.Label)
		}
	}
	return nil
}

// presences are what streams are told of their groups.
func (h *Handler) presences() (all []guard.Presence) {
	for _, p := range h.Presence {
		interval := time.Duration(p.Interval)
		if interval == 0 {
			interval = defaultPresence
		}
		all = append(all, guard.Presence{Label: p.Label, Telling: presence.Telling{Event: p.Event, Interval: interval}})
	}
	return all
}
