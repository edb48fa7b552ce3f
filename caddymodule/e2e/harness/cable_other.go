//go:build !linux

package harness

import (
	"errors"
	"net"
)

// dropIncoming and keepIncoming have no portable way.
func dropIncoming(*net.TCPConn) error {
	return errors.New("losing a connection's packets needs a socket filter of Linux")
}

func keepIncoming(conn *net.TCPConn) error { return dropIncoming(conn) }
