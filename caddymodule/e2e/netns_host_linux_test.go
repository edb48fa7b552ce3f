package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// remoteHost is a computer of its own as far as the network goes: a network
// namespace that has one link, to this one. The kernel has made it at this end
// and at that, so that it can fail there as networks do.
type remoteHost struct {
	// Server is this computer's address, as the host knows it; Addr is the host's.
	Server, Addr string

	ns    string
	dev   string // the host's end of the link
	first string // its first address
}

const (
	nsPrefix = "sse-guard-"
	// prefixLen leaves a host six addresses, of which the first is the server's.
	prefixLen = "/29"
)

// hostsMade numbers the hosts of this test binary, and leftovers are removed once.
var (
	hostsMade atomic.Int32
	tidyOnce  sync.Once
)

// newRemoteHost makes a host at the other end of a virtual Ethernet cable. It is
// gone when the test ends, with all processes on it.
func newRemoteHost(t testing.TB) *remoteHost {
	t.Helper()
	h, near, far := newHost(t)
	ip(t, "link", "add", near, "type", "veth", "peer", "name", far, "netns", h.ns)
	t.Cleanup(func() { _ = exec.Command("ip", "link", "del", near).Run() }) // gone with the namespace, in a moment
	h.plugIn(t, near, far)
	return h
}

// newFarHost makes one that is at the end of a long wire, see wire.
func newFarHost(t testing.TB, delay time.Duration, oneIn int) (*remoteHost, *wire) {
	t.Helper()
	h, near, far := newHost(t)
	w := newWire(t, near, far, delay, oneIn)
	ip(t, "link", "set", far, "netns", h.ns)
	h.plugIn(t, near, far)
	return h, w
}

func newHost(t testing.TB) (h *remoteHost, near, far string) {
	t.Helper()
	requireNamespaces(t)
	tidyOnce.Do(func() { removeLeftovers(t) })
	n := int(hostsMade.Add(1))
	h = &remoteHost{ns: fmt.Sprintf("%s%d-%d", nsPrefix, os.Getpid(), n), Server: freeNetwork(t, n).Next().String()}
	near, far = fmt.Sprintf("sg%ds%d", os.Getpid(), n), fmt.Sprintf("sg%dc%d", os.Getpid(), n)
	h.dev = far
	ip(t, "netns", "add", h.ns)
	t.Cleanup(func() { ip(t, "netns", "del", h.ns) })
	return h, near, far
}

func (h *remoteHost) plugIn(t testing.TB, near, far string) {
	t.Helper()
	ip(t, "addr", "add", h.Server+prefixLen, "dev", near)
	ip(t, "link", "set", near, "up")
	ip(t, "-n", h.ns, "link", "set", far, "up")
	h.Addr = h.Server
	h.move(t)
	h.first = h.Addr
}

// move gives the host the next address in the place of the one that it has.
func (h *remoteHost) move(t testing.TB) {
	t.Helper()
	old := netip.MustParseAddr(h.Addr)
	h.Addr = old.Next().String()
	ip(t, "-n", h.ns, "addr", "flush", "dev", h.dev)
	ip(t, "-n", h.ns, "addr", "add", h.Addr+prefixLen, "dev", h.dev)
}

// pullCable takes the link down at the host, and returns when that was.
func (h *remoteHost) pullCable(t testing.TB) time.Time {
	t.Helper()
	now := time.Now()
	ip(t, "-n", h.ns, "link", "set", h.dev, "down")
	return now
}

// plugCableIn takes it up again.
func (h *remoteHost) plugCableIn(t testing.TB) {
	t.Helper()
	ip(t, "-n", h.ns, "link", "set", h.dev, "up")
}

// smallWindow has the host's programs offer small receive windows.
func (h *remoteHost) smallWindow(t testing.TB) {
	t.Helper()
	run(t, "ip", "netns", "exec", h.ns, "sh", "-c", "echo 4096 8192 8192 >/proc/sys/net/ipv4/tcp_rmem")
}

// windowFull reports whether this kernel waits for the host to take something in.
func (h *remoteHost) windowFull(t testing.TB) bool {
	t.Helper()
	return strings.Contains(run(t, "ss", "-Htno", "state", "established", "dst", h.Addr), "timer:(persist")
}

// curl starts curl on the host.
func (h *remoteHost) curl(t testing.TB, args ...string) *curlProcess {
	t.Helper()
	c := &curlProcess{exited: make(chan struct{})}
	c.cmd = exec.Command("ip", append([]string{"netns", "exec", h.ns, "curl", "-sS", "-N", "-k"}, args...)...)
	c.cmd.Stdout, c.cmd.Stderr = &c.output, &c.output
	dieWithParent(c.cmd)
	require.NoError(t, c.cmd.Start())
	go func() {
		_ = c.cmd.Wait()
		close(c.exited)
	}()
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill()
		<-c.exited
	})
	return c
}

