package harness

import (
	"fmt"
	"net"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Two blocks stand for two processes.
func TestPorts_AreForOneProcessAlone(t *testing.T) {
	var mine, other portBlock
	t.Cleanup(func() { require.NoError(t, mine.release()) })
	t.Cleanup(func() { require.NoError(t, other.release()) })
	taken := map[int]bool{}
	for range 100 {
		for _, b := range []*portBlock{&mine, &other} {
			port, err := b.take()
			require.NoError(t, err)
			assert.False(t, taken[port], "%d was given before", port)
			assert.GreaterOrEqual(t, port, firstPort)
			assert.LessOrEqual(t, port, lastPort)
			taken[port] = true
		}
	}
}

func TestPorts_InUseArePassedOver(t *testing.T) {
	var b portBlock
	t.Cleanup(func() { require.NoError(t, b.release()) })
	used, err := b.take()
	require.NoError(t, err)
	server, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", used))
	require.NoError(t, err)
	defer server.Close()
	for range 2 * blockSize { // more than there are
		port, err := b.take()
		require.NoError(t, err)
		require.NotEqual(t, used, port)
	}
}
