package e2e

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// README's recipe for Spring: nothing is left in the application of the streams that
// were taken over, although a servlet container notices a closed connection only at its
// next write.
func TestSpring_TakeoversLeaveNoEmitterBehind(t *testing.T) {
	const takeovers = 60
	app := harness.StartSpring(t)
	server := harness.StartCaddy(t, "sse_guard {\ntoken cookie JSESSIONID\nkey {sse_guard.token}\n}\nreverse_proxy "+app.URL)
	session := app.Login(t)
	client := harness.NewClient(t, harness.HTTP1)
	open := func() *harness.Stream {
		s := client.Open(t, server.URL+"/events", func(r *http.Request) { r.AddCookie(session) })
		require.Equal(t, http.StatusOK, s.Status)
		require.Equal(t, "hello", s.Next(t).Data)
		return s
	}
	first := open()
	for range takeovers {
		open()
	}
	harness.RequireEnded(t, first, harness.Duplicated, "superseded")
	var emitters, sockets, closeWait int
	left := func() string {
		return fmt.Sprintf("%d emitters, %d sockets, of which %d in CLOSE-WAIT", emitters, sockets, closeWait)
	}
	require.Eventually(t, func() bool {
		emitters = app.Open(t)
		sockets, closeWait = harness.ServerSockets(t, app.Port)
		// Caddy keeps a few connections for later requests.
		return emitters <= 1 && closeWait == 0 && sockets < takeovers/4
	}, harness.Patience, 50*time.Millisecond, "after %d takeovers: %s", takeovers, stringer(left))
	require.Equal(t, 1, emitters, "the last one is there")
}

// stringer is formatted when it is printed.
type stringer func() string

func (s stringer) String() string { return s() }
