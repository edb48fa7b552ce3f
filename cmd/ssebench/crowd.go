package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// crowd is the clients that hold streams of one Caddy, each with a token of
// its own.
type crowd struct {
	address string
	path    string
	first   int // the number of the first token

	readers  sync.WaitGroup
	awaited  atomic.Pointer[countdown]
	failed   chan error // the first unexpected end of a stream
	closing  atomic.Bool
	mu       sync.Mutex
	streams  []*stream
	released func() bool
}

// stream is one client's.
type stream struct {
	conn  *connection
	token string
	// superseded gets the time when the guard said that a newer stream took over.
	superseded chan time.Time
}

// opening says when a request was about to be sent and when the first byte of
// its response was there.
type opening struct{ asked, answered time.Time }

// duplicated is the event that a superseded stream gets.
const duplicated = "DUPLICATED_CONNECTION"

// newCrowd returns a crowd without streams. It closes when ctx is done.
func newCrowd(ctx context.Context, address, group string) *crowd {
	c := &crowd{address: address, path: pathEvents + "?group=" + group, failed: make(chan error, 1)}
	c.released = context.AfterFunc(ctx, c.hangUp)
	return c
}

// openersAtOnce is how many clients open their streams at the same time.
const openersAtOnce = 32

// open opens n streams and waits for the first event of each.
func (c *crowd) open(ctx context.Context, n int) error {
	first := c.expect(n)
	var (
		next    atomic.Int64
		openers sync.WaitGroup
	)
	for range min(n, openersAtOnce) {
		openers.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n || ctx.Err() != nil {
					return
				}
				if _, _, err := c.join(ctx, token(c.first+i)); err != nil {
					c.fail(err)
					next.Store(int64(n))
				}
			}
		})
	}
	openers.Wait()
	return c.wait(ctx, first)
}

func token(i int) string { return fmt.Sprintf("ssebench-token-%06d", i) }

// join opens one stream and leaves a goroutine that reads it.
func (c *crowd) join(ctx context.Context, token string) (*stream, opening, error) {
	var o opening
	conn, err := dial(ctx, c.address)
	if err != nil {
		return nil, o, fmt.Errorf("opening the stream of %s: %w", token, err)
	}
	s := &stream{conn: conn, token: token, superseded: make(chan time.Time, 1)}
	if !c.add(s) {
		return nil, o, fmt.Errorf("opening the stream of %s: %w", token, context.Canceled)
	}
	req := request(c.path, "text/event-stream", token)
	_ = conn.SetReadDeadline(time.Now().Add(patience))

	o.asked = time.Now()
	if _, err = conn.Write(req); err == nil {
		_, err = conn.r.Peek(1)
		o.answered = time.Now()
	}
	if err != nil {
		return nil, o, fmt.Errorf("opening the stream of %s: %w", token, err)
	}
	resp, err := conn.head()
	if err != nil {
		return nil, o, fmt.Errorf("opening the stream of %s: %w", token, err)
	}
	if ct := resp.Header.Get("Content-Type"); ct != "text/event-stream" {
		_ = resp.Body.Close()
		return nil, o, fmt.Errorf("opening the stream of %s: expected text/event-stream, got %q", token, ct)
	}
	_ = conn.SetReadDeadline(time.Time{})
	c.readers.Go(func() {
		defer resp.Body.Close()
		c.follow(s, eventReader{r: resp.Body})
	})
	return s, o, nil
}

// add keeps s to be closed with the crowd, or closes it if that has happened.
func (c *crowd) add(s *stream) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing.Load() {
		_ = s.conn.Close()
		return false
	}
	c.streams = append(c.streams, s)
	return true
}

// follow reads a stream to its end.
func (c *crowd) follow(s *stream, events eventReader) {
	superseded := false
	err := events.read(func(name string) {
		if name == duplicated {
			superseded = true
			select {
			case s.superseded <- time.Now():
			default: // told already
			}
			return
		}
		c.awaited.Load().one()
	})
	_ = s.conn.Close()
	switch {
	case c.closing.Load():
	case err != nil:
		c.fail(fmt.Errorf("reading the stream of %s: %w", s.token, err))
	case !superseded:
		c.fail(fmt.Errorf("the stream of %s ended, nobody asked it to", s.token))
	}
}

func (c *crowd) fail(err error) {
	select {
	case c.failed <- err:
	default: // only the first counts
	}
}

// expect counts down from n events, on whichever streams, from now on.
func (c *crowd) expect(n int) *countdown {
	d := newCountdown(n)
	c.awaited.Store(d)
	return d
}

// wait waits until all expected events have come. A stop of the traffic for as
// long as patience is an error.
func (c *crowd) wait(ctx context.Context, d *countdown) error {
	stalled := time.NewTicker(patience)
	defer stalled.Stop()
	left := d.left.Load()
	for {
		select {
		case <-d.done:
			return nil
		case err := <-c.failed:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-stalled.C:
			now := d.left.Load()
			if now == left {
				return fmt.Errorf("no event for %s, %d are missing", patience, now)
			}
			left = now
		}
	}
}

// hangUp closes all connections.
func (c *crowd) hangUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closing.Store(true)
	for _, s := range c.streams {
		_ = s.conn.Close()
	}
	c.streams = nil
}

// close hangs up and waits until the readers are gone.
func (c *crowd) close() {
	c.released()
	c.hangUp()
	c.readers.Wait()
}

// failure is the first unexpected end so far.
func (c *crowd) failure() error {
	select {
	case err := <-c.failed:
		return err
	default:
		return nil
	}
}
