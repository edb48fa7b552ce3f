package stream

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// closeConn notes that it was closed.
type closeConn struct {
	net.Conn
	closed atomic.Bool
}

func (c *closeConn) Close() error {
	c.closed.Store(true)
	return nil
}

// A slow registry, or a slow notice, is not the client's fault.
func TestEnd_AHealthyClientIsNotCutForWhatIsSlowInTheGuard(t *testing.T) {
	const slow = 300 * time.Millisecond
	for name, edit := range map[string]func(*fakeGate){
		"giving back the place": func(g *fakeGate) { g.place.slow = slow },
		"the notice": func(g *fakeGate) {
			g.terms.Notice = func(dst []byte, e registry.Ending, id string) []byte {
				<-time.After(slow)
				return append(dst, notice(e.Reason, id)...)
			}
		},
		"forgetting": func(g *fakeGate) { g.terms.Gone = func(*Stream) { <-time.After(slow) } },
	} {
		t.Run(name, func(t *testing.T) {
			gate, conn := newGate(), new(closeConn)
			gate.terms.Connection.Net = conn
			edit(gate)
			body, sum := inBubble(t, Config{EndTimeout: 100 * time.Millisecond, MaxEventSize: 1 << 10}, gate,
				func(_ *testing.T, p *Response, w http.ResponseWriter, r *http.Request) {
					sse(w, "data: a\n\n")
					p.Stream().End(superseded)
					<-r.Context().Done()
				})
			assert.Equal(t, "data: a\n\n"+notice(reason.Superseded, ""), body)
			assert.True(t, sum.Delivered)
			assert.False(t, sum.Cut)
			assert.False(t, conn.closed.Load(), "the connection lives on")
			assert.Equal(t, []registry.Keep{{}}, gate.place.left())
		})
	}
}

func TestEnd_BeforeTheHeaderTakesEffectRightAfterIt(t *testing.T) {
	for name, set := range map[string]func(*fakeGate, func(*Stream)){
		"while the registry is asked": func(g *fakeGate, end func(*Stream)) { g.asked = end },
		"while the header goes out":   func(g *fakeGate, end func(*Stream)) { g.opening = end },
	} {
		t.Run(name, func(t *testing.T) {
			gate := newGate()
			set(gate, func(s *Stream) {
				go s.End(superseded)
				require.Eventually(t, func() bool { return s.Ended() != nil }, time.Second, time.Millisecond)
				assert.False(t, s.Holds())
				assert.Equal(t, registry.StateEnding, s.Row().State)
			})
			rec, sum := serve(t, gate, testConfig, func(p *Response, w http.ResponseWriter, r *http.Request) {
				sse(w, "")
				<-gate.place.isLeft
				<-r.Context().Done()
				assert.Equal(t, io.EOF, r.Context().Err())
				sse(w, "data: too late\n\n")
			})
			assert.Equal(t, notice(reason.Superseded, ""), rec.Body.String())
			assert.Equal(t, "text/event-stream", rec.Header().Get("Content-Type"))
			assert.True(t, sum.Delivered)
			assert.Equal(t, reason.Superseded, sum.Ending.Reason)
			assert.Len(t, gate.place.left(), 1)
			assert.Equal(t, 1, gate.place.departures())
			assert.EqualValues(t, 1, gate.gone.Load())
		})
	}
}

func TestEnd_BeforeTheHeaderOfWhatIsNoStream(t *testing.T) {
	gate := newGate()
	gate.pass = true
	gate.asked = func(s *Stream) { s.End(superseded) }
	rec, sum := serve(t, gate, testConfig, func(_ *Response, w http.ResponseWriter, r *http.Request) {
		sse(w, "data: a\n\nhalf")
		assert.NoError(t, r.Context().Err())
		<-gate.isGone
	})
	assert.Equal(t, "data: a\n\nhalf", rec.Body.String())
	assert.Nil(t, sum.Ending)
	assert.Len(t, gate.place.left(), 1)
	assert.Equal(t, 1, gate.place.departures())
}

