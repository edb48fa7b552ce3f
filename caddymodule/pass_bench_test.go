package caddymodule

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// BenchmarkPass is the way of a request whose answer is no stream, between Caddy's server
// and a handler that does with the request and the answer what reverse_proxy does.
func BenchmarkPass(b *testing.B) {
	h := newConfiguration(b, storageIn(b.TempDir())).handler(b, "{}")
	proxy := caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		_, cancel := context.WithCancel(r.Context())
		defer cancel()
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusOK)
		_, err := io.WriteString(w, "{}")
		return err
	})
	for name, serve := range map[string]func(http.ResponseWriter, *http.Request) error{
		"plain":   proxy,
		"guarded": func(w http.ResponseWriter, r *http.Request) error { return h.ServeHTTP(w, r, proxy) },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				ctx, cancel := context.WithCancel(b.Context())
				r := httptest.NewRequestWithContext(ctx, http.MethodGet, "http://example.com/api?page=2", nil)
				r.Body = io.NopCloser(r.Body) // as Caddy does
				r.Header.Set("Authorization", "Bearer "+strings.Repeat("token", 20))
				r.Header.Set("Accept", "application/json")
				w := httptest.NewRecorder()
				w.Header().Set("Server", "Caddy")
				repl := caddy.NewReplacer()
				if err := serve(w, caddyhttp.PrepareRequest(r, repl, w, &caddyhttp.Server{})); err != nil {
					b.Fatal(err)
				}
				cancel()
			}
		})
	}
}
