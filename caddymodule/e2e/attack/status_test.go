package attack

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// TestAttack_LivePageEndsStreams: somebody who may only look, or a page that is open in an
// administrator's browser, ends all streams.
func TestAttack_LivePageEndsStreams(t *testing.T) {
	backend := startBackend(t)
	port := harness.FreePort(t)
	const page = `sse_guard_status {
		insecure
	}`
	server := harness.StartAdminCaddy(t, `basic_auth /status/end {
		admin $2a$04$AeT0N1W8qfraLCdrdQ53FusEb849D5hnOWzwWuh7C.VfM.4C.eZ1y
	}
	sse_guard_status /status* {
		insecure
	}
	handle_path /stripped* {
		basic_auth /end {
			admin $2a$04$AeT0N1W8qfraLCdrdQ53FusEb849D5hnOWzwWuh7C.VfM.4C.eZ1y
		}
		`+page+`
	}
	`+backend.behind("")+fmt.Sprintf("\n}\nhttp://:%d {\n%s\n", port, page))
	s := harness.NewClient(t, harness.HTTP1).Open(t, server.URL+"/events", harness.WithBearer("a"))
	s.Next(t)
	end := func(url string, options ...harness.RequestOption) int {
		t.Helper()
		options = append([]harness.RequestOption{
			harness.WithPost(adminRoutes["end"]), harness.WithHeader("Content-Type", "application/json"), harness.WithHeader("Sec-Fetch-Site", "same-origin"),
		}, options...)
		response, _ := harness.Send(t, http.MethodPost, url, options...)
		return response.StatusCode
	}
	for _, at := range []string{"/status", "/stripped"} {
		response, _ := harness.Get(t, server.URL+at+"/")
		require.Equal(t, http.StatusOK, response.StatusCode, at)
		response, _ = harness.Get(t, server.URL+at)
		require.Equal(t, "."+at+"/", response.Header.Get("Location"))
		for path, want := range map[string]int{
			"/end": http.StatusUnauthorized, "/END": http.StatusUnauthorized, "/%65nd": http.StatusUnauthorized,
			"/x/end": http.StatusNotFound, "//x//end": http.StatusNotFound, "/%2e%2fend": http.StatusUnauthorized, ";x/end": http.StatusNotFound,
		} {
			require.Equal(t, want, end(server.URL+at+path), at+path)
		}
	}
	own := fmt.Sprintf("http://localhost:%d/", port)
	bound := func(r *http.Request) { r.Host = fmt.Sprintf("evil.example:%d", port) }
	response, body := harness.Get(t, own+"feed", bound)
	require.Equal(t, http.StatusForbidden, response.StatusCode, body)
	require.Equal(t, http.StatusForbidden, end(own+"end", bound))

	require.False(t, s.Ended())
	backend.requireOpen(t, 1)
	require.Equal(t, http.StatusOK, end(own+"end"), "the page itself may")
	s.Wait(t)
}
