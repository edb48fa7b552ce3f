package memory

import "github.com/sse-guard/sse-guard/caddymodule/registry"

// Size returns how many slots, claims, and heads in the indices there are.
func (r *Registry) Size() int {
	n := 0
	for i := range shards {
		n += len(r.keys[i].slots) + len(r.keys[i].claims) + r.keys[i].holders
		n += len(r.tokens.shards[i].heads) + len(r.clients.shards[i].heads)
	}
	return n
}

// Age returns the number of the place's commit, 0 if there was none. Among the
// streams of one key a higher one is newer.
func Age(p registry.Place) uint64 { return p.(*entry).age }