func TestStream_IsGivenUpWhereTheResponseIsNone(t *testing.T) {
	for name, handler := range map[string]func(w http.ResponseWriter){
		"it passes":     func(w http.ResponseWriter) { sse(w, "data: a\n\n") },
		"no header":     func(http.ResponseWriter) {},
		"it is refused": func(w http.ResponseWriter) { sse(w, "data: a\n\n") },
	} {
		t.Run(name, func(t *testing.T) {
			gate := newGate()
			gate.pass, gate.refuse = true, name == "it is refused"
			serve(t, gate, testConfig, func(p *Response, w http.ResponseWriter, _ *http.Request) {
				if name == "no header" { // a guard further in has made it
					p.NewStream(Terms{Gone: func(*Stream) { gate.gone.Add(1) }}).Hold(gate.place)
				}
				handler(w)
				if s := p.Stream(); name == "it passes" {
					assert.False(t, s.Holds())
					assert.False(t, s.Notify([]byte("data: x\n\n")))
				} else if gate.refuse {
					s.Hold(gate.place) // too late
				}
			})
			assert.Equal(t, []registry.Keep{{}}, gate.place.left())
			assert.Equal(t, 1, gate.place.departures())
			assert.EqualValues(t, 1, gate.gone.Load())
		})
	}
}

func TestHold_AfterTheEndGivesBackAtOnce(t *testing.T) {
	gate := newGate()
	gate.asked = func(s *Stream) {
		s.End(superseded)
		assert.Empty(t, gate.place.left())
	}
	gate.opening = func(s *Stream) {
		assert.Equal(t, []registry.Keep{{}}, gate.place.left())
		assert.Zero(t, gate.place.departures())
		assert.False(t, s.Holds())
	}
	serve(t, gate, testConfig, func(_ *Response, w http.ResponseWriter, _ *http.Request) { sse(w, "data: a\n\n") })
	assert.Len(t, gate.place.left(), 1)
	assert.Equal(t, 1, gate.place.departures())
}

func TestClientLeft_WhileTheRegistryIsAsked(t *testing.T) {
	gate := newGate()
	ctx, leave := context.WithCancel(t.Context())
	gate.asked = func(*Stream) { leave() }
	rec := httptest.NewRecorder()
	p := newResponse(rec, httptest.NewRequest(http.MethodGet, "/", nil).WithContext(ctx), gate, &testConfig)
	sum, err := p.Relay(ctx, func(w http.ResponseWriter, _ *http.Request) error {
		sse(w, "data: a\n\n")
		assert.Fail(t, "a stream for nobody was opened")
		return nil
	})
	require.NoError(t, err)
	assert.True(t, sum.Left)
	assert.False(t, sum.Refused)
	assert.Equal(t, 499, rec.Code)
	assert.Empty(t, rec.Body.String())
	assert.Equal(t, []registry.Keep{{}}, gate.place.left())
	assert.EqualValues(t, 1, gate.gone.Load())
}

func TestClientLeft_ItsPlaceIsKept(t *testing.T) {
	leaves := map[string]func(*Response, http.ResponseWriter, context.CancelFunc){
		"it hangs up":   func(_ *Response, _ http.ResponseWriter, leave context.CancelFunc) { leave() },
		"a write fails": func(_ *Response, w http.ResponseWriter, _ context.CancelFunc) { sse(w, "data: fail\n\n") },
		"after it was told to end": func(p *Response, _ http.ResponseWriter, leave context.CancelFunc) {
			p.Stream().End(superseded)
			leave()
		},
	}
	for name, leaves := range leaves {
		t.Run(name, func(t *testing.T) {
			gate := newGate()
			gate.terms.Keep = time.Minute
			ctx, leave := context.WithCancel(t.Context())
			defer leave()
			p := newResponse(failsLater{httptest.NewRecorder()}, httptest.NewRequest(http.MethodGet, "/", nil).WithContext(ctx), gate, &testConfig)
			_, err := p.Relay(ctx, func(w http.ResponseWriter, r *http.Request) error {
				sse(w, "data: "+strings.Repeat("x", 2000)) // not at a boundary
				leaves(p, w, leave)
				<-r.Context().Done()
				assert.Equal(t, io.EOF, r.Context().Err())
				assert.Equal(t, 0, gate.place.departures(), "the upstream is not gone yet")
				return nil
			})
			require.NoError(t, err)
			assert.True(t, p.Stream().ClientLeft())
			assert.True(t, p.Stream().Fate().ClientLeft())
			keep := registry.Keep{For: time.Minute}
			if name == "after it was told to end" {
				keep.For = 0
			}
			assert.Equal(t, []registry.Keep{keep}, gate.place.left())
			assert.Equal(t, 1, gate.place.departures())
		})
	}
}

