package memory

import (
	"bytes"
	"encoding/binary"
	"slices"
	"sync"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// streams finds holders by the names of their streams, and lists them in the order
// of those. Its locks are taken after a key's, and no other lock is taken under
// them.
type streams [streamShards]streamShard

// streamShards is how many parts there are: one for each first byte, so that they
// are in order.
const streamShards = 256

// streamShard is a hash table whose entries are linked to each other: a map would
// cost as much as all else that an admission does. IDs are random, so they are
// their own hashes.
type streamShard struct {
	// mu guards the fields below, and the next of the entries.
	mu sync.Mutex
	// buckets has the first entry of each bucket; their number is a power of two.
	buckets []*entry
	size    int
}

// fewBuckets is how many a shard has that is not empty.
const fewBuckets = 16

func (x *streams) shard(id registry.StreamID) *streamShard { return &x[id[0]] }

// bucket returns where the list begins in which id is. The shard must have buckets.
func (sh *streamShard) bucket(id registry.StreamID) **entry {
	// The last byte, which alone tells streams of one response from each other, is left
	// out, so that they are in one bucket.
	hash := binary.LittleEndian.Uint64(id[1:9])
	return &sh.buckets[hash&uint64(len(sh.buckets)-1)]
}

func (x *streams) add(e *entry) {
	sh := x.shard(e.holder.ID)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.size == len(sh.buckets) {
		sh.grow()
	}
	sh.size++
	sh.put(e)
}

func (sh *streamShard) put(e *entry) {
	first := sh.bucket(e.holder.ID)
	e.next = *first
	*first = e
}

// grow doubles the number of buckets.
func (sh *streamShard) grow() {
	old := sh.buckets
	sh.buckets = make([]*entry, max(fewBuckets, 2*len(old)))
	for _, e := range old {
		for e != nil {
			next := e.next
			sh.put(e)
			e = next
		}
	}
}

// remove takes e out, which add has entered, and no other entry of the same name.
func (x *streams) remove(e *entry) {
	sh := x.shard(e.holder.ID)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	at := sh.bucket(e.holder.ID)
	for *at != e {
		at = &(*at).next
	}
	*at, e.next = e.next, nil
	sh.size--
}

// find returns the holder of that name, or nil. It may be gone by the time the
// caller looks at it.
func (x *streams) find(id registry.StreamID) *entry {
	sh := x.shard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.size == 0 {
		return nil
	}
	e := *sh.bucket(id)
	for e != nil && e.holder.ID != id {
		e = e.next
	}
	return e
}

// ofResponse adds to es the holders of key whose streams are of the same response as
// id. The shard of the key must be locked.
func (x *streams) ofResponse(id registry.StreamID, key registry.ID, es []*entry) []*entry {
	sh := x.shard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.size == 0 {
		return es
	}
	for e := *sh.bucket(id); e != nil; e = e.next {
		if e.holder.ID.SameResponse(id) && e.holder.Key == key && e.state == held && !slices.Contains(es, e) {
			es = append(es, e)
		}
	}
	return es
}

// after returns, in order, the holders that sel names and that come after the given
// one: at least most of them, if there are so many.
func (x *streams) after(id registry.StreamID, sel *registry.Selector, most int) []*entry {
	var out []*entry
	for i := int(id[0]); i < streamShards && len(out) < most; i++ {
		n := len(out)
		out = x[i].matching(id, sel, out)
		slices.SortFunc(out[n:], inOrder)
	}
	return out
}

// matching adds to out the shard's holders that sel names and that come after the
// given one.
func (sh *streamShard) matching(id registry.StreamID, sel *registry.Selector, out []*entry) []*entry {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for _, e := range sh.buckets {
		for ; e != nil; e = e.next {
			if comesAfter(e, id) && sel.Matches(e.holder) {
				out = append(out, e)
			}
		}
	}
	return out
}

func inOrder(a, b *entry) int { return bytes.Compare(a.holder.ID[:], b.holder.ID[:]) }

func comesAfter(e *entry, id registry.StreamID) bool { return bytes.Compare(e.holder.ID[:], id[:]) > 0 }
