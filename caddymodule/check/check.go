// Package check finds out from the outside whether event streams are guarded: it opens
// some as the tabs of one browser would, and says in plain words what became of them.
//
// It knows the guard only by what it says on the wire, and nothing of Caddy.
package check

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Config says what to ask for, and how long to wait.
type Config struct {
	// URL is where the event stream is.
	URL string
	// Header is sent with every request, besides what an EventSource sends, or in its
	// place. It has the token, unless the URL has it.
	Header http.Header
	// Method is GET if it is empty. EventSource knows no other; other clients do.
	Method string
	// Body is sent with every request.
	Body string
	// Streams is how many streams are opened, one after another: 2 if it is 0. To see a
	// limit at work takes one more than the limit.
	Streams int
	// Insecure accepts every certificate.
	Insecure bool
	// AnswerTimeout is how long to wait for the header of an answer: 15 seconds if it is 0.
	// A guard holds a client back for up to 10 that has left and is back at once.
	AnswerTimeout time.Duration
	// Watch is how long to wait for something to happen once all streams are open:
	// 3 seconds if it is 0.
	Watch time.Duration
	// OnStep gets what happens, as it happens; it may be nil.
	OnStep func(Step)
}

// Bounds of Config.
const (
	MinStreams = 2
	MaxStreams = 100

	DefaultAnswerTimeout = 15 * time.Second
	DefaultWatch         = 3 * time.Second
)

const (
	// settle is how long an open stream has to say what it has to say at once, before the
	// next one is opened.
	settle = 500 * time.Millisecond
	// pause is how long an older stream has to be told, before one more is opened.
	pause = 50 * time.Millisecond
	// calm is how long nothing happens after the last notice before it is judged.
	calm = 300 * time.Millisecond
	// comeBackWithin is how long a client that comes back may have been told to wait, for
	// the check to wait with it.
	comeBackWithin = 5 * time.Second
)

func (c *Config) complete() error {
	u, err := url.Parse(c.URL)
	switch {
	case err != nil:
		return errors.New("the URL cannot be read: give one such as http://localhost:8080/events")
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return fmt.Errorf("the URL begins with %q: give one that begins with http:// or https:// and a host, such as http://localhost:8080/events", beginning(c.URL))
	case c.Streams != 0 && (c.Streams < MinStreams || c.Streams > MaxStreams):
		return fmt.Errorf("streams is %d: from %d to %d are allowed", c.Streams, MinStreams, MaxStreams)
	case c.AnswerTimeout < 0 || c.Watch < 0:
		return errors.New("a time to wait is negative")
	}
	if c.Method == "" {
		c.Method = http.MethodGet
	}
	if c.Streams == 0 {
		c.Streams = MinStreams
	}
	if c.AnswerTimeout == 0 {
		c.AnswerTimeout = DefaultAnswerTimeout
	}
	if c.Watch == 0 {
		c.Watch = DefaultWatch
	}
	return nil
}

// beginning is as much of a URL as can be shown: the rest may have a token in it.
func beginning(text string) string {
	text, _, _ = strings.Cut(text, "?")
	if len(text) > 20 {
		text = text[:20] + "…"
	}
	return text
}

// Run opens the streams, watches them and ends them again. It returns an error only
// where the configuration cannot be meant; whatever the server does is in the report.
// All connections are its own, and closed when it returns. If ctx ends before, the
// report says what was seen until then.
func Run(ctx context.Context, c Config) (*Report, error) {
	if err := c.complete(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	w := &watch{config: c, began: time.Now(), moments: make(chan moment)}
	w.drive(ctx)
	cancel()
	w.tabs.Wait()
	return w.report(), nil
}

// watch is one check. Its tabs tell it what happens; all but them is one goroutine.
type watch struct {
	config  Config
	began   time.Time
	moments chan moment
	tabs    sync.WaitGroup

	streams  []*stream // in the order in which they were opened
	steps    []Step
	presence presence
	stopped  bool // from outside
}

// drive opens the streams one after another, and waits until it is clear what becomes
// of them.
func (w *watch) drive(ctx context.Context) {
	for range w.config.Streams {
		s := w.open(ctx)
		w.await(ctx, w.config.AnswerTimeout, func() bool { return s.answered() })
		if !s.answered() {
			return
		}
		w.await(ctx, settle, func() bool { return s.spoke() })
		// A stream that was cut, for its client to come back, comes back.
		w.await(ctx, comeBackWithin, func() bool { return s.isOpen() || s.notice() != nil || s.closed })
		if !s.isOpen() && s.notice() == nil || w.stopped {
			return
		}
		if len(w.streams) == 1 && s.notice() != nil {
			return // it has met others already, which tells enough
		}
		if len(w.streams) > 1 && len(w.streams) < w.config.Streams {
			w.await(ctx, pause, func() bool { return false })
		}
	}
	w.await(ctx, w.config.Watch, w.noticed)
	if !w.noticed() {
		if w.allOpen() && !w.stopped {
			w.presence = w.askPresence(ctx)
		}
		return
	}
	w.await(ctx, calm, func() bool { return false })
	w.await(ctx, comeBackWithin+w.config.AnswerTimeout, w.settled)
}

// noticed reports whether the guard has told any stream anything.
func (w *watch) noticed() bool {
	for _, s := range w.streams {
		if s.notice() != nil {
			return true
		}
	}
	return false
}

func (w *watch) allOpen() bool {
	for _, s := range w.streams {
		if !s.isOpen() {
			return false
		}
	}
	return true
}

// settled reports whether every stream that carried a tombstone away has shown it, as
// far as it is told to within the time that the check waits.
func (w *watch) settled() bool {
	for _, s := range w.streams {
		n := s.notice()
		if n == nil || !n.Ends() || s.closed {
			continue
		}
		if n.Tombstone && n.Retry <= comeBackWithin && w.config.Method == http.MethodGet && s.showed() == nil {
			return false
		}
		if s.isOpen() && s.noticeOf() == s.last() {
			return false // its end is still to come
		}
	}
	return true
}

// await applies what the tabs tell until done, or until that much time has passed.
func (w *watch) await(ctx context.Context, atMost time.Duration, done func() bool) {
	timer := time.NewTimer(atMost)
	defer timer.Stop()
	for !done() && !w.stopped {
		select {
		case m := <-w.moments:
			m()
		case <-timer.C:
			return
		case <-ctx.Done():
			w.stopped = true
		}
	}
}