// failsLater fails at "fail".
type failsLater struct{ *httptest.ResponseRecorder }

func (w failsLater) Write(p []byte) (int, error) {
	if strings.Contains(string(p), "fail") {
		return 0, io.ErrClosedPipe
	}
	return w.ResponseRecorder.Write(p)
}

// A guard further out has ended the stream: the client has not left.
func TestOuterEnd_IsNoClientThatLeft(t *testing.T) {
	outer := newUpstream(t.Context())
	gate := newGate()
	gate.terms.Keep = time.Minute
	p := newResponse(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil).WithContext(outer), gate, &testConfig)
	_, err := p.Relay(outer, func(w http.ResponseWriter, r *http.Request) error {
		sse(w, "data: a\n\n")
		outer.End(io.EOF)
		<-r.Context().Done()
		assert.Equal(t, io.EOF, r.Context().Err())
		return nil
	})
	require.NoError(t, err)
	assert.False(t, p.Stream().ClientLeft())
	assert.False(t, p.Stream().Fate().ClientLeft())
	assert.Equal(t, []registry.Keep{{}}, gate.place.left())
}

// stuckClient takes nothing in until its connection is closed.
type stuckClient struct {
	*httptest.ResponseRecorder
	closeConn
	stuck string
	free  chan struct{}
	once  sync.Once
}

func (w *stuckClient) Write(p []byte) (int, error) {
	if strings.Contains(string(p), w.stuck) {
		<-w.free
		return 0, net.ErrClosed
	}
	return w.ResponseRecorder.Write(p)
}

func (w *stuckClient) Close() error {
	w.once.Do(func() { close(w.free) })
	return nil
}

func TestEnd_CutsAClientThatDoesNotRead(t *testing.T) {
	for name, test := range map[string]struct {
		stuck string // at this
		last  bool   // the handlers return before it
	}{
		"stuck since before the end": {"data: stuck", false},
		"stuck at the notice":        {"event: END", false},
		"stuck at what was held":     {"held", true},
	} {
		t.Run(name, func(t *testing.T) {
			w := &stuckClient{ResponseRecorder: httptest.NewRecorder(), stuck: test.stuck, free: make(chan struct{})}
			gate := newGate()
			gate.terms.Connection.Net = w
			p := newResponse(w, httptest.NewRequest(http.MethodGet, "/", nil), gate, &testConfig)
			var ended time.Time
			var ends sync.WaitGroup
			_, err := p.Relay(t.Context(), func(w http.ResponseWriter, r *http.Request) error {
				sse(w, "data: a\n\n")
				s := p.Stream()
				ends.Go(func() {
					if test.stuck != "event: END" {
						assert.Eventually(t, func() bool { id, _ := s.sink.Writing(); return id != 0 }, time.Second, time.Millisecond)
					}
					ended = time.Now()
					s.End(superseded)
					assert.Len(t, gate.place.left(), 1, "the key is free at once")
				})
				if test.last {
					_, _ = io.WriteString(w, "data: held")
					return nil
				}
				sse(w, "data: stuck\n\n")
				<-r.Context().Done()
				return nil
			})
			require.NoError(t, err)
			ends.Wait()
			assert.GreaterOrEqual(t, time.Since(ended), testConfig.EndTimeout)
		})
	}
}

