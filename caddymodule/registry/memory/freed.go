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

// lately returns until when the latest place of key that came free counts as lately
// freed, and what is closed when somebody gets one; nil: none came free lately.
func (f *freed) lately(key registry.ID, now time.Time) (until time.Time, taken <-chan struct{}) {
	for i := range f.last {
		l := &f.last[(f.next+len(f.last)-1-i)%len(f.last)] // the latest first
		if !now.Before(l.at.Add(registry.FreeLately)) {
			break
		}
		if l.key != key {
			continue
		}
		if l.taken == nil {
			l.taken = make(chan struct{})
			f.awaited++
		}
		return l.at.Add(registry.FreeLately), l.taken
	}
	return time.Time{}, nil
}

// took tells those who wait for it that somebody has got a place of key, and
// forgets those who have waited long enough.
func (f *freed) took(key registry.ID, now time.Time) {
	for i := range f.last {
		if l := &f.last[i]; l.key == key || !now.Before(l.at.Add(registry.FreeLately)) {
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
