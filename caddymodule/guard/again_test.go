package guard

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// tally is a backend that allows one stream, and counts one until some time after
// its request is over.
type tally struct {
	*site
	lag  time.Duration
	open atomic.Int32
	// refusals counts those that were refused.
	refusals atomic.Int32
	// onWay, if set, is what handlers on the way note of the request.
	onWay func()
	// refuse answers a request that is one too many.
	refuse func(w http.ResponseWriter, r *http.Request) error

	mu   sync.Mutex // guards came
	came []string   // each request as it came
}

func (b *tally) tries() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.came)
}

// note takes down a request that came.
func (b *tally) note(r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.came = append(b.came, fmt.Sprint(r.Method, " ", r.URL, " ", r.Header["X-Hop"]))
}

func (s *site) tallied(lag time.Duration) *tally {
	b := &tally{site: s, lag: lag}
	b.refuse = func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Set-Cookie", fmt.Sprint("refusal=", b.refusals.Load()))
		w.WriteHeader(http.StatusConflict)
		_, err := io.WriteString(w, "one stream only")
		return err
	}
	s.backend.answer = b.answer
	return b
}

func (b *tally) answer(w http.ResponseWriter, r *http.Request) error {
	b.note(r)
	// What handlers on the way do to a request.
	r.URL.Path = strings.TrimPrefix(r.URL.Path, "/events")
	r.URL.RawQuery = ""
	r.Header.Add("X-Hop", "here")
	w.Header().Add("X-Hop", "back")
	if b.onWay != nil {
		b.onWay()
	}
	if b.open.Add(1) > 1 {
		b.open.Add(-1)
		b.refusals.Add(1)
		return b.refuse(w, r)
	}
	defer time.AfterFunc(b.lag, func() { b.open.Add(-1) })
	return b.backend.stream(w, r)
}

func TestRefusedByACount_IsAskedAgain(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		b := s.tallied(50 * time.Millisecond)
		older := s.open(token("ann"), query("a=b"))
		began := time.Now()
		newer := s.send(token("ann"), query("a=b"), func(c *client) { b.onWay = func() { c.kept++ } })
		s.pass(59 * time.Millisecond)
		require.True(t, older.ends())
		require.Empty(t, newer.text())
		s.pass(time.Millisecond)
		require.Equal(t, 60*time.Millisecond, time.Since(began), "after 20 and 40 ms")

		status, h, body := newer.got()
		require.Equal(t, http.StatusOK, status)
		require.Equal(t, hello, body)
		require.Equal(t, []string{"back"}, h["X-Hop"], "of one try")
		require.Empty(t, h.Get("Set-Cookie"), "that was thrown away")
		require.Equal(t, 1, newer.kept, "by the last try")
		require.Equal(t, slices.Repeat([]string{"GET http://example.com/events?a=b []"}, 4), b.tries(), "each as it first came")
		require.Equal(t, 1, s.holders(0))
		require.Equal(t, 1, s.backend.say("more"))
		require.Equal(t, hello+"data: more\n\n", newer.text())

		newest := s.open(token("ann"))
		require.Equal(t, "superseded", newer.lastEvent(t).Data.Reason, "it ends as all do")
		require.True(t, newer.ends())
		newest.leave()
	})
}

// What the backend says at last is the answer, whole.
func TestRefusedByACount_ForGood(t *testing.T) {
	for name, test := range map[string]struct {
		endTimeout time.Duration
		tries      int
		waits      time.Duration
	}{
		"five times":       {time.Second, 6, 620 * time.Millisecond},
		"until the end":    {time.Hour, 6, 620 * time.Millisecond},
		"for end_timeout":  {100 * time.Millisecond, 3, 60 * time.Millisecond},
		"or not even once": {10 * time.Millisecond, 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				b := s.tallied(time.Hour)
				s.open(token("ann"))
				began := time.Now()
				c := s.send(token("ann"))
				<-c.done
				require.Equal(t, test.waits, time.Since(began))
				status, h, body := c.got()
				require.NoError(t, c.err)
				require.Equal(t, http.StatusConflict, status)
				require.Equal(t, "one stream only", body)
				require.Equal(t, http.Header{"Content-Type": {"text/plain"}, "X-Hop": {"back"}, "Set-Cookie": {fmt.Sprint("refusal=", test.tries)}}, h)
				require.Len(t, b.tries(), 1+test.tries)
			}, func(g *Config) { g.Stream.EndTimeout = test.endTimeout })
		})
	}
}