// FastCGI notices a canceled request only at its next write.
func TestEnd_CutsOffAHandlerThatDoesNotReturn(t *testing.T) {
	gate, conn := newGate(), new(closeConn)
	gate.terms.Connection.Net = conn
	body, _ := inBubble(t, Config{EndTimeout: time.Second, MaxEventSize: 1 << 10}, gate,
		func(t *testing.T, p *Response, w http.ResponseWriter, _ *http.Request) {
			sse(w, "data: a\n\n")
			p.Stream().End(superseded)
			<-time.After(1900 * time.Millisecond)
			assert.False(t, conn.closed.Load())
			<-time.After(200 * time.Millisecond)
			assert.True(t, conn.closed.Load())
		})
	assert.Contains(t, body, "event: END")
}

// deadlineWriter is the writer of an HTTP/2 stream.
type deadlineWriter struct {
	*httptest.ResponseRecorder
	reset atomic.Bool
	// forbidden is set when the handler has returned: the server kills the process.
	forbidden atomic.Bool
	touched   atomic.Bool
}

func (w *deadlineWriter) SetWriteDeadline(time.Time) error {
	w.touched.Store(w.touched.Load() || w.forbidden.Load())
	w.reset.Store(true)
	return nil
}

func TestEnd_ResetsAnHTTP2StreamFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, conn := &deadlineWriter{ResponseRecorder: httptest.NewRecorder()}, new(closeConn)
		gate := newGate()
		gate.terms.Connection.Net = conn
		cfg := Config{EndTimeout: time.Second, MaxEventSize: 1 << 10}
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.ProtoMajor = 2
		p := newResponse(w, r, gate, &cfg)
		sum, err := p.Relay(t.Context(), func(rw http.ResponseWriter, _ *http.Request) error {
			sse(rw, "data: a\n\n")
			p.Stream().End(superseded)
			<-time.After(time.Minute) // does not return, but nothing is stuck
			assert.True(t, w.reset.Load())
			return nil
		})
		w.forbidden.Store(true)
		require.NoError(t, err)
		assert.True(t, sum.Cut)
		assert.False(t, conn.closed.Load(), "others use the connection")
		<-time.After(time.Minute)
		assert.False(t, w.touched.Load())
	})
}

func TestNotify_GoesBetweenTwoEvents(t *testing.T) {
	const note = "event: note\ndata: hi\n\n"
	cfg := testConfig
	cfg.MaxEventSize = 4
	rec, sum := serve(t, newGate(), cfg, func(p *Response, w http.ResponseWriter, _ *http.Request) {
		sse(w, "data: too large to hold")
		assert.True(t, p.Stream().Notify([]byte(note)))
		assert.True(t, p.Stream().Notify([]byte(note)))
		sse(w, "\n\nda")
		body := func() string {
			p.Stream().relay.mu.Lock()
			defer p.Stream().relay.mu.Unlock()
			return p.w.(*httptest.ResponseRecorder).Body.String()
		}
		require.Equal(t, "data: too large to hold\n\n"+note+note, body())
		assert.True(t, p.Stream().Notify([]byte(note)), "what is held is not sent yet")
		require.Eventually(t, func() bool { return strings.Count(body(), note) == 3 }, time.Second, time.Millisecond)
		sse(w, "ta: b\n\n")
	})
	assert.Equal(t, "data: too large to hold\n\n"+note+note+note+"data: b\n\n", rec.Body.String())
	assert.EqualValues(t, 2, sum.Events, "of the upstream's")
}

func TestNotify_IsBounded(t *testing.T) {
	cfg := testConfig
	cfg.MaxEventSize = 4
	serve(t, newGate(), cfg, func(p *Response, w http.ResponseWriter, _ *http.Request) {
		sse(w, "data: too large to hold")
		event := []byte("data: " + strings.Repeat("x", mostPending/2) + "\n\n")
		assert.True(t, p.Stream().Notify(event))
		assert.False(t, p.Stream().Notify(event))
	})
	// An event of any size goes out by itself. Each of its lines needs some bytes more.
	serve(t, newGate(), cfg, func(p *Response, w http.ResponseWriter, _ *http.Request) {
		sse(w, "data: too large to hold")
		assert.True(t, p.Stream().Notify([]byte(strings.Repeat("data:\n", mostPending)+"\n")))
		assert.False(t, p.Stream().Notify([]byte("data: x\n\n")))
	})
}

