package harness

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

// FreePort returns a TCP port of the loopback interface that nothing listens on. It
// is not reserved: what is to use it had better do so at once.
func FreePort(t testing.TB) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}
