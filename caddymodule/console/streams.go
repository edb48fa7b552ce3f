package console

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/internal/printable"
)

// Stream is a stream as the API lists it.
type Stream struct {
	ID          string            `json:"id"`
	Zone        string            `json:"zone"`
	State       string            `json:"state"`
	Key         string            `json:"key,omitempty"`
	Token       string            `json:"token,omitempty"`
	Client      string            `json:"client,omitempty"`
	Subject     string            `json:"subject,omitempty"`
	Since       time.Time         `json:"since"`
	AgeSeconds  float64           `json:"age_seconds"`
	Events      uint64            `json:"events"`
	Bytes       int64             `json:"bytes"`
	LastEventAt time.Time         `json:"last_event_at,omitzero"`
	LastAckAt   time.Time         `json:"last_ack_at,omitzero"`
	RemoteIP    string            `json:"remote_ip"`
	Node        string            `json:"node"`
	Protocol    string            `json:"protocol"`
	Path        string            `json:"path"`
	Labels      map[string]string `json:"labels"`
}

// Page is a list of streams.
type Page struct {
	Streams []Stream `json:"streams"`
	// Next is the cursor of what comes after; empty: nothing does.
	Next string `json:"next,omitempty"`
	// Incomplete says which nodes did not answer; empty: all have.
	Incomplete string `json:"incomplete,omitempty"`
}

// MostOfPage is how many streams the API lists at a time.
const MostOfPage = 1000

// Streams lists at most that many streams, all if atMost is 0, page by page.
func (c *Client) Streams(ctx context.Context, f Filter, atMost int) (*Page, error) {
	list := &Page{Streams: []Stream{}}
	for {
		q := f.query()
		limit := MostOfPage
		if atMost > 0 {
			limit = min(limit, atMost-len(list.Streams))
		}
		q.Set("limit", strconv.Itoa(limit))
		if list.Next != "" {
			q.Set("cursor", list.Next)
		}
		var page Page
		if err := c.get(ctx, "streams", q, &page); err != nil {
			return nil, err
		}
		if page.Next != "" && page.Next == list.Next {
			return nil, fmt.Errorf("the admin endpoint at %s lists the same page again and again", c.Address)
		}
		list.Streams = append(list.Streams, page.Streams...)
		list.Next = page.Next
		list.Incomplete = cmp.Or(list.Incomplete, page.Incomplete)
		if page.Next == "" || atMost > 0 && len(list.Streams) >= atMost {
			return list, nil
		}
	}
}

// Print writes a table of the streams, at most 300 characters wide.
func (p *Page) Print(out io.Writer) {
	t := table{head: []string{"ZONE", "STATE", "AGE", "EVENTS", "BYTES", "KEY", "TOKEN", "CLIENT", "SUBJECT", "ADDRESS", "NODE", "PROTOCOL", "PATH", "LABELS"}}
	t.right = []int{2, 3, 4}
	t.optional = []int{6, 7, 8, 13}
	for i := range p.Streams {
		s := &p.Streams[i]
		t.row(s.Zone, s.State, age(s.AgeSeconds), s.events(), size(s.Bytes), s.Key, s.Token, s.Client, s.Subject,
			s.RemoteIP, s.Node, s.Protocol, s.Path, labels(s.Labels))
	}
	if len(p.Streams) == 0 {
		fmt.Fprintln(out, "There is no such stream.")
	} else {
		t.print(out, 300)
	}
	if p.Next != "" {
		fmt.Fprintf(out, "There are more: give a higher --limit than %d, or 0 for all.\n", len(p.Streams))
	}
}

// events is how many the stream had; nobody counts those of an untracked one.
func (s *Stream) events() string {
	if s.State == "untracked" {
		return "-"
	}
	return strconv.FormatUint(s.Events, 10)
}

// Warning is what is missing in the list; empty: nothing.
func (p *Page) Warning() string { return printable.Text(p.Incomplete, longestWords) }

func labels(values map[string]string) string {
	var texts []string
	for _, name := range slices.Sorted(maps.Keys(values)) {
		texts = append(texts, name+"="+values[name])
	}
	return strings.Join(texts, " ")
}

// age writes seconds as a person reads them, in at most 6 characters.
func age(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d < 0:
		return "0s"
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	default:
		return fmt.Sprintf("%dd%02dh", int(d.Hours())/24, int(d.Hours())%24)
	}
}

// size writes a number of bytes in at most 7 characters.
func size(n int64) string {
	if n < 1000 {
		return strconv.FormatInt(n, 10)
	}
	value, unit := float64(n), 0
	for value >= 1000 && unit < len("kMGTP") {
		value /= 1000
		unit++
	}
	return fmt.Sprintf("%.1f%c", value, "kMGTP"[unit-1])
}
