package harness

import (
	"errors"
	"os"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Chromium drops connections, and fails what it loads, when an address of the computer
// comes or goes (ERR_NETWORK_CHANGED). So tests that make network devices and tests that
// start a browser wait for each other, also those of other processes. What they lock is
// there in any case, so that nothing is left behind.
const (
	networkGate = "/sys/class/net"
	// networkQueue is held while somebody waits at the gate: who changes the network waits
	// only for browsers that were there before.
	networkQueue = "/sys/class/net/lo"
)

// networkUse is one way of using the network, by any number of tests of this process.
type networkUse struct {
	how int // of flock(2)

	// mu guards the fields below it. Flock is called with it held.
	mu    sync.Mutex
	users int
	gate  *os.File
}

var (
	networkStays   = networkUse{how: unix.LOCK_SH}
	networkChanges = networkUse{how: unix.LOCK_EX}
)

// by has the test use the network so until it ends.
func (n *networkUse) by(t testing.TB) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.users == 0 {
		queue := flock(t, networkQueue, unix.LOCK_EX)
		n.gate = flock(t, networkGate, n.how)
		queue.Close()
	}
	n.users++
	t.Cleanup(func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.users--; n.users == 0 {
			n.gate.Close()
		}
	})
}

// flock waits for a lock, which goes when the file is closed.
func flock(t testing.TB, path string, how int) *os.File {
	t.Helper()
	file, err := os.Open(path)
	require.NoError(t, err)
	for {
		if err = unix.Flock(int(file.Fd()), how); !errors.Is(err, unix.EINTR) {
			require.NoError(t, err)
			return file
		}
	}
}
