package e2e

import (
	"errors"
	"net"

	"golang.org/x/sys/unix"
)

// deafen has the kernel drop every packet that comes for the connection, before
// TCP sees it: the other end gets no acknowledgement either, as if there were
// no way between them. A program that merely stopped reading would not do, as
// its system goes on to acknowledge for it.
func deafen(conn *net.TCPConn) error {
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
