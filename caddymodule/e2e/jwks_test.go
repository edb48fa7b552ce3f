package e2e

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// jwksServer publishes a JWK Set, and fails in every way that a test wants.
type jwksServer struct {
	// URL is where the set is, also while the server is down.
	URL string

	addr   string
	server *http.Server
	served chan struct{} // closed once server has ended

	mu       sync.Mutex
	status   int
	body     string
	delay    time.Duration
	changed  chan struct{} // closed as the answer changes
	requests int
}

// newJWKSServer publishes the issuers' keys until the test ends.
func newJWKSServer(t testing.TB, issuers ...*issuer) *jwksServer {
	t.Helper()
	s := &jwksServer{addr: "127.0.0.1:0", changed: make(chan struct{})}
	s.publish(t, issuers...)
	s.start(t)
	s.URL = "http://" + s.addr + "/jwks.json"
	t.Cleanup(func() { s.stop(t) })
	return s
}

// start has the server listen again after stop, at the same address.
func (s *jwksServer) start(t testing.TB) {
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

// stop has connections refused, and cuts those that are waiting for an answer.
func (s *jwksServer) stop(t testing.TB) {
	t.Helper()
	require.NoError(t, s.server.Close())
	<-s.served
}

// publish answers with the issuers' keys, at once.
func (s *jwksServer) publish(t testing.TB, issuers ...*issuer) {
	t.Helper()
	s.answer(http.StatusOK, jwks(t, issuers...), 0)
}

// answer answers anything, after delay. Requests that wait for their delay
// already get this answer, without another delay.
func (s *jwksServer) answer(status int, body string, delay time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status, s.body, s.delay = status, body, delay
	close(s.changed)
	s.changed = make(chan struct{})
}

// requested is the number of requests so far.
func (s *jwksServer) requested() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

// waitRequested waits until there were n requests.
func (s *jwksServer) waitRequested(t testing.TB, n int) {
	t.Helper()
	require.Eventually(t, func() bool { return s.requested() >= n }, patience, time.Millisecond,
		"the keys were not asked for %d times", n)
}

func (s *jwksServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
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
