package contest

import (
	"slices"
	"time"
)

// takeovers are the latest takeovers of one key.
type takeovers struct {
	// from has each address once, the latest last.
	from []arrival
	// keep is how many of them are remembered: the most that was ever asked for.
	keep int
	// told is when the key was last called contested; zero: not yet.
	told time.Time
}

// arrival is when a client at addr last took the key over.
type arrival struct {
	addr string
	at   time.Time
}

// add notes a, for a contest among so many addresses.
func (t *takeovers) add(a arrival, addrs int) {
	t.keep = max(t.keep, addrs)
	t.from = slices.DeleteFunc(t.from, func(b arrival) bool { return b.addr == a.addr })
	if len(t.from) == t.keep {
		t.from = slices.Delete(t.from, 0, 1)
	}
	t.from = append(t.from, a)
}

// contest returns the latest addresses if so many came within window, unless
// that was told within it already.
func (t *takeovers) contest(now time.Time, addrs int, window time.Duration) []string {
	if len(t.from) < addrs || !t.told.IsZero() && now.Sub(t.told) < window {
		return nil
	}
	latest := t.from[len(t.from)-addrs:]
	if now.Sub(latest[0].at) >= window {
		return nil
	}
	t.told = now
	out := make([]string, addrs)
	for i, a := range latest {
		out[i] = a.addr
	}
	return out
}
