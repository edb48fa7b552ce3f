package memory

import "github.com/sse-guard/sse-guard/caddymodule/registry"

// slot is what is known of one key: who holds it, and who waits for it. It
// exists as long as there is anyone to know of, and is guarded by the lock of
// the key's shard, as is everything in this file.
type slot struct {
	// held is the ring of the key's holders, those that yield before the others, which
	// are in the order in which they asked; kept that
	// of the kept places, and departing that of the streams that have left while
	// their upstream requests have not gone, both by when they got there.
	held, kept, departing *entry
	// holders counts those held, keeping those kept, and holding the clients of
	// both.
	holders, keeping, holding int
	// reservations counts the reserved places.
	reservations int
	// taking counts the clients that hold, are kept a place, or have reserved. A
	// stream without a client id is a client of its own.
	taking int
	// yields counts the streams that yield, held or reserved, and yielding the clients
	// that have nothing else.
	yields, yielding int
	// waiters are the refused newcomers that wait, the longest waiting first.
	waiters []*waiter
}

// empty tells whether nobody is left in the slot.
func (sl *slot) empty() bool {
	return sl.holders+sl.keeping+sl.reservations+len(sl.waiters) == 0 && sl.departing == nil
}

// claim is what one client id has of one key. It exists as long as the client
// holds, is kept a place, or has reserved.
type claim struct {
	// held is the ring of the client's holders of the key, by when they asked.
	held *entry
	// holders counts those held, and kept the places kept.
	holders, kept int
	// reservations counts the reserved places, and tabs those among them whose
	// commit will replace the client's other streams.
	reservations, tabs int
	// yields counts the streams that yield, held or reserved, and yieldsHeld the held ones.
	yields, yieldsHeld int
}

// reserve adds by, +1 or -1, to the claim's reservations.
func (c *claim) reserve(h *registry.Holder, by int) {
	c.reservations += by
	switch {
	case h.Yields:
		c.yields += by
	case h.Tab:
		c.tabs += by
	}
}

// hold adds by, +1 or -1, to the claim's holders.
func (c *claim) hold(h *registry.Holder, by int) {
	c.holders += by
	if h.Yields {
		c.yields += by
		c.yieldsHeld += by
	}
}

// places counts those held, kept and reserved.
func (c *claim) places() int { return c.holders + c.kept + c.reservations }

// onlyYields tells whether all that the client has yields; c may be nil.
func (c *claim) onlyYields() bool { return c != nil && c.yields > 0 && c.yields == c.places() }

// countYields adds by, +1 or -1, to what the slot counts, after the place of h came
// to the client's claim c, or left it; c is nil for a stream without a client id. Before
// that, the claim only yielded if wasYielding.
func (sl *slot) countYields(c *claim, h *registry.Holder, wasYielding bool, by int) {
	if h.Yields {
		sl.yields += by
	}
	switch {
	case c == nil && h.Yields:
		sl.yielding += by
	case c == nil, c.onlyYields() == wasYielding:
	case wasYielding:
		sl.yielding--
	default:
		sl.yielding++
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
