package steer

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"slices"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/identity"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// Page is the answer to GET streams.
type Page struct {
	// Streams come in the order of their IDs.
	Streams []Stream `json:"streams"`
	// Next is the cursor of the next page; left out at the end.
	Next string `json:"next,omitempty"`
	// Incomplete says which nodes did not answer; left out where all have.
	Incomplete string `json:"incomplete,omitempty"`
}

// Stream is a stream as it is listed.
type Stream struct {
	ID    string         `json:"id"`
	Zone  string         `json:"zone"`
	State registry.State `json:"state"`
	// Key, Token and Client are hashes, as log lines show them; left out: there is none.
	Key    string `json:"key,omitempty"`
	Token  string `json:"token,omitempty"`
	Client string `json:"client,omitempty"`
	// Subject is the name of the verified user; left out: not known.
	Subject string `json:"subject,omitempty"`
	// Since is when it was opened, or, where it is parked, asked for.
	Since      time.Time `json:"since"`
	AgeSeconds float64   `json:"age_seconds"`
	// Events and Bytes count what was relayed.
	Events uint64 `json:"events"`
	Bytes  int64  `json:"bytes"`
	// LastEventAt is when the backend last sent something, and LastAckAt when the client
	// last acknowledged anything; left out: not known.
	LastEventAt time.Time `json:"last_event_at,omitzero"`
	LastAckAt   time.Time `json:"last_ack_at,omitzero"`
	RemoteIP    string    `json:"remote_ip"`
	// Node is the process that has the stream: its host and process id.
	Node     string `json:"node"`
	Protocol string `json:"protocol"`
	// Path is without query and without parameters of the path.
	Path   string            `json:"path"`
	Labels map[string]string `json:"labels"`
}

func short(id registry.ID) string { return identity.Hash(id).Short() }

// seconds is an age as JSON has it, to the millisecond.
func seconds(d time.Duration) float64 {
	return math.Round(max(d, 0).Seconds()*1000) / 1000
}

func listedAs(zone string, row *registry.Row, now time.Time) Stream {
	h := row.Holder
	s := Stream{
		ID: h.ID.String(), Zone: zone, State: row.State,
		Key: short(h.Key), Token: short(h.Token), Client: short(h.Client), Subject: row.About.Sub,
		Since: row.Opened().UTC(), AgeSeconds: seconds(now.Sub(row.Opened())),
		Events: row.Events, Bytes: row.Bytes,
		RemoteIP: h.Addr, Node: row.Node, Protocol: row.About.Protocol, Path: row.About.Path,
		Labels: row.About.Labels.Map(),
	}
	if !row.LastEvent.IsZero() {
		s.LastEventAt = row.LastEvent.UTC()
	}
	if !row.LastAck.IsZero() {
		s.LastAckAt = row.LastAck.UTC()
	}
	return s
}

// found is a row with the zone that it is of.
type found struct {
	zone string
	row  registry.Row
}

// streams answers GET streams.
func (a *API) streams(w http.ResponseWriter, r *http.Request) error {
	now := time.Now()
	q, err := readQuery(r.URL.RawQuery, now)
	if err != nil {
		return err
	}
	if q.cursor != "" {
		if _, ok := registry.ParseStreamID(q.cursor); !ok {
			return badInput("cursor: it is none; give the next of the page before")
		}
	}
	zones, err := a.zones(q.zone)
	if err != nil {
		return err
	}
	all, errOf := places(r.Context(), zones)
	rows, next, err := pageOf(r.Context(), all, &q)
	page := Page{Streams: make([]Stream, len(rows)), Next: next}
	for i := range rows {
		page.Streams[i] = listedAs(rows[i].zone, &rows[i].row, now)
	}
	for _, err := range []error{errOf, err} {
		if err != nil {
			page.Incomplete = join(page.Incomplete, lines(err))
		}
	}
	return answer(w, page)
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}

// pageOf lists the streams behind the cursor, which is an ID, in the order of their IDs.
// All places are asked for as many as the page has, so that it does not matter which
// nodes come and go between two pages: no stream that is there all the while is left
// out, or listed twice. Those of nodes that do not answer are left out; the error says
// so.
func pageOf(ctx context.Context, all []place, q *listed) (rows []found, next string, err error) {
	of := make([][]found, len(all))
	more := make([]bool, len(all))
	err = each(all, func(i int, p place) error {
		var err error
		of[i], more[i], err = rowsOf(ctx, p, &q.selection, q.cursor, q.limit)
		return err
	})
	rows = slices.Concat(of...)
	slices.SortFunc(rows, func(a, b found) int {
		return a.row.Holder.ID.Compare(b.row.Holder.ID)
	})
	rest := slices.Contains(more, true) || len(rows) > q.limit
	rows = rows[:min(len(rows), q.limit)]
	if rest && len(rows) > 0 {
		next = rows[len(rows)-1].row.Holder.ID.String()
	}
	return rows, next, err
}

// rowsOf lists streams of one place, limit of them if there are so many. It reports
// whether there are more.
func rowsOf(ctx context.Context, p place, sel *selection, cursor string, limit int) (rows []found, more bool, err error) {
	for {
		page, next, err := p.node.List(ctx, sel.filter, cursor, limit)
		if err != nil {
			return rows, false, fmt.Errorf("zone %q: %w", p.zone.Name, err)
		}
		for i := range page {
			if !sel.names(&page[i]) {
				continue
			}
			if len(rows) == limit {
				return rows, true, nil
			}
			rows = append(rows, found{p.zone.Name, page[i]})
		}
		switch {
		case next == "":
			return rows, false, nil
		case len(rows) == limit && sel.client == "":
			return rows, true, nil
		case ctx.Err() != nil:
			return rows, false, ctx.Err()
		}
		cursor = next
	}
}