// staying has the backend keep the first request after it was canceled, until it is
// released, and count it for ever.
func (b *tally) staying() (release func()) {
	counting, gone := b.backend.answer, make(chan struct{})
	b.lag = time.Hour
	b.backend.answer = func(w http.ResponseWriter, r *http.Request) error {
		first := len(b.tries()) == 0
		err := counting(w, r)
		if first {
			<-gone
		}
		return err
	}
	return func() { close(gone) }
}

// A page that reloads has left its stream itself.
func TestRefusedByACount_OfAStreamThatIsLeaving(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		b := s.tallied(0)
		release := b.staying()
		s.open(token("ann")).leave()
		s.settle()
		newer := s.open(token("ann"))
		require.Len(t, b.tries(), 1, "it waits")
		release()
		s.settle()
		require.Len(t, b.tries(), 2)
		b.open.Add(-1)
		s.pass(20 * time.Millisecond)
		require.Equal(t, hello, newer.text())
	})
}

func TestRefused_IsFinalElsewhere(t *testing.T) {
	refusing := func(status int, fields ...string) func(*tally) {
		return func(b *tally) {
			b.refuse = func(w http.ResponseWriter, _ *http.Request) error {
				for _, f := range fields {
					w.Header().Set(f, "1")
				}
				w.WriteHeader(status)
				return nil
			}
		}
	}
	for name, test := range map[string]struct {
		configure func(*Config)
		backend   func(*tally)
		edit      func(*client)
	}{
		"with Retry-After":    {func(*Config) {}, refusing(http.StatusConflict, "Retry-After"), token("ann")},
		"with another status": {func(*Config) {}, refusing(http.StatusForbidden), token("ann")},
		"turned off":          {func(g *Config) { g.RetryRefused = nil }, func(*tally) {}, token("ann")},
		"of a POST":           {anyMethod, func(*tally) {}, both(token("ann"), method(http.MethodPost))},
		"of one with a body":  {func(*Config) {}, func(*tally) {}, both(token("ann"), func(c *client) { c.r.ContentLength = 3 })},
		"of one not asking":   {func(*Config) {}, func(*tally) {}, both(token("ann"), notAsking)},
		"at the header":       {onlyAtHeader, func(*tally) {}, token("ann")},
		"of who ended nobody": {func(*Config) {}, func(*tally) {}, token("bob")},
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				b := s.tallied(time.Hour)
				test.backend(b)
				s.open(token("ann"))
				c := s.open(test.edit)
				require.True(t, c.ends())
				status, _, _ := c.got()
				require.GreaterOrEqual(t, status, 400)
				require.Len(t, b.tries(), 2)
			}, test.configure)
		})
	}
}

func TestRefusedByACount_WithStatusesThatAreGiven(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		b := s.tallied(30 * time.Millisecond)
		b.refuse = answering(http.StatusTooManyRequests, "text/plain", "")
		s.open(token("ann"))
		c := s.send(token("ann"))
		s.pass(time.Second)
		require.Equal(t, hello, c.text())
	}, func(g *Config) { g.RetryRefused = []int{429, 503} })
}

// The client's leave is noticed in a pause too.
func TestRefusedByACount_UntilTheClientLeaves(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		b := s.tallied(time.Hour)
		s.open(token("ann"))
		c := s.open(token("ann"))
		require.False(t, c.over())
		c.leave()
		s.settle()
		require.True(t, c.ends())
		require.NoError(t, c.err)
		require.Len(t, b.tries(), 2)
	})
}

