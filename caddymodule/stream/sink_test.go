package stream

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// heldWriter is a response's writer whose Write goes on until it is let go.
type heldWriter struct {
	http.ResponseWriter
	writing, until chan struct{}
}

func (w heldWriter) Write([]byte) (int, error) {
	close(w.writing)
	<-w.until
	return 0, io.ErrClosedPipe
}

// shared is the sink of a request that uses a connection with another one, and is stuck.
func shared(t *testing.T) (s *writerSink, other *User, closed func() bool) {
	t.Helper()
	client, server := net.Pipe()
	t.Cleanup(func() { client.Close() })
	users, user := new(Users), new(User)
	other = new(User)
	user.Enter(users)
	other.Enter(users)
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.ProtoMajor = 2
	w := heldWriter{httptest.NewRecorder(), make(chan struct{}), make(chan struct{})}
	s = newWriterSink(w, r, Connection{Net: server, User: user})
	written := make(chan struct{})
	go func() {
		_, _ = s.Write(nil)
		close(written)
	}()
	<-w.writing
	t.Cleanup(func() {
		close(w.until)
		<-written
	})
	return s, other, func() bool {
		_ = client.SetReadDeadline(time.Now())
		_, err := client.Read(make([]byte, 1))
		return errors.Is(err, io.EOF)
	}
}

func TestCut_LeavesTheConnectionToOthers(t *testing.T) {
	s, other, closed := shared(t)
	for range 3 {
		require.True(t, s.Cut(), "it is to be cut again")
		require.True(t, s.WasReset())
		require.False(t, closed())
	}
	other.Leave()
	require.False(t, s.Cut())
	require.True(t, closed(), "nobody else needs it")
}

// Who was cut already, and is as stuck, is nobody to spare the connection for.
func TestCut_OfAllWhoUseTheConnectionClosesIt(t *testing.T) {
	s, other, closed := shared(t)
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.ProtoMajor = 2
	another := newWriterSink(httptest.NewRecorder(), r, Connection{Net: s.conn.Net, User: other})
	require.True(t, s.Cut())
	require.True(t, another.Cut())
	require.False(t, s.Cut())
	require.True(t, closed())
	other.Leave() // counts once
	require.False(t, other.others())
}

func TestHangUp_LeavesTheConnectionToOthers(t *testing.T) {
	s, other, closed := shared(t)
	s.HangUp()
	require.False(t, closed())
	other.Leave()
	s.HangUp()
	require.True(t, closed())
}
