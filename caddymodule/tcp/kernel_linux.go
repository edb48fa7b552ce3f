package tcp

import (
	"time"

	"golang.org/x/sys/unix"
)

// userTimeout is false if there is no telling.
func (c *Conn) userTimeout() (timeout, bool) {
	var (
		value  int
		optErr error
	)
	err := c.raw.Control(func(fd uintptr) {
		value, optErr = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
	})
	return timeout(value), err == nil && optErr == nil
}

func (c *Conn) setUserTimeout(t timeout) bool {
	var optErr error
	err := c.raw.Control(func(fd uintptr) {
		optErr = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(t))
	})
	return err == nil && optErr == nil
}

func (c *Conn) info() (Info, bool) {
	var (
		t      *unix.TCPInfo
		optErr error
	)
	err := c.raw.Control(func(fd uintptr) {
		t, optErr = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	})
	if err != nil || optErr != nil {
		return Info{}, false
	}
	return Info{
		RTT:       time.Duration(t.Rtt) * time.Microsecond,
		RTO:       time.Duration(t.Rto) * time.Microsecond,
		SinceAck:  time.Duration(t.Last_ack_recv) * time.Millisecond,
		SinceSent: time.Duration(t.Last_data_sent) * time.Millisecond,
		Unacked:   int(t.Unacked),
		Unsent:    int(t.Notsent_bytes),
		Acked:     t.Bytes_acked,
		Gone:      t.State == unix.BPF_TCP_CLOSE,
	}, true
}
