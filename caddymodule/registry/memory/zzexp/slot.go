package memory

import "github.com/sse-guard/sse-guard/caddymodule/registry"

// slot is what is known of one key: who holds it, and who waits for it. It
// exists as long as there is anyone to know of, and is guarded by the lock of
// the key's shard, as is everything in this file.
type slot struct {
	// held is the ring of the key's holders, by the age of their commit.
	held *entry
	// holders counts them, and holding their clients.
	holders, holding int
	// reservations counts the reserved places.
	reservations int
	// taking counts the clients that hold or have reserved. A stream without a
	// client id is a client of its own.
	taking int
	// waiters are the refused newcomers that wait, the longest waiting first.
	waiters []*waiter
}

// claim is what one client id has of one key. It exists as long as the client
// holds or has reserved.
type claim struct {
	// held is the ring of the client's holders of the key.
	held    *entry
	holders int
	// reservations counts the reserved places, and tabs those among them whose
	// commit will replace the client's other streams.
	reservations, tabs int
}

// reserve adds by, +1 or -1, to the claim's reservations.
func (c *claim) reserve(s *registry.Stream, by int) {
	c.reservations += by
	if s.Tab {
		c.tabs += by
	}
}

// oldest returns the oldest of the claim's holders, nil if there is none; c may be
// nil.
func (c *claim) oldest() *entry {
	if c == nil {
		return nil
	}
	return c.held
}
