package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

func TestDrain_EndsStreamsInGoodOrderWhenCaddyStops(t *testing.T) {
	for name, test := range map[string]struct {
		streams  int
		protocol harness.Protocol
		path     string
		global   string
		window   time.Duration
	}{
		"one":                    {1, harness.H2C, "/raw?interval=3600", "", 10 * time.Second},
		"many":                   {2000, harness.H2C, "/raw?interval=3600", "", 4 * time.Second},
		"busy, over HTTP/1.1":    {100, harness.HTTP1, "/raw?interval=0.02", "", 4 * time.Second},
		"within a shorter grace": {200, harness.H2C, "/raw?interval=3600", "grace_period 2s", 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			app := harness.StartFastAPI(t)
			drain := "drain 10s"
			if test.global == "" {
				drain = fmt.Sprintf("drain %s", test.window)
			}
			// Where the machine is busy, the clients of this test may read nothing for a second.
			drain += "\nend_timeout 10s"
			server, url := harness.StartSite(t, test.global+"\nservers {\nprotocols h1 h2c\n}", "sse_guard {\n"+drain+"\n}\nreverse_proxy "+app.URL)
			streams := make([]*harness.Stream, test.streams)
			var opening sync.WaitGroup
			for c := range min(test.streams, 20) {
				client := harness.NewClient(t, test.protocol) // on HTTP/2, many streams on few connections
				opening.Go(func() {
					for i := c; i < test.streams; i += 20 {
						streams[i], _ = client.Connect(t.Context(), url+test.path, "", harness.WithBearer(fmt.Sprint("user", i)))
					}
				})
			}
			opening.Wait()
			for _, s := range streams {
				require.NotNil(t, s)
				t.Cleanup(s.Close)
				s.Next(t)
			}

			took := server.Stop(t)
			seconds := make([]int, test.window/time.Second+1)
			for _, s := range streams {
				retry := harness.RequireCut(t, s)
				for _, e := range s.Rest(t) {
					require.Equal(t, "message", e.Type, "no event of the guard's")
				}
				seconds[retry/time.Second]++
			}
			t.Logf("%d streams, gone after %s; retries by second: %v", test.streams, took, seconds)
			require.Less(t, took, test.window+2*time.Second, "the machine may be busy when the process ends")
			if test.streams == 1 {
				require.Less(t, took, 2*time.Second, "nothing to wait for")
				return
			}
			for _, n := range seconds[1 : len(seconds)-1] {
				require.Less(t, n, test.streams*2/3, "they come back at different times: %v", seconds)
			}
			app.WaitOpen(t, 0)
		})
	}
}

// TestDrain_OfAZoneThatAReloadLeavesWithoutGuards: its streams would go on for
// ever, and nobody would end them.
func TestDrain_OfAZoneThatAReloadLeavesWithoutGuards(t *testing.T) {
	app := harness.StartFastAPI(t)
	server := harness.StartCaddy(t, "sse_guard {\ndrain 2s\n}\nreverse_proxy "+app.URL)
	client := harness.NewClient(t, harness.HTTP1)
	s := client.Open(t, server.URL+"/raw", harness.WithBearer("alice"))
	s.Next(t)
	server.Reload(t, "sse_guard {\ndrain 2s\nlimit 2\n}\nreverse_proxy "+app.URL)
	s.Next(t)
	require.False(t, s.Ended(), "a reload that keeps the zone ends nothing")
	server.Reload(t, "reverse_proxy "+app.URL)
	require.LessOrEqual(t, harness.RequireCut(t, s), 2*time.Second)
	app.WaitOpen(t, 0)
}

// openUsers opens a stream for each of n users, whose tokens begin with name, and waits for
// its first event.
func openUsers(t *testing.T, client *harness.Client, url, name string, n int) []*harness.Stream {
	t.Helper()
	streams := make([]*harness.Stream, n)
	for i := range streams {
		streams[i] = client.Open(t, url, harness.WithBearer(fmt.Sprint(name, i)))
		streams[i].Next(t)
	}
	return streams
}

// TestDrain_OfStreamsThatOutlivedTheirServer: those that were opened before the last reload
// end in good order too, though Caddy does not wait for them.
func TestDrain_OfStreamsThatOutlivedTheirServer(t *testing.T) {
	app := harness.StartFastAPI(t)
	site := func(line string) string {
		return "sse_guard {\ndrain 4s\n" + line + "\n}\nreverse_proxy " + app.URL
	}
	for _, protocol := range []harness.Protocol{harness.HTTP1, harness.H2C} {
		t.Run(string(protocol), func(t *testing.T) {
			server := harness.StartAdminCaddy(t, site(""), "servers {\nprotocols h1 h2c\n}")
			client := harness.NewClient(t, protocol)
			streams := openUsers(t, client, server.URL+"/raw", "older", 20)
			server.Reload(t, site("retry 7s"))
			harness.Rest(t, 2*time.Second) // the grace period, of 1s, is over for these
			streams = append(streams, openUsers(t, client, server.URL+"/raw", "newer", 20)...)
			server.Stop(t)
			for _, s := range streams {
				require.LessOrEqual(t, harness.RequireCut(t, s), time.Second, "the grace period bounds the drain")
			}
			app.WaitOpen(t, 0)
		})
	}
}

// TestDrain_ByAReloadIsHurriedWhenCaddyStops: its window is not that of the stop, and who
// stops Caddy may not wait long.
func TestDrain_ByAReloadIsHurriedWhenCaddyStops(t *testing.T) {
	app := harness.StartFastAPI(t)
	server := harness.StartAdminCaddy(t, "sse_guard {\ndrain 10m\n}\nreverse_proxy "+app.URL, "grace_period 10m")
	streams := openUsers(t, harness.NewClient(t, harness.HTTP1), server.URL+"/raw?interval=3600", "user", 400)
	server.Reload(t, "reverse_proxy "+app.URL)
	require.Less(t, server.Stop(t), 10*time.Second, "at 20 a second it would be 20 seconds")
	for _, s := range streams {
		harness.RequireCut(t, s)
	}
}

// TestDrain_NoReloadComesInBetween: what it would run ends in a moment, and nobody would tell
// its streams.
func TestDrain_NoReloadComesInBetween(t *testing.T) {
	app := harness.StartFastAPI(t)
	site := func(line string) string {
		return "sse_guard {\ndrain 20s\n" + line + "\n}\nreverse_proxy " + app.URL
	}
	const grace = 6 * time.Second
	server := harness.StartAdminCaddy(t, site(""), fmt.Sprintf("grace_period %s", grace))
	streams := openUsers(t, harness.NewClient(t, harness.HTTP1), server.URL+"/raw?interval=3600", "user", 60)
	server.Reload(t, site("retry 7s"))
	harness.Rest(t, grace+time.Second) // Caddy does not wait for them by now
	server.Terminate(t)
	require.Eventually(t, func() bool {
		return slices.ContainsFunc(streams, (*harness.Stream).Ended)
	}, harness.Patience, 5*time.Millisecond, "the drain begins")
	response, body := server.Load(t, site("retry 8s"))
	require.Equal(t, http.StatusBadRequest, response.StatusCode)
	require.Contains(t, body, "the process is about to exit")
	server.WaitExit(t)
	for _, s := range streams {
		harness.RequireCut(t, s)
	}
}
