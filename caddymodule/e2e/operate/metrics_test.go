package operate

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// samples are the guard's metrics, by their name and labels as they are written, without
// caddy_sse_guard_.
type samples map[string]float64

// exposition is what a site's /metrics answers. It is asked on a connection of its own, and
// again where a server that is being replaced has closed that.
func exposition(t testing.TB, server *harness.Caddy) string {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for end := time.Now().Add(harness.Patience); ; {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/metrics", nil)
		require.NoError(t, err)
		response, err := client.Do(r)
		if err != nil && time.Now().Before(end) {
			continue
		}
		require.NoError(t, err)
		body, err := io.ReadAll(response.Body)
		require.NoError(t, errors.Join(err, response.Body.Close()))
		require.Equal(t, http.StatusOK, response.StatusCode, "%s", body)
		return string(body)
	}
}

// scrape asks a site's /metrics.
func scrape(t testing.TB, server *harness.Caddy) samples {
	t.Helper()
	body := exposition(t, server)
	found := make(samples)
	for line := range strings.Lines(body) {
		name, ours := strings.CutPrefix(strings.TrimSpace(line), "caddy_sse_guard_")
		if !ours {
			continue
		}
		at := strings.LastIndexByte(name, ' ')
		value, err := strconv.ParseFloat(name[at+1:], 64)
		require.NoError(t, err, line)
		found[name[:at]] = value
	}
	return found
}

// waitScrape scrapes until the samples are as wanted.
func waitScrape(t testing.TB, server *harness.Caddy, want samples) samples {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(harness.Patience); ; <-tick.C {
		got := scrape(t, server)
		have := maps.Clone(want)
		for name := range have {
			value, is := got[name]
			if !is {
				value = -1
			}
			have[name] = value
		}
		if maps.Equal(have, want) {
			return got
		}
		if time.Now().After(end) {
			require.Equal(t, want, have)
		}
	}
}

// startTicking starts a backend whose streams have three events and then wait.
func startTicking(t testing.TB) (url string) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 3 {
			_, _ = fmt.Fprintf(w, "id: %d\ndata: %s\n\n", i, strings.Repeat("x", 100))
		}
		_ = http.NewResponseController(w).Flush()
		if r.URL.Query().Has("short") {
			return
		}
		<-r.Context().Done()
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// TestMetrics_GoOnOverReloads is what a Prometheus sees of a site whose configuration is
// changed while streams are open.
func TestMetrics_GoOnOverReloads(t *testing.T) {
	backend := startTicking(t)
	site := func(guards string) string { return guards + "\nmetrics /metrics\nreverse_proxy " + backend }
	const shop = "sse_guard /shop/* {\nzone shop\nkey {sse_guard.token}\nrequire_token\n}\n"
	server := harness.StartCaddy(t, site(shop+"sse_guard /news/* {\nzone news\nkey {sse_guard.token}\n}"))
	require.Zero(t, scrape(t, server)[`admissions_total{outcome="admitted",zone="shop"}`])
	before := waitScrape(t, server, samples{
		`streams{state="live",zone="shop"}`: 0, `streams{state="live",zone="news"}`: 0,
		`registry_up{zone="shop"}`: 1, `ends_total{reason="superseded",zone="shop"}`: 0,
	})

	client := harness.NewClient(t, harness.HTTP1)
	older := client.Open(t, server.URL+"/shop/a", harness.WithBearer("ann"))
	older.Next(t)
	news := client.Open(t, server.URL+"/news/a", harness.WithBearer("ann"))
	news.Next(t)
	anonymous := client.Open(t, server.URL+"/news/a")
	anonymous.Next(t)
	waitScrape(t, server, samples{
		`streams{state="live",zone="shop"}`:                     1,
		`streams{state="live",zone="news"}`:                     1,
		`streams{state="untracked",zone="news"}`:                1,
		`admissions_total{outcome="admitted",zone="shop"}`:      1,
		`admissions_total{outcome="untracked",zone="news"}`:     1,
		`untracked_total{cause="token",zone="news"}`:            1,
		`events_total{zone="shop"}`:                             3,
		`bytes_total{zone="shop"}`:                              3 * float64(len("id: 0\ndata: \n\n")+100),
		`registry_seconds_count{operation="admit",zone="shop"}`: before[`registry_seconds_count{operation="admit",zone="shop"}`] + 2, // early, and at the header
	})

	server.Reload(t, site(shop)) // the zone news is gone
	var after samples
	require.Eventually(t, func() bool {
		after = scrape(t, server)
		for name := range after {
			if strings.Contains(name, `zone="news"`) {
				return false
			}
		}
		return true
	}, harness.Patience, 10*time.Millisecond, "its streams have ended by now")
	require.EqualValues(t, 1, after[`streams{state="live",zone="shop"}`], "it was opened before")

	newer := client.Open(t, server.URL+"/shop/a", harness.WithBearer("ann"))
	newer.Next(t)
	harness.RequireEnded(t, older, harness.Duplicated, "superseded")
	response, _ := harness.Get(t, server.URL+"/shop/a", harness.WithHeader("Accept", "text/event-stream"))
	require.Equal(t, http.StatusUnauthorized, response.StatusCode)
	short := client.Open(t, server.URL+"/shop/a?short", harness.WithBearer("bob"))
	short.Wait(t)
	waitScrape(t, server, samples{
		`streams{state="live",zone="shop"}`:                    1,
		`admissions_total{outcome="admitted",zone="shop"}`:     2,
		`admissions_total{outcome="superseding",zone="shop"}`:  1,
		`admissions_total{outcome="unauthorized",zone="shop"}`: 1,
		`ends_total{reason="superseded",zone="shop"}`:          1,
		`ends_total{reason="finished",zone="shop"}`:            1,
		`takeover_seconds_count{zone="shop"}`:                  1,
		`stream_seconds_count{zone="shop"}`:                    2,
		`events_total{zone="shop"}`:                            9,
	})
	newer.Close()
	waitScrape(t, server, samples{
		`streams{state="live",zone="shop"}`:     0,
		`ends_total{reason="left",zone="shop"}`: 1,
		`events_total{zone="shop"}`:             9,
	})
	for name := range scrape(t, server) {
		require.NotContains(t, name, "ann", "no label holds what a client has sent")
	}
}

// TestMetrics_CountersNeverFall scrapes while streams open and end: a counter that falls
// looks like one that began anew, and its rate like a burst.
func TestMetrics_CountersNeverFall(t *testing.T) {
	server := harness.StartCaddy(t, "sse_guard {\nkey {query.u}\n}\nmetrics /metrics\nreverse_proxy "+startTicking(t))
	const streams, rounds = 8, 20
	opened := make(chan struct{})
	go func() {
		defer close(opened)
		client := &http.Client{}
		defer client.CloseIdleConnections()
		for i := range streams * rounds {
			r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("%s/?short&u=%d", server.URL, i%streams), nil)
			response, err := client.Do(r)
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.Copy(io.Discard, response.Body)
			response.Body.Close()
		}
	}()
	last, over := samples{}, false
	for !over {
		select {
		case <-opened:
			over = true
		default:
		}
		got := scrape(t, server)
		for name, value := range last {
			if !strings.HasPrefix(name, "streams{") {
				require.GreaterOrEqual(t, got[name], value, name)
			}
		}
		last = got
	}
	waitScrape(t, server, samples{`events_total{zone="default"}`: 3 * streams * rounds, `ends_total{reason="finished",zone="default"}`: streams * rounds})
}
