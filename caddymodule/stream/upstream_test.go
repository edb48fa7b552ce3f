package stream

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fakeLeaver notes how often it was told that the client is done, and ends the
// upstream as a client does.
type fakeLeaver struct {
	upstream *upstream
	told     int
}

func (l *fakeLeaver) clientDone() {
	l.told++
	l.upstream.End(l.upstream.client.Err())
}

func newUpstream(client context.Context) *upstream {
	u := &upstream{values: client, client: client}
	u.owner = &fakeLeaver{upstream: u}
	return u
}

// TestUpstream_EndedTwiceAtOnceKeepsItsError: a client that leaves and
// the write that fails because of it may both end it.
func TestUpstream_EndedTwiceAtOnceKeepsItsError(t *testing.T) {
	for range 20000 {
		u := newUpstream(context.Background())
		u.Done()
		var both sync.WaitGroup
		for range 2 {
			both.Go(func() { u.End(io.EOF) })
		}
		both.Wait()
		<-u.Done()
		require.Equal(t, io.EOF, u.Err())
		require.Equal(t, io.EOF, context.Cause(u))
	}
}

// Whoever comes to wait while it is ended sees the end, with its error.
func TestUpstream_EndedWhileSomebodyBeginsToWait(t *testing.T) {
	for range 5000 {
		u := newUpstream(context.Background())
		var both sync.WaitGroup
		both.Go(func() { u.End(io.EOF) })
		both.Go(func() {
			child, cancel := context.WithCancelCause(u)
			defer cancel(nil)
			<-child.Done()
			assert.Equal(t, io.EOF, child.Err())
			assert.Equal(t, io.EOF, context.Cause(child))
		})
		both.Wait()
	}
}

func TestUpstream_MakesNothingForWhoDoesNotWait(t *testing.T) {
	type key struct{}
	client, leave := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
	u := newUpstream(client)
	assert.NoError(t, u.Err())
	assert.Equal(t, "value", u.Value(key{}))
	_, ok := u.Deadline()
	assert.False(t, ok)
	assert.Nil(t, u.made.Load())

	leave()
	assert.Equal(t, context.Canceled, u.Err(), "who only looks hears of the client's leave")
	assert.Equal(t, 1, u.owner.(*fakeLeaver).told)
	assert.Equal(t, context.Canceled, context.Cause(u))
}

func TestUpstream_IsDetachedFromTheClient(t *testing.T) {
	type key struct{}
	client, leave := context.WithCancelCause(context.WithValue(t.Context(), key{}, "value"))
	told := make(chan struct{})
	u := &upstream{values: client, client: client, owner: leaverFunc(func() { close(told) })}
	child, cancel := context.WithCancelCause(u)
	defer cancel(nil)
	leave(io.ErrClosedPipe)
	<-told
	assert.NoError(t, u.Err(), "its owner decides")
	assert.NoError(t, child.Err())
	assert.Equal(t, "value", child.Value(key{}))

	u.End(io.EOF)
	<-child.Done()
	assert.Equal(t, io.EOF, child.Err())
	assert.Equal(t, io.EOF, context.Cause(child), "not the client's cause")
	assert.Equal(t, io.EOF, context.Cause(u))
	u.release()
}

type leaverFunc func()

func (f leaverFunc) clientDone() { f() }

// A child that the standard library cannot link costs a goroutine.
func TestUpstream_ChildrenCostNoGoroutine(t *testing.T) {
	u := newUpstream(context.Background())
	before := runtime.NumGoroutine()
	var cancels []context.CancelFunc
	type key struct{}
	for range 50 {
		_, cancel := context.WithCancel(context.WithValue(u, key{}, 1))
		cancels = append(cancels, cancel)
	}
	assert.Less(t, runtime.NumGoroutine()-before, 10)
	for _, cancel := range cancels {
		cancel()
	}
	u.End(context.Canceled)
}

func TestUpstream_ReleaseLetsGoOfTheClient(t *testing.T) {
	client, leave := context.WithCancel(t.Context())
	u := newUpstream(client)
	done := u.Done()
	u.release()
	<-done
	assert.Equal(t, context.Canceled, u.Err())
	leave()
	assert.Zero(t, u.owner.(*fakeLeaver).told)
}

// The transport of HTTP/1 hands the cause to the reader of the body.
func TestUpstream_EndOfAnAdmittedStreamIsAnOrdinaryEndOfTheBody(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "data: a\n\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	defer server.Close()
	defer server.Client().CloseIdleConnections()
	u := newUpstream(t.Context())
	r, err := http.NewRequestWithContext(u, http.MethodGet, server.URL, nil)
	require.NoError(t, err)
	resp, err := server.Client().Do(r)
	require.NoError(t, err)
	defer resp.Body.Close()
	_, err = io.ReadFull(resp.Body, make([]byte, 9))
	require.NoError(t, err)
	u.End(io.EOF)
	rest, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	assert.Empty(t, rest)
}
