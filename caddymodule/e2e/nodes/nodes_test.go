package nodes

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// nodes starts so many Caddy processes, each with storage of its own, in front of app,
// which share a Redis. They guard with the given lines.
func nodes(t *testing.T, n int, app *harness.FastAPI, redis *harness.Redis, lines string) (processes []*harness.CaddyProcess, urls []string) {
	processes, urls, _ = nodesBy(t, n, app, "address "+redis.Addr, lines)
	return processes, urls
}

// nodesBy is nodes with the lines that say where Redis is.
func nodesBy(t *testing.T, n int, app *harness.FastAPI, redis, lines string) (
	processes []*harness.CaddyProcess, urls []string, logs []*harness.CaddyLog,
) {
	for range n {
		url := fmt.Sprintf("http://localhost:%d", harness.FreePort(t))
		site := fmt.Sprintf(`%s {
			sse_guard {
				zone many
				key {sse_guard.token}
				registry redis {
					%s
					lease 2s
				}
				%s
			}
			reverse_proxy %s
		}`, url, redis, lines, app.URL)
		p, log := harness.StartCaddySites(t, url+"/login", "grace_period 1s", site)
		processes, urls, logs = append(processes, p), append(urls, url), append(logs, log)
	}
	app.WaitOpen(t, 0)
	app.Reset(t)
	return processes, urls, logs
}

func open(t *testing.T, url string, options ...harness.RequestOption) *harness.Stream {
	return harness.NewClient(t, harness.HTTP1).Open(t, url+"/raw", append(options, harness.WithBearer("alice"))...)
}

// openFirst opens the first stream of a zone: Redis may have lost who was there before, so
// that newcomers under reject are refused until nodes have had time to come back.
func openFirst(t *testing.T, url string) (s *harness.Stream) {
	require.Eventually(t, func() bool {
		s = open(t, url)
		_, ok := <-s.Events()
		return ok
	}, harness.Patience, 50*time.Millisecond)
	return s
}

// TestNodes_OneUserOneStream is problem P9: whichever node the newer stream comes to,
// the older one ends as on one node.
func TestNodes_OneUserOneStream(t *testing.T) {
	app := harness.StartFastAPI(t)
	_, urls := nodes(t, 2, app, harness.StartRedis(t), "logout POST /logout")
	older := open(t, urls[0])
	older.Next(t)
	newer := open(t, urls[1])
	newer.Next(t)
	notice := harness.RequireEnded(t, older, harness.Duplicated, "superseded")
	stats := app.WaitOpen(t, 1)
	require.Len(t, stats.Streams, 2)
	assert.Less(t, *stats.Streams[0].ClosedAt-stats.Streams[1].OpenedAt, 1.0, "the backend sees the older one leave")

	answer := open(t, urls[1], harness.WithHeader("Last-Event-ID", notice.ID))
	assert.Equal(t, http.StatusNoContent, answer.Status, "the nodes sign with one secret")
	newer.Next(t)

	response, _ := harness.Send(t, http.MethodPost, urls[0]+"/logout", harness.WithBearer("alice"))
	require.Less(t, response.StatusCode, 300)
	harness.RequireEnded(t, newer, "LOGGED_OUT", "logout")
	app.WaitOpen(t, 0)
}

func TestNodes_AKilledNodeFreesItsHolders(t *testing.T) {
	app := harness.StartFastAPI(t)
	processes, urls := nodes(t, 2, app, harness.StartRedis(t), "policy reject\nreserve off\non_reject status")
	openFirst(t, urls[0])
	refused := open(t, urls[1])
	require.Equal(t, http.StatusConflict, refused.Status)
	processes[0].Kill()
	killed := time.Now()
	require.Eventually(t, func() bool { return open(t, urls[1]).Status == http.StatusOK }, harness.Patience, 50*time.Millisecond)
	require.Less(t, time.Since(killed), 2*time.Second+time.Second, "the lease is 2 seconds, and the machine may be busy")
}

