package stream

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/rounds"
)

// tended is testConfig with rounds, which visit nobody by themselves.
func tended(t testing.TB) Config {
	cfg := testConfig
	cfg.Rounds = rounds.New()
	t.Cleanup(cfg.Rounds.Close)
	cfg.Heartbeat, cfg.DeadAfter = time.Second, 3*time.Second
	return cfg
}

func TestHeartbeat_NeverSplitsAnEvent(t *testing.T) {
	events := []string{"data: a\n\n", "id: 1\r\ndata: b\r\n\r\n", "data: c\r\r", "event: d\ndata: d\ndata: e\n\n", ": comment\n\n", "retry: 5\n\n"}
	cfg := tended(t)
	rapid.Check(t, func(t *rapid.T) {
		upstream := strings.Join(rapid.SliceOfN(rapid.SampledFrom(events), 1, 8).Draw(t, "events"), "")
		rec, _ := relay(t, newGate(), cfg, func(s *Response, w http.ResponseWriter, _ *http.Request) {
			for rest := upstream; rest != ""; {
				n := rapid.IntRange(1, len(rest)).Draw(t, "chunk")
				sse(w, rest[:n])
				rest = rest[n:]
				for range rapid.IntRange(0, 2).Draw(t, "beats") {
					s.beat()
				}
			}
		})
		got := rec.Body.String()
		require.Equal(t, upstream, strings.ReplaceAll(got, beatText, ""))
		before := ""
		for part := range strings.SplitSeq(got, beatText) {
			before += part // what the upstream had sent by then
			whole := before == "" || len(before) == len(upstream)
			// A CR ends a line, whether LF follows or not; a comment is no event.
			for _, end := range []string{"\n\n", "\r\n\r\n", "\r\r", "\r\r\n", "\r\n\r", ": comment\n"} {
				whole = whole || strings.HasSuffix(before, end)
			}
			require.True(t, whole, "a heartbeat after %q in %q", before, got)
		}
	})
}

const beatText = ":\n\n"

func TestHeartbeat_WaitsWhereAnEventIsHalfSent(t *testing.T) {
	cfg := tended(t)
	cfg.MaxEventSize = 4
	rec, _ := relay(t, newGate(), cfg, func(s *Response, w http.ResponseWriter, _ *http.Request) {
		sse(w, "data: too large to hold")
		s.beat()
		sse(w, "\n\n")
		s.beat()
	})
	assert.Equal(t, "data: too large to hold\n\n"+beatText, rec.Body.String())
}

func TestHeartbeat_BeforeTheFirstEventSpoilsNoByteOrderMark(t *testing.T) {
	rec, _ := relay(t, newGate(), tended(t), func(s *Response, w http.ResponseWriter, _ *http.Request) {
		sse(w)
		w.(http.Flusher).Flush()
		s.beat()
		sse(w, "\ufeffdata: a\n\n")
	})
	assert.Equal(t, beatText+"data: a\n\n", rec.Body.String())
}

func TestHeartbeat_IsNotForWhatIsCompressed(t *testing.T) {
	rec, _ := relay(t, newGate(), tended(t), func(s *Response, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "zstd")
		sse(w, "compressed")
		s.beat()
	})
	assert.Equal(t, "compressed", rec.Body.String())
}

// tick is so many seconds after the rounds began.
func tick(seconds int) rounds.Tick {
	return rounds.Tick(time.Duration(seconds) * time.Second / rounds.Precision)
}

func TestTend_BeatsWhenTheStreamIsIdle(t *testing.T) {
	rec, _ := relay(t, newGate(), tended(t), func(s *Response, w http.ResponseWriter, _ *http.Request) {
		sse(w, "data: a\n\n")
		condition, next := s.Tend(0)
		assert.Equal(t, Fine, condition)
		assert.LessOrEqual(t, next, time.Second)
		assert.Greater(t, next, time.Second/2)

		_, _ = s.Tend(tick(2))
		require.Eventually(t, func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return strings.HasSuffix(s.w.(*httptest.ResponseRecorder).Body.String(), beatText)
		}, time.Second, time.Millisecond)
	})
	assert.Equal(t, "data: a\n\n"+beatText, rec.Body.String())
}

