package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	quichttp3 "github.com/quic-go/quic-go/http3"
	"github.com/stretchr/testify/require"
)

// protocol is how a client speaks to its server.
type protocol string

// All but http2 and http3 take http:// URLs; http1 takes https:// too.
const (
	http1 protocol = "HTTP/1.1"
	http2 protocol = "HTTP/2"
	h2c   protocol = "HTTP/2 without TLS"
	http3 protocol = "HTTP/3"
)

// sseClient opens event streams. It trusts every certificate, and asks for no
// compression unless a request does.
type sseClient struct{ http http.Client }

// newSSEClient makes a client with connections of its own, which are closed
// when the test ends.
func newSSEClient(t testing.TB, p protocol) *sseClient {
	t.Helper()
	trusting := &tls.Config{InsecureSkipVerify: true}
	if p == http3 {
		transport := &quichttp3.Transport{TLSClientConfig: trusting, DisableCompression: true}
		t.Cleanup(func() { require.NoError(t, transport.Close()) })
		return &sseClient{http.Client{Transport: transport}}
	}
	var protocols http.Protocols
	protocols.SetHTTP1(p == http1)
	protocols.SetHTTP2(p == http2)
	protocols.SetUnencryptedHTTP2(p == h2c)
	transport := &http.Transport{TLSClientConfig: trusting, Protocols: &protocols, DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &sseClient{http.Client{Transport: transport}}
}

// requestOption changes a request before it is sent.
type requestOption func(*http.Request)

func withHeader(name, value string) requestOption {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

func withBearer(token string) requestOption {
	return withHeader("Authorization", "Bearer "+token)
}

func withPost(body string) requestOption {
	return func(r *http.Request) {
		r.Method = http.MethodPost
		r.Body = io.NopCloser(bytes.NewBufferString(body))
		r.ContentLength = int64(len(body))
	}
}

// open sends the request of an EventSource, as the options change it, and
// returns once the header is there, whatever its status. The test's end closes
// what is still open.
func (c *sseClient) open(t testing.TB, url string, options ...requestOption) *sseStream {
	t.Helper()
	s, err := c.connect(t.Context(), url, "", options...)
	require.NoError(t, err)
	t.Cleanup(s.close)
	return s
}

// connect is open for callers that take errors. The stream lives until it
// ends, is closed, or ctx ends.
func (c *sseClient) connect(ctx context.Context, url, lastID string, options ...requestOption) (*sseStream, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	request.Header.Set("Accept", "text/event-stream")
	request.Header.Set("Cache-Control", "no-store")
	if lastID != "" {
		request.Header.Set("Last-Event-ID", lastID)
	}
	for _, option := range options {
		option(request)
	}
	response, err := c.http.Do(request)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	s := &sseStream{
		Status: response.StatusCode,
		Header: response.Header,
		Proto:  response.Proto,
		// Room for what a test leaves unread, so that it does not hold up the reading.
		events: make(chan sseEvent, 1<<14),
		cancel: cancel,
		done:   make(chan struct{}),
	}
	s.parser = newSSEParser(lastID, func(e sseEvent) {
		select {
		case s.events <- e:
		case <-ctx.Done():
		}
	})
	go s.read(ctx, response)
	return s, nil
}

var errClientLeft = errors.New("the client left")

// sseStream is one response and the events that come with it.
type sseStream struct {
	Status int
	Header http.Header
	Proto  string // as net/http names it: "HTTP/2.0"

	events chan sseEvent // closed at the end
	cancel context.CancelCauseFunc
	done   chan struct{} // closed after end is set
	end    streamEnd

	mu     sync.Mutex
	parser *sseParser
	raw    bytes.Buffer
}

// streamEnd tells how a stream ended.
type streamEnd struct {
	// Err is nil for a clean end (the last chunk, END_STREAM), errClientLeft
	// if the client closed the stream, else what broke it.
	Err error
	// Torn says that the last event lacked its blank line.
	Torn bool
	// Trailer is what came after the body, if anything.
	Trailer http.Header
}

func (e streamEnd) clean() bool { return e.Err == nil }

func (s *sseStream) read(ctx context.Context, response *http.Response) {
	defer close(s.done)
	defer close(s.events)
	defer response.Body.Close()
	_, err := io.Copy(sseStreamWriter{s}, response.Body)
	if err != nil && errors.Is(context.Cause(ctx), errClientLeft) {
		err = errClientLeft
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end = streamEnd{Err: err, Torn: s.parser.torn(), Trailer: response.Trailer}
}

type sseStreamWriter struct{ *sseStream }

func (w sseStreamWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.raw.Write(b)
	return w.parser.Write(b)
}

// next waits for the next event.
func (s *sseStream) next(t testing.TB) sseEvent {
	t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case e, ok := <-s.events:
		if !ok {
			require.FailNow(t, "the stream ended where an event was expected", "%+v; all it sent:\n%s", s.end, s.bytes())
		}
		return e
	case <-timeout.C:
		require.FailNow(t, "no event came", "all that came before:\n%s", s.bytes())
		panic("unreachable")
	}
}

// nextOfType waits for the next event of that type and drops those before it.
func (s *sseStream) nextOfType(t testing.TB, eventType string) sseEvent {
	t.Helper()
	for {
		if e := s.next(t); e.Type == eventType {
			return e
		}
	}
}

// rest waits for the end of the stream and returns the events not taken yet.
func (s *sseStream) rest(t testing.TB) []sseEvent {
	t.Helper()
	s.wait(t)
	var events []sseEvent
	for e := range s.events {
		events = append(events, e)
	}
	return events
}

// wait waits for the end of the stream.
func (s *sseStream) wait(t testing.TB) streamEnd {
	t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case <-s.done:
		return s.end
	case <-timeout.C:
		require.FailNow(t, "the stream does not end", "all it sent:\n%s", s.bytes())
		panic("unreachable")
	}
}

// ended reports whether the stream has ended by now.
func (s *sseStream) ended() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// close leaves, as a closed tab does, and waits until the stream is gone.
func (s *sseStream) close() {
	s.cancel(errClientLeft)
	<-s.done
}

// bytes returns the body as it came, so far.
func (s *sseStream) bytes() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.raw.Bytes())
}

// lastID is the Last-Event-ID that a reconnect would send now.
func (s *sseStream) lastID() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.parser.lastID
}

// retry is the reconnection time that the stream has set; nil: none.
func (s *sseStream) retry() *time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.parser.retry
}
