package guard

import (
	"sync"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// arrivals counts, by token and client, the requests that may yet become streams.
// A logout concerns them too: the backend authorised them before, and answers
// after.
type arrivals struct {
	mu     sync.Mutex
	counts map[arrival]int
}

type arrival struct{ token, client registry.ID }

func (a *arrivals) enter(of arrival) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.counts == nil {
		a.counts = make(map[arrival]int)
	}
	a.counts[of]++
}

func (a *arrivals) leave(of arrival) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.counts[of]--; a.counts[of] == 0 {
		delete(a.counts, of)
	}
}

// has reports whether a request with token is under way. It looks at all that
// are, which are few: a logout can afford that, and an arrival no second index.
func (a *arrivals) has(token registry.ID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for of := range a.counts {
		if of.token == token {
			return true
		}
	}
	return false
}

// tokens returns those with which requests of client are under way.
func (a *arrivals) tokens(client registry.ID) (tokens []registry.ID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for of := range a.counts {
		if of.client == client {
			tokens = append(tokens, of.token)
		}
	}
	return tokens
}