// curlProcess is a client on another host. ip has become curl: the process is curl's.
type curlProcess struct {
	cmd    *exec.Cmd
	output lockedBuffer
	exited chan struct{}
}

// waitOutput waits until curl has printed that.
func (c *curlProcess) waitOutput(t testing.TB, want string) {
	t.Helper()
	require.Eventually(t, func() bool { return strings.Contains(c.output.String(), want) },
		patience, 5*time.Millisecond, "curl has not printed %q", want)
}

func (c *curlProcess) running() bool {
	select {
	case <-c.exited:
		return false
	default:
		return true
	}
}

func (c *curlProcess) signal(t testing.TB, s os.Signal) time.Time {
	t.Helper()
	require.NoError(t, c.cmd.Process.Signal(s))
	return time.Now()
}

func ip(t testing.TB, args ...string) {
	t.Helper()
	output, err := exec.Command("ip", args...).CombinedOutput()
	require.NoError(t, err, "ip %s: %s", strings.Join(args, " "), output)
}

// requireNamespaces says what is missing to make hosts.
func requireNamespaces(t testing.TB) {
	t.Helper()
	for command, of := range map[string]string{"ip": "iproute2", "ss": "iproute2", "curl": "curl"} {
		if _, err := exec.LookPath(command); err != nil {
			t.Fatalf("this test needs the command %s, of Debian's %s: run `make deps`", command, of)
		}
	}
	if os.Geteuid() != 0 {
		t.Fatal("this test makes network namespaces, which only root may: run it as root")
	}
}

// removeLeftovers removes the namespaces of test binaries that were killed. Their
// links go with them.
func removeLeftovers(t testing.TB) {
	t.Helper()
	paths, err := filepath.Glob("/run/netns/" + nsPrefix + "*")
	require.NoError(t, err)
	for _, path := range paths {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(path), nsPrefix), "-")
		if _, err := os.Stat("/proc/" + pid); os.IsNotExist(err) {
			_ = exec.Command("ip", "netns", "del", filepath.Base(path)).Run() // another one may be tidying too
		}
	}
}

// freeNetwork picks a network out of 198.18.0.0/15, which is for such purposes
// (RFC 2544). Test binaries that run side by side have different ones.
func freeNetwork(t testing.TB, n int) netip.Addr {
	t.Helper()
	const networks, size, perProcess = 1 << 14, 8, 32
	taken, err := net.InterfaceAddrs()
	require.NoError(t, err)
	for i := range networks {
		var b [4]byte
		at := (os.Getpid()*perProcess + n + i*perProcess) % networks
		binary.BigEndian.PutUint32(b[:], 198<<24|18<<16|uint32(at*size))
		network := netip.AddrFrom4(b)
		free := true
		for _, a := range taken {
			if cidr, ok := a.(*net.IPNet); ok && cidr.Contains(net.IP(network.AsSlice())) {
				free = false
			}
		}
		if free {
			return network
		}
	}
	t.Fatal("no network is free in 198.18.0.0/15")
	return netip.Addr{}
}

// wire carries packets between two network devices, as netem does, which not
// every kernel has: each way takes its time, and one packet in so many is lost.
// It can lose all, too, while the link stays up.
type wire struct {
	delay time.Duration
	oneIn int64
	cut   atomic.Bool

	ends    [2]*os.File
	carried sync.WaitGroup
}

// newWire makes the two devices. oneIn 0 loses nothing.
func newWire(t testing.TB, near, far string, delay time.Duration, oneIn int) *wire {
	t.Helper()
	w := &wire{delay: delay, oneIn: int64(oneIn), ends: [2]*os.File{openTUN(t, near), openTUN(t, far)}}
	w.carried.Go(func() { w.carry(w.ends[0], w.ends[1]) })
	w.carried.Go(func() { w.carry(w.ends[1], w.ends[0]) })
	t.Cleanup(func() {
		w.ends[0].Close()
		w.ends[1].Close()
		w.carried.Wait()
	})
	return w
}

// lose loses all packets from now on.
func (w *wire) lose() time.Time {
	w.cut.Store(true)
	return time.Now()
}

func openTUN(t testing.TB, name string) *os.File {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	require.NoError(t, err, "this test needs the TUN device of the kernel")
	request, err := unix.NewIfreq(name)
	require.NoError(t, err)
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	require.NoError(t, unix.IoctlIfreq(fd, unix.TUNSETIFF, request))
	return os.NewFile(uintptr(fd), name)
}

type packet struct {
	due   time.Time
	bytes []byte
}

func (w *wire) carry(from, to *os.File) {
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
