package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// The options of these tests are in the proportions of the defaults, or harder,
// and short.
const (
	netBeat  = 2 * time.Second
	netDead  = 4 * time.Second
	netProbe = 500 * time.Millisecond
	// netSlack is what a busy machine may need on top.
	netSlack = 2 * time.Second
)

// lan is Caddy, as a process that listens on all addresses, before FastAPI.
type lan struct {
	app       *harness.FastAPI
	log       *harness.CaddyLog
	http, tls int // its ports
}

func startLAN(t testing.TB, options string) *lan {
	t.Helper()
	harness.RequireNamespaces(t)
	app := harness.StartFastAPI(t)
	n := &lan{app: app, http: harness.FreePort(t), tls: harness.FreePort(t)}
	certificate := harness.WriteCertificate(t, t.TempDir())
	if strings.Contains(options, "policy reject") {
		options += fmt.Sprintf("\nprobe %s", netProbe)
	}
	site := fmt.Sprintf("sse_guard {\nheartbeat %s\ndead_after %s\n%s\n}\nreverse_proxy %s", netBeat, netDead, options, app.URL)
	_, n.log = harness.StartCaddySites(t, fmt.Sprintf("http://localhost:%d/whoami", n.http), `
		grace_period 1s
		servers {
			protocols h1 h2
		}`, fmt.Sprintf(`
		http://:%d {
			%s
		}
		https://localhost:%d {
			tls %q %q
			%s
		}`, n.http, site, n.tls, certificate, certificate, site))
	return n
}

// Ways of streams, and of clients to speak to Caddy.
const (
	idle = "/raw?interval=3600"
	busy = "/raw?interval=0.05"
	// at most visits of the stream something is being written
	veryBusy = "/raw?interval=0.001"

	viaHTTP1    = "HTTP/1.1"
	viaHTTP1TLS = "HTTP/1.1 with TLS"
	viaHTTP2    = "HTTP/2"
)

// connect opens a stream from the host, and waits for its first event.
func (n *lan) connect(t testing.TB, h *harness.RemoteHost, via, path string) *harness.CurlProcess {
	t.Helper()
	path += "&token=" + h.Name
	args := []string{"--http1.1", fmt.Sprintf("http://%s:%d%s", h.Server, n.http, path)}
	if via != viaHTTP1 {
		version := map[string]string{viaHTTP1TLS: "--http1.1", viaHTTP2: "--http2"}[via]
		args = []string{version, "--resolve", fmt.Sprintf("localhost:%d:%s", n.tls, h.Server), fmt.Sprintf("https://localhost:%d%s", n.tls, path)}
	}
	c := h.Curl(t, args...)
	c.WaitOutput(t, "data: ")
	return c
}

// url is where a newcomer on this computer finds what the host has opened.
func (n *lan) url(h *harness.RemoteHost, path string) string {
	return fmt.Sprintf("http://%s:%d%s&token=%s", h.Server, n.http, path, h.Name)
}

// ending returns why and when the host's first stream was ended, once it was.
func (n *lan) ending(t testing.TB, h *harness.RemoteHost) (reason string, at time.Time, ok bool) {
	t.Helper()
	for _, line := range n.log.HandlerLogs(t) {
		if line.Msg == "stream ended" && line.ClientIP == h.FirstAddr {
			var stamp struct{ TS float64 }
			require.NoError(t, json.Unmarshal([]byte(line.Raw), &stamp))
			return line.Reason, seconds(stamp.TS), true
		}
	}
	return "", time.Time{}, false
}

func seconds(s float64) time.Time { return time.UnixMicro(int64(s * 1e6)) }

// closed returns when the backend has seen the host's first stream end, if it did.
func (n *lan) closed(t testing.TB, h *harness.RemoteHost) (at time.Time, ok bool) {
	t.Helper()
	for _, s := range n.app.Stats(t).Streams {
		if s.User == h.Name && s.ClosedAt != nil {
			return seconds(*s.ClosedAt), true
		}
	}
	return time.Time{}, false
}

// requireEnds waits for the end of a host's stream, and judges when it came.
func (n *lan) requireEnds(t testing.TB, h *harness.RemoteHost, reason string, since time.Time, least, most time.Duration) {
	t.Helper()
	var (
		why        string
		ended, saw time.Time
	)
	require.Eventually(t, func() bool {
		var logged, seen bool
		why, ended, logged = n.ending(t, h)
		saw, seen = n.closed(t, h)
		return logged && seen
	}, harness.Patience, 20*time.Millisecond, "the stream has not ended")
	t.Logf("%s after %.2f s; the backend saw it after %.2f s", why, ended.Sub(since).Seconds(), saw.Sub(since).Seconds())
	assert.Equal(t, reason, why)
	for _, at := range []time.Time{ended, saw} {
		assert.GreaterOrEqual(t, at.Sub(since), least, "too early")
		assert.LessOrEqual(t, at.Sub(since), most, "too late")
	}
}

