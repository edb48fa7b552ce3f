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
func dropIncoming(conn *net.TCPConn) error { return setLeastTTL(conn, 255) }

// keepIncoming undoes dropIncoming.
func keepIncoming(conn *net.TCPConn) error { return setLeastTTL(conn, 0) }

func setLeastTTL(conn *net.TCPConn, ttl int) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	level, option := unix.IPPROTO_IP, unix.IP_MINTTL
	if conn.LocalAddr().(*net.TCPAddr).IP.To4() == nil {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_MINHOPCOUNT
	}
	var optionErr error
	err = raw.Control(func(fd uintptr) {
		optionErr = unix.SetsockoptInt(int(fd), level, option, ttl)
	})
	return errors.Join(err, optionErr)
}
