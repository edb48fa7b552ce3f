// Package tcp asks the kernel what it knows of a client's connection, and has it
// give up one whose client is gone.
//
// A server learns late that a client's network is gone: what it writes fits into
// the kernel's send buffer, and the kernel tries for about fifteen minutes to
// deliver it (tcp_retries2). TCP_USER_TIMEOUT bounds that: "the maximum amount of
// time in milliseconds that transmitted data may remain unacknowledged, or
// buffered data may remain untransmitted (due to zero window size) before TCP
// will forcibly close the corresponding connection and return ETIMEDOUT to the
// application" (tcp(7)). What follows from that:
//
//   - Only data counts: nothing happens to a connection on which nothing is under
//     way, except by keep-alive, which the user timeout overrides (it no longer
//     waits for a number of probes, only for the first unanswered one after that
//     time). So something must be written from time to time.
//   - The time runs from the first transmission of the oldest data that is not
//     acknowledged, and is looked at when the kernel retransmits. Since Linux 4.19
//     it makes sure that a retransmission falls on the end of the timeout.
//   - A reader that has stopped (a client process that hangs or is suspended) has
//     its kernel go on to acknowledge for it, until the receive window is full.
//     Then data stays in our kernel, which probes the window. RFC 9293 would have
//     it do so for ever as long as the probes are answered (3.8.6.1), but with a user
//     timeout Linux gives up once the window has been shut for that long, answers or
//     not (tcp_probe_timer in net/ipv4/tcp_timer.c). A reader that takes something
//     now and then, so that the window opens, is kept.
//   - HTTP/2 has a window per stream as well. A client that reads its connection
//     but not one of its streams is none of the kernel's concern.
//   - A load balancer or proxy in between acknowledges for its clients. All that is
//     said here is then about it.
//
// RFC 5482 is about telling one's timeout to the other end, which Linux does not;
// the timeout itself is RFC 9293's (3.8.3).
//
// Other systems have nothing of all this: there, nothing is watched or told.
package tcp

import (
	"net"
	"reflect"
	"sync"
	"syscall"
	"time"
)

// maxDepth is how many wrappers may lie around a connection. It only has to be
// more than anybody has, and to end a circle.
const maxDepth = 16

// Conn is the TCP connection under a client's connection. A nil *Conn is one that
// cannot be reached: it is never watched, and the kernel knows nothing of it. All
// methods may be called concurrently, and on a closed connection, of which they
// keep nothing open.
type Conn struct {
	// raw and not File: that would duplicate the descriptor, so that a close is
	// none, and make it blocking.
	raw syscall.RawConn

	mu sync.Mutex
	// watches are what those watching asked for, the least first.
	watches []time.Duration
	// before is the user timeout that was there before anybody watched.
	before timeout
	// watched is the user timeout that we have set; 0: none.
	watched timeout
}

// Of returns the TCP connection under c, whatever lies around it: TLS, the PROXY
// protocol, a listener wrapper of Caddy's. It is nil if there is none (QUIC, Unix
// sockets), if a wrapper keeps it to itself, and if there are several: Linux has
// no user timeout for a client that speaks Multipath TCP, and tells of its first
// connection only, which may be dead while another one lives.
//
// It is to be called once for each connection, and its result to be shared by
// the requests that come through it (http.Server.ConnContext): those watching are
// counted in the Conn.
func Of(c net.Conn) *Conn {
	for range maxDepth {
		switch w := c.(type) {
		case nil:
			return nil
		case syscall.Conn:
			return socket(w, c.LocalAddr())
		case interface{ NetConn() net.Conn }: // crypto/tls
			c = w.NetConn()
		case interface{ Raw() net.Conn }: // go-proxyproto
			c = w.Raw()
		default:
			c = embedded(c)
		}
	}
	return nil
}

// socket returns the Conn for a socket, if it is one of TCP's.
func socket(c syscall.Conn, local net.Addr) *Conn {
	if _, ok := local.(*net.TCPAddr); !ok {
		return nil
	}
	if m, ok := c.(interface{ MultipathTCP() (bool, error) }); ok {
		if several, err := m.MultipathTCP(); several || err != nil {
			return nil
		}
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	return &Conn{raw: raw}
}

// embedded returns the net.Conn that c embeds, or nil. That is how wrappers are
// written that change a method or two, and Caddy's own for http_redirect and for
// telling HTTP/1 from HTTP/2 have no method that would lead on.
func embedded(c net.Conn) net.Conn {
	v := reflect.Indirect(reflect.ValueOf(c))
	if v.Kind() != reflect.Struct {
		return nil
	}
	f, ok := v.Type().FieldByName("Conn")
	if !ok || !f.Anonymous || f.Type != reflect.TypeFor[net.Conn]() {
		return nil
	}
	inner, err := v.FieldByIndexErr(f.Index)
	if err != nil {
		return nil
	}
	under, _ := reflect.TypeAssert[net.Conn](inner)
	return under
}
