package stream

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sse-guard/sse-guard/caddymodule/event"
	"github.com/sse-guard/sse-guard/caddymodule/internal/wheel"
	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// tended is testConfig with a wheel that visits nobody by itself.
func tended() Config {
	cfg := testConfig
	cfg.Wheel = wheel.New()
	cfg.Wheel.Close()
	cfg.Heartbeat, cfg.DeadAfter = time.Second, 3*time.Second
	return cfg
}

func TestHeartbeat_NeverSplitsAnEvent(t *testing.T) {
	events := []string{"data: a\n\n", "id: 1\r\ndata: b\r\n\r\n", "data: c\r\r", "event: d\ndata: d\ndata: e\n\n", ": comment\n\n", "retry: 5\n\n"}
	cfg := tended()
	rapid.Check(t, func(t *rapid.T) {
		upstream := strings.Join(rapid.SliceOfN(rapid.SampledFrom(events), 1, 8).Draw(t, "events"), "")
		rec, _ := serve(t, newGate(), cfg, func(s *Response, w http.ResponseWriter, _ *http.Request) {
			for rest := upstream; rest != ""; {
				n := rapid.IntRange(1, len(rest)).Draw(t, "chunk")
				sse(w, rest[:n])
				rest = rest[n:]
				for range rapid.IntRange(0, 2).Draw(t, "beats") {
					s.Stream().relay.beat()
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

const beatText = ":\n"

func TestHeartbeat_WaitsWhereAnEventIsHalfSent(t *testing.T) {
	cfg := tended()
	cfg.MaxEventSize = 4
	rec, _ := serve(t, newGate(), cfg, func(s *Response, w http.ResponseWriter, _ *http.Request) {
		sse(w, "data: too large to hold")
		s.Stream().relay.beat()
		sse(w, "\n\n")
		s.Stream().relay.beat()
	})
	assert.Equal(t, "data: too large to hold\n\n"+beatText, rec.Body.String())
}

func TestHeartbeat_BeforeTheFirstEventSpoilsNoByteOrderMark(t *testing.T) {
	rec, _ := serve(t, newGate(), tended(), func(s *Response, w http.ResponseWriter, _ *http.Request) {
		sse(w)
		w.(http.Flusher).Flush()
		s.Stream().relay.beat()
		sse(w, "\ufeffdata: a\n\n")
	})
	assert.Equal(t, beatText+"data: a\n\n", rec.Body.String())
}

func TestHeartbeat_IsNotForWhatIsCompressed(t *testing.T) {
	rec, _ := serve(t, newGate(), tended(), func(s *Response, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "zstd")
		sse(w, "compressed")
		s.Stream().relay.beat()
	})
	assert.Equal(t, "compressed", rec.Body.String())
}

// tick is so many seconds after the rounds began.
func tick(seconds int) wheel.Tick {
	return wheel.Tick(time.Duration(seconds) * time.Second / wheel.Precision)
}

func TestVisit_BeatsWhenTheStreamIsIdle(t *testing.T) {
	rec, _ := serve(t, newGate(), tended(), func(p *Response, w http.ResponseWriter, _ *http.Request) {
		sse(w, "data: a\n\n")
		s := p.Stream()
		next := s.care.Visit(0)
		assert.Nil(t, s.Ended())
		assert.LessOrEqual(t, next, time.Second)
		assert.Greater(t, next, time.Second/2)

		s.care.Visit(tick(2))
		require.Eventually(t, func() bool {
			s.relay.mu.Lock()
			defer s.relay.mu.Unlock()
			return strings.HasSuffix(p.w.(*httptest.ResponseRecorder).Body.String(), beatText)
		}, time.Second, time.Millisecond)
	})
	assert.Equal(t, "data: a\n\n"+beatText, rec.Body.String())
}

// endedBy waits until s was told to end, and returns why.
func endedBy(t testing.TB, s *Stream) reason.Reason {
	t.Helper()
	require.Eventually(t, func() bool { return s.Ended() != nil }, time.Second, time.Millisecond)
	return s.Ended().Reason
}

func TestVisit_EndsOldStreams(t *testing.T) {
	cfg := tended()
	cfg.MaxAge = 100 * time.Second
	serve(t, newGate(), cfg, func(p *Response, w http.ResponseWriter, _ *http.Request) {
		sse(w, "data: a\n\n")
		s := p.Stream()
		assert.Positive(t, s.care.Visit(tick(80)))
		assert.Nil(t, s.Ended())
		s.care.Visit(tick(111))
		assert.Equal(t, reason.MaxAge, endedBy(t, s))
	})
}

func TestVisit_OldStreamsFinishTheirEventFirst(t *testing.T) {
	cfg := tended()
	cfg.MaxAge, cfg.MaxEventSize = 100*time.Second, 4
	serve(t, newGate(), cfg, func(p *Response, w http.ResponseWriter, _ *http.Request) {
		sse(w, "data: too large to hold")
		s := p.Stream()
		s.care.age = 100 * time.Second
		assert.Positive(t, s.care.Visit(tick(101)), "it is to be visited again")
		sse(w, "\n\n")
		assert.Zero(t, s.care.Visit(tick(101)))
		assert.Equal(t, reason.MaxAge, endedBy(t, s))
	})
}

// It may be an event that never ends: a body that is no framed event stream.
func TestVisit_OldStreamsWaitForTheirEventForATenthOfTheirAge(t *testing.T) {
	cfg := tended()
	cfg.MaxAge, cfg.MaxEventSize = 100*time.Second, 4
	serve(t, newGate(), cfg, func(p *Response, w http.ResponseWriter, _ *http.Request) {
		sse(w, "data: too large to hold")
		s := p.Stream()
		s.care.age = 100 * time.Second
		assert.LessOrEqual(t, s.care.Visit(tick(101)), time.Second)
		assert.Nil(t, s.Ended())
		s.care.Visit(tick(111))
		assert.Equal(t, reason.MaxAge, endedBy(t, s))
	})
}

func TestStall_EndsAStreamWhoseUpstreamIsSilent(t *testing.T) {
	for name, test := range map[string]struct {
		heartbeat time.Duration
		send      string // every 7 seconds, 5 times
		untracked bool
		ends      time.Duration // 0: not
	}{
		"from the start":                  {0, "", false, 10 * time.Second},
		"our heartbeats do not count":     {time.Second, "", false, 10 * time.Second},
		"after the last event":            {time.Second, "data: a\n\n", false, 45 * time.Second},
		"the upstream's own heartbeat":    {0, ": beat\n", false, 45 * time.Second},
		"in the midst of an event":        {0, "data: a\n", false, 46 * time.Second},
		"untracked streams may be silent": {0, "", true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			gate := newGate()
			gate.terms.Untracked = test.untracked
			var ended time.Duration
			_, sum := inBubble(t, Config{Heartbeat: test.heartbeat, StallAfter: 10 * time.Second}, gate, func(_ *testing.T, _ *Response, w http.ResponseWriter, r *http.Request) {
				began := time.Now()
				sse(w, "")
				for range 5 {
					if test.send != "" {
						<-time.After(7 * time.Second)
						sse(w, test.send)
					}
				}
				select {
				case <-r.Context().Done():
					ended = time.Since(began)
				case <-time.After(time.Hour):
				}
			})
			if test.ends == 0 {
				assert.Nil(t, sum.Ending)
				return
			}
			assert.Equal(t, reason.Stalled, sum.Ending.Reason)
			assert.True(t, sum.Cut)
			assert.InDelta(t, test.ends, ended, float64(2*wheel.Precision))
		})
	}
}

// While the client takes nothing in, the upstream cannot be read.
func TestStall_IsNotTheUpstreamsFaultWhereTheClientIsSlow(t *testing.T) {
	w := stuckWriter{httptest.NewRecorder(), make(chan struct{}), make(chan struct{})}
	cfg := tended()
	cfg.DeadAfter, cfg.StallAfter = 0, 10*time.Second
	p := newResponse(w, httptest.NewRequest(http.MethodGet, "/", nil), newGate(), &cfg)
	_, err := p.Relay(t.Context(), func(rw http.ResponseWriter, _ *http.Request) error {
		sse(rw, "data: a\n\n")
		s := p.Stream()
		go func() {
			defer close(w.free)
			<-w.stuck
			s.care.Visit(tick(1000))
		}()
		sse(rw, "data: stuck\n\n")
		s.care.Visit(tick(1009))
		assert.Nil(t, s.Ended())
		s.care.Visit(tick(1010))
		assert.Equal(t, reason.Stalled, endedBy(t, s))
		return nil
	})
	require.NoError(t, err)
}

func TestVisit_UntrackedStreamsHaveNoAgeAndNoHeartbeat(t *testing.T) {
	cfg := tended()
	cfg.MaxAge = 100 * time.Second
	gate := newGate()
	gate.terms.Untracked = true
	rec, _ := serve(t, gate, cfg, func(p *Response, w http.ResponseWriter, _ *http.Request) {
		sse(w, "data: a\n\n")
		assert.Greater(t, p.Stream().care.Visit(tick(1000)), wheel.Precision)
		assert.Nil(t, p.Stream().Ended())
		p.Stream().relay.beat()
	})
	assert.Equal(t, "data: a\n\n", rec.Body.String())
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

func TestVisit_EndsAClientThatTakesNothingIn(t *testing.T) {
	cfg := tended()
	w := stuckWriter{httptest.NewRecorder(), make(chan struct{}), make(chan struct{})}
	gate := newGate()
	p := newResponse(w, httptest.NewRequest(http.MethodGet, "/", nil), gate, &cfg)
	sum, err := p.Relay(t.Context(), func(rw http.ResponseWriter, _ *http.Request) error {
		sse(rw, "data: a\n\n")
		go func() {
			defer close(w.free)
			<-w.stuck
			s := p.Stream()
			next := s.care.Visit(tick(2))
			assert.Nil(t, s.Ended(), "not for long enough")
			assert.LessOrEqual(t, next, 3*time.Second)
			s.care.Visit(tick(4))
			assert.Nil(t, s.Ended(), "not yet")
			s.care.Visit(tick(5))
			assert.Equal(t, reason.Dead, endedBy(t, s))
			<-gate.place.isLeft // while the write is still stuck
		}()
		sse(rw, "data: stuck\n\n")
		return nil
	})
	require.NoError(t, err)
	assert.Equal(t, reason.Dead, sum.Ending.Reason)
}

// busySink is a sink on which each visit finds another write in progress.
type busySink struct {
	Sink
	id uint64
}

func (s *busySink) Writing() (id uint64, since time.Duration) {
	s.id++
	return s.id, time.Millisecond
}

// A visit may meet one write after the other on a busy stream: that is no write
// that does not end.
func TestVisit_TakesManyWritesForNoLongOne(t *testing.T) {
	serve(t, newGate(), tended(), func(p *Response, w http.ResponseWriter, _ *http.Request) {
		sse(w, "data: a\n\n")
		s := p.Stream()
		s.sink = &busySink{Sink: s.sink}
		for second := 2; second < 20; second += 2 {
			assert.Positive(t, s.care.Visit(tick(second)))
			assert.Nil(t, s.Ended())
		}
	})
}

func TestVisit_LeavesAnEndedStreamAlone(t *testing.T) {
	serve(t, newGate(), tended(), func(p *Response, w http.ResponseWriter, r *http.Request) {
		sse(w, "data: a\n\n")
		p.Stream().End(superseded)
		assert.Zero(t, p.Stream().care.Visit(tick(5)))
		<-r.Context().Done()
	})
}

// inBubble runs a stream in a bubble with a wheel that turns. The handler's
// goroutine is the only one that may block for long.
func inBubble(t *testing.T, cfg Config, gate *fakeGate, handler func(t *testing.T, p *Response, w http.ResponseWriter, r *http.Request)) (body string, sum Summary) {
	t.Helper()
	gate.test = t.Name()
	synctest.Test(t, func(t *testing.T) {
		cfg.Wheel = wheel.New()
		defer cfg.Wheel.Close()
		if cfg.EndTimeout == 0 {
			cfg.EndTimeout, cfg.MaxEventSize = time.Second, 1<<10
		}
		gate.place.isLeft, gate.isGone = make(chan struct{}), make(chan struct{})
		var rec *httptest.ResponseRecorder
		rec, sum = serve(t, gate, cfg, func(p *Response, w http.ResponseWriter, r *http.Request) { handler(t, p, w, r) })
		body = rec.Body.String()
	})
	return body, sum
}

func TestVisit_EndsAnExpiredStream(t *testing.T) {
	for name, test := range map[string]struct{ at, renewed, ends time.Duration }{
		"at its time":               {at: 20 * time.Second, ends: 20 * time.Second},
		"at once if that is past":   {at: -time.Hour, ends: 0},
		"later if it is renewed":    {at: 20 * time.Second, renewed: 90 * time.Second, ends: 90 * time.Second},
		"before the first visit is": {at: 300 * time.Millisecond, ends: 300 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			gate := newGate()
			var ended time.Duration
			var at time.Time
			gate.asked = func(s *Stream) { s.Renew(at) }
			body, sum := inBubble(t, Config{}, gate, func(_ *testing.T, p *Response, w http.ResponseWriter, r *http.Request) {
				began := time.Now()
				at = began.Add(test.at)
				sse(w, "data: a\n\n")
				if test.renewed > 0 {
					p.Stream().Renew(began.Add(test.renewed))
				}
				<-r.Context().Done()
				ended = time.Since(began)
			})
			assert.Equal(t, "data: a\n\n"+notice(reason.Expired, ""), body)
			assert.Equal(t, reason.Expired, sum.Ending.Reason)
			assert.GreaterOrEqual(t, ended, test.ends)
			assert.LessOrEqual(t, ended, test.ends+2*wheel.Precision)
		})
	}
}

func TestVisit_NeverEndsAStreamThatWasRenewedForEver(t *testing.T) {
	gate := newGate()
	_, sum := inBubble(t, Config{}, gate, func(t *testing.T, p *Response, w http.ResponseWriter, _ *http.Request) {
		p.Stream()
		sse(w, "data: a\n\n")
		p.Stream().Renew(time.Now().Add(20 * time.Second))
		p.Stream().Renew(time.Time{})
		<-time.After(time.Hour)
		assert.True(t, p.Stream().Holds())
	})
	assert.Nil(t, sum.Ending)
}

func TestVisit_BeatsForAsLongAsTheStreamIsIdle(t *testing.T) {
	body, _ := inBubble(t, Config{Heartbeat: 10 * time.Second}, newGate(), func(_ *testing.T, _ *Response, w http.ResponseWriter, _ *http.Request) {
		sse(w, "data: a\n\n")
		<-time.After(time.Minute)
	})
	assert.GreaterOrEqual(t, strings.Count(body, beatText), 5)
	assert.LessOrEqual(t, strings.Count(body, beatText), 9)
}

// A slow registry, notice or directory of one stream is nothing to the others.
func TestVisit_NobodyWaitsForAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := Config{EndTimeout: time.Second, MaxEventSize: 1 << 10, Heartbeat: time.Second, MaxAge: 5 * time.Second, Wheel: wheel.New()}
		defer cfg.Wheel.Close()
		slow := newGate()
		slow.place.slow = time.Hour
		slow.terms.Gone = func(*Stream) { <-time.After(time.Hour) }
		slow.terms.Notice = func(dst []byte, _ registry.Ending, _ string) []byte {
			<-time.After(time.Hour)
			return dst
		}
		slowDone := make(chan struct{})
		go func() {
			defer close(slowDone)
			serve(t, slow, cfg, func(p *Response, w http.ResponseWriter, r *http.Request) {
				sse(w, "data: a\n\n")
				<-r.Context().Done()
				assert.Equal(t, reason.MaxAge, p.Stream().Ended().Reason)
			})
		}()
		other := cfg
		other.MaxAge = 0
		rec, _ := serve(t, newGate(), other, func(_ *Response, w http.ResponseWriter, _ *http.Request) {
			sse(w, "data: a\n\n")
			<-time.After(30 * time.Second)
		})
		assert.GreaterOrEqual(t, strings.Count(rec.Body.String(), beatText), 25)
		<-slowDone
	})
}

// Where the kernel cannot tell, a holder is taken to live.
func TestProbe_IsTakenForGrantedWhereNobodyKnows(t *testing.T) {
	serve(t, newGate(), tended(), func(p *Response, w http.ResponseWriter, _ *http.Request) {
		sse(w, "data: a\n\n")
		assert.Equal(t, event.ProofUnknown, p.Stream().Probe(t.Context(), time.Millisecond))
	})
}

func TestProbe_AClientThatLeftDoesNotLive(t *testing.T) {
	gate := newGate()
	p := newResponse(failingWriter{httptest.NewRecorder()}, httptest.NewRequest(http.MethodGet, "/", nil), gate, &testConfig)
	_, err := p.Relay(t.Context(), func(w http.ResponseWriter, _ *http.Request) error {
		sse(w, "data: a\n\n")
		assert.Equal(t, event.ProofLeft, p.Stream().Probe(t.Context(), time.Millisecond))
		assert.Nil(t, p.Stream().Ended())
		return nil
	})
	require.NoError(t, err)
}

func TestRow_TellsHowTheStreamStands(t *testing.T) {
	serve(t, newGate(), tended(), func(p *Response, w http.ResponseWriter, r *http.Request) {
		sse(w, "data: a\n\ndata: held")
		s := p.Stream()
		row := s.Row()
		assert.Equal(t, registry.StateLive, row.State)
		assert.Equal(t, s.Holder(), row.Holder)
		assert.EqualValues(t, 1, row.Events)
		assert.EqualValues(t, 9, row.Bytes)
		assert.WithinDuration(t, time.Now(), row.LastEvent, time.Second)
		assert.Zero(t, row.LastAck, "there is no connection to ask")
		assert.True(t, s.Holds())

		s.End(superseded)
		assert.Equal(t, registry.StateEnding, s.Row().State)
		assert.False(t, s.Holds())
		<-r.Context().Done()
	})
}

func TestRow_OfAnUntrackedStream(t *testing.T) {
	gate := newGate()
	gate.terms.Untracked = true
	serve(t, gate, tended(), func(p *Response, w http.ResponseWriter, _ *http.Request) {
		sse(w, "data: a\n\n")
		assert.Equal(t, registry.StateUntracked, p.Stream().Row().State)
		assert.False(t, p.Stream().Holds())
	})
}
