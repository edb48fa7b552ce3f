package zone

import (
	"sync"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

const (
	// maxRecent bounds RecentTokens.
	maxRecent = 1 << 14
	// sweepRecent is how often tokens are forgotten whose time has come.
	sweepRecent = time.Minute
)

// RecentTokens knows verified tokens whose time of issue cannot tell whether
// they are older than a logout of their user: those that do not say, and those
// of the last moments, since a token tells whole seconds. A logout of all of a
// user's tokens names these one by one.
type RecentTokens struct {
	// mu guards the fields below it.
	mu        sync.Mutex
	bySubject map[registry.ID]map[registry.ID]RecentToken
	size      int
	swept     time.Time
}

// RecentToken is how long a token counts as recent.
type RecentToken struct {
	// Expires is when the token itself does; zero: never.
	Expires time.Time
	// Until is when it may be forgotten.
	Until time.Time
}

// Saw notes a token of subject that was verified just now.
func (t *RecentTokens) Saw(subject, token registry.ID, r RecentToken, now time.Time) {
	if now.After(r.Until) {
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
		tokens = make(map[registry.ID]RecentToken, 1)
		if t.bySubject == nil {
			t.bySubject = make(map[registry.ID]map[registry.ID]RecentToken)
		}
		t.bySubject[subject] = tokens
	}
	tokens[token] = r
}

// sweep forgets what is out of date.
func (t *RecentTokens) sweep(now time.Time) {
	t.swept = now
	for subject, tokens := range t.bySubject {
		for token, r := range tokens {
			if now.After(r.Until) {
				t.forget(subject, token)
			}
		}
	}
}

// forgetOne makes room for another. Any will do: a logout finds those that hold a
// stream without this list.
func (t *RecentTokens) forgetOne() {
	for subject, tokens := range t.bySubject {
		for token := range tokens {
			t.forget(subject, token)
			return
		}
	}
}

func (t *RecentTokens) forget(subject, token registry.ID) {
	tokens := t.bySubject[subject]
	delete(tokens, token)
	if len(tokens) == 0 {
		delete(t.bySubject, subject)
	}
	t.size--
}

// Of returns the subject's recent tokens and when they expire.
func (t *RecentTokens) Of(subject registry.ID) map[registry.ID]time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	found := make(map[registry.ID]time.Time, len(t.bySubject[subject]))
	for token, r := range t.bySubject[subject] {
		found[token] = r.Expires
	}
	return found
}
