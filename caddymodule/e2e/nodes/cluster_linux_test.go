package nodes

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// clusterDemo is a running "make cluster-demo".
type clusterDemo struct {
	url     string // of the front
	ports   []int
	mark    string // in the environment of all its processes
	temp    string // where it keeps what is temporary
	cmd     *exec.Cmd
	printed string        // its file
	exited  chan struct{} // closed once make has ended
}

func startClusterDemo(t testing.TB) *clusterDemo {
	t.Helper()
	d := &clusterDemo{temp: t.TempDir(), printed: filepath.Join(t.TempDir(), "printed"), exited: make(chan struct{})}
	var list []string
	for range 5 {
		d.ports = append(d.ports, harness.FreePort(t))
		list = append(list, fmt.Sprint(d.ports[len(d.ports)-1]))
	}
	d.url = fmt.Sprintf("http://localhost:%d", d.ports[0])
	d.mark = "SSE_GUARD_TEST_MARK=" + strings.Join(list, "-")
	file, err := os.Create(d.printed)
	require.NoError(t, err)
	defer file.Close()
	d.cmd = exec.Command("make", "cluster-demo", "ARGS=-v -ports "+strings.Join(list, ","))
	d.cmd.Dir, d.cmd.Stdout, d.cmd.Stderr = harness.Root(t), file, file
	d.cmd.Env = append(os.Environ(), "TMPDIR="+d.temp, d.mark)
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	require.NoError(t, d.cmd.Start())
	go func() {
		_ = d.cmd.Wait()
		close(d.exited)
	}()
	t.Cleanup(func() {
		d.interrupt(t)
		if t.Failed() {
			t.Logf("make cluster-demo printed:\n%s", d.output(t))
		}
	})
	d.waitPrinted(t, "Open "+d.url+" in two tabs")
	return d
}

func (d *clusterDemo) output(t testing.TB) string {
	b, err := os.ReadFile(d.printed)
	require.NoError(t, err)
	return string(b)
}

// longest is how long the demo may take to be built, or to end.
const longest = 4 * harness.Patience

func (d *clusterDemo) waitPrinted(t testing.TB, text string) {
	t.Helper()
	require.Eventually(t, func() bool {
		select {
		case <-d.exited:
			assert.Fail(t, "make cluster-demo has ended")
			return true
		default:
			return strings.Contains(d.output(t), text)
		}
	}, longest, 50*time.Millisecond, "it does not print %q", text)
	require.False(t, t.Failed())
}

// interrupt is Ctrl-C in a terminal: all processes of its group get the signal.
func (d *clusterDemo) interrupt(t testing.TB) {
	_ = syscall.Kill(-d.cmd.Process.Pid, syscall.SIGINT) // it may be gone
	select {
	case <-d.exited:
	case <-time.After(longest):
		_ = syscall.Kill(-d.cmd.Process.Pid, syscall.SIGKILL)
		<-d.exited
		t.Error("it does not end by Ctrl-C")
	}
}

// processes lists what has the mark in its environment. Redis, which writes its title over
// it, is not among them.
func (d *clusterDemo) processes(t testing.TB) (found []string) {
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	require.NoError(t, err)
	for _, file := range files {
		if environment, err := os.ReadFile(file); err == nil && bytes.Contains(environment, []byte(d.mark+"\x00")) {
			command, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "cmdline"))
			found = append(found, strings.ReplaceAll(string(command), "\x00", " "))
		}
	}
	return found
}

// streamName returns what the page calls the stream of an event of the demo.
func streamName(t testing.TB, e harness.Event) string {
	var tick struct{ Stream string }
	require.NoError(t, json.Unmarshal([]byte(e.Data), &tick))
	return tick.Stream
}

