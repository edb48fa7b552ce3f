package webhook

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/sse-guard/sse-guard/caddymodule/internal/due"
	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// departures are streams that are over, and of which the receiver is not yet told. A
// goroutine finds out who holds their keys by then; for clients that have left by
// themselves, once they had time to come back.
type departures struct {
	sender *Sender
	// wake tells the goroutine that an earlier departure has come.
	wake chan struct{}
	// silent is until when the registries are not asked, since one of them did not
	// answer the last time; zero: it did. It belongs to the goroutine.
	silent time.Time

	// mu guards the fields below. Nothing is called with it held.
	mu    sync.Mutex
	queue due.Queue[place, *departure]
	// waiting are those of a key whose clients may come back, and clients has them by
	// these: there is one of a client at most.
	waiting map[place]map[*departureEntry]struct{}
	clients map[client]*departureEntry
	// working is closed when the goroutine ends; nil: there is none.
	working chan struct{}
}

// place is a key, within its zone.
type place struct {
	zone string
	key  registry.ID
}

// client is a client at a place, as registry.Holder.SameClient tells them apart.
type client struct {
	place
	id, fingerprint registry.ID
}

// clientOf is the client of h; false: it is not known, and nobody is taken for it.
func clientOf(at place, h *registry.Holder) (c client, known bool) {
	c = client{place: at, id: h.Client}
	if c.id.IsZero() {
		c.fingerprint = h.Fingerprint
	}
	return c, !c.id.IsZero() || !c.fingerprint.IsZero()
}

// departure is a stream that is over. It is not changed.
type departure struct {
	observer *Observer
	holder   *registry.Holder
	record   *Record
	// grace is how long its client has to come back; 0: it did not leave by itself.
	grace time.Duration
}

type departureEntry = due.Entry[place, *departure]

func (ds *departures) init(s *Sender) {
	ds.sender = s
	ds.wake = make(chan struct{}, 1)
	ds.waiting = make(map[place]map[*departureEntry]struct{})
	ds.clients = make(map[client]*departureEntry)
}

// add has d told of in due time. If there is no room, one that would be due soon is
// dropped. Whoever left before d did, and is d's client, was still there as d.
func (ds *departures) add(d *departure) {
	e := &departureEntry{Key: place{d.observer.source.Zone, d.holder.Key}, Value: d}
	ds.mu.Lock()
	back := ds.takeClient(e.Key, d.holder)
	full := ds.queue.Len() >= ds.sender.limits.departures
	if full {
		ds.remove(ds.queue.First())
	}
	ds.queue.Put(e, time.Now().Add(d.grace))
	if d.grace > 0 {
		ds.wait(e)
	}
	if ds.working == nil {
		ds.working = make(chan struct{})
		go ds.work()
	}
	ds.mu.Unlock()
	if full {
		ds.sender.drops.add(causeFull, 1)
	}
	if back != nil {
		back.returned(d.holder.ID)
	}
	select {
	case ds.wake <- struct{}{}:
	default:
	}
}

// wait lists e among those whose clients may come back; mu is held.
func (ds *departures) wait(e *departureEntry) {
	if ds.waiting[e.Key] == nil {
		ds.waiting[e.Key] = make(map[*departureEntry]struct{})
	}
	ds.waiting[e.Key][e] = struct{}{}
	if c, known := clientOf(e.Key, e.Value.holder); known {
		ds.clients[c] = e
	}
}

// remove takes e out; mu is held.
func (ds *departures) remove(e *departureEntry) {
	ds.queue.Remove(e)
	waiting := ds.waiting[e.Key]
	if _, waits := waiting[e]; !waits {
		return
	}
	delete(waiting, e)
	if len(waiting) == 0 {
		delete(ds.waiting, e.Key)
	}
	if c, known := clientOf(e.Key, e.Value.holder); known {
		delete(ds.clients, c)
	}
}

// back notes that a client has a stream of the key. If it had left, it is back.
func (ds *departures) back(zone string, newcomer *registry.Holder) {
	ds.mu.Lock()
	back := ds.takeClient(place{zone, newcomer.Key}, newcomer)
	ds.mu.Unlock()
	if back != nil {
		back.returned(newcomer.ID)
	}
}

// takeClient takes out the one that waits for the client of h; nil: none does. mu is held.
func (ds *departures) takeClient(at place, h *registry.Holder) *departure {
	c, known := clientOf(at, h)
	e := ds.clients[c]
	if !known || e == nil {
		return nil
	}
	ds.remove(e)
	return e.Value
}

// returned tells, in place of d's end, as which stream its client is back.
func (d *departure) returned(as registry.StreamID) {
	r := *d.record
	r.Event, r.Reason, r.As = Returned, "", as.String()
	d.observer.tell(&r)
}

