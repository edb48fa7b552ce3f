package tcp_test

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// userTimeout is what the kernel has.
func (s *site) userTimeout(t testing.TB) time.Duration {
	t.Helper()
	var ms int
	control(t, s.server, func(fd int) (err error) {
		ms, err = unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
		return err
	})
	return time.Duration(ms) * time.Millisecond
}

// setUserTimeout is what somebody else does.
func (s *site) setUserTimeout(t testing.TB, d time.Duration) {
	t.Helper()
	control(t, s.server, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
	})
}

// deafen has the kernel drop every packet that comes for the client, before TCP
// sees it, as if there were no way between them. Some kernels allow that to root only:
// then the test is skipped, but for CI, where all are to run.
func (s *site) deafen(t testing.TB) {
	t.Helper()
	drop := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	err := tryControl(s.client, func(fd int) error {
		return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(drop)), Filter: &drop[0]})
	})
	if errors.Is(err, unix.EPERM) && os.Getenv("CI") != "true" {
		//nolint:forbidigo // who has no rights cannot run it; .ci/test.sh tells at its end
		t.Skipf("NOT TESTED: clients that hear nothing. This kernel allows root only to attach a socket filter; run the tests as root: %v", err)
	}
	require.NoError(t, err)
}

func control(t testing.TB, conn *net.TCPConn, do func(fd int) error) {
	t.Helper()
	require.NoError(t, tryControl(conn, do))
}

func tryControl(conn *net.TCPConn, do func(fd int) error) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var optErr error
	err = raw.Control(func(fd uintptr) { optErr = do(int(fd)) })
	return errors.Join(err, optErr)
}
