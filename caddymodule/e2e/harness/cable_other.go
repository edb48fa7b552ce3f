//go:build !linux

package harness

import (
	"errors"
	"net"
)

// dropIncoming has no portable way.
func dropIncoming(*net.TCPConn) error {
	return errors.New("losing a connection's packets needs a socket filter of Linux")
}
