package harness

import (
	"bytes"
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

// RequestOption changes a request before it is sent.
type RequestOption func(*http.Request)

// WithHeader sets a header.
func WithHeader(name, value string) RequestOption {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

// WithBearer sends the token as RFC 6750 section 2.1 says.
func WithBearer(token string) RequestOption {
	return WithHeader("Authorization", "Bearer "+token)
}

// WithPost makes the request a POST with that body.
func WithPost(body string) RequestOption {
	return func(r *http.Request) {
		r.Method = http.MethodPost
		r.Body = io.NopCloser(bytes.NewBufferString(body))
		r.ContentLength = int64(len(body))
	}
}

// WithQueryToken sends the token in the query, as a page's EventSource does.
func WithQueryToken(token string) RequestOption {
	return func(r *http.Request) {
		query := r.URL.Query()
		query.Set("token", token)
		r.URL.RawQuery = query.Encode()
	}
}

// WithClient sends a client id, which names the device that a request comes from.
func WithClient(id string) RequestOption { return WithHeader("X-Client-Id", id) }

// Get sends a GET without Accept on a connection of its own, and returns the answer,
// whose body is closed, and the body. It follows no redirect.
func Get(t testing.TB, url string, options ...RequestOption) (*http.Response, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	for _, option := range options {
		option(request)
	}
	transport := &http.Transport{DisableCompression: true}
	defer transport.CloseIdleConnections()
	response, err := transport.RoundTrip(request)
	require.NoError(t, err)
	defer response.Body.Close()
	var body bytes.Buffer
	_, err = body.ReadFrom(response.Body)
	require.NoError(t, err)
	return response, body.String()
}

// Send is Get with another method.
func Send(t testing.TB, method, url string, options ...RequestOption) (*http.Response, string) {
	t.Helper()
	options = append([]RequestOption{func(r *http.Request) { r.Method = method }}, options...)
	return Get(t, url, options...)
}
