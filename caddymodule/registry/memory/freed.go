package memory

import (
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// freed remembers the keys of a shard of which a place came free lately. It is
// guarded by the shard's lock. It has the latest mostFreed: who is asked about
// another takes its key to have been free for longer.
type freed struct {
	// last has the latest times, in a ring once there are mostFreed of them.
	last []freeing
	// next is the index of the oldest, where the next one goes.
	next int
	// awaited counts those with a taken.
	awaited int
}

// freeing is that a place of a key came free.
type freeing struct {
	key registry.ID
	at  time.Time
	// taken is closed when somebody gets a place of the key; nil: nobody asked.
	taken chan struct{}
}

// mostFreed is how many are remembered of a shard.
const mostFreed = 128

// add notes that a place of key came free.
func (f *freed) add(key registry.ID, now time.Time) {
	if len(f.last) < mostFreed {
		f.last = append(f.last, freeing{key: key, at: now})
		return
	}
	f.forget(&f.last[f.next])
	f.last[f.next] = freeing{key: key, at: now}
	f.next = (f.next + 1) % mostFreed
}

// lately returns the latest time that a place of key came free, and how many did
// lately; nil and 0: none.
func (f *freed) lately(key registry.ID, now time.Time) (latest *freeing, places int) {
	for i := range f.last {
		l := &f.last[(f.next+len(f.last)-1-i)%len(f.last)] // the latest first
		if !now.Before(l.until()) {
			break
		}
		if l.key == key {
			places++
			if latest == nil {
				latest = l
			}
		}
	}
	return latest, places
}

// until is how long l counts as lately.
func (l *freeing) until() time.Time { return l.at.Add(registry.FreeLately) }

// await returns what is closed when somebody gets a place of l's key. l is one of
// f's.
func (f *freed) await(l *freeing) <-chan struct{} {
	if l.taken == nil {
		l.taken = make(chan struct{})
		f.awaited++
	}
	return l.taken
}

// took tells those who wait for it that somebody has got a place of key, and
// forgets those who have waited long enough.
func (f *freed) took(key registry.ID, now time.Time) {
	for i := range f.last {
		if l := &f.last[i]; l.key == key || !now.Before(l.until()) {
			f.forget(l)
		}
	}
}

// forget tells those who wait for l to ask again.
func (f *freed) forget(l *freeing) {
	if l.taken != nil {
		close(l.taken)
		l.taken = nil
		f.awaited--
	}
}
