package stream

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// ending serves a stream over a major version of HTTP, and ends it for a reason, in a
// bubble. It returns how long after the end Relay returned.
func ending(t *testing.T, major int, cfg Config, why reason.Reason, before ...string) (body string, sum Summary, after time.Duration) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		rec, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil)
		r.ProtoMajor = major
		p := newResponse(rec, r, newGate(), &cfg)
		var began time.Time
		var err error
		sum, err = p.Relay(t.Context(), func(w http.ResponseWriter, r *http.Request) error {
			sse(w, before...)
			began = time.Now()
			p.Stream().End(registry.Ending{Reason: why})
			<-r.Context().Done()
			return nil
		})
		assert.NoError(t, err)
		body, after = rec.Body.String(), time.Since(began)
	})
	return body, sum, after
}

func TestEnd_IsCutWhereTheClientIsToComeBack(t *testing.T) {
	for _, why := range reason.All() {
		for major := 1; major <= 3; major++ {
			cfg := testConfig
			body, sum, after := ending(t, major, cfg, why, "data: a\n\n")
			assert.Equal(t, "data: a\n\n"+notice(why, ""), body)
			assert.Equal(t, why.Meaning().Cut, sum.Cut, why)
			assert.True(t, sum.Delivered)
			quiet := time.Duration(0)
			if sum.Cut {
				quiet = lingerTime
			}
			assert.Equal(t, quiet, after, "%s over HTTP/%d", why, major)

			cfg.FinishAll = true
			body, sum, after = ending(t, major, cfg, why, "data: a\n\n")
			assert.Equal(t, "data: a\n\n"+notice(why, ""), body)
			assert.False(t, sum.Cut, why)
			assert.Zero(t, after)
		}
	}
}

// The rest of an event that is partly with the client does not come.
func TestEnd_InAnEventIsCutWithoutANotice(t *testing.T) {
	cfg := testConfig
	cfg.FinishAll = true // also then
	half := "data: " + strings.Repeat("x", 2000)
	for _, why := range []reason.Reason{reason.Superseded, reason.MaxAge} {
		body, sum, after := ending(t, 1, cfg, why, "data: a\n\n", half)
		assert.Equal(t, "data: a\n\n"+half, body)
		assert.True(t, sum.Cut)
		assert.False(t, sum.Delivered)
		assert.Equal(t, cfg.EndTimeout+lingerTime, after)
	}
}

// What the upstream ends by itself, in the midst of an event, passes as it is.
func TestEnd_InAnEventThatTheUpstreamLeavesUnfinished(t *testing.T) {
	half := "data: " + strings.Repeat("x", 2000)
	rec, sum := serve(t, newGate(), testConfig, func(p *Response, w http.ResponseWriter, _ *http.Request) {
		sse(w, half)
		p.Stream().End(superseded)
	})
	assert.Equal(t, half, rec.Body.String())
	assert.False(t, sum.Cut)
}

func TestEnd_OfAClientThatLeavesIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, leave := context.WithCancel(t.Context())
		r := httptest.NewRequest(http.MethodGet, "/", nil).WithContext(ctx)
		r.ProtoMajor = 2
		p := newResponse(httptest.NewRecorder(), r, newGate(), &testConfig)
		began := time.Now()
		_, err := p.Relay(ctx, func(w http.ResponseWriter, r *http.Request) error {
			sse(w, "data: a\n\n")
			p.Stream().End(registry.Ending{Reason: reason.Shutdown})
			<-r.Context().Done()
			time.AfterFunc(30*time.Millisecond, leave)
			return nil
		})
		assert.NoError(t, err)
		assert.Equal(t, 30*time.Millisecond, time.Since(began))
	})
}

// All streams of a drain keep quiet at the same time.
func TestEnd_OfManyTakesAsLongAsOfOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig
		began := time.Now()
		var all sync.WaitGroup
		for range 1000 {
			all.Go(func() {
				r := httptest.NewRequest(http.MethodGet, "/", nil)
				r.ProtoMajor = 3
				p := newResponse(httptest.NewRecorder(), r, newGate(), &cfg)
				sum, err := p.Relay(t.Context(), func(w http.ResponseWriter, r *http.Request) error {
					sse(w, "data: a\n\n")
					p.Stream().End(registry.Ending{Reason: reason.Shutdown})
					<-r.Context().Done()
					return nil
				})
				assert.NoError(t, err)
				assert.True(t, sum.Cut)
			})
		}
		all.Wait()
		assert.Equal(t, lingerTime, time.Since(began))
	})
}

func TestPark_IsCutWhenTheClientMayComeBack(t *testing.T) {
	for name, test := range map[string]struct {
		finishAll bool
		end       reason.Reason // empty: the key is free
		cut       bool
	}{
		"the key is free":                  {false, "", true},
		"the key is free, all is finished": {true, "", false},
		"shutdown":                         {false, reason.Shutdown, true},
		"shutdown, all is finished":        {true, reason.Shutdown, false},
		"logout":                           {false, reason.Logout, false},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig
			cfg.FinishAll = test.finishAll
			waiter := &fakeWaiter{free: make(chan struct{})}
			p := Park(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil), &cfg, Parking{
				Notice: []byte("data: {}\n\n"), Waiter: waiter, Heartbeat: time.Hour, Return: time.Second,
			})
			if test.end == "" {
				close(waiter.free)
			} else {
				p.Stream().End(registry.Ending{Reason: test.end})
			}
			assert.Equal(t, test.cut, p.Wait().Cut)
		})
	}
}

func TestAbort_LetsTheClientTakeInWhatWasWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := httptest.NewRecorder()
		began := time.Now()
		assert.PanicsWithValue(t, http.ErrAbortHandler, func() { Abort(rec, httptest.NewRequest(http.MethodGet, "/", nil)) })
		assert.True(t, rec.Flushed)
		assert.Equal(t, lingerTime, time.Since(began))
	})
}
