package memory

import (
	"sync"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// index finds the holders that carry one token, one client id or one subject. Its
// locks are taken after a key's, and no other lock is taken under them.
type index struct {
	via    via
	id     func(*registry.Holder) registry.ID
	shards [shards]indexShard
}

// indexShard maps an ID to the head of the ring of those that carry it.
type indexShard struct {
	// mu guards heads, and the links of the rings.
	mu    sync.Mutex
	heads map[registry.ID]*entry
}

func (x *index) init(v via, id func(*registry.Holder) registry.ID) {
	x.via, x.id = v, id
	for i := range x.shards {
		x.shards[i].heads = make(map[registry.ID]*entry)
	}
}

// add enters e, unless it carries no ID.
func (x *index) add(e *entry) {
	id := x.id(e.holder)
	if id.IsZero() {
		return
	}
	sh := x.shard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	head := sh.heads[id]
	if e.join(x.via, head); head == nil {
		sh.heads[id] = e
	}
}

// remove takes e out, which add has entered.
func (x *index) remove(e *entry) {
	id := x.id(e.holder)
	if id.IsZero() {
		return
	}
	sh := x.shard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if e.links[x.via].next == e {
		e.leave(x.via, e)
		delete(sh.heads, id)
		return
	}
	head := sh.heads[id]
	if h := e.leave(x.via, head); h != head {
		sh.heads[id] = h
	}
}

// under returns who carries id, oldest first, most of them at most. They may be
// gone by the time the caller looks at them.
func (x *index) under(id registry.ID, most int) []*entry {
	sh := x.shard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return first(most, nil, x.via, sh.heads[id])
}

// mostVisited is how many who carry an ID are looked at for those of one key.
const mostVisited = 1024

// underKey returns the oldest of those who carry id and hold key, or are kept a place,
// most of them at most, and as far as they are among the oldest mostVisited who carry it.
func (x *index) underKey(id, key registry.ID, most int) (es []*entry) {
	if id.IsZero() {
		return nil
	}
	sh := x.shard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	visited := 0
	for e := range ring(x.via, sh.heads[id]) {
		if visited++; len(es) == most || visited > mostVisited {
			break
		}
		if e.holder.Key == key {
			es = append(es, e)
		}
	}
	return es
}

// first adds to es the oldest of a ring, until there are most.
func first(most int, es []*entry, v via, head *entry) []*entry {
	for e := range ring(v, head) {
		if len(es) == most {
			break
		}
		es = append(es, e)
	}
	return es
}

func (x *index) shard(id registry.ID) *indexShard { return &x.shards[shardOf(id)] }
