package redis

import (
	"sync"
	"sync/atomic"

	"github.com/sse-guard/sse-guard/caddymodule/internal/due"
	"time"
)

// departure is that of one or more streams: the moment when all their upstream
// requests are gone.
type departure struct {
	// missing counts the streams that have not departed, and one more until all were
	// added.
	missing atomic.Int64
	done    chan struct{}
	// single tells that it is of one stream only.
	single bool
	// told is called once all have departed that were added, unless they had when all was
	// called; nil: nothing is.
	told func()
}

func newDeparture() *departure {
	d := &departure{done: make(chan struct{})}
	d.missing.Store(1)
	return d
}

// one notes that one more has departed.
func (d *departure) one() {
	if d.missing.Add(-1) == 0 {
		close(d.done)
		if d.told != nil {
			d.told()
		}
	}
}

// all returns the channel that is closed once all have departed that were added; nil if
// they have.
func (d *departure) all() <-chan struct{} {
	if d.missing.Add(-1) == 0 {
		return nil
	}
	return d.done
}

// foreign is an entry of another node.
type foreign struct {
	node   string
	ticket ticket
}

// departures knows of the streams of other nodes whose departure somebody here waits
// for. If a message is lost nobody is told: who waits does so for a bounded time.
type departures struct {
	// mu guards the fields below it.
	mu      sync.Mutex
	awaited map[foreign][]*departure
	// recent has those that departed a moment ago, since that may be heard before the
	// answer that it is to be waited for; and those awaited, to be forgotten in time.
	recent *due.Map[foreign, struct{}]
	old    *due.Map[foreign, struct{}]
}

const (
	mostAwaited = 1 << 14
	mostRecent  = 1 << 12
	// longestDeparture is how long the departure of another node's stream is waited
	// for.
	longestDeparture = time.Minute
)

// add has d wait for f.
func (ds *departures) add(f foreign, d *departure) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if ds.awaited == nil {
		ds.awaited = make(map[foreign][]*departure)
		ds.recent, ds.old = due.NewMap[foreign, struct{}](mostRecent), due.NewMap[foreign, struct{}](mostAwaited)
	}
	if ds.recent.Find(f) != nil {
		return
	}
	now := time.Now()
	for e := ds.old.Due(now); e != nil; e = ds.old.Due(now) {
		ds.old.Remove(e)
		delete(ds.awaited, e.Key)
	}
	if ds.old.Find(f) == nil {
		if _, forgotten := ds.old.Add(f, now.Add(longestDeparture)); forgotten != nil {
			delete(ds.awaited, forgotten.Key)
		}
	}
	d.missing.Add(1)
	ds.awaited[f] = append(ds.awaited[f], d)
}

// departed notes that f has.
func (ds *departures) departed(f foreign) {
	for _, d := range ds.tell(f) {
		d.one()
	}
}

func (ds *departures) tell(f foreign) []*departure {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if ds.recent == nil {
		ds.recent, ds.old = due.NewMap[foreign, struct{}](mostRecent), due.NewMap[foreign, struct{}](mostAwaited)
		ds.awaited = make(map[foreign][]*departure)
	}
	if ds.recent.Find(f) == nil {
		ds.recent.Add(f, time.Now())
	}
	if e := ds.old.Find(f); e != nil {
		ds.old.Remove(e)
	}
	awaited := ds.awaited[f]
	delete(ds.awaited, f)
	return awaited
}

// await has d wait for one of this node's places, unless it has departed.
func (p *place) await(d *departure) {
	p.b.mu.Lock()
	defer p.b.mu.Unlock()
	if !p.departed {
		d.missing.Add(1)
		p.awaited = append(p.awaited, d)
	}
}

// awaitEntries returns what is closed once the entries have departed; nil for none. A
// client that asks again and again while the same stream departs gets the same
// channel, so that the stream's list stays short.
func (r *Registry) awaitEntries(refs []reference) <-chan struct{} {
	if len(refs) == 0 {
		return nil
	}
	single := len(refs) == 1
	if single && refs[0].node == r.id {
		if done := r.singleDeparture(refs[0].ticket); done != nil {
			return done
		}
	}
	d := newDeparture()
	d.single = single
	for _, ref := range refs {
		r.awaitEntry(ref, d)
	}
	return d.all()
}

func (r *Registry) awaitEntry(ref reference, d *departure) {
	if ref.node != r.id {
		r.departures.add(foreign{ref.node, ref.ticket}, d)
		return
	}
	if p := r.place(ref.ticket); p != nil {
		p.await(d)
	}
}

// singleDeparture returns the channel of a departure that is of that place alone; nil:
// there is none.
func (r *Registry) singleDeparture(t ticket) <-chan struct{} {
	b := t.bucket(r)
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.places[t]
	if p == nil || p.departed {
		return nil
	}
	for _, d := range p.awaited {
		if d.single {
			return d.done
		}
	}
	return nil
}

// place returns this node's place of that ticket; nil: it has none.
func (r *Registry) place(t ticket) *place {
	b := t.bucket(r)
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.places[t]
}
