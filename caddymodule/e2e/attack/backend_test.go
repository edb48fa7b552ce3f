package attack

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// carefreeBackend streams to whoever asks, by whatever method and without a look at
// any token, as handlers do that leave all that to their proxy. At its start page is
// nothing to be had without one.
type carefreeBackend struct {
	*httptest.Server
	// reached counts the requests that have come, and open those that stream.
	reached, open atomic.Int32
	// status is that of its answers; 0 is 200.
	status atomic.Int32
}

const secretText = "data: for its owner only\n\n"

func startBackend(t testing.TB) *carefreeBackend {
	t.Helper()
	b := new(carefreeBackend)
	b.Server = httptest.NewServer(b)
	t.Cleanup(b.Close)
	return b
}

func (b *carefreeBackend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.reached.Add(1)
	if r.URL.Path == "/logout" || r.URL.Path == "/" && len(r.Header["Authorization"]) == 0 {
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(max(int(b.status.Load()), http.StatusOK))
	b.open.Add(1)
	defer b.open.Add(-1)
	_, _ = io.WriteString(w, secretText)
	_ = http.NewResponseController(w).Flush()
	<-r.Context().Done()
}

// requireOpen waits until so many streams are open.
func (b *carefreeBackend) requireOpen(t testing.TB, n int32) {
	t.Helper()
	require.Eventually(t, func() bool { return b.open.Load() == n }, harness.Patience, time.Millisecond,
		"%d streams are expected to be open", n)
}

// behind is a site with a guard of these options in front of the backend.
func (b *carefreeBackend) behind(options ...string) string {
	return "sse_guard {\n" + strings.Join(options, "\n") + "\n}\nreverse_proxy " + b.URL
}

// tick sends an event every 20 ms.
func tick(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for r.Context().Err() == nil {
		_, _ = io.WriteString(w, "data: tick\n\n")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-ticker.C:
		case <-r.Context().Done():
		}
	}
}
