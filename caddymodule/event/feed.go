package event

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// Feed is an Observer that hands what happens in a zone on to whoever listens, as it
// happens. Nobody waits for a listener: one that is too slow is dropped. All methods
// may be called concurrently.
type Feed struct {
	zone string // not changed
	// listening is how many listeners there are, for who need not look while there is
	// none.
	listening atomic.Int32

	// mu guards listeners. Nothing is called with it held.
	mu        sync.Mutex
	listeners map[*Listener]struct{}
}

// NewFeed returns the feed of a zone.
func NewFeed(zone string) *Feed {
	return &Feed{zone: zone, listeners: make(map[*Listener]struct{})}
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
	defer f.mu.Unlock()
	f.listeners[l] = struct{}{}
	f.listening.Store(int32(len(f.listeners)))
}

// Leave takes l out. It may be called any number of times.
func (f *Feed) Leave(l *Listener) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.drop(l)
}

// drop takes l out. mu is held.
func (f *Feed) drop(l *Listener) {
	delete(f.listeners, l)
	f.listening.Store(int32(len(f.listeners)))
}

// Observe implements Observer.
func (f *Feed) Observe(e Event) {
	if f.listening.Load() == 0 {
		return
	}
	entry, ok := entryOf(e)
	if !ok {
		return
	}
	entry.Time, entry.Zone = time.Now(), f.zone
	f.mu.Lock()
	defer f.mu.Unlock()
	for l := range f.listeners {
		select {
		case l.entries <- entry:
		default:
			l.once.Do(func() { close(l.slow) })
			f.drop(l)
		}
	}
}

// Entry is something that happened, as it is shown.
type Entry struct {
	Time time.Time
	Zone string
	What What
	// Stream is whom it happened to; nil: it is about nobody.
	Stream *registry.Holder
	// Sub is the name of the stream's verified user; empty: not known.
	Sub string
	// By is the newcomer that took the key; nil: none did.
	By *registry.Holder
	// Reason is why a stream has ended: that of the guard, Left or Finished.
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
	case Closed:
		return Entry{
			What: WhatEnded, Stream: e.Stream, Reason: e.Why(),
			Age: e.Age, Events: e.Events, Bytes: e.Bytes,
		}, true
	case LoggedOut:
		return Entry{What: WhatLogout, Stream: e.By.Holder, Sub: e.By.Sub, Streams: e.Streams}, true
	default:
		return Entry{}, false
	}
}

var _ Observer = (*Feed)(nil)
