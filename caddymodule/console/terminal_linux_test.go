package console_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/sse-guard/sse-guard/caddymodule/console"
)

// childsAPI names the admin endpoint for the process that TestTerminal starts.
const childsAPI = "SSE_GUARD_TEST_API"

// TestTerminal_Child is that process, and nothing else.
func TestTerminal_Child(t *testing.T) {
	api := os.Getenv(childsAPI)
	if api == "" {
		return
	}
	require.True(t, console.IsTerminal(os.Stdout))
	top := console.Top{Client: &console.Client{HTTP: newClient(t), Base: api, Address: api}, Interval: console.LeastInterval, Order: "rate"}
	first, err := top.Look(t.Context())
	require.NoError(t, err)
	require.NoError(t, console.Live(t.Context(), os.Stdout, &top, first))
}

// terminal is a pseudo terminal as a user has it before him.
type terminal struct {
	user, process *os.File
	done          chan struct{} // closed once no more is read

	// mu guards the field below. Nothing is called with it held.
	mu    sync.Mutex
	shown bytes.Buffer
}

func newTerminal(t *testing.T) *terminal {
	t.Helper()
	user, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	require.NoError(t, err)
	raw, err := user.SyscallConn()
	require.NoError(t, err)
	var number int
	require.NoError(t, raw.Control(func(fd uintptr) {
		err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0)
		if err == nil {
			number, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
		if err == nil {
			err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: 20, Col: 120})
		}
	}))
	require.NoError(t, err)
	process, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	require.NoError(t, err)
	term := &terminal{user: user, process: process, done: make(chan struct{})}
	go term.read()
	t.Cleanup(func() {
		process.Close()
		_ = user.SetReadDeadline(time.Now())
		<-term.done
		user.Close()
	})
	return term
}

func (t *terminal) read() {
	defer close(t.done)
	buffer := make([]byte, 4096)
	for {
		n, err := t.user.Read(buffer)
		t.mu.Lock()
		t.shown.Write(buffer[:n])
		t.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (t *terminal) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.shown.String()
}

// modes are those of the terminal: whether it echoes, and so on.
func (t *terminal) modes(tb testing.TB) unix.Termios {
	tb.Helper()
	raw, err := t.process.SyscallConn()
	require.NoError(tb, err)
	var modes *unix.Termios
	var errOf error
	require.NoError(tb, raw.Control(func(fd uintptr) { modes, errOf = unix.IoctlGetTermios(int(fd), unix.TCGETS) }))
	require.NoError(tb, errOf)
	return *modes
}

// TestTerminal_IsLeftAsItWas, however top ends.
func TestTerminal_IsLeftAsItWas(t *testing.T) {
	for name, end := range map[string]func(term *terminal, p *os.Process) error{
		"q":                    func(term *terminal, _ *os.Process) error { _, err := io.WriteString(term.user, "q"); return err },
		"ctrl-c":               func(term *terminal, _ *os.Process) error { _, err := io.WriteString(term.user, "\x03"); return err },
		"a signal":             func(_ *terminal, p *os.Process) error { return p.Signal(syscall.SIGTERM) },
		"a terminal that goes": func(_ *terminal, p *os.Process) error { return p.Signal(syscall.SIGHUP) },
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPI(t, topAnswers(5, 1))
			term := newTerminal(t)
			before := term.modes(t)
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestTerminal_Child$")
			cmd.Env = append(os.Environ(), childsAPI+"="+a.URL, "TERM=xterm")
			cmd.Stdin, cmd.Stdout = term.process, term.process
			var failed bytes.Buffer
			cmd.Stderr = &failed
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
			require.NoError(t, cmd.Start())

			shows := func(text string) func() bool {
				return func() bool { return strings.Contains(term.text(), text) }
			}
			require.Eventually(t, shows("events/s"), 30*time.Second, 10*time.Millisecond, "%s", &failed)
			assert.True(t, strings.HasPrefix(term.text(), "\x1b[?1049h"), "it begins on a screen of its own")
			assert.NotEqual(t, before.Lflag, term.modes(t).Lflag, "typed keys are not echoed")
			_, err := io.WriteString(term.user, "a")
			require.NoError(t, err)
			require.Eventually(t, shows("by age"), 30*time.Second, 10*time.Millisecond)

			require.NoError(t, end(term, cmd.Process))
			require.NoError(t, cmd.Wait(), "%s%s", term.text(), &failed)
			assert.Equal(t, before, term.modes(t))
			require.Eventually(t, shows("\x1b[?7h\x1b[?25h\x1b[?1049l"), 30*time.Second, 10*time.Millisecond)
		})
	}
}
