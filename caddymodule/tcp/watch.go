package tcp

import (
	"math"
	"slices"
	"sync"
	"time"
)

// timeout is a TCP_USER_TIMEOUT in milliseconds; 0: the system's default.
type timeout int32

// timeoutOf rounds up, for 0 would be the opposite of a very short time.
func timeoutOf(d time.Duration) timeout {
	if d > math.MaxInt32*time.Millisecond {
		return math.MaxInt32
	}
	return timeout((d + time.Millisecond - 1) / time.Millisecond)
}

// Watch has the kernel give up the connection when the client has acknowledged
// nothing, or taken nothing in, for d, for as long as the returned function has
// not been called. That may be called any number of times.
//
// The streams of an HTTP/2 connection share it, and end with it: the greatest d of
// those watching counts. When the last one leaves, the connection has back the timeout that it
// had before. If it had one already, that counts as long as it is the shorter one.
//
// Data that is overdue already when the timeout changes is judged when it is
// retransmitted next. A d of zero or less is one that never is over: as long as it
// watches, the kernel gives up by itself only.
func (c *Conn) Watch(d time.Duration) (leave func()) {
	if c == nil {
		return func() {}
	}
	if d <= 0 {
		d = never
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	at, _ := slices.BinarySearch(c.watches, d)
	c.watches = slices.Insert(c.watches, at, d)
	c.adjust()
	return sync.OnceFunc(func() { c.leave(d) })
}

func (c *Conn) leave(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, _ := slices.BinarySearch(c.watches, d)
	c.watches = slices.Delete(c.watches, at, at+1)
	c.adjust()
}

// never is longer than any connection lives.
const never = math.MaxInt64 * time.Nanosecond

// adjust sets the timeout that those watching want, or the one from before them.
func (c *Conn) adjust() {
	if len(c.watches) == 0 || c.watches[len(c.watches)-1] == never {
		if c.watched != 0 {
			c.setUserTimeout(c.before)
		}
		c.watched = 0
		return
	}
	if c.watched == 0 {
		before, ok := c.userTimeout()
		if !ok {
			return
		}
		c.before = before
	}
	want := timeoutOf(c.watches[len(c.watches)-1])
	if c.before != 0 {
		want = min(want, c.before)
	}
	if want != c.watched && c.setUserTimeout(want) {
		c.watched = want
	}
}
