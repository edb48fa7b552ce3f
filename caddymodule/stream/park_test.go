package stream

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// fakeWaiter is told when the test says so.
type fakeWaiter struct {
	free    chan struct{}
	stopped atomic.Bool
}

func (w *fakeWaiter) Free() <-chan struct{} { return w.free }
func (w *fakeWaiter) Stop()                 { w.stopped.Store(true) }

func park(ctx context.Context, t testing.TB, heartbeat time.Duration, free func() bool) (rec *httptest.ResponseRecorder, waiter *fakeWaiter, done chan struct{}) {
	t.Helper()
	rec, waiter, done = httptest.NewRecorder(), &fakeWaiter{free: make(chan struct{})}, make(chan struct{})
	go func() {
		defer close(done)
		Park(rec, httptest.NewRequest(http.MethodGet, "/", nil).WithContext(ctx), &testConfig, Parking{
			Notice:    []byte("event: DUPLICATE_SESSION\ndata: {}\n\n"),
			Waiter:    waiter,
			Free:      free,
			Heartbeat: heartbeat,
			Return:    500 * time.Millisecond,
		}).Wait()
	}()
	return rec, waiter, done
}

func TestPark_TellsTheClientToComeBackWhenTheKeyIsFree(t *testing.T) {
	rec, waiter, done := park(t.Context(), t, time.Hour, nil)
	close(waiter.free)
	<-done
	assert.Equal(t, "event: DUPLICATE_SESSION\ndata: {}\n\nretry: 500\n", rec.Body.String())
	assert.Equal(t, "text/event-stream", rec.Header().Get("Content-Type"))
	assert.True(t, waiter.stopped.Load())
}

// TestPark_HeartbeatsAndAsksAgain: whoever was told first may not have come
// back, so that the key is free and nobody else is told.
func TestPark_HeartbeatsAndAsksAgain(t *testing.T) {
	var asked atomic.Int32
	rec, waiter, done := park(t.Context(), t, time.Millisecond, func() bool { return asked.Add(1) == 4 })
	<-done
	assert.Equal(t, 3, strings.Count(rec.Body.String(), beatText))
	assert.True(t, strings.HasSuffix(rec.Body.String(), "retry: 500\n"))
	assert.True(t, waiter.stopped.Load())
}

func TestPark_EndsWhenTheClientLeaves(t *testing.T) {
	ctx, leave := context.WithCancel(t.Context())
	rec, waiter, done := park(ctx, t, time.Hour, nil)
	leave()
	<-done
	assert.NotContains(t, rec.Body.String(), "retry")
	assert.True(t, waiter.stopped.Load())
}

// A parked stream is one like any other: it is listed, and ended.
func TestPark_EndsWhenItIsToldTo(t *testing.T) {
	for name, before := range map[string]bool{"while it waits": false, "before anything is written": true} {
		t.Run(name, func(t *testing.T) {
			rec, waiter := httptest.NewRecorder(), &fakeWaiter{free: make(chan struct{})}
			gone := 0
			p := Park(rec, httptest.NewRequest(http.MethodGet, "/", nil), &testConfig, Parking{
				Terms: Terms{
					Notice: func(dst []byte, e registry.Ending, id string) []byte { return append(dst, notice(e.Reason, id)...) },
					Gone:   func(*Stream) { gone++ },
				},
				Notice:    []byte("event: DUPLICATE_SESSION\ndata: {}\n\n"),
				Waiter:    waiter,
				Heartbeat: time.Hour,
			})
			s := p.Stream()
			assert.Equal(t, registry.StateParked, s.Row().State)
			assert.False(t, s.Holds())
			if before {
				s.End(registry.Ending{Reason: reason.Logout})
			} else {
				go s.End(registry.Ending{Reason: reason.Logout})
			}
			sum := p.Wait()
			assert.Equal(t, "event: DUPLICATE_SESSION\ndata: {}\n\n"+notice(reason.Logout, ""), rec.Body.String())
			assert.Equal(t, reason.Logout, sum.Ending.Reason)
			assert.True(t, sum.Delivered)
			assert.Equal(t, registry.StateEnding, s.Row().State)
			assert.True(t, waiter.stopped.Load())
			assert.Equal(t, 1, gone)
		})
	}
}

func TestPark_IsNotifiedToo(t *testing.T) {
	rec, waiter := httptest.NewRecorder(), &fakeWaiter{free: make(chan struct{})}
	p := Park(rec, httptest.NewRequest(http.MethodGet, "/", nil), &testConfig, Parking{
		Notice: []byte("data: {}\n\n"), Waiter: waiter, Heartbeat: time.Hour, Return: 500 * time.Millisecond,
	})
	written := func() string {
		p.stream.relay.mu.Lock()
		defer p.stream.relay.mu.Unlock()
		return rec.Body.String()
	}
	assert.True(t, p.Stream().Notify([]byte("data: early\n\n")), "its header is not out yet")
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.Wait()
	}()
	assert.Eventually(t, func() bool { return strings.HasSuffix(written(), "data: early\n\n") }, time.Minute, time.Millisecond)
	assert.True(t, p.Stream().Notify([]byte("data: late\n\n")))
	assert.Eventually(t, func() bool { return strings.HasSuffix(written(), "data: late\n\n") }, time.Minute, time.Millisecond)
	close(waiter.free)
	<-done
	assert.Equal(t, "data: {}\n\ndata: early\n\ndata: late\n\nretry: 500\n", rec.Body.String())
	assert.False(t, p.Stream().Notify([]byte("data: never\n\n")))
}

func TestPark_EndsWhenAWriteFails(t *testing.T) {
	waiter := &fakeWaiter{free: make(chan struct{})}
	sum := Park(failingWriter{httptest.NewRecorder()}, httptest.NewRequest(http.MethodGet, "/", nil), &testConfig, Parking{
		Notice: []byte("data: {}\n\n"), Waiter: waiter, Heartbeat: time.Hour,
	}).Wait()
	assert.Nil(t, sum.Ending)
	assert.True(t, waiter.stopped.Load())
}
