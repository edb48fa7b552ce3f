package steer

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/zone"
)

// Stats is the answer to GET stats.
type Stats struct {
	// Streams counts those of all zones by state.
	Streams States      `json:"streams"`
	Zones   []ZoneStats `json:"zones"`
}

// ZoneStats counts the streams of one zone.
type ZoneStats struct {
	Zone    string `json:"zone"`
	Streams States `json:"streams"`
	// Nodes are the processes that have streams.
	Nodes []NodeStats `json:"nodes"`
	// Labels counts live streams by the values of each label.
	Labels map[string]LabelStats `json:"labels"`
	// Incomplete says which nodes did not answer; left out where all have.
	Incomplete string `json:"incomplete,omitempty"`
}

// NodeStats counts the streams of one process.
type NodeStats struct {
	Node    string `json:"node"`
	Streams States `json:"streams"`
}

// LabelStats counts live streams by the values of one label.
type LabelStats struct {
	// Values has those that most streams have, 1,000 of each node.
	Values map[string]int `json:"values"`
	// Others is how many streams have other values.
	Others int `json:"others"`
}

// States counts streams by their state.
type States struct {
	Live      int `json:"live"`
	Parked    int `json:"parked"`
	Untracked int `json:"untracked"`
	Ending    int `json:"ending"`
}

func (s *States) add(other States) {
	s.Live += other.Live
	s.Parked += other.Parked
	s.Untracked += other.Untracked
	s.Ending += other.Ending
}

func statesOf(counts map[registry.State]int) States {
	return States{
		Live: counts[registry.StateLive], Parked: counts[registry.StateParked],
		Untracked: counts[registry.StateUntracked], Ending: counts[registry.StateEnding],
	}
}

// stats answers GET stats.
func (a *API) stats(w http.ResponseWriter, r *http.Request) error {
	zones, err := a.zonesOf(r)
	if err != nil {
		return err
	}
	return answer(w, statsOfAll(r.Context(), zones))
}

func statsOfAll(ctx context.Context, zones []*zone.Zone) Stats {
	stats := Stats{Zones: make([]ZoneStats, len(zones))}
	for i, z := range zones {
		all, err := places(ctx, []*zone.Zone{z})
		stats.Zones[i] = statsOf(ctx, z, all, err)
		stats.Streams.add(stats.Zones[i].Streams)
	}
	return stats
}

// statsOf counts the streams of places of a zone; err says which are missing.
func statsOf(ctx context.Context, z *zone.Zone, all []place, err error) ZoneStats {
	stats := ZoneStats{Zone: z.Name, Nodes: []NodeStats{}, Labels: make(map[string]LabelStats)}
	if err != nil {
		stats.Incomplete = lines(err)
	}
	counts := make([]*registry.Counts, len(all))
	err = each(all, func(i int, p place) error {
		c, err := p.node.Count(ctx)
		if err != nil {
			return fmt.Errorf("zone %q: %w", z.Name, err)
		}
		counts[i] = &c
		return nil
	})
	if err != nil {
		stats.Incomplete = join(stats.Incomplete, lines(err))
	}
	for _, c := range counts {
		if c != nil {
			stats.add(c)
		}
	}
	return stats
}

func (s *ZoneStats) add(c *registry.Counts) {
	n := NodeStats{Node: c.Node, Streams: statesOf(c.States)}
	s.Nodes = append(s.Nodes, n)
	s.Streams.add(n.Streams)
	for name, counts := range c.Labels {
		label, ok := s.Labels[name]
		if !ok {
			label.Values = make(map[string]int)
		}
		for value, n := range counts {
			label.Values[value] += n
		}
		label.Others += c.Others[name]
		s.Labels[name] = label
	}
}

// Health is the answer to GET health, where all is well. Else it is a problem document
// with the same zones, and the status 503.
type Health struct {
	Status string       `json:"status"`
	Zones  []ZoneHealth `json:"zones"`
}

// ZoneHealth is how a zone does.
type ZoneHealth struct {
	Zone string `json:"zone"`
	// Draining says that no streams are admitted, since the server stops.
	Draining bool `json:"draining"`
	// RegistryUp says that the registry can be asked.
	RegistryUp bool `json:"registry_up"`
}

// health answers GET health.
func (a *API) health(w http.ResponseWriter, r *http.Request) error {
	if _, err := noQuery(r); err != nil {
		return err
	}
	zones, err := a.zones("")
	if err != nil {
		return err
	}
	h := Health{Status: "ok", Zones: []ZoneHealth{}}
	sick := make(map[string]bool)
	for _, z := range zones {
		one := ZoneHealth{Zone: z.Name, Draining: z.IsDraining(), RegistryUp: z.RegistryAway() == nil}
		if one.Draining {
			sick["draining"] = true
		}
		if !one.RegistryUp {
			sick["registry_up is false"] = true
		}
		h.Zones = append(h.Zones, one)
	}
	if len(sick) == 0 {
		return answer(w, h)
	}
	return &problem{
		Status: http.StatusServiceUnavailable, Title: "Streams are not admitted as usual",
		Detail: "Some zones: " + list(sorted(sick)) + ".", Zones: h.Zones,
	}
}

func sorted(set map[string]bool) []string { return slices.Sorted(maps.Keys(set)) }
