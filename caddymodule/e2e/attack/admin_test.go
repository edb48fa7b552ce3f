package attack

import (
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// adminRoutes are all requests that the admin API answers.
var adminRoutes = map[string]string{
	"streams": "", "stats": "", "events": "", "health": "",
	"end":    `{"select":{},"all":true}`,
	"notify": `{"select":{},"all":true,"data":"x"}`,
}

// TestAttack_AdminAPIFromAWebPage: a page of any site, open in the administrator's
// browser, ends all streams, or reads who is connected.
func TestAttack_AdminAPIFromAWebPage(t *testing.T) {
	backend := startBackend(t)
	server := harness.StartAdminCaddy(t, backend.behind(""))
	s := harness.NewClient(t, harness.HTTP1).Open(t, server.URL+"/events", harness.WithBearer("a"))
	s.Next(t)
	for name, page := range map[string][]harness.RequestOption{
		"of another site":           {harness.WithHeader("Origin", "https://evil.example")},
		"from a sandbox":            {harness.WithHeader("Origin", "null")},
		"without CORS":              {harness.WithHeader("Sec-Fetch-Mode", "no-cors"), harness.WithHeader("Sec-Fetch-Site", "cross-site")},
		"by a link":                 {harness.WithHeader("Sec-Fetch-Mode", "navigate"), harness.WithHeader("Referer", "https://evil.example/")},
		"whose name is bound again": {func(r *http.Request) { r.Host = "evil.example:2019" }},
		"by a WebSocket":            {harness.WithHeader("Upgrade", "websocket"), harness.WithHeader("Connection", "Upgrade")},
	} {
		for route, body := range adminRoutes {
			method, options := http.MethodGet, page
			if body != "" {
				method = http.MethodPost
				options = append([]harness.RequestOption{harness.WithPost(body), harness.WithHeader("Content-Type", "application/json")}, page...)
			}
			response, answer := harness.Send(t, method, server.Admin+"/sse_guard/"+route, options...)
			require.Contains(t, []int{http.StatusBadRequest, http.StatusForbidden}, response.StatusCode, "%s %s: %s", name, route, answer)
			require.NotContains(t, answer, "streams", "%s %s", name, route)
		}
	}
	// An old browser says neither where from nor how, but sends no JSON without asking.
	for _, route := range []string{"end", "notify"} {
		for _, mediaType := range []string{"text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"} {
			response, answer := harness.Send(t, http.MethodPost, server.Admin+"/sse_guard/"+route, harness.WithPost(adminRoutes[route]), harness.WithHeader("Content-Type", mediaType))
			require.Equal(t, http.StatusUnsupportedMediaType, response.StatusCode, answer)
		}
	}
	require.False(t, s.Ended())
	backend.requireOpen(t, 1)
	site := harness.NewClient(t, harness.HTTP1).Open(t, server.URL+"/sse_guard/streams")
	require.Equal(t, "for its owner only", site.Next(t).Data, "the site itself has no such path: the backend answers")
}

// TestAttack_AdminFeedThatIsNeverRead: whoever reads the feed and then does not keeps
// memory, or holds up the streams.
func TestAttack_AdminFeedThatIsNeverRead(t *testing.T) {
	backend := startBackend(t)
	server := harness.StartAdminCaddy(t, backend.behind(""))
	var deaf []net.Conn
	for range 8 {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(server.Admin, "http://"))
		require.NoError(t, err)
		t.Cleanup(func() { conn.Close() })
		_, err = conn.Write([]byte("GET /sse_guard/events HTTP/1.1\r\nHost: " + strings.TrimPrefix(server.Admin, "http://") + "\r\n\r\n"))
		require.NoError(t, err)
		deaf = append(deaf, conn)
	}
	client := harness.NewClient(t, harness.HTTP1)
	for range 50 {
		s := client.Open(t, server.URL+"/events", harness.WithBearer("a"))
		s.Next(t)
	}
	require.Len(t, deaf, 8)
	require.Less(t, server.Stop(t), time.Minute, "nor do they keep Caddy from stopping")
}
