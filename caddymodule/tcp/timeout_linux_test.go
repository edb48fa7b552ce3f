package tcp_test

import (
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	// short is a user timeout that a test can wait for.
	short = time.Second
	// tooLong is when the kernel will not do any more what it has not done.
	tooLong = 30 * time.Second
)

// tryToWrite writes without end, until that fails.
func (s *site) tryToWrite() error {
	s.server.SetWriteDeadline(time.Now().Add(tooLong))
	for {
		if _, err := s.server.Write(make([]byte, 1<<16)); err != nil {
			return err
		}
	}
}

// A stopped process is a reader that never reads: its kernel goes on to
// acknowledge for it, but has no room.
func TestUserTimeout_EndsAClientThatNeverReads(t *testing.T) {
	t.Parallel()
	c := connect(t)
	defer c.Watch(short)()
	begin := time.Now()
	require.ErrorIs(t, c.tryToWrite(), syscall.ETIMEDOUT)
	require.GreaterOrEqual(t, time.Since(begin), short)
}

func TestUserTimeout_IsNotThereWithoutAWatch(t *testing.T) {
	t.Parallel()
	c := connect(t)
	c.Watch(short)() // has left
	c.server.SetWriteDeadline(time.Now().Add(3 * short))
	var err error
	for err == nil {
		_, err = c.server.Write(make([]byte, 1<<16))
	}
	require.NotErrorIs(t, err, syscall.ETIMEDOUT)
	info, ok := c.Info()
	require.True(t, ok)
	require.False(t, info.Gone)
}

// Its window is shut again and again, but never for long.
func TestUserTimeout_KeepsAClientThatReadsSlowly(t *testing.T) {
	t.Parallel()
	c := connect(t)
	require.NoError(t, c.client.SetReadBuffer(1<<16))
	defer c.Watch(short)()
	written := make(chan error, 1)
	go func() { written <- c.tryToWrite() }()

	now := time.NewTicker(short / 5)
	defer now.Stop()
	for range 20 {
		<-now.C
		_, err := io.CopyN(io.Discard, c.client, 1<<17)
		require.NoError(t, err)
	}
	info, ok := c.Info()
	require.True(t, ok)
	require.NotZero(t, info.Unsent, "the window was never shut")
	c.close()
	require.NotErrorIs(t, <-written, syscall.ETIMEDOUT)
}

func TestUserTimeout_EndsADeafClient(t *testing.T) {
	t.Parallel()
	c := connect(t)
	defer c.Watch(short)()
	c.deafen(t)
	begin := time.Now()
	_, err := io.WriteString(c.server, ":\n\n")
	require.NoError(t, err)
	require.ErrorIs(t, c.read(), syscall.ETIMEDOUT)
	require.GreaterOrEqual(t, time.Since(begin), short)
}

// Keep-alive notices what writes nothing, sooner with a user timeout.
func TestUserTimeout_CutsKeepAliveShort(t *testing.T) {
	t.Parallel()
	c := connect(t)
	require.NoError(t, c.server.SetKeepAliveConfig(net.KeepAliveConfig{
		Enable: true, Idle: time.Second, Interval: time.Second, Count: 100,
	}))
	defer c.Watch(short)()
	c.deafen(t)
	require.ErrorIs(t, c.read(), syscall.ETIMEDOUT)
}

func TestUserTimeout_LeavesASilentConnectionAlone(t *testing.T) {
	t.Parallel()
	c := connect(t)
	defer c.Watch(short)()
	_, err := io.WriteString(c.server, ":\n\n")
	require.NoError(t, err)
	<-time.After(3 * short)
	_, err = io.WriteString(c.server, ":\n\n")
	require.NoError(t, err)
	_, err = io.CopyN(io.Discard, c.client, 6)
	require.NoError(t, err)
	info, ok := c.Info()
	require.True(t, ok)
	require.False(t, info.Gone)
}

// read waits for what a client does not send.
func (s *site) read() error {
	s.server.SetReadDeadline(time.Now().Add(tooLong))
	_, err := s.server.Read(make([]byte, 1))
	return err
}