// requireStays waits for a while in which the stream must not end.
func (n *lan) requireStays(t testing.TB, h *harness.RemoteHost, c *harness.CurlProcess, d time.Duration) {
	t.Helper()
	require.Never(t, func() bool {
		_, _, logged := n.ending(t, h)
		_, seen := n.closed(t, h)
		return logged || seen || !c.Running()
	}, d, 100*time.Millisecond, "a client that lives has lost its stream")
}

// sideBySide runs the parts at the same time, however few processors there are:
// they do nothing but wait.
func sideBySide(t *testing.T, parts map[string]func(*testing.T)) {
	t.Helper()
	var all sync.WaitGroup
	for name, part := range parts {
		all.Go(func() { t.Run(name, part) })
	}
	all.Wait()
}

// TestNetns_Liveness: the dead end within the bound, and not before; the live stay.
func TestNetns_Liveness(t *testing.T) {
	n := startLAN(t, "")
	parts := map[string]func(*testing.T){}

	for _, via := range []string{viaHTTP1, viaHTTP1TLS, viaHTTP2} {
		// A client's last acknowledgement may be a heartbeat old when its cable is pulled.
		for path, least := range map[string]time.Duration{idle: netDead - netBeat, busy: netDead - 500*time.Millisecond} {
			kind := map[string]string{idle: "idle", busy: "busy"}[path]
			parts["cable pulled, "+kind+", "+via] = func(t *testing.T) {
				h := harness.NewRemoteHost(t)
				n.connect(t, h, via, path)
				n.requireEnds(t, h, "dead", h.PullCable(t), least, netDead+netSlack)
			}
			parts["packets lost, link up, "+kind+", "+via] = func(t *testing.T) {
				h, w := harness.NewFarHost(t, 0, 0)
				n.connect(t, h, via, path)
				n.requireEnds(t, h, "dead", w.Lose(), least, netDead+netSlack)
			}
		}
	}
	parts["packets lost, link up, very busy, HTTP/2"] = func(t *testing.T) {
		h, w := harness.NewFarHost(t, 0, 0)
		n.connect(t, h, viaHTTP2, veryBusy)
		n.requireEnds(t, h, "dead", w.Lose(), netDead-500*time.Millisecond, netDead+netSlack)
	}
	for _, path := range []string{idle, busy} {
		kind := map[string]string{idle: "idle", busy: "busy"}[path]
		parts["300 ms each way and 5% loss, "+kind] = func(t *testing.T) {
			h, _ := harness.NewFarHost(t, 300*time.Millisecond, 20)
			c := n.connect(t, h, viaHTTP1, path)
			n.requireStays(t, h, c, 3*netDead)
		}
		parts["a short cut, "+kind] = func(t *testing.T) {
			h := harness.NewRemoteHost(t)
			c := n.connect(t, h, viaHTTP1, path)
			h.PullCable(t)
			n.requireStays(t, h, c, netDead/4)
			h.PlugCableIn(t)
			n.requireStays(t, h, c, 2*netDead)
		}
	}
	parts["host back with a new address"] = func(t *testing.T) {
		h := harness.NewRemoteHost(t)
		n.connect(t, h, viaHTTP1, busy)
		h.PullCable(t)
		h.Move(t)
		h.PlugCableIn(t)
		back := time.Now()
		c := n.connect(t, h, viaHTTP1, busy)
		t.Logf("first event at the new address after %.2f s", time.Since(back).Seconds())
		n.requireEnds(t, h, "superseded", back, 0, netSlack)
		n.requireStaysOpen(t, c)
	}
	parts["stopped client, busy"] = func(t *testing.T) {
		h := harness.NewRemoteHost(t)
		h.SmallWindow(t)
		c := n.connect(t, h, viaHTTP1, "/raw?interval=0.005")
		stopped := c.Signal(t, syscall.SIGSTOP)
		// Its kernel acknowledges for it until the window is full, and says that it
		// is for as long as it is asked. The end is the kernel's here, not Caddy's,
		// to which it looks as if the client had left: there is no line in the log.
		var full, saw time.Time
		require.Eventually(t, func() bool {
			switch isFull := h.WindowFull(t); {
			case isFull && full.IsZero():
				full = time.Now()
			case !isFull && time.Since(full) < netDead/2:
				full = time.Time{} // it was for a moment
			}
			var seen bool
			saw, seen = n.closed(t, h)
			return seen
		}, harness.Patience, 20*time.Millisecond, "the stream has not ended")
		require.False(t, full.IsZero(), "the window was not full")
		t.Logf("the window was full %.2f s after the client was stopped, and %.2f s later the backend saw the end",
			full.Sub(stopped).Seconds(), saw.Sub(full).Seconds())
		assert.GreaterOrEqual(t, saw.Sub(full), netDead-500*time.Millisecond, "too early")
		// The kernel looks at the time only when it probes the window, ever more seldom.
		assert.LessOrEqual(t, saw.Sub(full), netDead+netSlack+time.Second, "too late")
	}
	parts["stopped client, idle"] = func(t *testing.T) {
		h := harness.NewRemoteHost(t)
		c := n.connect(t, h, viaHTTP1, idle)
		c.Signal(t, syscall.SIGSTOP)
		n.requireStays(t, h, c, 3*netDead)
		c.Signal(t, syscall.SIGCONT)
		require.Eventually(t, func() bool { return strings.Count(c.Output(), "\n:") >= 4 },
			harness.Patience, 20*time.Millisecond, "the heartbeats were not there for it")
	}
	sideBySide(t, parts)
}