// TestNodes_WithoutRedisEachGoesOn has Redis end in the middle.
func TestNodes_WithoutRedisEachGoesOn(t *testing.T) {
	app := harness.StartFastAPI(t)
	redis := harness.StartRedis(t)
	_, urls := nodes(t, 2, app, redis, "")
	before := open(t, urls[0])
	before.Next(t)
	redis.Kill()
	before.Next(t)
	newer := open(t, urls[0])
	newer.Next(t)
	harness.RequireEnded(t, before, harness.Duplicated, "superseded")
	newest := open(t, urls[1])
	newest.Next(t)
	newer.Next(t)
	redis.Start(t)
	harness.RequireEnded(t, newer, harness.Duplicated, "superseded")
	newest.Next(t)
	app.WaitOpen(t, 1)
}

// TestNodes_PagesThatFightThroughTwoNodes is TestFight with a load balancer in front that
// has each page stay with its node.
func TestNodes_PagesThatFightThroughTwoNodes(t *testing.T) {
	app := harness.StartFastAPI(t)
	_, urls, logs := nodesBy(t, 2, app, "address "+harness.StartRedis(t).Addr, "")
	requireRest(t, logs, urls...)
}

// TestNodes_PagesThatFightThroughAnyNode is TestFight with a load balancer in front that
// has each request come to the next node.
func TestNodes_PagesThatFightThroughAnyNode(t *testing.T) {
	app := harness.StartFastAPI(t)
	_, urls, logs := nodesBy(t, 3, app, "address "+harness.StartRedis(t).Addr, "")
	front := fmt.Sprintf("http://localhost:%d", harness.FreePort(t))
	harness.StartCaddySites(t, front+"/login", "grace_period 1s", fmt.Sprintf(`%s {
		reverse_proxy %s {
			lb_policy round_robin
		}
	}`, front, strings.Join(urls, " ")))
	requireRest(t, logs, front, front)
}

// requireRest requires that two pages, which fight through these, come to rest, and that
// one hears when the other is closed.
func requireRest(t *testing.T, logs []*harness.CaddyLog, urls ...string) {
	t.Helper()
	browser := harness.StartBrowser(t)
	pages := []*harness.Tab{browser.NewTab(t, urls[0]+"/login"), browser.NewTab(t, urls[1]+"/login")}
	for _, p := range pages {
		p.Eval(t, harness.Fighting)
	}
	lines := func(msg string) int { return harness.CountLogs(t, msg, logs...) }
	require.Eventually(t, func() bool {
		return lines("newcomer parked: it takes the key back again and again") > 0
	}, 2*harness.Patience, 50*time.Millisecond, "they fight on")
	fought := lines("stream superseded")
	harness.Rest(t, 4*time.Second)
	require.Equal(t, fought, lines("stream superseded"), "they are at rest")
	holder, waiting := harness.WhoHears(t, pages[0], pages[1])
	holder.Close()
	require.Eventually(t, func() bool { return harness.Hears(t, waiting) }, harness.Patience, 20*time.Millisecond)
	t.Logf("%d takeovers", fought)
}

// TestNodes_ANodeThatStopsKeepsNobodyOut, though its user's stream outlived the server that
// it came to: Caddy stops once the server of its last configuration has nothing left to do.
func TestNodes_ANodeThatStopsKeepsNobodyOut(t *testing.T) {
	app, redis := harness.StartFastAPI(t), harness.StartRedis(t)
	site := func(line string) string {
		return fmt.Sprintf(`sse_guard {
			zone many
			key {sse_guard.token}
			policy reject
			registry redis {
				address %s
				lease 1m
			}
			%s
		}
		reverse_proxy %s`, redis.Addr, line, app.URL)
	}
	first, second := harness.StartAdminCaddy(t, site("")), harness.StartAdminCaddy(t, site(""))
	stream := openFirst(t, first.URL)
	first.Reload(t, site("retry 7s"))
	harness.Rest(t, 2*time.Second) // the grace period is one
	first.Stop(t)
	require.LessOrEqual(t, harness.RequireCut(t, stream), time.Second, "the grace period bounds the drain")
	open(t, second.URL).Next(t)
}
