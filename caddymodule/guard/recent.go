package guard

import (
	"sync"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

const (
	// maxRecent bounds recentTokens.
	maxRecent = 1 << 14
	// sweepRecent is how often tokens are forgotten whose time has come.
	sweepRecent = time.Minute
)

// recentTokens knows verified tokens whose time of issue cannot tell whether
// they are older than a logout of their user: those that do not say, and those
// of the last moments, since a token tells whole seconds. A logout of all of a
// user's tokens names these one by one.
type recentTokens struct {
	mu        sync.Mutex
	bySubject map[registry.ID]map[registry.ID]recentToken
	size      int
	swept     time.Time
}

type recentToken struct {
	expires time.Time // of the token itself; zero: never
	until   time.Time // when it may be forgotten
}

// saw notes a token of subject that was verified just now.
func (t *recentTokens) saw(subject, token registry.ID, r recentToken, now time.Time) {
	if now.After(r.until) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Sub(t.swept) > sweepRecent {
		t.sweep(now)
	}
	tokens := t.bySubject[subject]
	if _, known := tokens[token]; !known {
		if t.size >= maxRecent {
			t.forgetOne()
			tokens = t.bySubject[subject]
		}
		t.size++
	}
	if tokens == nil {
		tokens = make(map[registry.ID]recentToken, 1)
		if t.bySubject == nil {
			t.bySubject = make(map[registry.ID]map[registry.ID]recentToken)
		}
		t.bySubject[subject] = tokens
	}
	tokens[token] = r
}

// sweep forgets what is out of date.
func (t *recentTokens) sweep(now time.Time) {
	t.swept = now
	for subject, tokens := range t.bySubject {
		for token, r := range tokens {
			if now.After(r.until) {
				t.forget(subject, token)
			}
		}
	}
}

// forgetOne makes room for another. Any will do: a logout finds those that hold a
// stream without this list.
func (t *recentTokens) forgetOne() {
	for subject, tokens := range t.bySubject {
		for token := range tokens {
			t.forget(subject, token)
			return
		}
	}
}

func (t *recentTokens) forget(subject, token registry.ID) {
	tokens := t.bySubject[subject]
	delete(tokens, token)
	if len(tokens) == 0 {
		delete(t.bySubject, subject)
	}
	t.size--
}

// of returns the subject's recent tokens and when they expire.
func (t *recentTokens) of(subject registry.ID) map[registry.ID]time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	found := make(map[registry.ID]time.Time, len(t.bySubject[subject]))
	for token, r := range t.bySubject[subject] {
		found[token] = r.expires
	}
	return found
}
