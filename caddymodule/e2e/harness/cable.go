package harness

import (
	"errors"
	"io"
	"maps"
	"net"
	"net/url"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// Cable forwards TCP connections from clients to a server, and can lose what it
// carries as a network does that goes away.
type Cable struct {
	// URL is the server's, with the port of the cable.
	URL string

	server    string
	listener  net.Listener
	forwarded sync.WaitGroup

	// mu guards the fields below. Cut calls the kernel with it held.
	mu     sync.Mutex
	ends   map[*net.TCPConn]bool // of the connections that live
	closed bool
}

// NewCable makes a cable to the server at that URL, until the test ends. UDP, and so
// HTTP/3, does not pass it.
func NewCable(t testing.TB, server string) *Cable {
	t.Helper()
	u, err := url.Parse(server)
	require.NoError(t, err)
	// No keep-alive: its probes would still arrive, as from a client that lives.
	config := net.ListenConfig{KeepAlive: -1}
	listener, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	c := &Cable{server: u.Host, listener: listener, ends: map[*net.TCPConn]bool{}}
	u.Host = net.JoinHostPort(u.Hostname(), strconv.Itoa(listener.Addr().(*net.TCPAddr).Port))
	c.URL = u.String()
	c.forwarded.Go(c.accept)
	t.Cleanup(c.Close)
	return c
}

// Cut loses the connections that there are, from now on, in both directions:
// nothing arrives any more, nor is it acknowledged, and neither end is told.
// Connections made later are fine, as those of a client whose network is back.
func (c *Cable) Cut(t testing.TB) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	require.NotEmpty(t, c.ends, "there is nothing to cut")
	for end := range c.ends {
		if err := dropIncoming(end); !errors.Is(err, net.ErrClosed) { // it may just have ended by itself
			require.NoError(t, err)
		}
	}
}

// Mend has what was cut carry again. What was sent meanwhile arrives when it is sent
// again.
func (c *Cable) Mend(t testing.TB) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for end := range c.ends {
		if err := keepIncoming(end); !errors.Is(err, net.ErrClosed) {
			require.NoError(t, err)
		}
	}
}

// Close resets all connections, the lost ones too, and takes no more.
func (c *Cable) Close() {
	c.listener.Close()
	c.mu.Lock()
	c.closed = true
	ends := maps.Clone(c.ends)
	c.mu.Unlock()
	for end := range ends {
		resetConn(end)
	}
	c.forwarded.Wait()
}

func (c *Cable) accept() {
	for {
		client, err := c.listener.Accept()
		if err != nil {
			return // closed
		}
		c.forwarded.Go(func() { c.forward(client.(*net.TCPConn)) })
	}
}

func (c *Cable) forward(client *net.TCPConn) {
	dialer := net.Dialer{KeepAlive: -1}
	conn, err := dialer.Dial("tcp", c.server)
	if err != nil {
		resetConn(client)
		return
	}
	server := conn.(*net.TCPConn)
	if !c.plugIn(client, server) {
		resetConn(client)
		resetConn(server)
		return
	}
	var directions sync.WaitGroup
	directions.Go(func() { copyOneWay(server, client) })
	directions.Go(func() { copyOneWay(client, server) })
	directions.Wait()
	c.unplug(client, server)
}

func (c *Cable) plugIn(client, server *net.TCPConn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.ends[client], c.ends[server] = true, true
	return true
}

func (c *Cable) unplug(client, server *net.TCPConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, end := range []*net.TCPConn{client, server} {
		delete(c.ends, end)
		end.Close()
	}
}

// copyOneWay forwards one direction, and how it ends.
func copyOneWay(to, from *net.TCPConn) {
	if _, err := io.Copy(to, from); err != nil {
		resetConn(to)
		resetConn(from)
		return
	}
	_ = to.CloseWrite()
}

// resetConn closes the connection with a reset (RST).
func resetConn(conn *net.TCPConn) {
	_ = conn.SetLinger(0)
	conn.Close()
}
