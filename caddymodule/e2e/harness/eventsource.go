package harness

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

// EventSource connects and connects again as a browser's EventSource does
// (WHATWG HTML 9.2): it comes back after a connection error and after the end
// of a stream, with the last id it saw; any other answer than 200 with an event
// stream closes it for ever.
type EventSource struct {
	events chan Event // of all its connections; closed when it is
	cancel context.CancelFunc
	closed chan struct{}

	// mu guards the fields below. Methods of Stream may be called with it held.
	mu       sync.Mutex
	connects int
	statuses []int
	lastID   string
	stream   *Stream
}

// defaultRetry stands for the few seconds that browsers wait.
const defaultRetry = 50 * time.Millisecond

// NewEventSource starts connecting. It stops by itself as an EventSource would,
// with Close, or at the test's end.
func NewEventSource(t testing.TB, client *Client, url string, options ...RequestOption) *EventSource {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	e := &EventSource{
		events: make(chan Event, 1<<14),
		cancel: cancel,
		closed: make(chan struct{}),
	}
	go e.run(ctx, client, url, options)
	t.Cleanup(e.Close)
	return e
}

func (e *EventSource) run(ctx context.Context, client *Client, url string, options []RequestOption) {
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
			s.Close()
			if !usable {
				return
			}
			e.left(s)
			if r := s.Retry(); r != nil {
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

func (e *EventSource) connect(ctx context.Context, client *Client, url string, options []RequestOption) (*Stream, error) {
	e.mu.Lock()
	e.connects++
	lastID := e.lastID
	e.mu.Unlock()

	s, err := client.Connect(ctx, url, lastID, options...)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.statuses = append(e.statuses, s.Status)
	e.stream = s
	return s, nil
}

func (e *EventSource) relay(ctx context.Context, s *Stream) {
	for event := range s.Events() { // it ends when the stream does, which ctx sees to
		select {
		case e.events <- event:
		case <-ctx.Done():
		}
	}
}

// left notes what the next connection starts from.
func (e *EventSource) left(s *Stream) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lastID = s.LastID()
	e.stream = nil
}

func isEventStream(s *Stream) bool {
	mediaType, _, err := mime.ParseMediaType(s.Header.Get("Content-Type"))
	return s.Status == http.StatusOK && err == nil && mediaType == "text/event-stream"
}

// Next waits for the next event, over as many connections as it takes.
func (e *EventSource) Next(t testing.TB) Event {
	t.Helper()
	timeout := time.NewTimer(Patience)
	defer timeout.Stop()
	select {
	case event, ok := <-e.events:
		require.True(t, ok, "the EventSource closed where an event was expected; statuses %v", e.Answers())
		return event
	case <-timeout.C:
		require.FailNow(t, "no event came", "after %d connects, statuses %v", e.Count(), e.Answers())
		panic("unreachable")
	}
}

// WaitClosed waits until it has given up for ever, and returns the statuses it got.
func (e *EventSource) WaitClosed(t testing.TB) []int {
	t.Helper()
	timeout := time.NewTimer(Patience)
	defer timeout.Stop()
	select {
	case <-e.closed:
	case <-timeout.C:
		require.FailNow(t, "the EventSource does not close", "after %d connects, statuses %v", e.Count(), e.Answers())
	}
	return e.Answers()
}

// Events returns the channel of the events not taken yet, of all its connections.
// It is closed once the EventSource is.
func (e *EventSource) Events() <-chan Event { return e.events }

// ReadyState is what a page reads from an EventSource: "CONNECTING", "OPEN" or "CLOSED".
func (e *EventSource) ReadyState() string {
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

// Count returns how often it has tried to connect.
func (e *EventSource) Count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.connects
}

// Answers returns the statuses it got, in order; a connection error gives none.
func (e *EventSource) Answers() []int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.statuses)
}

// Close is EventSource.close(): it leaves, and never comes back.
func (e *EventSource) Close() {
	e.cancel()
	<-e.closed
}
