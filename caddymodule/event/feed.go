package event

import (
	"encoding/json"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// Feed is an Observer that hands what happens in a zone on to whoever listens, as it
// happens; on other nodes too, if it is shared. Nobody waits for a listener: one that is
// too slow is dropped. All methods may be called concurrently.
type Feed struct {
	zone, node string           // not changed
	others     registry.Sharing // nil: there are none; not changed once the zone is in use
	// listening is how many listeners there are, for who need not look while there is
	// none.
	listening atomic.Int32

	// mu guards listeners. Nothing is called with it held.
	mu        sync.Mutex
	listeners map[*Listener]struct{}
}

// NewFeed returns the feed of a zone on the node of that name.
func NewFeed(zone, node string) *Feed {
	return &Feed{zone: zone, node: node, listeners: make(map[*Listener]struct{})}
}

// Share has those who listen hear what happens on other nodes, and those of other nodes
// what happens here. It is called before all other methods, once at most.
func (f *Feed) Share(others registry.Sharing) {
	f.others = others
	others.Hear(f.hear)
}

// Listener gets the entries of the feeds that it joins.
type Listener struct {
	entries chan Entry
	slow    chan struct{}
	once    sync.Once // closes slow
}

// NewListener returns a Listener for which so many entries may wait.
func NewListener(waiting int) *Listener {
	return &Listener{entries: make(chan Entry, waiting), slow: make(chan struct{})}
}

// Entries are what has happened.
func (l *Listener) Entries() <-chan Entry { return l.entries }

// Slow is closed once the listener was dropped: there was no room for an entry, and it
// gets no more of that feed.
func (l *Listener) Slow() <-chan struct{} { return l.slow }

// Join adds l to those who listen.
func (f *Feed) Join(l *Listener) {
	f.mu.Lock()
	before := len(f.listeners)
	f.listeners[l] = struct{}{}
	joined := len(f.listeners) - before
	f.listening.Store(int32(len(f.listeners)))
	f.mu.Unlock()
	f.changed(joined)
}

// changed has other nodes know of it.
func (f *Feed) changed(more int) {
	if more != 0 && f.others != nil {
		f.others.Listen(more)
	}
}

// Leave takes l out. It may be called any number of times.
func (f *Feed) Leave(l *Listener) {
	f.mu.Lock()
	before := len(f.listeners)
	f.drop(l)
	left := len(f.listeners) - before
	f.mu.Unlock()
	f.changed(left)
}

// drop takes l out. mu is held.
func (f *Feed) drop(l *Listener) {
	delete(f.listeners, l)
	f.listening.Store(int32(len(f.listeners)))
}

// Observe implements Observer.
func (f *Feed) Observe(e Event) {
	heard := f.others != nil && f.others.Heard()
	if f.listening.Load() == 0 && !heard {
		return
	}
	entry, ok := entryOf(e)
	if !ok {
		return
	}
	entry.Time, entry.Zone, entry.Node = time.Now(), f.zone, f.node
	f.hand(entry)
	if heard {
		if b, err := json.Marshal(entry); err == nil { // there is nothing in it that cannot be spelled
			f.others.Tell(entry.Time, b)
		}
	}
}

// hand hands the entry to all who listen here.
func (f *Feed) hand(entry Entry) {
	f.mu.Lock()
	before := len(f.listeners)
	for l := range f.listeners {
		select {
		case l.entries <- entry:
		default:
			l.once.Do(func() { close(l.slow) })
			f.drop(l)
		}
	}
	left := len(f.listeners) - before
	f.mu.Unlock()
	f.changed(left)
}

// hear hands on what another node has told.
func (f *Feed) hear(at time.Time, b []byte, missed int) {
	if f.listening.Load() == 0 {
		return
	}
	var entry Entry
	if b != nil && json.Unmarshal(b, &entry) != nil {
		entry, missed = Entry{}, missed+1
	}
	if missed > 0 {
		f.hand(Entry{Time: time.Now(), Zone: f.zone, What: WhatMissed, Missed: missed})
	}
	if entry.What != "" {
		entry.Time, entry.Zone = at, f.zone
		f.hand(entry)
	}
}

// Entry is something that happened, as it is shown.
type Entry struct {
	Time time.Time
	Zone string
	// Node names the process that it happened in.
	Node string
	What What
	// Stream is whom it happened to; nil: it is about nobody.
	Stream *registry.Holder
	// Sub is the name of the stream's verified user; empty: not known.
	Sub string
	// By is the newcomer that took the key; nil: none did.
	By *registry.Holder
	// Reason is why a stream has ended, as of Ended.
	Reason reason.Reason
	Cause  UntrackedCause
	// Outcome is what a request was refused for.
	Outcome Outcome
	// Age, Events and Bytes are those of a stream that has ended.
	Age    time.Duration
	Events uint64
	Bytes  int64
	// Streams is how many a logout has ended.
	Streams int
	// Missed is how many entries of other nodes were lost.
	Missed int
}

// What is what happened.
type What string

// What happens.
const (
	WhatAdmitted   What = "admitted"
	WhatUntracked  What = "untracked"
	WhatSuperseded What = "superseded"
	WhatRefused    What = "refused"
	WhatEnded      What = "ended"
	WhatLogout     What = "logout"
	WhatMissed     What = "missed"
)

// entryOf is how e is shown; false: it is not.
func entryOf(e Event) (entry Entry, shown bool) {
	switch e := e.(type) {
	case Admitted:
		return Entry{What: WhatAdmitted, Stream: e.Stream.Holder, Sub: e.Stream.Sub}, true
	case Untracked:
		return Entry{What: WhatUntracked, Stream: e.Stream, Cause: e.Cause}, true
	case Superseded:
		return Entry{What: WhatSuperseded, Stream: e.Loser, By: e.Newcomer.Holder}, true
	case Refused:
		return Entry{What: WhatRefused, Stream: e.Client.Holder, Sub: e.Client.Sub, Outcome: e.Outcome}, true
	case Ended:
		return Entry{
			What: WhatEnded, Stream: e.Stream.Holder, Sub: e.Stream.Sub, Reason: e.Reason,
			Age: e.Age, Events: e.Events, Bytes: e.Bytes,
		}, true
	case LoggedOut:
		return Entry{What: WhatLogout, Stream: e.By.Holder, Sub: e.By.Sub, Streams: e.Streams}, true
	default:
		return Entry{}, false
	}
}

var _ Observer = (*Feed)(nil)
