package attack

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// TestAttack_StreamsOfOneSessionBeyondTheLimit, whose id is in the path, where the
// container looks for it and takes no part of the path from it.
func TestAttack_StreamsOfOneSessionBeyondTheLimit(t *testing.T) {
	for name, key := range map[string]string{"by default": "", "by session": "key {sse_guard.token}"} {
		t.Run(name, func(t *testing.T) {
			backend := startBackend(t)
			server := harness.StartCaddy(t, "handle_path /app/* {\n"+backend.behind("token cookie JSESSIONID", "token path jsessionid", "require_token", key)+"\n}")
			client := harness.NewClient(t, harness.HTTP1)
			refused := client.Open(t, server.URL+"/app/events;session=4D2")
			require.Equal(t, http.StatusUnauthorized, refused.Status)
			older := client.Open(t, server.URL+"/app/events", harness.WithHeader("Cookie", "JSESSIONID=4D2"))
			older.Next(t)
			for _, path := range []string{
				"/app/events;jsessionid=4D2", "/app/events;a=1;jsessionid=4D2;b", "/app/events;%6Asessionid=%34D2",
			} {
				newer := client.Open(t, server.URL+path)
				require.Equal(t, http.StatusOK, newer.Status, path)
				newer.Next(t)
				harness.RequireEnded(t, older, harness.Duplicated, "superseded")
				older = newer
			}
			backend.requireOpen(t, 1)
		})
	}
}

// TestAttack_StayLoggedInByASessionInThePath: the container takes the parameter from the
// path of a logout, too.
func TestAttack_StayLoggedInByASessionInThePath(t *testing.T) {
	backend := startBackend(t)
	server := harness.StartCaddy(t, "respond /logout* bye\n"+backend.behind("token path jsessionid", "logout /logout"))
	client := harness.NewClient(t, harness.HTTP1)
	stream := client.Open(t, server.URL+"/events;jsessionid=4D2")
	stream.Next(t)
	require.Equal(t, http.StatusOK, harness.LogOut(t, server.URL+"/logout;jsessionid=4D2"))
	harness.RequireEnded(t, stream, harness.LoggedOut, "logout")
}
