package campaign

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/checker"
	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// zone is one that all nodes have, below the path of its name.
type zone struct {
	name string
	checker.Zone
	// onError is what the nodes are told, if that is something else than what they are
	// held to.
	onError checker.OnError
}

// zones are those of a campaign: one for each way of deciding.
var zones = []zone{
	{name: "allow1", Zone: checker.Zone{Limit: 1, OnError: checker.Allow}},
	{name: "allow2", Zone: checker.Zone{Limit: 2, OnError: checker.Allow}},
	{name: "allowR", Zone: checker.Zone{Limit: 1, OnError: checker.Allow, Rejects: true, Reserve: time.Second}},
	{name: "fence1", Zone: checker.Zone{Limit: 1, OnError: checker.Fence}},
	{name: "fence2", Zone: checker.Zone{Limit: 2, OnError: checker.Fence}},
	{name: "fenceR", Zone: checker.Zone{Limit: 1, OnError: checker.Fence, Rejects: true, Reserve: time.Second}},
	{name: "deny1", Zone: checker.Zone{Limit: 1, OnError: checker.Deny}},
	{name: "denyR", Zone: checker.Zone{Limit: 2, OnError: checker.Deny, Rejects: true, Reserve: time.Second}},
}

const (
	nodeCount = 3
	lease     = 4 * time.Second
	timeout   = time.Second
	deny      = 20 * time.Second
)

// promise is what the registry is held to here. What is promised at once may take a
// while on a machine that does other things too.
var promise = checker.Promise{Lease: lease, Slack: 1500 * time.Millisecond, Skew: 50 * time.Millisecond}

// world is the nodes and what they stand on.
type world struct {
	t       testing.TB
	zones   []zone
	lease   time.Duration
	backend *httptest.Server
	// open counts the streams that the backend has.
	open  atomic.Int64
	nodes []*node
	// master is the Redis that the nodes reach, replica the other one.
	master, replica *harness.Redis
}

type node struct {
	name, url  string
	configFile string
	process    *harness.CaddyProcess
	cable      *toxiproxy.Proxy
}

// newWorld starts all, until the test ends. The nodes have the given lease. Each is given
// to prepare, if there is one, before it starts.
func newWorld(t testing.TB, zones []zone, lease time.Duration, prepare ...func(*node)) *world {
	w := &world{t: t, zones: zones, lease: lease}
	w.backend = httptest.NewServer(http.HandlerFunc(w.serve))
	t.Cleanup(func() {
		w.backend.CloseClientConnections()
		w.backend.Close()
	})
	w.master, w.replica = harness.StartRedis(t), harness.StartRedis(t)
	w.replicate()
	api := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	for i := range nodeCount {
		n := &node{name: fmt.Sprint("n", i+1), url: fmt.Sprintf("http://127.0.0.1:%d", harness.FreePort(t))}
		n.cable = toxiproxy.NewProxy(api, n.name, fmt.Sprintf("127.0.0.1:%d", harness.FreePort(t)), w.master.Addr)
		require.NoError(t, n.cable.Start())
		t.Cleanup(n.cable.Stop)
		for _, f := range prepare {
			f(n)
		}
		w.configure(n)
		n.start(t)
		w.nodes = append(w.nodes, n)
	}
	return w
}

// replicate has the replica follow the master.
func (w *world) replicate() {
	host, port, _ := strings.Cut(w.master.Addr, ":")
	w.replica.Do(w.t, "REPLICAOF", host, port)
}

// configure writes a node's Caddyfile.
func (w *world) configure(n *node) {
	dir := w.t.TempDir()
	log := filepath.Join(dir, "caddy.log")
	var sites strings.Builder
	for _, z := range w.zones {
		policy, onError := "policy supersede", z.OnError
		if z.Rejects {
			policy = fmt.Sprintf("policy reject\nreserve %s", z.Reserve)
		}
		if z.onError != "" {
			onError = z.onError
		}
		fmt.Fprintf(&sites, `handle /%[1]s/* {
			sse_guard {
				zone %[1]s
				key {http.request.header.X-User}
				limit %[2]d
				%[3]s
				on_reject status
				flap off
				logout POST /%[1]s/logout deny %[4]s
				registry redis {
					address %[5]s
					lease %[6]s
					timeout %[7]s
					on_error %[8]s
				}
			}
			reverse_proxy %[9]s
		}
		`, z.name, z.Limit, policy, deny, n.cable.Listen, w.lease, timeout, onError, w.backend.Listener.Addr())
	}
	n.configFile = filepath.Join(dir, "Caddyfile")
	require.NoError(w.t, os.WriteFile(n.configFile, fmt.Appendf(nil, `{
		admin off
		persist_config off
		skip_install_trust
		auto_https disable_redirects
		grace_period 1s
		storage file_system %q
		log default {
			output file %q
			level WARN
			exclude http.handlers.sse_guard.security
		}
	}
	%s {
		handle /ready {
			respond "ready"
		}
		%s
	}
	`, dir, log, n.url, sites.String()), 0o600))
	w.t.Cleanup(func() {
		if w.t.Failed() {
			content, _ := os.ReadFile(log)
			w.t.Logf("the end of the log of %s:\n%s", n.name, content[max(0, len(content)-8000):])
		}
	})
}

func (n *node) start(t testing.TB) {
	n.process = harness.StartCaddyProcess(t, n.url+"/ready", "run", "--config", n.configFile, "--adapter", "caddyfile")
}

// serve is the backend: it says when a stream begins, and a word now and then.
func (w *world) serve(rw http.ResponseWriter, r *http.Request) {
	if !strings.HasSuffix(r.URL.Path, "/events") {
		rw.WriteHeader(http.StatusNoContent)
		return
	}
	w.open.Add(1)
	defer w.open.Add(-1)
	rw.Header().Set("Content-Type", "text/event-stream")
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		if _, err := fmt.Fprint(rw, "data: tick\n\n"); err != nil {
			return
		}
		_ = http.NewResponseController(rw).Flush()
		select {
		case <-ticker.C:
		case <-r.Context().Done():
			return
		}
	}
}

// toxic puts a toxic of that kind on the node's connection with Redis.
func (n *node) toxic(t testing.TB, name, kind, direction, attributes string) {
	_, err := n.cable.Toxics.AddToxicJson(strings.NewReader(fmt.Sprintf(
		`{"name": %q, "type": %q, "stream": %q, "attributes": {%s}}`, name, kind, direction, attributes)))
	require.NoError(t, err)
}

func (n *node) healthy(t testing.TB, name string) {
	require.NoError(t, n.cable.Toxics.RemoveToxic(context.Background(), name))
}
