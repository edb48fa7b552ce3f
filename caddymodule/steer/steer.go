// Package steer lets an administrator see the streams of all zones and steer them: an
// HTTP API that lists, counts, ends and notifies streams, and tells what happens. Who
// may use it, the server says that it is a part of.
//
// It stands beside package guard and knows nothing of it: it asks the zones, whose
// registries tell the nodes. So it covers all nodes, and streams of configurations that
// were replaced. No request holds a lock while it waits for anything.
//
// Endpoint | Answer
// ---------|-------
// `GET streams` | Page
// `POST end` | Ended
// `POST notify` | Notified
// `GET stats` | Stats
// `GET events` | a stream of Happened
// `GET health` | Health
//
// All else, and what cannot be done, is answered with a problem document of RFC 9457.
// The types have the schema.
package steer

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/zone"
)

// API serves the requests of one HTTP server. It must not be copied.
type API struct {
	// Zones lists the zones that there are.
	Zones func() []*zone.Zone
	// Logger gets a line for what an administrator has done.
	Logger *zap.Logger
	// User names who makes a request, as far as that is known; nil: it never is.
	User func(*http.Request) string

	readers atomic.Int32 // of the feed
	// stops is closed when the server shuts down. It is made by the first who needs it.
	stops  chan struct{}
	listen sync.Once
}

// Prefix is where the paths begin.
const Prefix = "/sse_guard/"

// endpoint is what one path does.
type endpoint struct {
	method string
	serve  func(*API, http.ResponseWriter, *http.Request) error
}

var endpoints = map[string]endpoint{
	"streams": {http.MethodGet, (*API).streams},
	"end":     {http.MethodPost, (*API).end},
	"notify":  {http.MethodPost, (*API).notify},
	"stats":   {http.MethodGet, (*API).stats},
	"events":  {http.MethodGet, (*API).events},
	"health":  {http.MethodGet, (*API).health},
}

// ServeHTTP implements http.Handler.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := a.serve(w, r); err != nil {
		a.answerProblem(w, err)
	}
}

func (a *API) serve(w http.ResponseWriter, r *http.Request) error {
	name, _ := strings.CutPrefix(r.URL.Path, Prefix)
	e, ok := endpoints[name]
	switch {
	case !ok:
		return &problem{
			Status: http.StatusNotFound, Title: "There is no such endpoint",
			Detail: "There are: " + strings.Join(slices.Sorted(names(endpoints)), ", ") + ".",
		}
	case r.Method == http.MethodOptions: // a preflight that the server has let through
		w.Header().Set("Allow", e.method)
		w.WriteHeader(http.StatusNoContent)
		return nil
	case r.Method == http.MethodHead && e.method == http.MethodGet && name != "events":
		return e.serve(a, w, r)
	case r.Method != e.method:
		w.Header().Set("Allow", e.method)
		return &problem{Status: http.StatusMethodNotAllowed, Title: "The method is not allowed", Detail: "Write: " + e.method + " " + Prefix + name}
	default:
		return e.serve(a, w, r)
	}
}

// answer answers with JSON.
func answer(w http.ResponseWriter, body any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("writing the answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(append(b, '\n')) // a client that left needs none
	return nil
}

// zones lists those that are named so, all if name is empty. Several may have one name
// and different registries.
func (a *API) zones(name string) ([]*zone.Zone, error) {
	all := a.Zones()
	slices.SortStableFunc(all, func(a, b *zone.Zone) int { return cmp.Compare(a.Name, b.Name) })
	if name == "" {
		return all, nil
	}
	var known []string
	for _, z := range all {
		known = append(known, z.Name)
	}
	named := slices.DeleteFunc(all, func(z *zone.Zone) bool { return z.Name != name })
	if len(named) > 0 {
		return named, nil
	}
	detail := "There are none."
	if known = slices.Compact(known); len(known) > 0 {
		detail = "There are: " + strings.Join(known, ", ") + "."
	}
	return nil, &problem{Status: http.StatusNotFound, Title: "There is no zone of that name", Detail: detail}
}

// zonesOf lists the zones that are named so in the query of a request that has nothing else.
func (a *API) zonesOf(r *http.Request) ([]*zone.Zone, error) {
	values, err := noQuery(r, "zone")
	if err != nil {
		return nil, err
	}
	return a.zones(values.Get("zone"))
}

// place is a node with the zone that it is asked for.
type place struct {
	zone *zone.Zone
	node registry.Node
}

// places lists the nodes of the zones. Its error says of which zones nodes may be missing;
// the others are listed all the same.
func places(ctx context.Context, zones []*zone.Zone) (all []place, err error) {
	for _, z := range zones {
		errOne := z.Registry.Each(ctx, func(n registry.Node) { all = append(all, place{z, n}) })
		if errOne == nil {
			errOne = z.RegistryAway() // then it does not know what other nodes there are
		}
		if errOne != nil {
			err = errors.Join(err, fmt.Errorf("asking for the nodes of zone %q: %w", z.Name, errOne))
		}
	}
	return all, err
}

// each calls f for all places at the same time, and returns their errors.
func each(all []place, f func(i int, p place) error) error {
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, p := range all {
		wg.Go(func() { errs[i] = f(i, p) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// addr is where a request comes from, for log lines.
func addr(r *http.Request) string {
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		return host
	}
	return r.RemoteAddr
}
