package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// tally is a backend that allows one stream, and counts one until some time after
// its request is over.
type tally struct {
	*httptest.Server
	lag  time.Duration
	open atomic.Int32
	// refuse answers a request that is one too many.
	refuse http.HandlerFunc

	mu   sync.Mutex // guards came
	came []string   // each request as it came
}

func startTally(t testing.TB, lag time.Duration, protocol string) *tally {
	t.Helper()
	b := &tally{lag: lag, refuse: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Set-Cookie", "refused=1")
		http.Error(w, "one stream only", http.StatusConflict)
	}}
	b.Server = httptest.NewUnstartedServer(http.HandlerFunc(b.answer))
	if protocol == "h2c" {
		b.Config.Protocols = new(http.Protocols)
		b.Config.Protocols.SetUnencryptedHTTP2(true)
	}
	b.Start()
	t.Cleanup(b.Close)
	return b
}

func (b *tally) answer(w http.ResponseWriter, r *http.Request) {
	b.note(r)
	if b.open.Add(1) > 1 {
		b.open.Add(-1)
		b.refuse(w, r)
		return
	}
	defer time.AfterFunc(b.lag, func() { b.open.Add(-1) })
	w.Header().Set("Content-Type", "text/event-stream")
	_, _ = io.WriteString(w, "data: a\n\n")
	_ = http.NewResponseController(w).Flush()
	<-r.Context().Done()
}

func (b *tally) note(r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.came = append(b.came, fmt.Sprint(r.URL, " ", r.Header["X-Hop"]))
}

func (b *tally) tries() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.came)
}

// site has handlers behind the guard that change the request, each time that they
// see it.
func (b *tally) site(protocol, options string) string {
	return fmt.Sprintf(`sse_guard {
			%s
		}
		handle_path /api/* {
			vars hop {vars.hop}x
			uri query +page 1
			request_header +X-Hop {vars.hop}
			header +X-Answered {vars.hop}
			reverse_proxy %s://%s
		}
		handle {
			respond "no such page" 404
		}`, options, protocol, b.Listener.Addr())
}

// TestRetryRefused_ABackendThatStillCountsTheOlderStream lets the newcomer in a
// little later.
func TestRetryRefused_ABackendThatStillCountsTheOlderStream(t *testing.T) {
	for _, upstream := range []string{"http", "h2c"} {
		for name, refuse := range map[string]http.HandlerFunc{
			"a short refusal": nil,
			"one that does not end": func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(http.StatusConflict)
				_, _ = io.WriteString(w, "one stream only, and")
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done()
			},
		} {
			t.Run(upstream+" "+name, func(t *testing.T) {
				b := startTally(t, 50*time.Millisecond, upstream)
				if refuse != nil {
					b.refuse = refuse
				}
				server := harness.StartCaddy(t, b.site(upstream, ""))
				client := harness.NewClient(t, harness.HTTP1)
				older := client.Open(t, server.URL+"/api/events?a=b", harness.WithBearer("alice"))
				older.Next(t)
				newer := client.Open(t, server.URL+"/api/events?a=b", harness.WithBearer("alice"))
				harness.RequireEnded(t, older, harness.Duplicated, "superseded")
				harness.RequireAdmitted(t, newer)
				assert.Empty(t, newer.Header.Get("Set-Cookie"))
				assert.Equal(t, []string{"x"}, newer.Header["X-Answered"])
				tries := b.tries()
				assert.Greater(t, len(tries), 2, "it was refused")
				for _, request := range tries {
					assert.Equal(t, "/events?a=b&page=1 [x]", request, "each as it first came")
				}
				for _, line := range server.HandlerLogs(t) {
					assert.NotEqual(t, "error", line.Level, line.Raw)
					if upstream == "http" || refuse == nil {
						assert.NotContains(t, line.Raw, "aborting")
					}
				}
			})
		}
	}
}

// TestRetryRefused_TheLastAnswerPassesWhole, as does each that is no such refusal.
func TestRetryRefused_TheLastAnswerPassesWhole(t *testing.T) {
	for name, test := range map[string]struct {
		options     string
		least, most int
	}{
		"five times":        {"end_timeout 30s", 6, 6},
		"until end_timeout": {"end_timeout 100ms", 1, 3}, // by how busy the machine is
		"off":               {"retry_refused off", 1, 1},
		"another status":    {"retry_refused 429", 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			b := startTally(t, time.Hour, "http")
			server := harness.StartCaddy(t, b.site("http", test.options))
			client := harness.NewClient(t, harness.HTTP1)
			older := client.Open(t, server.URL+"/api/events", harness.WithBearer("alice"))
			older.Next(t)
			refused := client.Open(t, server.URL+"/api/events", harness.WithBearer("alice"))
			require.NoError(t, refused.Wait(t).Err)
			assert.Equal(t, http.StatusConflict, refused.Status)
			assert.Equal(t, "one stream only\n", string(refused.Bytes()))
			assert.Equal(t, []string{"refused=1"}, refused.Header["Set-Cookie"])
			tries := len(b.tries())
			assert.GreaterOrEqual(t, tries, 1+test.least)
			assert.LessOrEqual(t, tries, 1+test.most)

			other := client.Open(t, server.URL+"/api/events", harness.WithBearer("bob"))
			other.Wait(t)
			assert.Equal(t, http.StatusConflict, other.Status)
			assert.Len(t, b.tries(), tries+1, "who has ended nobody is asked for once")
		})
	}
}
