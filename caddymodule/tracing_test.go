package caddymodule

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

// traced has handlers serve a request within a span, and returns the span's attributes.
func traced(t *testing.T, serve http.HandlerFunc, guards ...*Handler) map[string]string {
	t.Helper()
	recorder := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder))
	ctx, span := provider.Tracer("test").Start(t.Context(), "request")
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/events", nil)
	r.Header.Set("Accept", "text/event-stream")
	r.Header.Set("Authorization", "Bearer s3cr3t")
	r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, nil)
	var next caddyhttp.Handler = caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		serve(w, r)
		return nil
	})
	for _, g := range guards {
		behind := next
		next = caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error { return g.ServeHTTP(w, r, behind) })
	}
	func() {
		defer func() {
			if p := recover(); p != nil {
				require.Equal(t, http.ErrAbortHandler, p)
			}
		}()
		require.NoError(t, next.ServeHTTP(w, r))
	}()
	span.End()
	attributes := make(map[string]string)
	for _, a := range recorder.Ended()[0].Attributes() {
		attributes[string(a.Key)] = a.Value.AsString()
	}
	return attributes
}

func TestTracing_TheSpanOfAStreamTellsHowItWent(t *testing.T) {
	c := newConfiguration(t, storageIn(t.TempDir()))
	stream := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: a\n\n")
	}
	outer, inner := c.handler(t, `{"zone": "outer"}`), c.handler(t, `{"zone": "inner"}`)
	for name, guards := range map[string][]*Handler{"one guard": {outer}, "two": {inner, outer}} {
		t.Run(name, func(t *testing.T) {
			a := traced(t, stream, guards...)
			require.Len(t, a["sse_guard.stream"], 32)
			require.NotEmpty(t, a["sse_guard.key"])
			delete(a, "sse_guard.stream")
			delete(a, "sse_guard.key")
			require.Equal(t, map[string]string{"sse_guard.zone": "outer", "sse_guard.state": "live", "sse_guard.reason": "finished"}, a)
		})
	}
	t.Run("cut", func(t *testing.T) {
		a := traced(t, func(w http.ResponseWriter, r *http.Request) {
			stream(w, r)
			panic(http.ErrAbortHandler)
		}, outer)
		require.Equal(t, "finished", a["sse_guard.reason"])
	})
	t.Run("refused", func(t *testing.T) {
		refusing := c.handler(t, `{"zone": "keys", "key": ["{http.request.uri.query.u}"], "missing_key": "deny"}`)
		a := traced(t, stream, refusing)
		require.Equal(t, "refused", a["sse_guard.state"])
		require.Equal(t, "unauthorized", a["sse_guard.reason"])
	})
	t.Run("no stream", func(t *testing.T) {
		require.Empty(t, traced(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") }, outer))
	})
}
