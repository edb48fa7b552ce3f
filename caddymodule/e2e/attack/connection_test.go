package attack

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// ticking sends events to whoever asks.
func ticking(t testing.TB) (url string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(tick))
	t.Cleanup(s.Close)
	return s.URL
}

// Many clients share one HTTP/2 connection, if they come through a proxy. Its network
// is away for a moment, and somebody wants the place of one of them, or one of them is
// given up.
func TestAttack_EndEverybodysStreamsOfAnHTTP2Connection(t *testing.T) {
	for name, test := range map[string]struct {
		alice string // options of her guard
		probe bool   // by a newcomer with her token
	}{
		"by a probe":       {"policy reject\nprobe 300ms\nreserve off", true},
		"by a dead client": {"heartbeat 300ms\ndead_after 1s", false},
	} {
		t.Run(name, func(t *testing.T) {
			site := "@alice path /alice\nsse_guard @alice {\n" + test.alice + "\n}\n" +
				"@bob path /bob\nsse_guard @bob {\ndead_after off\n}\nreverse_proxy " + ticking(t)
			server := harness.StartCaddyTLS(t, site)
			cable := harness.NewCable(t, server.URL)
			shared := harness.NewClient(t, harness.HTTP2)
			alice := shared.Open(t, cable.URL+"/alice", harness.WithBearer("alice"))
			bob := shared.Open(t, cable.URL+"/bob", harness.WithBearer("bob"))
			alice.Next(t)
			bob.Next(t)
			require.Equal(t, "HTTP/2.0", bob.Proto)

			cable.Cut(t)
			if test.probe {
				newcomer := harness.NewClient(t, harness.HTTP2).Open(t, server.URL+"/alice", harness.WithBearer("alice"))
				require.Equal(t, "tick", newcomer.Next(t).Data)
			} else {
				server.WaitLogs(t, 1)
			}
			lines := server.WaitLogs(t, 1)
			require.Equal(t, "dead", lines[0].Reason)
			// A connection that is closed is so at once.
			cable.Mend(t)
			require.True(t, alice.Wait(t).Cut(), "her stream is reset")
			for range 200 { // what was sent meanwhile, and more
				require.Equal(t, "tick", bob.Next(t).Data)
			}
		})
	}
}
