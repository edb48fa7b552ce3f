package harness

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// pause stops a process in the middle of whatever it does. It returns once all threads
// stand still: those that another core runs do so a moment after the signal was sent.
func pause(t testing.TB, p *os.Process) {
	t.Helper()
	require.NoError(t, p.Signal(syscall.SIGSTOP))
	require.Eventually(t, func() bool {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.Pid)) // none where there is no /proc
		require.NoError(t, err)
		for _, thread := range threads {
			stat, err := os.ReadFile(thread)
			// proc(5): the state is behind the name, which is in parentheses.
			if end := bytes.LastIndexByte(stat, ')'); err == nil && end >= 0 && !bytes.HasPrefix(stat[end:], []byte(") T")) {
				return false
			}
		}
		return true
	}, Patience, time.Millisecond, "the process does not stop")
}