// requireStaysOpen: events go on to arrive.
func (n *lan) requireStaysOpen(t testing.TB, c *harness.CurlProcess) {
	t.Helper()
	before := len(c.Output())
	require.Eventually(t, func() bool { return len(c.Output()) > before+1000 }, harness.Patience, 20*time.Millisecond)
	require.True(t, c.Running())
}

// TestNetns_Reject: a zombie costs no newcomer a refusal, and a holder that lives
// keeps its place against any.
func TestNetns_Reject(t *testing.T) {
	n := startLAN(t, "policy reject\nretry 1s")
	bound := netProbe + netSlack // and far from netDead, when the holder would end anyway
	parts := map[string]func(*testing.T){}
	for _, path := range []string{idle, busy} {
		kind := map[string]string{idle: "idle", busy: "busy"}[path]
		for _, via := range []string{"cable pulled", "packets lost, link up"} {
			parts["dead, "+via+", "+kind] = func(t *testing.T) {
				h, lose := hostToLose(t, via)
				n.connect(t, h, viaHTTP1, path)
				lose()
				start := time.Now()
				s := harness.NewClient(t, harness.HTTP1).Open(t, n.url(h, path))
				require.Equal(t, "message", s.Next(t).Type, "it is refused")
				took := time.Since(start)
				t.Logf("admitted, first event after %.2f s", took.Seconds())
				assert.LessOrEqual(t, took, bound)
				n.requireEnds(t, h, "dead", start, 0, bound)
			}
		}
		for _, delay := range []time.Duration{0, 300 * time.Millisecond} {
			parts[fmt.Sprintf("alive, %s each way, %s", delay, kind)] = func(t *testing.T) {
				h, _ := harness.NewFarHost(t, delay, 0)
				c := n.connect(t, h, viaHTTP1, path)
				client := harness.NewClient(t, harness.HTTP1)
				slowest := time.Duration(0)
				for range 10 {
					start := time.Now()
					harness.RequireRejected(t, client.Open(t, n.url(h, path)))
					slowest = max(slowest, time.Since(start))
				}
				t.Logf("10 refusals, the slowest took %.3f s", slowest.Seconds())
				admitted := n.crowd(t, n.url(h, path))
				assert.Zero(t, admitted, "of 50 newcomers")
				n.requireStays(t, h, c, netBeat)
			}
		}
		parts["dead, 50 newcomers at once, "+kind] = func(t *testing.T) {
			h := harness.NewRemoteHost(t)
			n.connect(t, h, viaHTTP1, path)
			h.PullCable(t)
			admitted := n.crowd(t, n.url(h, path))
			assert.Equal(t, 1, admitted, "of 50 newcomers")
		}
	}
	sideBySide(t, parts)
}

// hostToLose makes a host that can be lost in that way.
func hostToLose(t testing.TB, way string) (h *harness.RemoteHost, lose func()) {
	t.Helper()
	if way == "cable pulled" {
		h = harness.NewRemoteHost(t)
		return h, func() { h.PullCable(t) }
	}
	h, w := harness.NewFarHost(t, 0, 0)
	return h, func() { w.Lose() }
}

// crowd lets 50 newcomers come at once, and returns how many were admitted. They
// stay until the last one has its answer.
func (n *lan) crowd(t testing.TB, url string) int {
	t.Helper()
	client := harness.NewClient(t, harness.HTTP1)
	var (
		newcomers sync.WaitGroup
		admitted  atomic.Int32
		streams   [50]*harness.Stream
	)
	t.Cleanup(func() {
		for _, s := range streams {
			if s != nil {
				s.Close()
			}
		}
	})
	start := time.Now()
	for i := range streams {
		newcomers.Go(func() {
			s, err := client.Connect(t.Context(), url, "")
			if !assert.NoError(t, err) {
				return
			}
			streams[i] = s
			// The stream ends with t.Context(), and with it this.
			e, ok := <-s.Events()
			assert.True(t, ok, "neither admitted nor told why not: %s", s.Bytes())
			if e.Type == "message" {
				admitted.Add(1)
			}
		})
	}
	newcomers.Wait()
	t.Logf("50 newcomers at once: %d admitted, all answered after %.2f s", admitted.Load(), time.Since(start).Seconds())
	return int(admitted.Load())
}
