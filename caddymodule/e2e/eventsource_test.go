package e2e

import (
	"context"
	"mime"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// eventSourceLike connects and connects again as a browser's EventSource does
// (WHATWG HTML 9.2): it comes back after a connection error and after the end
// of a stream, with the last id it saw; any other answer than 200 with an event
// stream closes it for ever.
type eventSourceLike struct {
	events chan sseEvent // of all its connections; closed when it is
	cancel context.CancelFunc
	closed chan struct{}

	mu       sync.Mutex
	connects int
	statuses []int
	lastID   string
	stream   *sseStream
}

// defaultRetry stands for the few seconds that browsers wait.
const defaultRetry = 50 * time.Millisecond

// newEventSource starts connecting. It stops by itself as an EventSource would,
// with close, or at the test's end.
func newEventSource(t testing.TB, client *sseClient, url string, options ...requestOption) *eventSourceLike {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	e := &eventSourceLike{
		events: make(chan sseEvent, 1<<14),
		cancel: cancel,
		closed: make(chan struct{}),
	}
	go e.run(ctx, client, url, options)
	t.Cleanup(e.close)
	return e
}

func (e *eventSourceLike) run(ctx context.Context, client *sseClient, url string, options []requestOption) {
	defer close(e.closed)
	defer close(e.events)
	retry := defaultRetry
	for {
		s, err := e.connect(ctx, client, url, options)
		if err == nil {
			usable := isEventStream(s)
			if usable {
				e.relay(ctx, s)
			}
			s.close()
			if !usable {
				return
			}
			e.left(s)
			if r := s.retry(); r != nil {
				retry = *r // it sticks until the server sends another
			}
		}
		wait := time.NewTimer(retry)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return
		}
	}
}

func (e *eventSourceLike) connect(ctx context.Context, client *sseClient, url string, options []requestOption) (*sseStream, error) {
	e.mu.Lock()
	e.connects++
	lastID := e.lastID
	e.mu.Unlock()

	s, err := client.connect(ctx, url, lastID, options...)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.statuses = append(e.statuses, s.Status)
	e.stream = s
	return s, nil
}

func (e *eventSourceLike) relay(ctx context.Context, s *sseStream) {
	for event := range s.events { // it ends when the stream does, which ctx sees to
		select {
		case e.events <- event:
		case <-ctx.Done():
		}
	}
}

func (e *eventSourceLike) left(s *sseStream) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lastID = s.lastID()
	e.stream = nil
}

func isEventStream(s *sseStream) bool {
	mediaType, _, err := mime.ParseMediaType(s.Header.Get("Content-Type"))
	return s.Status == http.StatusOK && err == nil && mediaType == "text/event-stream"
}

// next waits for the next event, over as many connections as it takes.
func (e *eventSourceLike) next(t testing.TB) sseEvent {
	t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case event, ok := <-e.events:
		require.True(t, ok, "the EventSource closed where an event was expected; statuses %v", e.answers())
		return event
	case <-timeout.C:
		require.FailNow(t, "no event came", "after %d connects, statuses %v", e.count(), e.answers())
		panic("unreachable")
	}
}

// waitClosed waits until it has given up for ever, and returns the statuses it got.
func (e *eventSourceLike) waitClosed(t testing.TB) []int {
	t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case <-e.closed:
	case <-timeout.C:
		require.FailNow(t, "the EventSource does not close", "after %d connects, statuses %v", e.count(), e.answers())
	}
	return e.answers()
}

// readyState is what a page reads from an EventSource: "CONNECTING", "OPEN" or "CLOSED".
func (e *eventSourceLike) readyState() string {
	select {
	case <-e.closed:
		return "CLOSED"
	default:
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stream == nil || !isEventStream(e.stream) {
		return "CONNECTING"
	}
	return "OPEN"
}

// count is how often it has tried to connect.
func (e *eventSourceLike) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.connects
}

// answers are the statuses it got, in order; a connection error gives none.
func (e *eventSourceLike) answers() []int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.statuses)
}

// close is EventSource.close(): it leaves, and never comes back.
func (e *eventSourceLike) close() {
	e.cancel()
	<-e.closed
}
