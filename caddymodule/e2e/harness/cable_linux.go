package harness

import (
	"errors"
	"net"

	"golang.org/x/sys/unix"
)

// dropIncoming has the kernel drop every packet that comes for the connection before
// TCP sees it, so that the other end gets no acknowledgement either. To stop reading
// would not do: the kernel would go on to acknowledge. What it asks for is packets that
// no router has passed on (RFC 5082), with a greatest TTL that no connection here has;
// any user may do that, unlike attaching a filter, on some kernels.
//
// An acknowledgement that the kernel puts off is sent first: to the guard it would be a
// sign of life after the cut.
func dropIncoming(conn *net.TCPConn) error {
	return errors.Join(setLeastTTL(conn, 255), setOption(conn, unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1))
}

// keepIncoming undoes dropIncoming.
func keepIncoming(conn *net.TCPConn) error { return setLeastTTL(conn, 0) }

func setLeastTTL(conn *net.TCPConn, ttl int) error {
	if conn.LocalAddr().(*net.TCPAddr).IP.To4() == nil {
		return setOption(conn, unix.IPPROTO_IPV6, unix.IPV6_MINHOPCOUNT, ttl)
	}
	return setOption(conn, unix.IPPROTO_IP, unix.IP_MINTTL, ttl)
}

func setOption(conn *net.TCPConn, level, option, value int) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var optionErr error
	err = raw.Control(func(fd uintptr) {
		optionErr = unix.SetsockoptInt(int(fd), level, option, value)
	})
	return errors.Join(err, optionErr)
}
