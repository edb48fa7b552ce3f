package harness

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// CurlProcess is curl on another host. "ip netns exec" replaces itself by curl, so
// that the process is curl's.
type CurlProcess struct {
	cmd    *exec.Cmd
	output lockedBuffer
	exited chan struct{} // closed once the process has ended
}

// Curl starts curl on the host with these arguments, and others that have it show
// what comes at once and trust every certificate. The test's end kills it.
func (h *RemoteHost) Curl(t testing.TB, args ...string) *CurlProcess {
	t.Helper()
	c := &CurlProcess{exited: make(chan struct{})}
	c.cmd = exec.Command("ip", append([]string{"netns", "exec", h.Name, "curl", "-sS", "-N", "-k"}, args...)...)
	c.cmd.Stdout, c.cmd.Stderr = &c.output, &c.output
	dieWithParent(c.cmd)
	require.NoError(t, c.cmd.Start())
	go func() {
		_ = c.cmd.Wait()
		close(c.exited)
	}()
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill()
		<-c.exited
	})
	return c
}

// WaitOutput waits until curl has printed that.
func (c *CurlProcess) WaitOutput(t testing.TB, want string) {
	t.Helper()
	require.Eventually(t, func() bool { return strings.Contains(c.output.String(), want) },
		Patience, 5*time.Millisecond, "curl has not printed %q", want)
}

// Output returns what curl has printed so far.
func (c *CurlProcess) Output() string { return c.output.String() }

// Running reports whether curl has not ended yet.
func (c *CurlProcess) Running() bool {
	select {
	case <-c.exited:
		return false
	default:
		return true
	}
}

// Signal sends a signal to curl, and returns the time just after.
func (c *CurlProcess) Signal(t testing.TB, s os.Signal) time.Time {
	t.Helper()
	require.NoError(t, c.cmd.Process.Signal(s))
	return time.Now()
}
