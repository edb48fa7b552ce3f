package verify

import (
	"crypto/sha256"
	"sync"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/identity"
)

const (
	// cacheSize is the number of tokens that are remembered, at about 2 KB each.
	cacheSize = 4096
	// cacheTime is how long a token is remembered. The parts of a page open their
	// streams at about the same time, and come back together when the network does.
	cacheTime = time.Minute
)

// cache remembers tokens that were accepted: a look-up costs 1 us, where an ECDSA
// signature costs 100 us and parsing alone 15 us (BenchmarkVerify). A token is known by the hash of its
// bytes as they are: another spelling of it has yet to be refused. The zero cache
// is ready to use.
type cache struct {
	mu       sync.Mutex
	accepted map[[sha256.Size]byte]acceptance
}

// idOf returns how the cache knows a token.
func idOf(token string) [sha256.Size]byte {
	var stack [2048]byte // most are shorter, and are hashed without allocating
	return sha256.Sum256(append(stack[:0], token...))
}

type acceptance struct {
	claims *identity.Claims
	// keys is the generation of the keys it was verified with.
	keys  uint64
	until time.Time
}

// get returns what the token says if it was accepted with the keys of that
// generation, nil otherwise.
func (c *cache) get(token [sha256.Size]byte, keys uint64, now time.Time) *identity.Claims {
	c.mu.Lock()
	defer c.mu.Unlock()
	a, ok := c.accepted[token]
	if !ok {
		return nil
	}
	if a.keys != keys || !now.Round(0).Before(a.until) {
		delete(c.accepted, token)
		return nil
	}
	return a.claims
}

// put remembers a token that was accepted now.
func (c *cache) put(token [sha256.Size]byte, keys uint64, claims *identity.Claims, now time.Time, leeway time.Duration) {
	until := now.Round(0).Add(cacheTime) // the monotonic clock stands still while the machine sleeps
	if end := claims.Expires; !end.IsZero() && end.Add(leeway).Before(until) {
		until = end.Add(leeway)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.accepted == nil {
		c.accepted = make(map[[sha256.Size]byte]acceptance)
	}
	if _, ok := c.accepted[token]; !ok && len(c.accepted) >= cacheSize {
		// Any will do: only tokens that were issued get here.
		for other := range c.accepted {
			delete(c.accepted, other)
			break
		}
	}
	c.accepted[token] = acceptance{claims, keys, until}
}
