package tcp_test

import (
	"math"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestWatch_SetsTheUserTimeoutUntilItLeaves(t *testing.T) {
	c := connect(t)
	require.False(t, c.Watched())
	leave := c.Watch(30 * time.Second)
	require.Equal(t, 30*time.Second, c.userTimeout(t))
	require.True(t, c.Watched())
	leave()
	require.Zero(t, c.userTimeout(t))
	require.False(t, c.Watched())

	defer c.Watch(time.Minute)()
	require.Equal(t, time.Minute, c.userTimeout(t))
}

// All of them end with the connection.
func TestWatch_TheGreatestOfThoseWatchingCounts(t *testing.T) {
	c := connect(t)
	leave10 := c.Watch(10 * time.Second)
	leave30 := c.Watch(30 * time.Second)
	require.Equal(t, 30*time.Second, c.userTimeout(t))
	leave20 := c.Watch(20 * time.Second)
	alike := c.Watch(30 * time.Second)
	require.Equal(t, 30*time.Second, c.userTimeout(t))
	leave30()
	leave30() // counts once
	require.Equal(t, 30*time.Second, c.userTimeout(t))
	alike()
	require.Equal(t, 20*time.Second, c.userTimeout(t))
	leave10()
	require.Equal(t, 20*time.Second, c.userTimeout(t))
	leave20()
	require.Zero(t, c.userTimeout(t))
}

func TestWatch_WhoNeverGivesUpKeepsTheKernelFromIt(t *testing.T) {
	c := connect(t)
	leave10 := c.Watch(10 * time.Second)
	leave := c.Watch(0)
	require.Zero(t, c.userTimeout(t))
	leave()
	require.Equal(t, 10*time.Second, c.userTimeout(t))
	leave10()
	require.Zero(t, c.userTimeout(t))
}

func TestWatch_RespectsATimeoutThatWasThere(t *testing.T) {
	for _, was := range []time.Duration{time.Second, time.Minute} {
		t.Run(was.String(), func(t *testing.T) {
			c := connect(t)
			c.setUserTimeout(t, was)
			leave := c.Watch(30 * time.Second)
			require.Equal(t, min(was, 30*time.Second), c.userTimeout(t))
			also := c.Watch(10 * time.Second)
			require.Equal(t, min(was, 30*time.Second), c.userTimeout(t))
			require.True(t, c.Watched())
			also()
			leave()
			require.Equal(t, was, c.userTimeout(t))
		})
	}
}

func TestWatch_RoundsToWhatTheKernelTakes(t *testing.T) {
	for d, want := range map[time.Duration]time.Duration{
		-time.Second:              0,
		0:                         0,
		1:                         time.Millisecond,
		1500 * time.Microsecond:   2 * time.Millisecond,
		30 * 24 * time.Hour:       math.MaxInt32 * time.Millisecond,
		time.Duration(1 << 62):    math.MaxInt32 * time.Millisecond,
		math.MaxInt32 * 1_000_000: math.MaxInt32 * time.Millisecond,
	} {
		t.Run(d.String(), func(t *testing.T) {
			c := connect(t)
			defer c.Watch(d)()
			require.Equal(t, want, c.userTimeout(t))
			require.Equal(t, want != 0, c.Watched())
		})
	}
}

func TestWatch_ClosedConnection(t *testing.T) {
	c := connect(t)
	leave := c.Watch(time.Second)
	c.server.Close()
	also := c.Watch(time.Minute)
	leave()
	also()
	require.False(t, c.Watched())
	leave = c.Watch(time.Second)
	require.False(t, c.Watched())
	leave()
	_, ok := c.Info()
	require.False(t, ok)
}

func TestWatch_ManyStreamsComeAndGo(t *testing.T) {
	c := connect(t)
	c.setUserTimeout(t, time.Hour)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 50 {
				d := time.Duration(1+(i+n)%5) * time.Second
				leave := c.Watch(d)
				if _, ok := c.Info(); !ok || !c.Watched() {
					t.Error("the connection is not watched")
				}
				wg.Go(leave)
				leave()
			}
		})
	}
	wg.Wait()
	require.Equal(t, time.Hour, c.userTimeout(t))
}
