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
	log = new(lockedBuffer)
	cmd := exec.Command(caddyBinary(t), append([]string{"sse-proxy", "--from", fmt.Sprintf(":%d", port)}, flags...)...)
	cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+t.TempDir(), "XDG_CONFIG_HOME="+t.TempDir())
	cmd.Stdout, cmd.Stderr = log, log
	dieWithParent(cmd)
	require.NoError(t, cmd.Start())
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-exited:
		case <-time.After(patience):
			_ = cmd.Process.Kill()
			<-exited
			t.Errorf("sse-proxy did not end on SIGTERM; it printed:\n%s", log)
		}
	})
	require.Eventually(t, func() bool {
		response, err := http.Get(url)
		if err == nil {
			response.Body.Close()
		}
		return err == nil
	}, patience, 20*time.Millisecond, "sse-proxy does not answer: %s", log)
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	return url, log
}
