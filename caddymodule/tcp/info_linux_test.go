package tcp_test

import (
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/tcp"
)

const tick = 10 * time.Millisecond

// info is what the kernel must be able to tell.
func (s *site) info(t testing.TB) tcp.Info {
	t.Helper()
	info, ok := s.Info()
	require.True(t, ok)
	return info
}

func (s *site) write(t testing.TB, what string) {
	t.Helper()
	_, err := io.WriteString(s.server, what)
	require.NoError(t, err)
}

func TestInfo_NewConnection(t *testing.T) {
	info := connect(t).info(t)
	require.Zero(t, info.Unacked)
	require.Zero(t, info.Unsent)
	require.Less(t, info.SinceAck, tooLong) // the handshake's
	require.False(t, info.Gone)
}

func TestInfo_AcknowledgedWrite(t *testing.T) {
	c := connect(t)
	before := c.info(t)
	c.write(t, ":\n\n")
	require.Eventually(t, func() bool { return c.info(t).Unacked == 0 }, tooLong, tick)
	info := c.info(t)
	require.Equal(t, before.Acked+3, info.Acked)
	require.Zero(t, info.Unsent)
	require.Less(t, info.SinceAck, tooLong)
	require.Less(t, info.SinceSent, tooLong)
	require.Positive(t, info.RTT)
	require.Greater(t, info.RTO, info.RTT)
}

func TestInfo_DeafClientAcknowledgesNothing(t *testing.T) {
	c := connect(t)
	c.write(t, "data: heard\n\n")
	require.Eventually(t, func() bool { return c.info(t).Unacked == 0 }, tooLong, tick)
	c.deafen(t)
	c.write(t, ":\n\n")
	before := c.info(t)
	require.Positive(t, before.Unacked)
	require.Eventually(t, func() bool {
		now := c.info(t)
		require.Positive(t, now.Unacked)
		require.Equal(t, before.Acked, now.Acked)
		require.False(t, now.Gone)
		return now.SinceAck >= before.SinceAck+500*time.Millisecond && now.RTO > before.RTO
	}, tooLong, tick)
	require.Less(t, c.info(t).SinceSent, c.info(t).SinceAck, "nothing was sent again")
}

// What is acknowledged is received by the client's kernel, not by the client.
func TestInfo_ClientThatNeverReads(t *testing.T) {
	c := connect(t)
	written := make(chan error, 1)
	go func() { written <- c.tryToWrite() }()
	var was tcp.Info
	require.Eventually(t, func() bool {
		now := c.info(t)
		shut := now.Unsent > 0 && now.Acked == was.Acked && now.SinceSent >= time.Second
		was = now
		return shut
	}, tooLong, 10*tick)
	require.Zero(t, was.Unacked)
	c.close()
	require.Error(t, <-written)
}

func TestInfo_ResetConnectionIsGone(t *testing.T) {
	c := connect(t)
	c.client.SetLinger(0)
	c.client.Close()
	require.Eventually(t, func() bool { return c.info(t).Gone }, tooLong, tick)
}

func TestInfo_TimedOutConnectionIsGone(t *testing.T) {
	c := connect(t)
	defer c.Watch(time.Millisecond)()
	c.deafen(t)
	c.write(t, ":\n\n")
	require.Eventually(t, func() bool { return c.info(t).Gone }, tooLong, tick)
}

// A client that closes its connection has only said that it sends no more.
func TestInfo_ClosedByTheClientIsNotGone(t *testing.T) {
	c := connect(t)
	require.NoError(t, c.client.CloseWrite())
	require.ErrorIs(t, c.read(), io.EOF)
	require.False(t, c.info(t).Gone)
}

func BenchmarkInfo(b *testing.B) {
	c := connect(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := c.Info(); !ok {
			b.Fatal("the kernel cannot tell")
		}
	}
}

func BenchmarkWatch(b *testing.B) {
	c := connect(b)
	b.ReportAllocs()
	for b.Loop() {
		c.Watch(time.Minute)()
	}
}
