package harness

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Whoever changes the network has it alone; the others share it.
func TestNetworkUse_OneChangesOrManyStay(t *testing.T) {
	try := func(how int) error {
		gate, err := os.Open(networkGate)
		require.NoError(t, err)
		defer gate.Close()
		return unix.Flock(int(gate.Fd()), how|unix.LOCK_NB)
	}
	t.Run("stay", func(t *testing.T) {
		stays := networkUse{how: unix.LOCK_SH}
		stays.by(t)
		stays.by(t)
		require.NoError(t, try(unix.LOCK_SH))
		require.ErrorIs(t, try(unix.LOCK_EX), unix.EWOULDBLOCK)
	})
	t.Run("change", func(t *testing.T) {
		changes := networkUse{how: unix.LOCK_EX}
		changes.by(t)
		changes.by(t)
		require.ErrorIs(t, try(unix.LOCK_SH), unix.EWOULDBLOCK)
	})
}
