// Package webhook tells a backend by HTTP what becomes of its streams: who has one,
// why it is over, who was refused. What it posts is in record.go.
//
// An Observer hears what happens at one guard, and never waits. Its Sender posts it: a
// receiver that is down, slow or hangs costs no stream anything. A Sender has two
// goroutines, which are there only while there is something to do: one posts, the other
// waits for clients that have left to come back, and looks who still holds their keys.
package webhook

import (
	"context"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/event"
	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// Kind is what has happened, as a receiver is told.
type Kind string

const (
	// Admitted: a stream opened, and holds its key.
	Admitted Kind = "admitted"
	// Ended: such a stream is over, and its client has not come back.
	Ended Kind = "ended"
	// Rejected: a newcomer was refused, or parked.
	Rejected Kind = "rejected"
	// Returned: a client that had left was back in time. It is told in place of Ended.
	Returned Kind = "returned"
)

// Kinds lists them all.
func Kinds() []Kind { return []Kind{Admitted, Ended, Rejected, Returned} }

// Finder finds who holds a key. A registry.Registry is one.
type Finder interface {
	Find(ctx context.Context, sel registry.Selector, cursor string, limit int) ([]*registry.Holder, string, error)
}

// Source is a guard, as far as its receiver is concerned.
type Source struct {
	// Zone is the namespace of its keys.
	Zone string
	// Holders knows who holds them, on any node.
	Holders Finder
	// Kinds are what the receiver is told.
	Kinds []Kind
	// Reserve is how long a client that left by itself may take to come back; 0: it is
	// not waited for.
	Reserve time.Duration
}

// Observer has a Sender post what happens at one guard.
type Observer struct {
	sender *Sender
	source Source
	told   map[Kind]bool // not changed
}

// Observe returns who observes a guard for the sender.
func (s *Sender) Observe(source Source) *Observer {
	o := &Observer{sender: s, source: source, told: make(map[Kind]bool)}
	for _, k := range source.Kinds {
		o.told[k] = true
	}
	return o
}

// Observe implements event.Observer. It does not block. Streams that yield are not
// told of: any site can ask for them in a user's name.
func (o *Observer) Observe(e event.Event) {
	switch e := e.(type) {
	case event.Admitted:
		if e.Stream.Holder.Yields {
			return
		}
		o.sender.departures.back(o.source.Zone, e.Stream.Holder)
		o.tell(o.about(Admitted, e.Stream))
	case event.Rejected:
		o.refused(reason.Rejected, e.Newcomer)
	case event.Damped:
		o.refused(reason.Parked, e.Newcomer)
	case event.Ended:
		o.ended(e)
	}
}

func (o *Observer) refused(why reason.Reason, newcomer event.Who) {
	if newcomer.Holder.Yields {
		return
	}
	r := o.about(Rejected, newcomer)
	r.Reason = why
	o.tell(r)
}

// ended has the end of a stream told once it is known who holds the key then; if its
// client has left by itself, once it had time to come back.
func (o *Observer) ended(e event.Ended) {
	if !e.Held || e.Stream.Holder.Yields || !o.told[Ended] && !o.told[Returned] {
		return
	}
	r := o.about(Ended, e.Stream)
	r.Reason = e.Reason
	r.Life = &Life{
		Since:       stamp(e.Stream.Holder.Since),
		AgeSeconds:  e.Age.Seconds(),
		Events:      e.Events,
		Bytes:       e.Bytes,
		LastEventID: e.LastEventID,
	}
	d := &departure{observer: o, holder: e.Stream.Holder, record: r}
	if e.Reason == event.Left {
		d.grace = o.source.Reserve
	}
	o.sender.departures.add(d)
}

// about begins a record of what has happened to who.
func (o *Observer) about(what Kind, who event.Who) *Record {
	h := who.Holder
	return &Record{
		Event:  what,
		Time:   stamp(time.Now()),
		Zone:   o.source.Zone,
		Stream: h.ID.String(),
		Key:    short(h.Key),
		Token:  short(h.Token),
		Client: short(h.Client),
		Sub:    who.Sub,
		Labels: who.Labels.Map(),
	}
}

// tell has r posted, if the receiver wants to know.
func (o *Observer) tell(r *Record) {
	if o.told[r.Event] {
		o.sender.enqueue(r)
	}
}

// Interface guard
var _ event.Observer = (*Observer)(nil)
