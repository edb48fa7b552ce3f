package memory

import (
	"slices"
	"sync/atomic"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// departure is that of one or more streams: the moment when all their upstream
// requests are gone.
type departure struct {
	// missing counts the streams that have not departed, and one more until all
	// were added.
	missing atomic.Int64
	done    chan struct{}
	// single tells that it is of one stream only.
	single bool
}

// awaited is a list of departures that a stream is part of. The lock of the stream's
// key guards it.
type awaited struct {
	departure *departure
	next      *awaited
}

func newDeparture() *departure {
	d := &departure{done: make(chan struct{})}
	d.missing.Store(1)
	return d
}

// add has d wait for e too, unless it has departed. The shard of the key must be
// locked.
func (d *departure) add(e *entry) {
	if !e.departed {
		d.missing.Add(1)
		e.awaited = &awaited{d, e.awaited}
	}
}

// all returns the channel that is closed once all have departed that were added;
// nil if they have.
func (d *departure) all() <-chan struct{} {
	if d.missing.Add(-1) == 0 {
		return nil
	}
	return d.done
}

// tell tells the departures that one more stream has departed.
func (a *awaited) tell() {
	for ; a != nil; a = a.next {
		if a.departure.missing.Add(-1) == 0 {
			close(a.departure.done)
		}
	}
}

// mostDeparting is how many streams of a key, those that left last, are looked through
// for the newcomer's own.
const mostDeparting = 1024

// departing adds to those given the streams of the newcomer's client that have left
// its key and are yet to depart. The shard must be locked.
func (sh *shard) departing(newcomer *registry.Holder, add []*entry) []*entry {
	sl := sh.slots[newcomer.Key]
	if sl == nil {
		return add
	}
	ended := len(add)
	for _, head := range []*entry{sl.departing, sl.kept} {
		visited := 0
		for e := range backwards(viaKey, head) {
			if visited++; visited > mostDeparting {
				break
			}
			if !e.departed && e.holder.SameClient(newcomer) && !slices.Contains(add[:ended], e) {
				add = append(add, e)
			}
		}
	}
	return add
}

// allDeparted returns the channel that is closed once all have departed; nil for
// none. The shards must be locked. A client that asks again and again while the
// same stream departs gets the same channel, so that the stream's list stays short.
func allDeparted(es []*entry) <-chan struct{} {
	if len(es) == 0 {
		return nil
	}
	single := len(es) == 1
	if single {
		for a := es[0].awaited; a != nil; a = a.next {
			if a.departure.single {
				return a.departure.done
			}
		}
	}
	d := newDeparture()
	d.single = single
	for _, e := range es {
		d.add(e)
	}
	return d.all()
}
