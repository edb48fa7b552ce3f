// Package memory keeps who holds what for one process.
//
// Keys are spread over shards, each with its own lock; so are the indices by
// stream, token, client and subject, and the denials. Locks are taken in one order:
// the shards of a call's keys, the lower number first, then one lock of an index,
// of the denials, or of the kept places. There is no lock over all, but for one that
// lets one at a time deny. Neither the Node nor anything else outside of the package
// is called with a lock held.
//
// If guards with different policies share a key, a place reserved under Reject
// stays promised while a newcomer under Supersede takes the key over. The key is
// then held once too often, until the next takeover or departure.
package memory

import (
	"context"
	"io"
	"math/bits"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// Registry is a registry.Registry for one process and one zone. No method
// waits for anything but a short lock, so contexts are not looked at.
type Registry struct {
	node     registry.Node
	keys     [shards]shard
	ids      streams
	tokens   index
	clients  index
	subjects index
	denials  denials
	kept     keptPlaces
	// now tells the time by which places came free lately.
	now func() time.Time
}

// shards is how many parts each index has. IDs are hashes, so their first byte
// spreads them evenly.
const shards = 64

// New returns an empty registry of streams that node has. It is to be closed.
func New(node registry.Node) *Registry {
	r := &Registry{node: node, now: time.Now}
	for i := range r.keys {
		r.keys[i].slots = make(map[registry.ID]*slot)
		r.keys[i].claims = make(map[pair]*claim)
	}
	r.tokens.init(viaToken, func(h *registry.Holder) registry.ID { return h.Token })
	r.clients.init(viaClient, func(h *registry.Holder) registry.ID { return h.Client })
	r.subjects.init(viaSubject, func(h *registry.Holder) registry.ID { return h.Subject })
	r.denials.init()
	r.kept.init(r)
	return r
}

// Close gives up all kept places and stops their timer. From then on no place is
// kept; everything else goes on. It may be called any number of times. Its error is
// always nil.
func (r *Registry) Close() error {
	r.kept.close()
	return nil
}

// Each calls f with the one node there is. Its error is always nil.
func (r *Registry) Each(_ context.Context, f func(registry.Node)) error {
	f(r.node)
	return nil
}

// Len returns how many streams hold a key, with those whose places are kept.
// Streams that come and go meanwhile may or may not be counted.
func (r *Registry) Len() int {
	n := 0
	for i := range r.keys {
		sh := &r.keys[i]
		sh.mu.Lock()
		n += sh.holders
		sh.mu.Unlock()
	}
	return n
}

func (r *Registry) shard(key registry.ID) *shard { return &r.keys[shardOf(key)] }

func shardOf(id registry.ID) int { return int(id[0] % shards) }

// end asks the node to end victims, in their order, for the newcomer by. No lock may
// be held: a node may call back.
func (r *Registry) end(victims []registry.Victim, by *registry.Holder) {
	for _, v := range victims {
		r.node.End(v.Holder.ID, registry.Ending{Reason: v.Reason, By: by.Addr, For: by.ID, Asked: by.Asked})
	}
}

// shardSet is a set of shards of keys, a bit for each.
type shardSet uint64

// shardsOf returns the shards that the asks' keys fall to.
func shardsOf(asks []registry.Ask) (set shardSet) {
	for i := range asks {
		set |= 1 << shardOf(asks[i].Holder.Key)
	}
	return set
}

// lock locks the shards, the lower number first.
func (r *Registry) lock(set shardSet) {
	for ; set != 0; set &= set - 1 {
		r.keys[bits.TrailingZeros64(uint64(set))].mu.Lock()
	}
}

func (r *Registry) unlock(set shardSet) {
	for ; set != 0; set &= set - 1 {
		r.keys[bits.TrailingZeros64(uint64(set))].mu.Unlock()
	}
}

var (
	_ registry.Registry = (*Registry)(nil)
	_ io.Closer         = (*Registry)(nil)
)
