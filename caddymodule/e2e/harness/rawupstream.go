package harness

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// rawUpstream is a server that answers byte by byte.
type rawUpstream struct {
	listener net.Listener
	play     func(conn *net.TCPConn, r *http.Request)
	running  sync.WaitGroup // accept, and play for each connection
}

// StartRawUpstream starts a server that has play answer the first request of every
// connection, byte by byte as it likes, and closes the connection after. It ends with
// the test, for which play has to return by then.
func StartRawUpstream(t testing.TB, play func(conn *net.TCPConn, r *http.Request)) (url string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	u := &rawUpstream{listener: listener, play: play}
	u.running.Go(u.accept)
	t.Cleanup(func() { u.stop(t) })
	return "http://" + listener.Addr().String()
}

func (u *rawUpstream) accept() {
	for {
		conn, err := u.listener.Accept()
		if err != nil {
			return // closed
		}
		u.running.Go(func() { u.serve(conn.(*net.TCPConn)) })
	}
}

func (u *rawUpstream) serve(conn *net.TCPConn) {
	defer conn.Close()
	if r, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
		u.play(conn, r)
	}
}

// stop takes no more connections and waits for those that there are.
func (u *rawUpstream) stop(t testing.TB) {
	u.listener.Close()
	stopped := make(chan struct{})
	go func() {
		u.running.Wait()
		close(stopped)
	}()
	select {
	case <-stopped:
	case <-time.After(Patience):
		t.Error("the upstream's play does not return")
	}
}

// SSEHeader is the head of an answer that is an event stream, without the empty line
// at its end.
const SSEHeader = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"

// WaitClosed reads and drops what comes, until the connection is closed.
func WaitClosed(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }
