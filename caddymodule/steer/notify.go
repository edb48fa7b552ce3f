package steer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// NotifyBody is the body of POST notify.
type NotifyBody struct {
	Selected
	// Event is the name of the event, without line ends; empty: it has none, and is a
	// message to an EventSource.
	Event string `json:"event"`
	// Data is the event's data, of any lines, 64 KiB at most.
	Data string `json:"data"`
}

// Notified is the answer to POST notify.
type Notified struct {
	// Notified is how many streams get the event, as long as they do not end before:
	// those that are live or parked, and whose events can be told apart.
	Notified int `json:"notified"`
}

const (
	longestEvent = 256
	mostData     = 64 << 10
)

// check checks what is to be sent.
func (b *NotifyBody) check() error {
	switch {
	case strings.ContainsAny(b.Event, "\r\n\x00"):
		return badInput("event: a name has no line ends")
	case len(b.Event) > longestEvent:
		return badInput("event: the name has %d bytes; at most %d are allowed", len(b.Event), longestEvent)
	case b.Data == "":
		return badInput("data: it is empty; clients drop an event without data")
	case len(b.Data) > mostData:
		return badInput("data: it has %d bytes; at most %d are allowed", len(b.Data), mostData)
	default:
		return nil
	}
}

// notify answers POST notify.
func (a *API) notify(w http.ResponseWriter, r *http.Request) error {
	if _, err := noQuery(r); err != nil {
		return err
	}
	var body NotifyBody
	if err := readBody(w, r, &body); err != nil {
		return err
	}
	sel, err := body.selection(time.Now())
	if err != nil {
		return err
	}
	if err := body.check(); err != nil {
		return err
	}
	zones, err := a.zones(sel.zone)
	if err != nil {
		return err
	}
	ctx := context.WithoutCancel(r.Context()) // what is begun is done
	all, err := places(ctx, zones)
	counts := make([]int, len(all))
	err = errors.Join(err, each(all, func(i int, p place) (err error) {
		if counts[i], err = notifyAt(ctx, p, &sel, &body); err != nil {
			return fmt.Errorf("zone %q: %w", p.zone.Name, err)
		}
		return nil
	}))
	n := 0
	for _, count := range counts {
		n += count
	}
	a.audit("streams notified by an administrator", r, &sel, zap.Int("streams", n), zap.String("event", body.Event), zap.Error(err))
	if err != nil {
		p := unreached(err)
		p.Notified = &n
		return p
	}
	return answer(w, Notified{n})
}

// notifyAt notifies the streams of one node. Where a raw client id is given, it is found
// out here whose it is.
func notifyAt(ctx context.Context, p place, sel *selection, body *NotifyBody) (n int, err error) {
	if sel.client == "" {
		return p.node.Notify(ctx, sel.filter, body.Event, body.Data)
	}
	clients := make(map[registry.ID]bool)
	for cursor := ""; ; {
		page, next, err := p.node.List(ctx, sel.filter, cursor, mostLimit)
		if err != nil {
			return 0, err
		}
		for i := range page {
			if sel.names(&page[i]) {
				clients[page[i].Holder.Client] = true
			}
		}
		if cursor = next; next == "" {
			break
		}
	}
	for client := range clients {
		filter := sel.filter
		filter.Client = client
		one, err := p.node.Notify(ctx, filter, body.Event, body.Data)
		n += one
		if err != nil {
			return n, err
		}
	}
	return n, nil
}
