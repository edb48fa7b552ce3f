package memory

import (
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// Size returns how many slots, claims, and heads in the indices there are. Denials
// do not count, since they stay until their time is over.
func (r *Registry) Size() int {
	n := 0
	for i := range shards {
		n += len(r.keys[i].slots) + len(r.keys[i].claims) + r.keys[i].holders
		for _, x := range []*index{&r.tokens, &r.clients, &r.subjects} {
			n += len(x.shards[i].heads)
		}
	}
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
	if len(r.denials.due) != n {
		panic("a denial will never be forgotten, or was already")
	}
	return n
}

// DenialTimes returns all times that the denials keep.
func (r *Registry) DenialTimes() []time.Time {
	var out []time.Time
	for _, d := range r.denials.due {
		out = append(out, d.until, d.issuedBefore)
	}
	return out
}

// SetMaxDenials changes how many denials are kept.
func (r *Registry) SetMaxDenials(n int) { r.denials.max = n }

// SetNow changes where the time for denials comes from.
func (r *Registry) SetNow(now func() time.Time) { r.denials.now = now }

// Age returns the number of the place's commit, 0 if there was none. Among the
// streams of one key a higher one is newer.
func Age(p registry.Place) uint64 { return p.(*entry).age }
