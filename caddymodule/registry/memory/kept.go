package memory

import (
	"sync"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/internal/due"
)

// keptPlaces gives up the kept places whose time is over.
type keptPlaces struct {
	in      *Registry
	sweeper *due.Sweeper

	// mu guards the fields below. It is taken after a key's lock, and no other lock
	// is taken under it.
	mu     sync.Mutex
	queue  due.Queue[struct{}, *entry]
	closed bool
}

// placesAtOnce is how many places are taken out of the queue in one go.
const placesAtOnce = 64

func (k *keptPlaces) init(r *Registry) {
	k.in = r
	k.sweeper = due.NewSweeper(&k.mu, k.next, k.take)
}

// put has e given up after d. It reports false if no place is kept any more. The
// shard of its key must be locked.
func (k *keptPlaces) put(e *entry, d time.Duration) bool {
	until := time.Now().Add(d)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return false
	}
	e.kept = &due.Entry[struct{}, *entry]{Value: e}
	k.queue.Put(e.kept, until)
	k.sweeper.Arm()
	return true
}

// remove takes e out, which put has entered. The shard of its key must be locked.
func (k *keptPlaces) remove(e *entry) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.queue.Remove(e.kept)
	e.kept = nil
}

// next is when a place is to be given up first. mu is held.
func (k *keptPlaces) next() time.Time {
	if first := k.queue.First(); first != nil {
		return first.At()
	}
	return time.Time{}
}

// take takes out places whose time is over, and returns what gives them up. mu is
// held.
func (k *keptPlaces) take(now time.Time) func() {
	var over []*entry
	for e := k.queue.Due(now); e != nil && len(over) < placesAtOnce; e = k.queue.Due(now) {
		k.queue.Remove(e)
		over = append(over, e.Value)
	}
	if len(over) == 0 {
		return nil
	}
	return func() { giveUp(over) }
}

// close gives up all places.
func (k *keptPlaces) close() {
	k.sweeper.Close()
	giveUp(k.shut())
}

// shut takes all places out, for good.
func (k *keptPlaces) shut() []*entry {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	var all []*entry
	for e := k.queue.First(); e != nil; e = k.queue.First() {
		k.queue.Remove(e)
		all = append(all, e.Value)
	}
	return all
}

// giveUp gives up those of the places that are still kept. They were found under
// another lock, so each is looked at again under its key's own.
func giveUp(entries []*entry) {
	for _, e := range entries {
		sh := e.shard()
		sh.mu.Lock()
		if e.state == kept {
			sh.drop(e)
		}
		sh.mu.Unlock()
	}
}