func TestTend_FindsOldStreams(t *testing.T) {
	cfg := tended(t)
	cfg.MaxAge = 100 * time.Second
	relay(t, newGate(), cfg, func(s *Response, w http.ResponseWriter, _ *http.Request) {
		sse(w, "data: a\n\n")
		condition, _ := s.Tend(tick(80))
		assert.Equal(t, Fine, condition)
		condition, _ = s.Tend(tick(111))
		assert.Equal(t, Old, condition)
	})
}

// stuckWriter takes nothing in once it is stuck, until it is freed.
type stuckWriter struct {
	*httptest.ResponseRecorder
	stuck, free chan struct{}
}

func (w stuckWriter) Write(p []byte) (int, error) {
	if strings.Contains(string(p), "stuck") {
		close(w.stuck)
		<-w.free
	}
	return w.ResponseRecorder.Write(p)
}

func TestTend_FindsAClientThatTakesNothingIn(t *testing.T) {
	cfg := tended(t)
	w := stuckWriter{httptest.NewRecorder(), make(chan struct{}), make(chan struct{})}
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	s := New(context.Background(), w, r, Connection{}, newGate(), &cfg)
	_, err := s.Relay(func(rw http.ResponseWriter, _ *http.Request) error {
		sse(rw, "data: a\n\n")
		go func() {
			<-w.stuck
			condition, next := s.Tend(tick(2))
			assert.Equal(t, Fine, condition, "not for long enough")
			assert.LessOrEqual(t, next, 3*time.Second)
			condition, _ = s.Tend(tick(4))
			assert.Equal(t, Fine, condition, "not yet")
			condition, _ = s.Tend(tick(5))
			assert.Equal(t, Dead, condition)
			close(w.free)
		}()
		sse(rw, "data: stuck\n\n")
		return nil
	})
	require.NoError(t, err)
}

// A visit may meet one write after the other on a busy stream: that is no write
// that does not end.
func TestTend_TakesManyWritesForNoLongOne(t *testing.T) {
	relay(t, newGate(), tended(t), func(s *Response, w http.ResponseWriter, _ *http.Request) {
		sse(w, "data: a\n\n")
		s.mu.Lock() // as a writer does
		defer s.mu.Unlock()
		for second := 2; second < 20; second += 2 {
			s.relayed.Store(int64(tick(second)))
			condition, _ := s.Tend(tick(second))
			assert.Equal(t, Fine, condition)
		}
	})
}

func TestTend_LeavesAnEndedStreamAlone(t *testing.T) {
	relay(t, newGate(), tended(t), func(s *Response, w http.ResponseWriter, r *http.Request) {
		sse(w, "data: a\n\n")
		s.End(registry.Ending{Reason: registry.Superseded})
		condition, next := s.Tend(tick(5))
		assert.Equal(t, Over, condition)
		assert.Zero(t, next)
		<-r.Context().Done()
	})
}

// Where the kernel cannot tell, a holder is taken to live.
func TestLives_IsTakenForGrantedWhereNobodyKnows(t *testing.T) {
	relay(t, newGate(), tended(t), func(s *Response, w http.ResponseWriter, _ *http.Request) {
		sse(w, "data: a\n\n")
		assert.True(t, s.Lives(t.Context(), time.Millisecond))
	})
}

func TestActivity_TellsWhenTheLastEventCame(t *testing.T) {
	relay(t, newGate(), tended(t), func(s *Response, w http.ResponseWriter, _ *http.Request) {
		sse(w, "data: a\n\n")
		a := s.Activity()
		assert.WithinDuration(t, time.Now(), a.Relayed, time.Second)
		assert.Zero(t, a.Acknowledged, "there is no connection to ask")
	})
}
