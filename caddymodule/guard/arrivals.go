package guard

import (
	"sync"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// arrivals counts, by token, the requests that may yet become streams. A logout
// concerns them too: the backend authorised them before, and answers after.
//
// Only tokens that nobody verifies are counted. Of others a logout knows without.
type arrivals struct {
	mu     sync.Mutex
	counts map[registry.ID]int
}

func (a *arrivals) enter(token registry.ID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.counts == nil {
		a.counts = make(map[registry.ID]int)
	}
	a.counts[token]++
}

func (a *arrivals) leave(token registry.ID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.counts[token]--; a.counts[token] == 0 {
		delete(a.counts, token)
	}
}

func (a *arrivals) has(token registry.ID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.counts[token] > 0
}
