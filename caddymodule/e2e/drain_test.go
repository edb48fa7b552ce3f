package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// startCaddySite runs the binary with a site, and returns where it is. global are
// options of the Caddyfile's global block.
func startCaddySite(t testing.TB, global, site string) (p *caddyProcess, url string) {
	t.Helper()
	dir := t.TempDir()
	url = fmt.Sprintf("http://localhost:%d", freePort(t))
	file := filepath.Join(dir, "Caddyfile")
	text := fmt.Sprintf("{\nadmin off\npersist_config off\nstorage file_system %q\n%s\n}\n%s {\n%s\n}\n", dir, global, url, site)
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	return startCaddyProcess(t, url+"/login", "run", "--config", file, "--adapter", "caddyfile"), url
}

// stop sends SIGTERM and returns how long the process took to end.
func (p *caddyProcess) stop(t testing.TB) time.Duration {
	t.Helper()
	began := time.Now()
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case <-p.exited:
	case <-time.After(patience):
		require.FailNow(t, "Caddy does not stop", p.log)
	}
	require.Zero(t, p.cmd.ProcessState.ExitCode())
	return time.Since(began)
}

func TestDrain_EndsStreamsInGoodOrderWhenCaddyStops(t *testing.T) {
	for name, test := range map[string]struct {
		streams  int
		protocol protocol
		path     string
		global   string
		window   time.Duration
	}{
		"one":                    {1, h2c, "/raw?interval=3600", "", 10 * time.Second},
		"many":                   {2000, h2c, "/raw?interval=3600", "", 4 * time.Second},
		"busy, over HTTP/1.1":    {100, http1, "/raw?interval=0.02", "", 4 * time.Second},
		"within a shorter grace": {200, h2c, "/raw?interval=3600", "grace_period 2s", 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			app := startFastAPI(t)
			drain := "drain 10s"
			if test.global == "" {
				drain = fmt.Sprintf("drain %s", test.window)
			}
			server, url := startCaddySite(t, test.global+"\nservers {\nprotocols h1 h2c\n}", "sse_guard {\n"+drain+"\n}\nreverse_proxy "+app.URL)
			streams := make([]*sseStream, test.streams)
			var opening sync.WaitGroup
			for c := range min(test.streams, 20) {
				client := newSSEClient(t, test.protocol) // on HTTP/2, many streams on few connections
				opening.Go(func() {
					for i := c; i < test.streams; i += 20 {
						streams[i], _ = client.connect(t.Context(), url+test.path, "", withBearer(fmt.Sprint("user", i)))
					}
				})
			}
			opening.Wait()
			for _, s := range streams {
				require.NotNil(t, s)
				t.Cleanup(s.close)
				s.next(t)
			}

			took := server.stop(t)
			seconds := make([]int, test.window/time.Second+1)
			for _, s := range streams {
				end := s.wait(t)
				require.NoError(t, end.Err)
				require.False(t, end.Torn)
				for _, e := range s.rest(t) {
					require.Equal(t, "message", e.Type, "no event of the guard's")
				}
				require.NotNil(t, s.retry())
				seconds[*s.retry()/time.Second]++
			}
			t.Logf("%d streams, gone after %s; retries by second: %v", test.streams, took, seconds)
			require.Less(t, took, test.window)
			if test.streams == 1 {
				require.Less(t, took, 2*time.Second, "nothing to wait for")
				return
			}
			for _, n := range seconds[1 : len(seconds)-1] {
				require.Less(t, n, test.streams*2/3, "they come back at different times: %v", seconds)
			}
			app.waitOpen(t, 0)
		})
	}
}

// TestDrain_OfAZoneThatAReloadLeavesWithoutGuards: its streams would go on for
// ever, and nobody would end them.
func TestDrain_OfAZoneThatAReloadLeavesWithoutGuards(t *testing.T) {
	app := startFastAPI(t)
	server := startCaddy(t, "sse_guard {\ndrain 2s\n}\nreverse_proxy "+app.URL)
	client := newSSEClient(t, http1)
	s := client.open(t, server.URL+"/raw", withBearer("alice"))
	s.next(t)
	server.reload(t, "sse_guard {\ndrain 2s\nlimit 2\n}\nreverse_proxy "+app.URL)
	s.next(t)
	require.False(t, s.ended(), "a reload that keeps the zone ends nothing")
	server.reload(t, "reverse_proxy "+app.URL)
	end := s.wait(t)
	require.NoError(t, end.Err)
	require.False(t, end.Torn)
	require.NotNil(t, s.retry())
	require.LessOrEqual(t, *s.retry(), 2*time.Second)
	app.waitOpen(t, 0)
}
