package main

import "sync/atomic"

// countdown tells when a number of events has come. A nil countdown counts
// nothing.
type countdown struct {
	left atomic.Int64
	done chan struct{} // closed when none is left
}

func newCountdown(n int) *countdown {
	c := &countdown{done: make(chan struct{})}
	c.left.Store(int64(n))
	return c
}

// one counts one event. More than expected do no harm.
func (c *countdown) one() {
	if c != nil && c.left.Add(-1) == 0 {
		close(c.done)
	}
}
