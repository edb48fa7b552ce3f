package console

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/sse-guard/sse-guard/caddymodule/internal/printable"
)

// Stats counts streams, as the API does.
type Stats struct {
	Streams Counts      `json:"streams"`
	Zones   []ZoneStats `json:"zones"`
}

// ZoneStats counts those of one zone.
type ZoneStats struct {
	Zone       string                `json:"zone"`
	Streams    Counts                `json:"streams"`
	Nodes      []NodeStats           `json:"nodes"`
	Labels     map[string]LabelStats `json:"labels"`
	Incomplete string                `json:"incomplete,omitempty"`
}

// NodeStats counts those of one process.
type NodeStats struct {
	Node    string `json:"node"`
	Streams Counts `json:"streams"`
}

// LabelStats counts live streams by the values of a label.
type LabelStats struct {
	Values map[string]int `json:"values"`
	Others int            `json:"others"`
}

// Counts counts streams by their state.
type Counts struct {
	Live      int `json:"live"`
	Parked    int `json:"parked"`
	Untracked int `json:"untracked"`
	Ending    int `json:"ending"`
}

// Stats counts the streams of a zone, of all zones if its name is empty.
func (c *Client) Stats(ctx context.Context, zone string) (*Stats, error) {
	q := make(url.Values)
	if zone != "" {
		q.Set("zone", zone)
	}
	var s Stats
	if err := c.get(ctx, "stats", q, &s); err != nil {
		return nil, err
	}
	return &s, nil
}

// mostValues is how many values of a label are printed.
const mostValues = 10

// Print writes tables of the counts.
func (s *Stats) Print(out io.Writer) {
	t := table{head: []string{"ZONE", "NODE", "LIVE", "PARKED", "UNTRACKED", "ENDING"}, right: []int{2, 3, 4, 5}}
	row := func(zone, node string, c Counts) {
		t.row(zone, node, strconv.Itoa(c.Live), strconv.Itoa(c.Parked), strconv.Itoa(c.Untracked), strconv.Itoa(c.Ending))
	}
	l := table{head: []string{"ZONE", "LABEL", "VALUE", "LIVE"}, right: []int{3}}
	for _, z := range s.Zones {
		for _, n := range z.Nodes {
			row(z.Zone, n.Node, n.Streams)
		}
		if len(z.Nodes) != 1 {
			row(z.Zone, "all nodes", z.Streams)
		}
		for _, name := range slices.Sorted(maps.Keys(z.Labels)) {
			z.Labels[name].rows(&l, z.Zone, name)
		}
	}
	if len(s.Zones) != 1 {
		row("all zones", "", s.Streams)
	}
	t.print(out, 200)
	if len(l.rows) > 0 {
		fmt.Fprintln(out)
		l.print(out, 200)
	}
	if s.Streams.Untracked > 0 {
		fmt.Fprintln(out, "\nUntracked streams hold no key, so nothing ends them for a newer one. Caddy's log says why.")
	}
}

// rows adds the values that most streams have.
func (l LabelStats) rows(t *table, zone, name string) {
	values := slices.SortedFunc(maps.Keys(l.Values), func(a, b string) int {
		return cmp.Or(cmp.Compare(l.Values[b], l.Values[a]), strings.Compare(a, b))
	})
	others := l.Others
	for i, value := range values {
		if i >= mostValues {
			others += l.Values[value]
			continue
		}
		t.row(zone, name, value, strconv.Itoa(l.Values[value]))
	}
	if others > 0 {
		t.row(zone, name, "(others)", strconv.Itoa(others))
	}
}

// Warning is what is missing in the counts; empty: nothing.
func (s *Stats) Warning() string {
	var texts []string
	for _, z := range s.Zones {
		if z.Incomplete != "" {
			texts = append(texts, z.Incomplete)
		}
	}
	return printable.Text(strings.Join(texts, "; "), longestWords)
}
