package guard

import (
	"sync"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// maxRecent bounds recentTokens.
const maxRecent = 1 << 14

// recentTokens knows verified tokens whose time of issue cannot tell whether
// they are older than a logout of their user: those that do not say, and those
// of the last moments, since a token tells whole seconds. A logout of all of a
// user's tokens names these one by one.
type recentTokens struct {
	mu     sync.Mutex
	tokens map[registry.ID]recentToken
	swept  time.Time
}

type recentToken struct {
	subject registry.ID
	expires time.Time // of the token itself; zero: never
	until   time.Time // when it may be forgotten
}

// sweepRecent is how often tokens are forgotten whose time has come.
const sweepRecent = time.Minute

// saw notes a token that was verified just now.
func (t *recentTokens) saw(token registry.ID, r recentToken, now time.Time) {
	if now.After(r.until) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.tokens == nil {
		t.tokens = make(map[registry.ID]recentToken)
	}
	full := len(t.tokens) >= maxRecent
	if now.Sub(t.swept) > sweepRecent || full {
		t.sweep(now, full)
	}
	t.tokens[token] = r
}

// sweep forgets what is out of date, and if there is no other room, what comes
// first.
func (t *recentTokens) sweep(now time.Time, full bool) {
	t.swept = now
	for token, r := range t.tokens {
		if now.After(r.until) {
			delete(t.tokens, token)
		}
	}
	for token := range t.tokens {
		if !full || len(t.tokens) < maxRecent {
			return
		}
		delete(t.tokens, token)
	}
}

// of returns the subject's recent tokens and when they expire.
func (t *recentTokens) of(subject registry.ID) map[registry.ID]time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	found := make(map[registry.ID]time.Time)
	for token, r := range t.tokens {
		if r.subject == subject {
			found[token] = r.expires
		}
	}
	return found
}
