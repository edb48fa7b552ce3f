package harness

import (
	"errors"
	"net"

	"golang.org/x/sys/unix"
)

// dropIncoming has the kernel drop every packet that comes for the connection before
// TCP sees it, so that the other end gets no acknowledgement either. To stop reading
// would not do: the kernel would go on to acknowledge.
func dropIncoming(conn *net.TCPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	// The program of a classic socket filter: keep 0 bytes of any packet.
	drop := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	var filterErr error
	err = raw.Control(func(fd uintptr) {
		filterErr = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(drop)), Filter: &drop[0]})
	})
	return errors.Join(err, filterErr)
}

// keepIncoming undoes dropIncoming.
func keepIncoming(conn *net.TCPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var filterErr error
	err = raw.Control(func(fd uintptr) {
		filterErr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0)
	})
	return errors.Join(err, filterErr)
}
