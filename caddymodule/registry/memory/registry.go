// Package memory keeps who holds what for one process.
//
// Keys are spread over shards, each with its own lock; so are the indices by
// token, by client and by subject, and the denials. Locks are taken in one order:
// a key's shard, then one of an index or of the denials. There is no lock over
// all, but for one that lets one at a time deny.
//
// If guards with different policies share a key, a place reserved under Reject
// stays promised while a newcomer under Supersede takes the key over. The key is
// then held once too often, until the next takeover or departure.
package memory

import (
	"context"
	"errors"
	"fmt"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// Registry is a registry.Registry for one process and one zone. No method
// waits for anything but a short lock, so contexts are not looked at.
type Registry struct {
	keys     [shards]shard
	tokens   index
	clients  index
	subjects index
	denials  denials
}

// ErrNoKey is returned for a stream whose Key is zero. Were it accepted, all
// streams without a key would end each other.
var ErrNoKey = errors.New("the stream has no key to hold; let it pass untracked")

// shards is how many parts each index has. IDs are hashes, so their first byte
// spreads them evenly.
const shards = 64

// New returns an empty registry.
func New() *Registry {
	r := new(Registry)
	for i := range r.keys {
		r.keys[i].slots = make(map[registry.ID]*slot)
		r.keys[i].claims = make(map[pair]*claim)
	}
	r.tokens.init(viaToken, func(s *registry.Stream) registry.ID { return s.Token })
	r.clients.init(viaClient, func(s *registry.Stream) registry.ID { return s.Client })
	r.subjects.init(viaSubject, func(s *registry.Stream) registry.ID { return s.Subject })
	r.denials.init()
	return r
}

// Judge tells what would happen to s if it were reserved and committed now. Its
// error is ErrNoKey or nil.
func (r *Registry) Judge(_ context.Context, s *registry.Stream, rule registry.Rule) (registry.Judgement, error) {
	if s.Key.IsZero() {
		return registry.Judgement{}, fmt.Errorf("judging a newcomer: %w", ErrNoKey)
	}
	sh := r.shard(s.Key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.newcomer(s, termsOf(rule)).judgement(), nil
}

// Reserve asks for a place for s. Its error is ErrNoKey or nil.
func (r *Registry) Reserve(_ context.Context, s *registry.Stream, rule registry.Rule) (registry.Place, registry.Judgement, error) {
	if s.Key.IsZero() {
		return nil, registry.Judgement{}, fmt.Errorf("reserving a place: %w", ErrNoKey)
	}
	sh := r.shard(s.Key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	n := sh.newcomer(s, termsOf(rule))
	j := n.judgement()
	if !j.Admitted {
		return nil, j, nil
	}
	e := &entry{in: r, stream: s, terms: n.terms, slot: n.slot, claim: n.claim}
	sh.reserve(e)
	return e, j, nil
}

// Evict ends those victims that still hold their key, and returns them in the
// order given. Its error is always nil.
func (r *Registry) Evict(_ context.Context, victims []registry.Victim, by string) ([]registry.Victim, error) {
	var evicted []registry.Victim
	for _, v := range victims {
		if r.dropHolder(v.Stream) {
			evicted = append(evicted, v)
		}
	}
	end(evicted, by)
	return evicted, nil
}

// dropHolder takes the place of s away, if it is held.
func (r *Registry) dropHolder(s *registry.Stream) bool {
	sh := r.shard(s.Key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e := sh.holder(s)
	if e == nil {
		return false
	}
	sh.drop(e)
	return true
}

// EndAll ends every holder that index knows under id, and returns them, oldest
// first. It does not end reserved places, nor streams that commit while it runs:
// those that are denied before EndAll do not get that far. Its error is nil,
// unless index is unknown.
func (r *Registry) EndAll(_ context.Context, index registry.Index, id registry.ID, e registry.Ending) ([]*registry.Stream, error) {
	var ended []*registry.Stream
	if index == registry.ByKey {
		ended = r.dropKey(id)
	} else {
		x, err := r.index(index)
		if err != nil {
			return nil, fmt.Errorf("ending streams: %w", err)
		}
		ended = dropHeld(x.under(id))
	}
	for _, s := range ended {
		s.Handle.End(e)
	}
	return ended, nil
}

// Holds reports whether index knows a holder under id. Its error is nil, unless
// index is unknown.
func (r *Registry) Holds(_ context.Context, index registry.Index, id registry.ID) (bool, error) {
	if index == registry.ByKey {
		return r.holdsKey(id), nil
	}
	x, err := r.index(index)
	if err != nil {
		return false, fmt.Errorf("looking for holders: %w", err)
	}
	return x.knows(id), nil
}

// index returns the index of that name, but for the one by key, which the shards
// are.
func (r *Registry) index(name registry.Index) (*index, error) {
	switch name {
	case registry.ByToken:
		return &r.tokens, nil
	case registry.ByClient:
		return &r.clients, nil
	case registry.BySubject:
		return &r.subjects, nil
	}
	return nil, fmt.Errorf("unknown index %q; use %q, %q, %q or %q", name,
		registry.ByKey, registry.ByToken, registry.ByClient, registry.BySubject)
}

// holdsKey tells whether anyone holds key.
func (r *Registry) holdsKey(key registry.ID) bool {
	sh := r.shard(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sl := sh.slots[key]
	return sl != nil && sl.holders > 0
}

// dropKey takes away the places of all who hold key, oldest first.
func (r *Registry) dropKey(key registry.ID) []*registry.Stream {
	sh := r.shard(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	var dropped []*registry.Stream
	if sl := sh.slots[key]; sl != nil {
		for sl.held != nil {
			dropped = append(dropped, sl.held.stream)
			sh.drop(sl.held)
		}
	}
	return dropped
}

// dropHeld takes away those of the places that are still held. They were found
// under another lock, so each is looked at again under its key's own.
func dropHeld(entries []*entry) []*registry.Stream {
	var dropped []*registry.Stream
	for _, e := range entries {
		if e.dropIfHeld() {
			dropped = append(dropped, e.stream)
		}
	}
	return dropped
}

// Len returns how many streams hold a key. Streams that come and go meanwhile
// may or may not be counted.
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

func (r *Registry) shard(key registry.ID) *shard { return &r.keys[key[0]%shards] }

// end ends victims, oldest first. No lock may be held: a handle may call back.
func end(victims []registry.Victim, by string) {
	for _, v := range victims {
		v.Stream.Handle.End(registry.Ending{Reason: v.Reason, By: by})
	}
}

var _ registry.Registry = (*Registry)(nil)
