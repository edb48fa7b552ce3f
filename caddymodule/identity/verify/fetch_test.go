package verify

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
)

// serve returns the URL of a real server.
func serve(t *testing.T, handler http.HandlerFunc) string {
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.URL
}

func TestDownload_ReturnsTheBody(t *testing.T) {
	address := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/3" {
			http.Redirect(w, r, "/"+string(r.URL.Path[len(r.URL.Path)-1]+1), http.StatusFound)
			return
		}
		io.WriteString(w, r.Method+" "+r.Header.Get("Accept"))
	})
	text, err := download(t.Context(), newClient(), address+"/0")
	require.NoError(t, err)
	require.Equal(t, "GET application/jwk-set+json, application/json", string(text))
}

func TestDownload_IsBounded(t *testing.T) {
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		want    string
	}{
		"redirect loop": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path, http.StatusFound)
		}, "more than 3 redirects"},
		"four redirects": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path+"x", http.StatusFound)
		}, "more than 3 redirects"},
		"redirect to a file": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
		}, "unsupported protocol scheme"},
		"endless body": {func(w http.ResponseWriter, _ *http.Request) {
			for {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		}, "more than 1048576 bytes"},
		"huge header": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Large", strings.Repeat("x", 2*maxResponseHeader))
		}, "exceeded"},
		"not found": {http.NotFound, "status 404, expected 200"},
		"no content": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNoContent)
		}, "status 204, expected 200"},
		"no answer": {func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
			case <-release:
			}
		}, "deadline exceeded"},
		"half an answer": {func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, `{"keys":[`)
			w.(http.Flusher).Flush()
			select {
			case <-r.Context().Done():
			case <-release:
			}
		}, "deadline exceeded"},
	} {
		t.Run(name, func(t *testing.T) {
			patience := 10 * time.Second
			if strings.Contains(test.want, "deadline") {
				patience = 200 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			address := strings.Replace(serve(t, test.handler), "http://", "http://user:password@", 1)
			_, err := download(ctx, newClient(), address)
			require.ErrorContains(t, err, test.want)
			require.NotContains(t, err.Error(), "password")
		})
	}
}

func TestDownload_IsNotLedAwayFromTLS(t *testing.T) {
	plain := serve(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "keys of a stranger") })
	server := httptest.NewTLSServer(http.RedirectHandler(plain, http.StatusFound))
	defer server.Close()
	client := server.Client()
	client.CheckRedirect = checkRedirect
	_, err := download(t.Context(), client, server.URL)
	require.ErrorContains(t, err, "redirected from https to http")
}

func TestNewJWKS_FetchesFromARealServer(t *testing.T) {
	address := serve(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, set(oldKey.jwk("1", nil))) })
	j, err := NewJWKS(address, 0, zap.NewNop())
	require.NoError(t, err)
	defer j.Close()
	v := newVerifier(t, Config{JWKS: []*JWKS{j}})
	token := oldKey.sign(alice(), named("1"))
	claims, err := v.Verify(t.Context(), token)
	require.NoError(t, err)
	require.Equal(t, "alice", claims.Sub)
	requireAccepted(t, v, token)
}

func TestNewJWKS_DoesNotTrustAnyCertificate(t *testing.T) {
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ErrorLog = zap.NewStdLog(zap.NewNop())
	server.StartTLS()
	defer server.Close()
	_, err := download(t.Context(), newClient(), server.URL)
	require.ErrorContains(t, err, "certificate")
}
