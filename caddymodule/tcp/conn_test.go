package tcp_test

import (
	"crypto/tls"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/tcp"
)

// proxied is go-proxyproto's way to lead on.
type proxied struct {
	net.Conn
	conn net.Conn
}

func (p *proxied) Raw() net.Conn { return p.conn }

// The rest is as in Caddy's http2listener.go and httpredirectlistener.go.

type redirecting struct {
	net.Conn
	_ bool
}

type http2Conn struct {
	_ int
	net.Conn
}

type http2StateConn struct{ *http2Conn }

type tlsStateConn struct{ net.Conn }

// secretive leads nowhere.
type secretive struct {
	net.Conn `json:"-"`
	_        net.Addr
}

// hiding has a connection, but not as what it is itself.
type hiding struct {
	*net.UDPConn
	Conn net.Conn
}

func (*hiding) SyscallConn() {}

// circle leads to itself.
type circle struct{ net.Conn }

func (c *circle) NetConn() net.Conn { return c }

// noStruct is no struct.
type noStruct func()

func (noStruct) Read([]byte) (int, error)         { return 0, nil }
func (noStruct) Write([]byte) (int, error)        { return 0, nil }
func (noStruct) Close() error                     { return nil }
func (noStruct) LocalAddr() net.Addr              { return nil }
func (noStruct) RemoteAddr() net.Addr             { return nil }
func (noStruct) SetDeadline(time.Time) error      { return nil }
func (noStruct) SetReadDeadline(time.Time) error  { return nil }
func (noStruct) SetWriteDeadline(time.Time) error { return nil }

func TestOf_FindsTheConnectionUnderItsWrappers(t *testing.T) {
	c := connect(t)
	want, err := c.Socket()
	require.NoError(t, err)
	for name, wrapped := range map[string]net.Conn{
		"nothing":                     c.server,
		"an embedded *net.TCPConn":    struct{ *net.TCPConn }{c.server},
		"TLS":                         tls.Server(c.server, nil),
		"proxy_protocol":              &proxied{conn: c.server},
		"TLS, proxy_protocol":         tls.Server(&proxied{conn: c.server}, nil),
		"proxy_protocol, TLS":         &proxied{conn: tls.Server(c.server, nil)},
		"TLS, http_redirect":          tls.Server(&redirecting{Conn: c.server}, nil),
		"a value that embeds":         redirecting{Conn: c.server},
		"only HTTP/1":                 &http2Conn{Conn: c.server},
		"a TLS state, proxy_protocol": tlsStateConn{&proxied{conn: c.server}},
		"a TLS state, only HTTP/2":    tlsStateConn{http2StateConn{&http2Conn{Conn: tls.Server(c.server, nil)}}},
	} {
		t.Run(name, func(t *testing.T) {
			found := tcp.Of(wrapped)
			require.NotNil(t, found)
			got, err := found.Socket()
			require.NoError(t, err)
			require.Equal(t, want, got)
		})
	}
}

func TestOf_IsNilWhereThereIsNone(t *testing.T) {
	c := connect(t)
	end, otherEnd := net.Pipe()
	defer end.Close()
	defer otherEnd.Close()
	udp, err := net.Dial("udp", "127.0.0.1:9")
	require.NoError(t, err)
	defer udp.Close()
	for name, wrapped := range map[string]net.Conn{
		"no connection":                   nil,
		"a pipe":                          end,
		"UDP":                             udp,
		"a Unix socket":                   unixSocket(t),
		"TLS on a pipe":                   tls.Server(end, nil),
		"a wrapper of none":               secretive{},
		"a pointer to none":               (*secretive)(nil),
		"a wrapper whose insides are nil": http2StateConn{},
		"a connection of another kind":    &hiding{Conn: c.server},
		"a circle":                        new(circle),
		"no struct":                       noStruct(nil),
	} {
		t.Run(name, func(t *testing.T) { require.Nil(t, tcp.Of(wrapped)) })
	}
}

// Go's listeners accept Multipath TCP where the system has it. Where not, the
// client's is a connection like any other.
func TestOf_IsNilForMultipathTCP(t *testing.T) {
	var dialer net.Dialer
	dialer.SetMultipathTCP(true)
	c := connectBy(t, &dialer)
	several, err := c.server.MultipathTCP()
	require.NoError(t, err)
	require.Equal(t, several, c.Conn == nil)
}

func TestNilConn_IsOneThatCannotBeReached(t *testing.T) {
	var c *tcp.Conn
	leave := c.Watch(time.Second)
	require.False(t, c.Watched())
	leave()
	_, ok := c.Info()
	require.False(t, ok)
}

func unixSocket(t *testing.T) net.Conn {
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	conn, err := net.Dial("unix", listener.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}
