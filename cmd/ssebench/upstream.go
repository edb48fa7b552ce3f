package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// upstream is the application behind the Caddys. Its streams say one event as
// they open, and more when told to.
type upstream struct {
	mu     sync.Mutex
	groups map[string][]chan emission
}

// Paths of the upstream.
const (
	pathEvents = "/events" // a stream of the group in the query
	pathEmit   = "/emit"   // lets the streams of a group send events
	pathAPI    = "/api"    // a small JSON response
)

// eventSize is the size in bytes of each of the upstream's events.
const eventSize = 130

const apiBody = `{"id":4711,"name":"an ordinary response","tags":["small","json"],"ok":true}`

// emission tells a stream to send events.
type emission struct {
	start time.Time // of the first
	every time.Duration
	count int
}

func runUpstream(in io.Reader, out io.Writer) error {
	ln, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // listens for as long as the process lives
	if err != nil {
		return fmt.Errorf("upstream: %w", err)
	}
	srv := &http.Server{Handler: newUpstream(), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = srv.Serve(ln) }() // until Close
	defer srv.Close()
	return serveControl(ln.Addr().String(), in, out)
}

func newUpstream() http.Handler {
	u := &upstream{groups: map[string][]chan emission{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+pathEvents, u.serveEvents)
	mux.HandleFunc("POST "+pathEmit, u.serveEmit)
	mux.HandleFunc("GET "+pathAPI, serveAPI)
	return mux
}

func serveAPI(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, apiBody)
}

func (u *upstream) serveEvents(w http.ResponseWriter, r *http.Request) {
	group, told := r.URL.Query().Get("group"), make(chan emission, 1)
	u.join(group, told)
	defer u.leave(group, told)

	rc := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	event := newEvent()
	send := func(id int) error {
		event.setID(id)
		if _, err := w.Write(event[:]); err != nil {
			return err
		}
		return rc.Flush()
	}
	if send(0) != nil {
		return
	}
	for {
		select {
		case <-r.Context().Done():
			return
		case e := <-told:
			for i := range e.count {
				// A timer each, as an application has: the events of different
				// streams come apart from each other.
				time.Sleep(time.Until(e.start.Add(time.Duration(i) * e.every)))
				if send(i+1) != nil {
					return
				}
			}
		}
	}
}

func (u *upstream) join(group string, told chan emission) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.groups[group] = append(u.groups[group], told)
}

func (u *upstream) leave(group string, told chan emission) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.groups[group] = slices.DeleteFunc(u.groups[group], func(c chan emission) bool { return c == told })
}

// serveEmit spreads the streams' first events over one interval.
func (u *upstream) serveEmit(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	e, err := parseEmission(query)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	group, start := u.groups[query.Get("group")], time.Now()
	for i, told := range group {
		e.start = start.Add(e.every * time.Duration(i) / time.Duration(len(group)))
		select {
		case told <- e:
		default:
			http.Error(w, "a stream still sends what it was told to before", http.StatusConflict)
			return
		}
	}
	_, _ = fmt.Fprint(w, len(group))
}

func parseEmission(query url.Values) (e emission, err error) {
	count, countErr := strconv.Atoi(query.Get("count"))
	every, everyErr := time.ParseDuration(query.Get("every"))
	if err := errors.Join(countErr, everyErr); err != nil {
		return e, err
	}
	return emission{every: every, count: count}, nil
}

// event is one event, with an id of fixed width.
type event [eventSize]byte

const eventID = "id: "

func newEvent() *event {
	const head, tail = eventID + "00000000\ndata: ", "\n\n"
	e := new(event)
	copy(e[:], head+strings.Repeat("x", eventSize-len(head)-len(tail))+tail)
	return e
}

func (e *event) setID(id int) {
	digits := e[len(eventID) : len(eventID)+8]
	for i := len(digits) - 1; i >= 0; i-- {
		digits[i] = byte('0' + id%10)
		id /= 10
	}
}