// What is thrown away need not come to an end, nor to a good one.
func TestRefusedByACount_HoweverTheRefusalEnds(t *testing.T) {
	for name, end := range map[string]func(w http.ResponseWriter, r *http.Request) error{
		"never": func(w http.ResponseWriter, r *http.Request) error {
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			return nil
		},
		"by a cut":    func(http.ResponseWriter, *http.Request) error { panic(http.ErrAbortHandler) },
		"by an error": func(http.ResponseWriter, *http.Request) error { return io.ErrUnexpectedEOF },
		"as a copy": func(w http.ResponseWriter, _ *http.Request) error {
			_, err := w.(io.ReaderFrom).ReadFrom(strings.NewReader("one stream only"))
			return err
		},
		"flushed": func(w http.ResponseWriter, _ *http.Request) error {
			w.(http.Flusher).Flush()
			w.WriteHeader(http.StatusInternalServerError)
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				b := s.tallied(30 * time.Millisecond)
				b.refuse = func(w http.ResponseWriter, r *http.Request) error {
					w.WriteHeader(http.StatusConflict)
					return end(w, r)
				}
				s.open(token("ann"))
				c := s.send(token("ann"))
				s.pass(60 * time.Millisecond)
				status, _, body := c.got()
				require.Equal(t, http.StatusOK, status)
				require.Equal(t, hello, body)
				require.Len(t, b.tries(), 4)
			})
		})
	}
}

// A panic of a handler's own is nobody's refusal.
func TestRefusedByACount_LetsPanicsThrough(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		b := s.tallied(time.Hour)
		b.refuse = func(w http.ResponseWriter, _ *http.Request) error {
			w.WriteHeader(http.StatusConflict)
			panic("a bug")
		}
		s.open(token("ann"))
		r := requestOf("ann")
		env := &aroundRequest{c: &client{}, r: r, path: r.URL.Path}
		require.PanicsWithValue(t, "a bug", func() {
			_ = s.guards[0].Serve(httptest.NewRecorder(), r, s.backend.serve, env)
		})
	})
}

func TestRefusedByACount_BehindAGuardThatEndsNobody(t *testing.T) {
	tracking := all(keyedBy("everyone"), func(g *Config) { g.Rule.Limit = 0 })
	for name, guards := range map[string][]func(*Config){"alone": {func(*Config) {}}, "inside": {tracking, func(*Config) {}}} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				b := s.tallied(50 * time.Millisecond)
				s.open(token("ann"))
				newer := s.send(token("ann"))
				s.pass(60 * time.Millisecond)
				require.Equal(t, hello, newer.text())
				require.Len(t, b.tries(), 4)
				require.Equal(t, 1, s.holders(0))
			}, guards...)
		})
	}
}

// Of several guards that would, one asks again, for all.
func TestRefusedByACount_IsAskedAgainByOneGuard(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		b := s.tallied(0)
		release := b.staying()
		s.open(token("ann")).leave()
		s.settle()
		newer := s.open(token("ann"))
		release()
		<-newer.done
		status, _, _ := newer.got()
		require.Equal(t, http.StatusConflict, status)
		require.Len(t, b.tries(), 1+1+mostAgain)
	}, keyedBy("everyone"), func(*Config) {})
}

// What the inner one of two guards has held back for long enough is not held back by
// the outer one too, which asks again for both.
func TestRefusedByACount_WhatIsHeldPassesBothGuards(t *testing.T) {
	const hold = 250 * time.Millisecond
	holding := func(g *Config) { g.Stream.Hold = hold }
	atSite(t, func(t *testing.T, s *site) {
		b := s.tallied(0)
		release := b.staying()
		s.open(token("ann")).leave()
		s.settle()
		newer := s.open(token("ann"))
		asked := 0
		s.backend.answer = func(w http.ResponseWriter, r *http.Request) error {
			if asked++; asked == 1 {
				w.WriteHeader(http.StatusConflict)
				return nil
			}
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, "data: half")
			<-r.Context().Done()
			return nil
		}
		release()
		s.pass(firstPause + hold)
		require.Equal(t, 2, asked)
		require.Equal(t, "data: half", newer.text())
	}, all(keyedBy("everyone"), holding), holding)
}
