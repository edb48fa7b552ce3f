package harness

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Stream is one response, whatever its status, and the events that come with it. A
// goroutine reads it until it ends or is closed.
type Stream struct {
	Status int
	Header http.Header
	Proto  string // as net/http names it: "HTTP/2.0"

	events chan Event // closed at the end
	cancel context.CancelCauseFunc
	done   chan struct{} // closed after end is set
	end    StreamEnd

	// mu guards the fields below. Only the parser is called with it held.
	mu     sync.Mutex
	parser *Parser
	parsed []Event // of the present write, on their way to events
	raw    bytes.Buffer
}

// ErrClientLeft is how a stream ends that the client itself has closed.
var ErrClientLeft = errors.New("the client left")

// StreamEnd tells how a stream ended.
type StreamEnd struct {
	// Err is nil for a clean end (the last chunk, END_STREAM), ErrClientLeft
	// if the client closed the stream, else what broke it.
	Err error
	// Torn says that the last event lacked its blank line.
	Torn bool
	// Trailer is what came after the body, if anything.
	Trailer http.Header
}

// Clean reports whether the stream ended as its server meant it to.
func (e StreamEnd) Clean() bool { return e.Err == nil }

// Cut reports whether the server, or the network, cut the stream off.
func (e StreamEnd) Cut() bool { return e.Err != nil && !errors.Is(e.Err, ErrClientLeft) }

func (s *Stream) read(ctx context.Context, response *http.Response) {
	defer close(s.done)
	defer close(s.events)
	defer response.Body.Close()
	_, err := io.Copy(streamWriter{s, ctx}, response.Body)
	if err != nil && errors.Is(context.Cause(ctx), ErrClientLeft) {
		err = ErrClientLeft
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end = StreamEnd{Err: err, Torn: s.parser.Torn(), Trailer: response.Trailer}
}

// streamWriter takes in the body as it is read.
type streamWriter struct {
	*Stream
	ctx context.Context // of the request
}

// Write keeps the bytes, and then hands on the events that are complete with them.
func (w streamWriter) Write(b []byte) (int, error) {
	for _, e := range w.take(b) {
		select {
		case w.events <- e:
			continue // what has room is kept, also of a stream that was closed
		default:
		}
		select {
		case w.events <- e:
		case <-w.ctx.Done(): // nobody takes events of a stream that was closed
		}
	}
	return len(b), nil
}

func (s *Stream) take(b []byte) []Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.raw.Write(b)
	_, _ = s.parser.Write(b) // which never fails
	events := s.parsed
	s.parsed = nil
	return events
}

// Next waits for the next event.
func (s *Stream) Next(t testing.TB) Event {
	t.Helper()
	timeout := time.NewTimer(Patience)
	defer timeout.Stop()
	select {
	case e, ok := <-s.events:
		if !ok {
			require.FailNow(t, "the stream ended where an event was expected", "%+v; all it sent:\n%s", s.end, s.Bytes())
		}
		return e
	case <-timeout.C:
		require.FailNow(t, "no event came", "all that came before:\n%s", s.Bytes())
		panic("unreachable")
	}
}

// NextOfType waits for the next event of that type and drops those before it.
func (s *Stream) NextOfType(t testing.TB, eventType string) Event {
	t.Helper()
	for {
		if e := s.Next(t); e.Type == eventType {
			return e
		}
	}
}

// Rest waits for the end of the stream and returns the events not taken yet.
func (s *Stream) Rest(t testing.TB) []Event {
	t.Helper()
	s.Wait(t)
	var events []Event
	for e := range s.events {
		events = append(events, e)
	}
	return events
}

// Wait waits for the end of the stream, and tells how it ended.
func (s *Stream) Wait(t testing.TB) StreamEnd {
	t.Helper()
	timeout := time.NewTimer(Patience)
	defer timeout.Stop()
	select {
	case <-s.done:
		return s.end
	case <-timeout.C:
		require.FailNow(t, "the stream does not end", "all it sent:\n%s", s.Bytes())
		panic("unreachable")
	}
}

// Events returns the channel of the events not taken yet, which is closed at the
// stream's end.
func (s *Stream) Events() <-chan Event { return s.events }

// Done returns a channel that is closed once the stream has ended and been read.
func (s *Stream) Done() <-chan struct{} { return s.done }

// Ended reports whether the stream has ended by now.
func (s *Stream) Ended() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// Close leaves, as a closed tab does, and waits until the stream is gone. Closing it
// twice, or after its end, is fine.
func (s *Stream) Close() {
	s.cancel(ErrClientLeft)
	<-s.done
}

// Bytes returns the body as it came, so far.
func (s *Stream) Bytes() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.raw.Bytes())
}

// LastID is the Last-Event-ID that a reconnect would send now.
func (s *Stream) LastID() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.parser.lastID
}

// Retry is the reconnection time that the stream has set; nil: none.
func (s *Stream) Retry() *time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.parser.retry
}
