package harness

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// States of TCP connections, as in Linux's include/net/tcp_states.h.
const (
	tcpTimeWait  = "06"
	tcpCloseWait = "08"
	tcpListen    = "0A"
)

// ServerSockets returns how many connections programs of this computer keep on a port
// that one of them listens on, and how many of those the other side has closed.
func ServerSockets(t testing.TB, port int) (kept, closeWait int) {
	t.Helper()
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		content, err := os.ReadFile(file)
		require.NoError(t, err)
		for line := range strings.Lines(string(content)) {
			fields := strings.Fields(line) // sl, local_address, rem_address, st, ...
			if len(fields) < 4 {
				continue
			}
			_, local, _ := strings.Cut(fields[1], ":")
			if n, err := strconv.ParseUint(local, 16, 16); err != nil || int(n) != port {
				continue
			}
			switch fields[3] {
			case tcpListen, tcpTimeWait:
			case tcpCloseWait:
				closeWait++
				kept++
			default:
				kept++
			}
		}
	}
	return kept, closeWait
}
