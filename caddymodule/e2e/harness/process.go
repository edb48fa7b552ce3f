package harness

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// CaddyProcess is cmd/caddy, run as a user does.
type CaddyProcess struct {
	printed *lockedBuffer // to its standard output and error
	cmd     *exec.Cmd
	exited  chan struct{} // closed once the process has ended
}

// StartCaddyProcess runs the binary with the arguments, and returns once url
// answers. The test's end stops the process, if it still runs by then.
func StartCaddyProcess(t testing.TB, url string, args ...string) *CaddyProcess {
	t.Helper()
	p := &CaddyProcess{printed: new(lockedBuffer), cmd: exec.Command(CaddyBinary(t), args...), exited: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+t.TempDir(), "XDG_CONFIG_HOME="+t.TempDir())
	p.cmd.Stdout, p.cmd.Stderr = p.printed, p.printed
	dieWithParent(p.cmd)
	require.NoError(t, p.cmd.Start())
	go func() {
		_ = p.cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() { p.end(t) })
	waitAnswers(t, url, p.printed)
	return p
}

// waitAnswers waits until url answers, whatever it says.
func waitAnswers(t testing.TB, url string, printed *lockedBuffer) {
	t.Helper()
	transport := new(http.Transport)
	defer transport.CloseIdleConnections()
	client := http.Client{Transport: transport}
	require.Eventually(t, func() bool {
		response, err := client.Get(url)
		if err == nil {
			// To the end, or Caddy would log that its client has left.
			_, _ = io.Copy(io.Discard, response.Body)
			response.Body.Close()
		}
		return err == nil
	}, Patience, 20*time.Millisecond, "Caddy does not answer: %s", printed)
}

// StartSSEProxy runs "caddy sse-proxy" with the flags, on a free port, and
// returns its URL without a final slash.
func StartSSEProxy(t testing.TB, flags ...string) (p *CaddyProcess, url string) {
	t.Helper()
	port := FreePort(t)
	url = fmt.Sprintf("http://localhost:%d", port)
	p = StartCaddyProcess(t, url, append([]string{"sse-proxy", "--from", fmt.Sprintf(":%d", port)}, flags...)...)
	return p, url
}

// StartSite runs a site as a process, and returns where it is. global are options of the
// Caddyfile's global block.
func StartSite(t testing.TB, global, site string) (p *CaddyProcess, url string) {
	t.Helper()
	url = fmt.Sprintf("http://localhost:%d", FreePort(t))
	p, _ = StartCaddySites(t, url+"/login", global, url+" {\n"+site+"\n}")
	return p, url
}

// StartCaddySites runs the sites, given as the site blocks of a Caddyfile, and
// returns once url, which one of them serves, answers. global has lines for the
// global block besides those that keep Caddy to a directory of the test's.
func StartCaddySites(t testing.TB, url, global, sites string) (*CaddyProcess, *CaddyLog) {
	t.Helper()
	dir := t.TempDir()
	log := newCaddyLog(t, dir)
	file := filepath.Join(dir, "Caddyfile")
	require.NoError(t, os.WriteFile(file, []byte(caddyfile(dir, log, global, sites)), 0o600))
	return StartCaddyProcess(t, url, "run", "--config", file, "--adapter", "caddyfile"), log
}

// String returns what the process has printed.
func (p *CaddyProcess) String() string { return p.printed.String() }

// Stop sends SIGTERM and returns how long the process took to end. It fails the
// test if the exit code is not 0.
func (p *CaddyProcess) Stop(t testing.TB) time.Duration {
	t.Helper()
	began := time.Now()
	p.Terminate(t)
	p.WaitExit(t)
	return time.Since(began)
}

// Terminate sends SIGTERM.
func (p *CaddyProcess) Terminate(t testing.TB) {
	t.Helper()
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
}

// WaitExit waits until the process has ended. It fails the test if the exit code is not 0.
func (p *CaddyProcess) WaitExit(t testing.TB) {
	t.Helper()
	select {
	case <-p.exited:
	case <-time.After(Patience):
		require.FailNow(t, "Caddy does not stop", p)
	}
	require.Zero(t, p.cmd.ProcessState.ExitCode())
}

// Kill ends the process at once, as kill -9 does.
func (p *CaddyProcess) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.exited
}

// Pause stops the process in the middle of whatever it does, until Resume.
func (p *CaddyProcess) Pause(t testing.TB) {
	t.Helper()
	pause(t, p.cmd.Process)
}

// Resume lets a paused process go on.
func (p *CaddyProcess) Resume(t testing.TB) {
	t.Helper()
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGCONT))
}

// end stops the process in whatever state it is, with the test.
func (p *CaddyProcess) end(t testing.TB) {
	_ = p.cmd.Process.Signal(syscall.SIGCONT) // it may be paused
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(Patience):
		_ = p.cmd.Process.Kill()
		<-p.exited
		t.Error("Caddy did not end on SIGTERM")
	}
	if t.Failed() {
		t.Logf("Caddy printed:\n%s", p)
	}
}
