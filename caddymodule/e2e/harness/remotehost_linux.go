package harness

import (
	"bytes"
	"encoding/binary"
	"errors"
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
)

// RemoteHost is another computer as far as the network goes: a network namespace
// with one link, to this one. This kernel runs TCP at both ends, and the link
// between them can fail as networks do.
type RemoteHost struct {
	// Server is this computer's address, as the host knows it.
	Server string
	// Addr is the host's present address, and FirstAddr the one it began with.
	Addr, FirstAddr string
	// Name is that of its network namespace, which no other host has.
	Name string

	dev string // the host's end of the link
}

const (
	nsPrefix = "sse-guard-"
	// prefixLen leaves a host six addresses, of which the first is the server's.
	prefixLen = "/29"
)

// hostsMade numbers the hosts of this process, and leftovers are removed once. canMake is
// what tryHost says.
var (
	hostsMade atomic.Int32
	tidyOnce  sync.Once
	canMake   = sync.OnceValue(tryHost)
)

// NewRemoteHost makes a host at the other end of a virtual Ethernet link. It is
// removed when the test ends. It needs root; see RequireNamespaces.
func NewRemoteHost(t testing.TB) *RemoteHost {
	t.Helper()
	h, near, far := newHost(t)
	ip(t, "link", "add", near, "type", "veth", "peer", "name", far, "netns", h.Name)
	t.Cleanup(func() { _ = exec.Command("ip", "link", "del", near).Run() }) // gone with the namespace, in a moment
	h.plugIn(t, near, far)
	return h
}

// NewFarHost makes a host at the other end of a wire that takes delay each way and
// loses one packet in oneIn, or none if that is 0.
func NewFarHost(t testing.TB, delay time.Duration, oneIn int) (*RemoteHost, *Wire) {
	t.Helper()
	h, near, far := newHost(t)
	w := newWire(t, near, far, delay, oneIn)
	ip(t, "link", "set", far, "netns", h.Name)
	h.plugIn(t, near, far)
	return h, w
}

func newHost(t testing.TB) (h *RemoteHost, near, far string) {
	t.Helper()
	RequireNamespaces(t)
	tidyOnce.Do(func() { removeLeftovers(t) })
	n := int(hostsMade.Add(1))
	h = &RemoteHost{Name: fmt.Sprintf("%s%d-%d", nsPrefix, os.Getpid(), n), Server: freeNetwork(t, n).Next().String()}
	near, far = fmt.Sprintf("sg%ds%d", os.Getpid(), n), fmt.Sprintf("sg%dc%d", os.Getpid(), n)
	h.dev = far
	ip(t, "netns", "add", h.Name)
	t.Cleanup(func() { ip(t, "netns", "del", h.Name) })
	return h, near, far
}

func (h *RemoteHost) plugIn(t testing.TB, near, far string) {
	t.Helper()
	ip(t, "addr", "add", h.Server+prefixLen, "dev", near)
	ip(t, "link", "set", near, "up")
	ip(t, "-n", h.Name, "link", "set", far, "up")
	h.Addr = h.Server
	h.Move(t)
	h.FirstAddr = h.Addr
}

// Move gives the host the next address in the place of the one that it has.
func (h *RemoteHost) Move(t testing.TB) {
	t.Helper()
	old := netip.MustParseAddr(h.Addr)
	h.Addr = old.Next().String()
	ip(t, "-n", h.Name, "addr", "flush", "dev", h.dev)
	ip(t, "-n", h.Name, "addr", "add", h.Addr+prefixLen, "dev", h.dev)
}

// PullCable takes the link down at the host, and returns the time just before.
func (h *RemoteHost) PullCable(t testing.TB) time.Time {
	t.Helper()
	now := time.Now()
	ip(t, "-n", h.Name, "link", "set", h.dev, "down")
	return now
}

// PlugCableIn takes the link up again.
func (h *RemoteHost) PlugCableIn(t testing.TB) {
	t.Helper()
	ip(t, "-n", h.Name, "link", "set", h.dev, "up")
}

// SmallWindow has connections that the host opens from now on offer small receive
// windows.
func (h *RemoteHost) SmallWindow(t testing.TB) {
	t.Helper()
	Run(t, "ip", "netns", "exec", h.Name, "sh", "-c", "echo 4096 8192 8192 >/proc/sys/net/ipv4/tcp_rmem")
}

// WindowFull reports whether this kernel waits for the host to open its receive
// window.
func (h *RemoteHost) WindowFull(t testing.TB) bool {
	t.Helper()
	return strings.Contains(Run(t, "ss", "-Htno", "state", "established", "dst", h.Addr), "timer:(persist")
}

func ip(t testing.TB, args ...string) {
	t.Helper()
	output, err := exec.Command("ip", args...).CombinedOutput()
	require.NoError(t, err, "ip %s: %s", strings.Join(args, " "), output)
}

// RequireNamespaces skips the test if no hosts can be made here: only root may, and in
// a container only with the capabilities that it takes (CAP_NET_ADMIN and CAP_SYS_ADMIN).
// Continuous integration, which sets CI=true, must not lose these tests: there it fails.
func RequireNamespaces(t testing.TB) {
	t.Helper()
	for command, of := range map[string]string{"ip": "iproute2", "ss": "iproute2", "curl": "curl"} {
		if _, err := exec.LookPath(command); err != nil {
			t.Fatalf("this test needs the command %s, of Debian's %s: run `make deps`", command, of)
		}
	}
	networkChanges.by(t)
	err := canMake()
	switch {
	case err == nil:
	case os.Getenv("CI") == "true":
		t.Fatalf("CI=true, and no network namespaces can be made: run the tests as root with CAP_NET_ADMIN and CAP_SYS_ADMIN: %v", err)
	default:
		//nolint:forbidigo // who has no rights cannot run it; .ci/test.sh tells at its end
		t.Skipf("NOT TESTED: streams over networks that fail. No network namespaces can be made; run the tests as root with CAP_NET_ADMIN and CAP_SYS_ADMIN: %v", err)
	}
}

// tryHost makes and removes what hosts are made of, and returns what fails.
func tryHost() (err error) {
	name, near, far := fmt.Sprintf("%s%d-try", nsPrefix, os.Getpid()), fmt.Sprintf("sg%dst", os.Getpid()), fmt.Sprintf("sg%dct", os.Getpid())
	run := func(args ...string) error {
		if output, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(output))
		}
		return nil
	}
	if err := run("netns", "add", name); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, run("netns", "del", name)) }()
	if err := run("link", "add", near, "type", "veth", "peer", "name", far, "netns", name); err != nil {
		return err
	}
	if err := run("link", "del", near); err != nil {
		return err
	}
	device, err := openTUN(near)
	if err != nil {
		return err
	}
	return device.Close()
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
