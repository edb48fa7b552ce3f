package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestEvent_HasTheSizeThatIsPromised(t *testing.T) {
	e := newEvent()
	e.setID(42)
	assert.Len(t, e, 130)
	assert.True(t, strings.HasPrefix(string(e[:]), "id: 00000042\ndata: x"), "%q", e)
	assert.True(t, strings.HasSuffix(string(e[:]), "x\n\n"), "%q", e)
}

func TestParseEmission(t *testing.T) {
	e, err := parseEmission(url.Values{"count": {"3"}, "every": {"20ms"}})
	require.NoError(t, err)
	assert.Equal(t, emission{count: 3, every: 20 * time.Millisecond}, e)

	for _, bad := range []string{"", "count=3", "every=1s", "count=x&every=1s", "count=3&every=often"} {
		query, err := url.ParseQuery(bad)
		require.NoError(t, err)
		_, err = parseEmission(query)
		assert.Error(t, err, "%q", bad)
	}
}

// The load itself, without a Caddy between.
func TestUpstream_SendsToOneGroupOnly(t *testing.T) {
	srv := httptest.NewServer(newUpstream())
	defer srv.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	address := srv.Listener.Addr().String()

	told, other := newCrowd(ctx, address, "told"), newCrowd(ctx, address, "other")
	defer told.close()
	defer other.close()
	require.NoError(t, told.open(ctx, 3))
	require.NoError(t, other.open(ctx, 2))

	untold := other.expect(1)
	all := told.expect(3 * 5)
	resp, err := http.Post(srv.URL+pathEmit+"?group=told&count=5&every=1ms", "", http.NoBody)
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	assert.Equal(t, "3", string(body))

	require.NoError(t, told.wait(ctx, all))
	assert.Equal(t, int64(1), untold.left.Load())
	require.NoError(t, told.failure())
}

func TestCrowd_ReportsAStreamThatNobodyEnded(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: the only one\n\n")
	}))
	defer srv.Close()
	crowd := newCrowd(t.Context(), srv.Listener.Addr().String(), "any")
	defer crowd.close()
	err := crowd.open(t.Context(), 1)
	if err == nil { // else it ended before that was over
		err = crowd.wait(t.Context(), crowd.expect(1))
	}
	require.ErrorContains(t, err, "ended, nobody asked it to")
}

func TestCrowd_RefusesWhatIsNoStream(t *testing.T) {
	for status, want := range map[int]string{
		http.StatusBadGateway: "502",
		http.StatusOK:         "expected text/event-stream",
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, "no stream")
		}))
		crowd := newCrowd(t.Context(), srv.Listener.Addr().String(), "any")
		assert.ErrorContains(t, crowd.open(t.Context(), 1), want)
		crowd.close()
		srv.Close()
	}
}

func TestCrowd_GivesUpWithItsContext(t *testing.T) {
	srv := httptest.NewServer(newUpstream())
	defer srv.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	crowd := newCrowd(ctx, srv.Listener.Addr().String(), "any")
	defer crowd.close()
	require.NoError(t, crowd.open(ctx, 2))
	cancel(io.ErrClosedPipe)
	require.ErrorIs(t, crowd.wait(ctx, crowd.expect(1)), io.ErrClosedPipe)
}
