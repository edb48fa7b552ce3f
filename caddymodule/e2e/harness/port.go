package harness

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// The ports that tests have servers listen on are below those that the kernel picks by
// itself (32768 and up on Linux, 49152 on others): no connection that something else
// makes meanwhile, and no listener at port 0, can take them.
const (
	firstPort = 20000
	lastPort  = 32767
	// blockSize is how many ports a process has for itself. Of each block the first
	// port is listened on for as long as the process uses it, so that no other does.
	blockSize = 256
)

// portBlock is the block of this process.
type portBlock struct {
	// mu guards the fields below. Listening, which does not block, is done with it held.
	mu    sync.Mutex
	claim net.Listener // nil: there is no block yet
	first int
	used  int
}

// ports is what FreePort takes from; Main gives it back.
var ports portBlock

// FreePort returns a port that nothing listens on, with TCP or UDP. No other process that
// uses this package gets the same, and this one not soon again.
func FreePort(t testing.TB) int {
	t.Helper()
	port, err := ports.take()
	require.NoError(t, err)
	return port
}

func (b *portBlock) take() (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.claim == nil {
		if err := b.claimOne(); err != nil {
			return 0, err
		}
	}
	for range blockSize - 1 {
		port := b.first + 1 + b.used%(blockSize-1)
		b.used++
		if isFree(port) {
			return port, nil
		}
	}
	return 0, fmt.Errorf("no port is free from %d to %d", b.first, b.first+blockSize-1)
}

// claimOne claims a block that no other process has. mu is held.
func (b *portBlock) claimOne() error {
	const blocks = (lastPort + 1 - firstPort) / blockSize
	for i := range blocks {
		first := firstPort + (os.Getpid()+i)%blocks*blockSize
		if claim, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", first)); err == nil {
			b.claim, b.first, b.used = claim, first, 0
			return nil
		}
	}
	return fmt.Errorf("all blocks of ports from %d to %d are taken", firstPort, lastPort)
}

// isFree reports whether servers can listen on the port, on all addresses.
func isFree(port int) bool {
	address := fmt.Sprintf(":%d", port)
	tcp, err := net.Listen("tcp", address)
	if err != nil {
		return false
	}
	udp, err := net.ListenPacket("udp", address)
	if err != nil {
		tcp.Close()
		return false
	}
	return errors.Join(tcp.Close(), udp.Close()) == nil
}

// release gives the block back. No test runs any more.
func (b *portBlock) release() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.claim == nil {
		return nil
	}
	err := b.claim.Close()
	b.claim = nil
	return err
}
