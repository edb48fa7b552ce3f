package harness

import (
	"bytes"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Wire carries packets between two network devices: each way takes a time, and one
// packet in so many is lost. It can lose all, too, while the link stays up. It stands
// for netem, which not every kernel has.
type Wire struct {
	delay time.Duration
	oneIn int64
	cut   atomic.Bool

	ends    [2]*os.File
	carried sync.WaitGroup
}

// newWire makes the two devices, which go with the test.
func newWire(t testing.TB, near, far string, delay time.Duration, oneIn int) *Wire {
	t.Helper()
	w := &Wire{delay: delay, oneIn: int64(oneIn)}
	for i, name := range []string{near, far} {
		end, err := openTUN(name)
		require.NoError(t, err)
		w.ends[i] = end
	}
	w.carried.Go(func() { w.carry(w.ends[0], w.ends[1]) })
	w.carried.Go(func() { w.carry(w.ends[1], w.ends[0]) })
	t.Cleanup(func() {
		w.ends[0].Close()
		w.ends[1].Close()
		w.carried.Wait()
	})
	return w
}

// Lose has all packets lost from now on, and returns the time just after.
func (w *Wire) Lose() time.Time {
	w.cut.Store(true)
	return time.Now()
}

func openTUN(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the TUN device of the kernel: %w", err)
	}
	request, err := unix.NewIfreq(name)
	if err == nil {
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("making the network device %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// packet is one that is under way.
type packet struct {
	due   time.Time
	bytes []byte
}

func (w *Wire) carry(from, to *os.File) {
	underWay := make(chan packet, 4096)
	w.carried.Go(func() {
		for p := range underWay {
			<-time.After(time.Until(p.due))
			if !w.cut.Load() {
				_, _ = to.Write(p.bytes) // the other end may be down
			}
		}
	})
	defer close(underWay)
	buffer := make([]byte, 1<<16)
	for n := int64(1); ; n++ {
		size, err := from.Read(buffer)
		if err != nil {
			return // closed
		}
		// Of every so many exactly one, in the middle: a test must not fail by
		// the chance that a packet is lost time and again.
		if w.oneIn > 0 && n%w.oneIn == w.oneIn/4 {
			continue
		}
		underWay <- packet{time.Now().Add(w.delay), bytes.Clone(buffer[:size])}
	}
}
