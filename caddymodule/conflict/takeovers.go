package conflict

import (
	"slices"
	"time"
)

// takeovers are the latest takeovers of one key.
type takeovers struct {
	// from has each address once, the latest last.
	from []takeover
	// keep is how many of them are remembered: the most that was ever asked for.
	keep int
	// told is when the key was last called contested; zero: not yet.
	told time.Time
}

// takeover is when a client at addr last took the key over.
type takeover struct {
	addr string
	at   time.Time
}

// add notes the latest takeover. So many addresses make the key contested.
func (t *takeovers) add(latest takeover, addrs int) {
	t.keep = max(t.keep, addrs)
	t.from = slices.DeleteFunc(t.from, func(old takeover) bool { return old.addr == latest.addr })
	if len(t.from) == t.keep {
		t.from = slices.Delete(t.from, 0, 1)
	}
	t.from = append(t.from, latest)
}

// contested returns the latest addresses if so many came within window, unless
// that was told within it already.
func (t *takeovers) contested(now time.Time, addrs int, window time.Duration) []string {
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
