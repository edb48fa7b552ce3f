package harness

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// JWKSServer publishes a JWK Set (RFC 7517), and fails in every way that a test wants.
type JWKSServer struct {
	// URL is where the set is, also while the server is down.
	URL string

	addr   string
	server *http.Server
	served chan struct{} // closed once server has ended

	mu       sync.Mutex // guards the fields below; nothing is called with it held
	status   int
	body     string
	delay    time.Duration
	changed  chan struct{} // closed as the answer changes
	requests int
}

// NewJWKSServer publishes the issuers' keys until the test ends.
func NewJWKSServer(t testing.TB, issuers ...*Issuer) *JWKSServer {
	t.Helper()
	s := &JWKSServer{addr: fmt.Sprintf("127.0.0.1:%d", FreePort(t)), changed: make(chan struct{})}
	s.Publish(t, issuers...)
	s.Start(t)
	s.URL = "http://" + s.addr + "/jwks.json"
	t.Cleanup(func() { s.Stop(t) })
	return s
}

// Start has the server listen again after Stop, at the same address.
func (s *JWKSServer) Start(t testing.TB) {
	t.Helper()
	listener, err := net.Listen("tcp", s.addr)
	require.NoError(t, err)
	s.addr = listener.Addr().String()
	server, served := &http.Server{Handler: s}, make(chan struct{})
	s.server, s.served = server, served
	go func() {
		defer close(served)
		_ = server.Serve(listener)
	}()
}

// Stop has connections refused, and cuts those that are waiting for an answer.
func (s *JWKSServer) Stop(t testing.TB) {
	t.Helper()
	require.NoError(t, s.server.Close())
	<-s.served
}

// Publish has the server answer with the issuers' keys, at once.
func (s *JWKSServer) Publish(t testing.TB, issuers ...*Issuer) {
	t.Helper()
	s.Answer(http.StatusOK, JWKS(t, issuers...), 0)
}

// Answer has the server answer anything, after delay. Requests that wait for their delay
// already get this answer, without another delay.
func (s *JWKSServer) Answer(status int, body string, delay time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status, s.body, s.delay = status, body, delay
	close(s.changed)
	s.changed = make(chan struct{})
}

// Requested returns the number of requests so far.
func (s *JWKSServer) Requested() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

// WaitRequested waits until there were at least n requests.
func (s *JWKSServer) WaitRequested(t testing.TB, n int) {
	t.Helper()
	require.Eventually(t, func() bool { return s.Requested() >= n }, Patience, time.Millisecond,
		"the keys were not asked for %d times", n)
}

// ServeHTTP answers a request for the set, whatever its path.
func (s *JWKSServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests++
	delay, changed := s.delay, s.changed
	s.mu.Unlock()
	if !waitFor(r.Context(), delay, changed) {
		return
	}
	s.mu.Lock()
	status, body := s.status, s.body
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

// waitFor waits for delay or until changed; it returns false if ctx ends first.
func waitFor(ctx context.Context, delay time.Duration, changed <-chan struct{}) bool {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-changed:
	case <-ctx.Done():
		return false
	}
	return true
}
