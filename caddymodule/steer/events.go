package steer

import (
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/event"
	"github.com/sse-guard/sse-guard/caddymodule/eventstream"
	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// Happened is the data of an event of GET events, whose name is that of the event.
type Happened struct {
	Time time.Time `json:"time"`
	Zone string    `json:"zone"`
	// Node is the process that it happened in, in the terms of Stream.
	Node string `json:"node,omitempty"`
	// Event is admitted, untracked, superseded, refused, ended, logout or missed.
	Event event.What `json:"event"`
	Party
	// Subject is the name of the verified user; left out: not known.
	Subject string `json:"subject,omitempty"`
	// By is the newcomer that superseded the stream.
	By *Party `json:"by,omitempty"`
	// Reason is why a stream has ended: one of those that clients are told, or left (its
	// client went away) or finished (the backend has ended it).
	Reason reason.Reason `json:"reason,omitempty"`
	// Outcome is what a request was refused for: rejected, parked, damped, outasked,
	// entombed, unauthorized, denied, draining or unavailable.
	Outcome event.Outcome `json:"outcome,omitempty"`
	// Cause is why a stream is untracked.
	Cause event.UntrackedCause `json:"cause,omitempty"`
	// AgeSeconds, Events and Bytes are those of a stream that has ended.
	AgeSeconds *float64 `json:"age_seconds,omitempty"`
	Events     *uint64  `json:"events,omitempty"`
	Bytes      *int64   `json:"bytes,omitempty"`
	// Streams is how many a logout has ended.
	Streams *int `json:"streams,omitempty"`
	// Missed is how many events of other nodes were lost, since there were too many, or
	// the nodes did not reach each other.
	Missed int `json:"missed,omitempty"`
}

// Party is a stream, or a request for one, in the terms of Stream.
type Party struct {
	ID       string `json:"id,omitempty"`
	Key      string `json:"key,omitempty"`
	Token    string `json:"token,omitempty"`
	Client   string `json:"client,omitempty"`
	RemoteIP string `json:"remote_ip,omitempty"`
}

func partyOf(h *registry.Holder) Party {
	if h == nil {
		return Party{}
	}
	p := Party{Key: short(h.Key), Token: short(h.Token), Client: short(h.Client), RemoteIP: h.Addr}
	if !h.ID.IsZero() {
		p.ID = h.ID.String()
	}
	return p
}

// HappenedAs is the entry as GET events tells it.
func HappenedAs(e event.Entry) Happened {
	h := Happened{
		Time: e.Time.UTC(), Zone: e.Zone, Node: e.Node, Missed: e.Missed, Event: e.What, Party: partyOf(e.Stream),
		Subject: e.Sub, Reason: e.Reason, Cause: e.Cause, Outcome: e.Outcome,
	}
	if e.By != nil {
		by := partyOf(e.By)
		h.By = &by
	}
	switch e.What {
	case event.WhatEnded:
		age := seconds(e.Age)
		h.AgeSeconds, h.Events, h.Bytes = &age, &e.Events, &e.Bytes
	case event.WhatLogout:
		h.Streams = &e.Streams
	}
	return h
}

const (
	// mostReaders is how many read the feed at the same time.
	mostReaders = 32
	// mostWaiting is how many entries wait for a reader until it is dropped.
	mostWaiting = 1024
	// feedHeartbeat is the time between comments, by which it shows that a reader is gone.
	feedHeartbeat = 15 * time.Second
	// writeTimeout is how long a reader may take nothing in. Caddy waits twice as long for
	// the requests of its admin endpoint when it stops.
	writeTimeout = 5 * time.Second
)

// stopping returns what is closed when the server of r shuts down: it waits for its
// requests.
func (a *API) stopping(r *http.Request) <-chan struct{} {
	a.listen.Do(func() {
		a.stops = make(chan struct{})
		if srv, ok := r.Context().Value(http.ServerContextKey).(*http.Server); ok {
			// Caddy may shut a server of its admin endpoint down twice.
			srv.RegisterOnShutdown(sync.OnceFunc(func() { close(a.stops) }))
		}
	})
	return a.stops
}

// events answers GET events: an event stream of what happens from now on. It ends when
// the server does, on each reload of its configuration; EventSource comes back by
// itself.
func (a *API) events(w http.ResponseWriter, r *http.Request) error {
	zones, err := a.zonesOf(r)
	if err != nil {
		return err
	}
	if a.readers.Add(1) > mostReaders {
		a.readers.Add(-1)
		return &problem{Status: http.StatusServiceUnavailable, Title: "Too many read the events", Detail: "Close another reader, or try again later."}
	}
	defer a.readers.Add(-1)
	l := event.NewListener(mostWaiting)
	for _, z := range zones {
		z.Feed.Join(l)
	}
	defer func() {
		for _, z := range zones {
			z.Feed.Leave(l)
		}
	}()
	out := NewFeedWriter(w, writeTimeout)
	defer out.End()
	if out.send(nil) != nil {
		return nil // its reader is gone
	}
	out.relay(l, r.Context().Done(), a.stopping(r))
	return nil
}

// FeedWriter writes an event stream of JSON to one reader.
type FeedWriter struct {
	w       http.ResponseWriter
	rc      *http.ResponseController
	timeout time.Duration
}

// NewFeedWriter returns one for a reader who may take nothing in for so long.
func NewFeedWriter(w http.ResponseWriter, timeout time.Duration) *FeedWriter {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	return &FeedWriter{w, http.NewResponseController(w), timeout}
}

// relay writes what l gets, until the reader has left, or is too slow, or the server
// stops.
func (f *FeedWriter) relay(l *event.Listener, left, stops <-chan struct{}) {
	beat := time.NewTicker(feedHeartbeat)
	defer beat.Stop()
	for {
		var err error
		select {
		case e := <-l.Entries():
			err = f.Event(string(e.What), HappenedAs(e))
		case <-beat.C:
			err = f.send(eventstream.AppendComment(nil, ""))
		case <-l.Slow():
			b, _ := eventstream.Event{Name: "dropped", Data: `{"event":"dropped"}`}.Append(nil)
			_ = f.send(b) // it may have stopped reading
			return
		case <-left:
			return
		case <-stops:
			return
		}
		if err != nil {
			return
		}
	}
}

// Event writes an event, whose data is body as JSON.
func (f *FeedWriter) Event(name string, body any) error {
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	b, err := eventstream.Event{Name: name, Data: string(data)}.Append(nil)
	if err != nil {
		return err
	}
	return f.send(b)
}

// send writes b, and flushes.
func (f *FeedWriter) send(b []byte) error {
	f.limit()
	if _, err := f.w.Write(b); err != nil {
		return err
	}
	if err := f.rc.Flush(); err != nil {
		return err
	}
	// On HTTP/2, a deadline that passes resets the stream although nothing is written.
	_ = f.rc.SetWriteDeadline(time.Time{})
	return nil
}

// limit begins the time in which something must be taken in. Not all writers know
// deadlines; those of servers do.
func (f *FeedWriter) limit() { _ = f.rc.SetWriteDeadline(time.Now().Add(f.timeout)) }

// End is called last, before the server writes the end of the response.
func (f *FeedWriter) End() { f.limit() }