// All streams of a crowd get the same bytes.
func TestNotify_LeavesTheEventAsItIs(t *testing.T) {
	cfg := testConfig
	cfg.MaxEventSize = 4
	event := append(make([]byte, 0, 1<<10), "data: x\n\n"...)
	serve(t, newGate(), cfg, func(p *Response, w http.ResponseWriter, _ *http.Request) {
		sse(w, "data: too large to hold")
		assert.True(t, p.Stream().Notify(event))
		assert.True(t, p.Stream().Notify([]byte("data: y\n\n")))
	})
	assert.Equal(t, make([]byte, 9), event[:18][9:], "behind it is somebody else's")
}

func TestNotify_NotIntoWhatItWouldSpoil(t *testing.T) {
	for name, test := range map[string]struct {
		header string
		gate   func(*fakeGate)
		before func(*Stream)
	}{
		"compressed": {header: "gzip"},
		"untracked":  {gate: func(g *fakeGate) { g.terms.Untracked = true }},
		"ended":      {before: func(s *Stream) { s.End(superseded) }},
	} {
		t.Run(name, func(t *testing.T) {
			gate := newGate()
			if test.gate != nil {
				test.gate(gate)
			}
			serve(t, gate, testConfig, func(p *Response, w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Encoding", test.header)
				sse(w, "data: a\n\n")
				if test.before != nil {
					test.before(p.Stream())
				}
				assert.False(t, p.Stream().Notify([]byte("data: x\n\n")))
			})
		})
	}
}

func TestUntracked_IsRelayedByteForByte(t *testing.T) {
	cfg := testConfig
	cfg.OpenRetry = time.Second
	gate := newGate()
	gate.terms.Untracked = true
	rec, sum := serve(t, gate, cfg, func(p *Response, w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "9")
		sse(w, "data: half")
		assert.Equal(t, "data: half", p.w.(*httptest.ResponseRecorder).Body.String())
		p.Stream().End(superseded)
		<-r.Context().Done()
	})
	assert.Equal(t, "9", rec.Header().Get("Content-Length"))
	assert.Equal(t, "data: half", rec.Body.String())
	assert.Empty(t, gate.place.left())
	assert.NotNil(t, sum.Ending)
}

// TestStream_AnyScheduleKeepsItsPromises has everything happen at once.
func TestStream_AnyScheduleKeepsItsPromises(t *testing.T) {
	for i := range 2000 {
		gate := newGate()
		cfg := testConfig
		cfg.EndTimeout = time.Millisecond
		ctx, leave := context.WithCancel(t.Context())
		rec := httptest.NewRecorder()
		p := newResponse(rec, httptest.NewRequest(http.MethodGet, "/", nil).WithContext(ctx), gate, &cfg)
		var all sync.WaitGroup
		gate.asked = func(s *Stream) {
			all.Go(func() { s.End(superseded) })
			all.Go(func() { s.Probe(ctx, time.Microsecond) })
			all.Go(func() { s.Row(); s.Notify([]byte("data: n\n\n")); s.Holds(); s.relay.beat() })
			if i%3 == 0 {
				all.Go(leave)
			}
		}
		_, err := p.Relay(ctx, func(w http.ResponseWriter, r *http.Request) error {
			sse(w, "data: a\n\n", "data: b")
			sse(w, "\n\n")
			if i%2 == 0 {
				<-r.Context().Done()
			}
			return nil
		})
		all.Wait()
		leave()
		require.NoError(t, err)
		require.Len(t, gate.place.left(), 1)
		require.Equal(t, 1, gate.place.departures())
		require.EqualValues(t, 1, gate.gone.Load())
		body := rec.Body.String()
		require.LessOrEqual(t, strings.Count(body, "event: END"), 1)
		before, _, _ := strings.Cut(body, "id: T\n")
		relayed := strings.NewReplacer(beatText, "", "data: n\n\n", "").Replace(before)
		require.True(t, strings.HasPrefix("data: a\n\ndata: b\n\n", relayed), "%q", body)
	}
}
