package tcp_test

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/tcp"
)

// site is a connection, seen from both ends.
type site struct {
	*tcp.Conn
	server, client *net.TCPConn
}

func connect(t testing.TB) *site {
	t.Helper()
	s := connectBy(t, new(net.Dialer))
	require.NotNil(t, s.Conn)
	return s
}

// connectBy accepts a connection just as Caddy does, with the defaults of package
// net.
func connectBy(t testing.TB, dialer *net.Dialer) *site {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	client, err := dialer.DialContext(t.Context(), "tcp", listener.Addr().String())
	require.NoError(t, err)
	server, err := listener.Accept()
	require.NoError(t, err)
	s := &site{Conn: tcp.Of(server), server: server.(*net.TCPConn), client: client.(*net.TCPConn)}
	t.Cleanup(s.close)
	return s
}

// close resets both ends, so that a deaf one is not waited for.
func (s *site) close() {
	for _, end := range []*net.TCPConn{s.server, s.client} {
		end.SetLinger(0)
		end.Close()
	}
}
