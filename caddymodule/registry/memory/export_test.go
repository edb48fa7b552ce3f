package memory

import (
	"sync"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// Size returns how many slots, claims, holders, heads in the indices and kept places
// there are. Denials do not count, since they stay until their time is over.
func (r *Registry) Size() int {
	n := 0
	count := func(mu sync.Locker, size func() int) {
		mu.Lock()
		defer mu.Unlock()
		n += size()
	}
	for i := range r.keys {
		sh := &r.keys[i]
		count(&sh.mu, func() int { return len(sh.slots) + len(sh.claims) + sh.holders })
		for _, x := range []*index{&r.tokens, &r.clients, &r.subjects} {
			count(&x.shards[i].mu, func() int { return len(x.shards[i].heads) })
		}
	}
	for i := range r.ids {
		count(&r.ids[i].mu, func() int { return r.ids[i].size })
	}
	count(&r.kept.mu, r.kept.queue.Len)
	return n
}

// Denials returns how many denials are kept, in force or not.
func (r *Registry) Denials() int {
	n := 0
	for _, t := range []*denialTable{&r.denials.tokens, &r.denials.clients, &r.denials.subjects} {
		inTable := 0
		for i := range t.shards {
			inTable += len(t.shards[i].denials)
		}
		if size := int(t.size.Load()); size != inTable {
			panic("a table of denials has lost count")
		}
		n += inTable
	}
	if r.denials.due.Len() != n {
		panic("a denial will never be forgotten, or was already")
	}
	return n
}

// DenialTimes returns all times that the denials keep.
func (r *Registry) DenialTimes() []time.Time {
	var out []time.Time
	for d := r.denials.due.First(); d != nil; d = r.denials.due.First() {
		out = append(out, d.At(), d.Value.until, d.Value.issuedBefore)
		r.denials.due.Remove(d)
	}
	return out
}

// SetMaxDenials changes how many denials are kept.
func (r *Registry) SetMaxDenials(n int) { r.denials.max = n }

// SetNow changes where the time comes from for denials, and for keys that came free.
func (r *Registry) SetNow(now func() time.Time) { r.denials.now, r.now = now, now }

// MostFreed is how many keys that came free a shard remembers.
const MostFreed = mostFreed

// Waiting returns how many ask for the stream's departure.
func Waiting(p registry.Place) int {
	n := 0
	for a := entryOf(p).awaited; a != nil; a = a.next {
		n++
	}
	return n
}

// Age returns the number of the place's commit, 0 if there was none. Among the
// streams of one key a higher one is newer.
func Age(p registry.Place) uint64 { return entryOf(p).age }

func entryOf(p registry.Place) *entry {
	if r, ok := p.(*reservation); ok {
		return r.entry
	}
	return p.(*entry)
}

// ManyHolders is how many holders with one ID are looked through for a page.
const ManyHolders = manyHolders

// Awaited returns how many keys that came free somebody waits for.
func (r *Registry) Awaited() int {
	n := 0
	for i := range r.keys {
		sh := &r.keys[i]
		sh.mu.Lock()
		n += sh.freed.awaited
		sh.mu.Unlock()
	}
	return n
}