// ended tells of d's end; holders is who holds the key by now, nil if that is not
// known.
func (d *departure) ended(why reason.Reason, holders *int) {
	r := *d.record
	r.Reason, r.Holders = why, holders
	d.observer.tell(&r)
}

// work tells of departures until there are none left.
func (ds *departures) work() {
	for {
		d, early, left := ds.next()
		switch {
		case d != nil:
			ds.settle(d, early)
		case left == 0:
			return
		default:
			ds.sleep(left)
		}
	}
}

// next takes out the departure that is due; early: before its time, since the process
// is about to end. If there is none, it returns when the next one will be; 0: there is
// none left, and the goroutine is over.
func (ds *departures) next() (d *departure, early bool, left time.Duration) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	e := ds.queue.First()
	if e == nil {
		close(ds.working)
		ds.working = nil
		return nil, false, 0
	}
	left = time.Until(e.At())
	early = left > 0
	if early && !ds.sender.isHurried() && ds.sender.open.Err() == nil {
		return nil, false, left
	}
	ds.remove(e)
	return e.Value, early, 0
}

func (ds *departures) sleep(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ds.wake:
	case <-ds.sender.hurried:
	case <-ds.sender.open.Done():
	}
}

// settle tells of d, by what the registry knows now.
func (ds *departures) settle(d *departure, early bool) {
	f, err := ds.find(d)
	switch {
	case d.grace > 0 && err == nil && !f.as.IsZero():
		d.returned(f.as)
	case early && d.grace > 0:
		d.ended(reason.Shutdown, f.count())
	case err != nil:
		d.ended(d.record.Reason, nil)
	default:
		d.ended(d.record.Reason, f.count())
	}
}

// manyHolders is how many of a key's holders are counted.
const manyHolders = 100

// silentFor is how long registries are not asked once one has not answered: there may
// be many departures.
const silentFor = 5 * time.Second

var errSilent = errors.New("the registry did not answer a moment ago")

// found is who holds a key, besides the stream that somebody asks for.
type found struct {
	streams []registry.StreamID
	as      registry.StreamID // of the same client; zero: none
}

func (f *found) count() *int {
	if f == nil {
		return nil
	}
	n := min(len(f.streams), manyHolders)
	return &n
}

// find finds who holds d's key.
func (ds *departures) find(d *departure) (*found, error) {
	if time.Now().Before(ds.silent) {
		return nil, errSilent
	}
	ctx, cancel := context.WithTimeout(ds.sender.open, ds.sender.lookup)
	defer cancel()
	f := new(found)
	more, err := f.look(ctx, d, registry.Selector{Key: d.holder.Key})
	if err == nil && more && f.as.IsZero() && d.grace > 0 {
		among := new(found)
		_, err = among.look(ctx, d, narrow(d.holder))
		f.as = among.as
	}
	if err != nil {
		ds.tellSilent(d, err)
		return nil, err
	}
	ds.silent = time.Time{}
	ds.mu.Lock()
	for e := range ds.waiting[place{d.observer.source.Zone, d.holder.Key}] {
		if len(f.streams) >= manyHolders {
			break
		}
		if id := e.Value.holder.ID; !slices.Contains(f.streams, id) {
			f.streams = append(f.streams, id) // its client may be back yet
		}
	}
	ds.mu.Unlock()
	return f, nil
}

// tellSilent says that a registry does not answer, when that begins.
func (ds *departures) tellSilent(d *departure, err error) {
	if ds.silent.IsZero() && ds.sender.open.Err() == nil {
		ds.sender.logger.Warn("webhook: the registry does not say who holds a key; streams are posted as ended without that, and clients that are back as gone",
			zap.String("zone", d.observer.source.Zone), zap.Error(err))
	}
	ds.silent = time.Now().Add(silentFor)
}

// narrow selects what the streams of h's client have in common.
func narrow(h *registry.Holder) registry.Selector {
	sel := registry.Selector{Key: h.Key}
	switch {
	case !h.Client.IsZero():
		sel.Client = h.Client
	case !h.Subject.IsZero():
		sel.Subject = h.Subject
	default:
		sel.Token = h.Token
	}
	return sel
}

// look counts the holders that sel names, and reports whether there are more.
func (f *found) look(ctx context.Context, d *departure, sel registry.Selector) (more bool, err error) {
	holders, next, err := d.observer.source.Holders.Find(ctx, sel, "", manyHolders)
	if err != nil {
		return false, err
	}
	for _, h := range holders {
		if h.ID == d.holder.ID || h.Yields { // its own place may be kept
			continue
		}
		f.streams = append(f.streams, h.ID)
		if h.SameClient(d.holder) {
			f.as = h.ID
		}
	}
	return next != "", nil
}

// busy is closed when the goroutine ends; nil: there is none.
func (ds *departures) busy() <-chan struct{} {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	return ds.working
}
