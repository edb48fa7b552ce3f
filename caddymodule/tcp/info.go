package tcp

import "time"

// Info is what the kernel tells of a connection (TCP_INFO). Its times have the
// precision of the kernel's timer, 1 to 10 ms, but for RTT and RTO. What a kernel
// is too old to know is zero.
type Info struct {
	// RTT is the smoothed round-trip time (tcpi_rtt).
	RTT time.Duration
	// RTO is how long the kernel waits now for an acknowledgement before it
	// retransmits (tcpi_rto). It doubles with each retransmission.
	RTO time.Duration
	// SinceAck is how long ago the last acknowledgement came (tcpi_last_ack_recv),
	// of whatever: it may be the answer to a keep-alive, or to a probe of a
	// window that is shut.
	SinceAck time.Duration
	// SinceSent is how long ago data was last sent (tcpi_last_data_sent), again or
	// for the first time.
	SinceSent time.Duration
	// Unacked is the number of segments that are under way (tcpi_unacked).
	Unacked int
	// Unsent is the number of bytes that wait in the kernel and have never been
	// sent, since the window is full (tcpi_notsent_bytes, Linux 4.6).
	Unsent int
	// Acked is the number of bytes that the client has acknowledged so far
	// (tcpi_bytes_acked, Linux 4.1). It may be 1 too high, so only its growth tells
	// something.
	Acked uint64
	// Gone says that the connection is no more, by a reset or a timeout, though
	// nobody has closed it yet. The rest is then as it was last.
	Gone bool
}

// Info asks the kernel. It is false if the kernel cannot tell: on other systems
// than Linux, of a connection that is closed, and of a nil Conn.
func (c *Conn) Info() (Info, bool) {
	if c == nil {
		return Info{}, false
	}
	return c.info()
}

// SilentSince reports whether something is on its way to the client, which has
// acknowledged nothing since at. It is false where the kernel cannot tell.
func (c *Conn) SilentSince(at time.Time) bool {
	info, ok := c.Info()
	return ok && info.Unacked > 0 && info.SinceAck >= time.Since(at)
}
