package e2e

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// buildOnce builds cmd/caddy for the tests that run it as a user does.
var buildOnce = sync.OnceValues(func() (path string, err error) {
	dir, err := os.MkdirTemp("", "sse-guard-caddy")
	if err != nil {
		return "", err
	}
	path = filepath.Join(dir, "caddy")
	build := exec.Command("go", "build", "-o", path, "./cmd/caddy")
	build.Dir = root
	if output, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building cmd/caddy: %w\n%s", err, output)
	}
	return path, nil
})

// root is the top of the repository.
const root = "../.."

func caddyBinary(t testing.TB) string {
	t.Helper()
	path, err := buildOnce()
	require.NoError(t, err)
	return path
}

// run runs a command to its end and returns what it printed.
func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = root
	output, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s %v:\n%s", name, args, output)
	return string(output)
}

// lockedBuffer is written by a process while a test reads it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// startSSEProxy runs "caddy sse-proxy" with the flags, on a free port.
func startSSEProxy(t testing.TB, flags ...string) (url string, log *lockedBuffer) {
	t.Helper()
	port := freePort(t)
	url = fmt.Sprintf("http://localhost:%d", port)
	p := startCaddyProcess(t, url, append([]string{"sse-proxy", "--from", fmt.Sprintf(":%d", port)}, flags...)...)
	return url, p.log
}

// caddyProcess is a Caddy as a user runs it.
type caddyProcess struct {
	log    *lockedBuffer // what it printed
	cmd    *exec.Cmd
	exited chan struct{}
}

// startCaddyProcess runs the binary with the arguments, and returns once url
// answers. The test's end stops it, if it still runs by then.
func startCaddyProcess(t testing.TB, url string, args ...string) *caddyProcess {
	t.Helper()
	p := &caddyProcess{log: new(lockedBuffer), cmd: exec.Command(caddyBinary(t), args...), exited: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+t.TempDir(), "XDG_CONFIG_HOME="+t.TempDir())
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	dieWithParent(p.cmd)
	require.NoError(t, p.cmd.Start())
	go func() {
		_ = p.cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.exited:
		case <-time.After(patience):
			_ = p.cmd.Process.Kill()
			<-p.exited
			t.Error("Caddy did not end on SIGTERM")
		}
		if t.Failed() {
			t.Logf("Caddy printed:\n%s", p.log)
		}
	})
	require.Eventually(t, func() bool {
		response, err := http.Get(url)
		if err == nil {
			response.Body.Close()
		}
		return err == nil
	}, patience, 20*time.Millisecond, "Caddy does not answer: %s", p.log)
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	return p
}
