package harness

import (
	"context"
	"crypto/tls"
	"net/http"
	"sync"
	"testing"

	quichttp3 "github.com/quic-go/quic-go/http3"
	"github.com/stretchr/testify/require"
)

// Client opens event streams. It trusts every certificate, and asks for no
// compression unless a request does.
type Client struct {
	// HTTP is for requests that open no stream.
	HTTP http.Client
}

// NewClient makes a client with connections of its own, which are closed
// when the test ends.
func NewClient(t testing.TB, p Protocol) *Client {
	t.Helper()
	trusting := &tls.Config{InsecureSkipVerify: true}
	if p == HTTP3 {
		transport := &quichttp3.Transport{TLSClientConfig: trusting, DisableCompression: true}
		t.Cleanup(func() { require.NoError(t, transport.Close()) })
		return &Client{HTTP: http.Client{Transport: transport}}
	}
	var protocols http.Protocols
	protocols.SetHTTP1(p == HTTP1)
	protocols.SetHTTP2(p == HTTP2)
	protocols.SetUnencryptedHTTP2(p == H2C)
	transport := &http.Transport{TLSClientConfig: trusting, Protocols: &protocols, DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &Client{HTTP: http.Client{Transport: transport}}
}

// Open sends the request of an EventSource, as the options change it, and
// returns once the header is there, whatever its status. The test's end closes
// what is still open.
func (c *Client) Open(t testing.TB, url string, options ...RequestOption) *Stream {
	t.Helper()
	s, err := c.Connect(t.Context(), url, "", options...)
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return s
}

// Connect is Open for callers that take errors, which are those of http.Client.Do.
// It sends lastID as Last-Event-ID unless that is empty. The stream lives until it
// ends, is closed, or ctx ends; the caller closes it.
func (c *Client) Connect(ctx context.Context, url, lastID string, options ...RequestOption) (*Stream, error) {
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
	response, err := c.HTTP.Do(request)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	s := &Stream{
		Status: response.StatusCode,
		Header: response.Header,
		Proto:  response.Proto,
		// Room for what a test leaves unread, so that it does not hold up the reading.
		events: make(chan Event, 1<<14),
		cancel: cancel,
		done:   make(chan struct{}),
	}
	s.parser = NewParser(lastID, func(e Event) { s.parsed = append(s.parsed, e) })
	go s.read(ctx, response)
	return s, nil
}

// StartRequest asks for a stream and does not wait for the answer. leave cancels
// the request. answered gets nil when the header is there, and the stream is closed
// then, or the error.
func (c *Client) StartRequest(t testing.TB, url string, options ...RequestOption) (leave func(), answered <-chan error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	errs := make(chan error, 1)
	var asking sync.WaitGroup
	asking.Go(func() {
		s, err := c.Connect(ctx, url, "", options...)
		if err == nil {
			s.Close()
		}
		errs <- err
	})
	t.Cleanup(func() {
		cancel()
		asking.Wait()
	})
	return cancel, errs
}

// OpenAtOnce opens n streams at the same time, each from a client of its own over
// HTTP/1.1.
func OpenAtOnce(t testing.TB, n int, url string, options ...RequestOption) []*Stream {
	t.Helper()
	streams := make([]*Stream, n)
	errs := make([]error, n)
	var opening sync.WaitGroup
	for i := range n {
		client := NewClient(t, HTTP1)
		opening.Go(func() { streams[i], errs[i] = client.Connect(t.Context(), url, "", options...) })
	}
	opening.Wait()
	for i := range n {
		require.NoError(t, errs[i])
		t.Cleanup(streams[i].Close)
	}
	return streams
}