// TestClusterDemo_TwoTabs: three nodes, Redis and a front. The first tab is told, though
// the second one came to another node; all ends with Ctrl-C, and nothing is left.
func TestClusterDemo_TwoTabs(t *testing.T) {
	demo := startClusterDemo(t)
	require.Len(t, demo.processes(t), 6, "make, the demo, three nodes, the front")

	open := func(options ...harness.RequestOption) *harness.Stream {
		return harness.NewClient(t, harness.HTTP1).Open(t, demo.url+"/events",
			append(options, harness.WithHeader("Cookie", "access_token=alice"))...)
	}
	older := open()
	assert.Contains(t, streamName(t, older.NextOfType(t, "tick")), "on node 1")
	newer := open()
	assert.Contains(t, streamName(t, newer.NextOfType(t, "tick")), "on node 2")
	older.Wait(t)
	notice := harness.RequireEnded(t, older, harness.Duplicated, "superseded")
	again := open(harness.WithHeader("Last-Event-ID", notice.ID)) // by node 3
	assert.Equal(t, http.StatusNoContent, again.Status)
	newer.NextOfType(t, "tick")

	browser := harness.StartBrowser(t)
	const shown = `document.getElementById("stream").textContent`
	first := browser.NewTab(t, demo.url)
	first.WaitState(t, "live")
	assert.Contains(t, first.Eval(t, shown), "on node 1")
	second := browser.NewTab(t, demo.url)
	second.WaitState(t, "live")
	assert.Contains(t, second.Eval(t, shown), "on node 2")
	first.WaitState(t, "closed")
	assert.Contains(t, first.Eval(t, `document.querySelector('[data-testid="panel"]').innerText`), harness.Duplicated)
	assert.Equal(t, []int64{200, 204}, first.Answers("/events"))
	assert.Equal(t, "live", second.Eval(t, "document.body.dataset.state"))
	newer.NextOfType(t, "tick")
	harness.RequireLivePage(t, browser, demo.url+"/operate/", 2) // on two nodes

	demo.interrupt(t)
	newer.Wait(t)
	assert.Empty(t, demo.processes(t), "these are left")
	left, err := os.ReadDir(demo.temp)
	require.NoError(t, err)
	assert.Empty(t, left, "these files are left")
	for _, port := range demo.ports {
		if conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			conn.Close()
			assert.Fail(t, "somebody listens still", "port %d", port)
		}
	}
}

// TestClusterDemo_ANodeThatDies: its tab comes back through another one.
func TestClusterDemo_ANodeThatDies(t *testing.T) {
	demo := startClusterDemo(t)
	browser := harness.StartBrowser(t)
	tab := browser.NewTab(t, demo.url)
	tab.WaitState(t, "live")
	const shown = `document.getElementById("stream").textContent`
	require.Contains(t, tab.Eval(t, shown), "on node 1")
	for line := range strings.Lines(demo.output(t)) {
		if fields := strings.Fields(line); len(fields) == 5 && fields[0] == "node" && fields[1] == "1" {
			var pid int
			_, err := fmt.Sscan(fields[4], &pid)
			require.NoError(t, err)
			require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
		}
	}
	demo.waitPrinted(t, "node 1 has ended (signal: killed)")
	require.Eventually(t, func() bool {
		return tab.Eval(t, "document.body.dataset.state") == "live" && !strings.Contains(tab.Eval(t, shown), "on node 1")
	}, harness.Patience, 50*time.Millisecond, "the page goes on with another node")
	demo.interrupt(t)
	assert.Empty(t, demo.processes(t), "these are left")
}

// TestClusterDemo_SaysWhatIsMissing, and starts nothing.
func TestClusterDemo_SaysWhatIsMissing(t *testing.T) {
	taken, err := net.Listen("tcp", ":0")
	require.NoError(t, err)
	defer taken.Close()
	_, port, err := net.SplitHostPort(taken.Addr().String())
	require.NoError(t, err)
	free := fmt.Sprintf("%d,%d,%d,%d", harness.FreePort(t), harness.FreePort(t), harness.FreePort(t), harness.FreePort(t))
	demo := filepath.Join(t.TempDir(), "clusterdemo")
	harness.Run(t, "go", "build", "-o", demo, "./cmd/clusterdemo")
	for name, c := range map[string]struct {
		path string
		args []string
		want []string
	}{
		"Redis":      {"/nowhere", nil, []string{"there is no redis-server here", "apt-get install redis-server"}},
		"a port":     {os.Getenv("PATH"), []string{"-ports", port + "," + free}, []string{"port " + port, "other ports"}},
		"ports":      {os.Getenv("PATH"), []string{"-ports", "1,2,3"}, []string{"-ports 1,2,3", "5 ports"}},
		"a number":   {os.Getenv("PATH"), []string{"-ports", "1,2,3,4,http"}, []string{`"http" is not allowed`}},
		"two of one": {os.Getenv("PATH"), []string{"-ports", "1,2,3,4,4"}, []string{`"4" is not allowed`}},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), longest)
			defer cancel()
			temp := t.TempDir()
			cmd := exec.CommandContext(ctx, demo, c.args...)
			cmd.Dir, cmd.Env = harness.Root(t), append(os.Environ(), "PATH="+c.path, "TMPDIR="+temp)
			output, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			require.ErrorAs(t, err, &exit)
			require.Equal(t, 1, exit.ExitCode())
			for _, want := range c.want {
				require.Contains(t, string(output), want)
			}
			left, err := os.ReadDir(temp)
			require.NoError(t, err)
			require.Empty(t, left)
		})
	}
}
