package console

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"
)

// Terminal is a Screen that is a terminal, as long as it is open.
type Terminal struct {
	out     *os.File
	tty     *os.File    // nil: keys are not read
	state   *term.State // of tty, to be restored
	keys    chan byte
	closing chan struct{} // closed when keys are wanted no more
	stopped chan struct{} // closed once none are read
}

// Control sequences of xterm, which all terminals of today know.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l\x1b[?7l" // the alternate screen, no cursor, no wrapped lines
	leaveScreen = "\x1b[?7h\x1b[?25h\x1b[?1049l"
	home        = "\x1b[H"
	clearLine   = "\x1b[K"
	clearBelow  = "\x1b[J"
)

// IsTerminal reports whether out is a terminal that can show a Screen.
func IsTerminal(out io.Writer) bool {
	file, ok := out.(*os.File)
	return ok && os.Getenv("TERM") != "dumb" && term.IsTerminal(int(file.Fd()))
}

// Live has top run in the terminal, beginning with a look that was taken, until the user
// has enough of it, a signal ends the process, or ctx ends. It leaves the terminal as it
// was.
func Live(ctx context.Context, out io.Writer, top *Top, now *Look) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	terminal, err := OpenTerminal(out)
	if err != nil {
		return err
	}
	err = top.Run(ctx, terminal, now)
	return errors.Join(err, terminal.Close())
}

// OpenTerminal takes the terminal over. Close gives it back as it was.
func OpenTerminal(out io.Writer) (*Terminal, error) {
	file, ok := out.(*os.File)
	if !ok {
		return nil, errors.New("the output is no terminal")
	}
	t := &Terminal{out: file}
	if tty, err := os.Open("/dev/tty"); err == nil {
		t.readKeys(tty)
	}
	if _, err := t.out.WriteString(enterScreen); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

// readKeys has keys be sent as they are typed, if the terminal can do that.
func (t *Terminal) readKeys(tty *os.File) {
	raw, err := tty.SyscallConn() // not Fd, after which Close could not stop the reading
	if err == nil {
		err = errors.Join(raw.Control(func(fd uintptr) { t.state, err = term.MakeRaw(int(fd)) }), err)
	}
	if err != nil || tty.SetReadDeadline(time.Time{}) != nil {
		if t.state != nil {
			_ = restore(tty, t.state)
			t.state = nil
		}
		tty.Close()
		return
	}
	t.tty, t.keys, t.closing, t.stopped = tty, make(chan byte), make(chan struct{}), make(chan struct{})
	go t.read()
}

// read hands on what is typed. It ends with Close.
func (t *Terminal) read() {
	defer close(t.stopped)
	var b [1]byte
	for {
		if _, err := t.tty.Read(b[:]); err != nil {
			return
		}
		select {
		case t.keys <- b[0]:
		case <-t.closing:
			return
		}
	}
}

// restore gives a terminal its modes back.
func restore(tty *os.File, state *term.State) error {
	raw, err := tty.SyscallConn()
	if err != nil {
		return err
	}
	var errOf error
	return errors.Join(raw.Control(func(fd uintptr) { errOf = term.Restore(int(fd), state) }), errOf)
}

// Size implements Screen.
func (t *Terminal) Size() (width, height int) {
	width, height, err := term.GetSize(int(t.out.Fd()))
	if err != nil || width <= 0 || height <= 0 {
		return 80, 24
	}
	return width, height
}

// Draw implements Screen. The lines have no control characters.
func (t *Terminal) Draw(lines []string) error {
	text := home + strings.Join(lines, clearLine+"\r\n") + clearLine + clearBelow
	_, err := t.out.WriteString(text)
	return err
}

// Keys implements Screen.
func (t *Terminal) Keys() <-chan byte { return t.keys }

// Close gives the terminal back as it was.
func (t *Terminal) Close() error {
	_, err := t.out.WriteString(leaveScreen)
	if t.tty == nil {
		return err
	}
	errOfState := restore(t.tty, t.state)
	close(t.closing)
	_ = t.tty.SetReadDeadline(time.Now()) // which was tried before
	<-t.stopped
	return errors.Join(err, errOfState, t.tty.Close())
}

var _ Screen = (*Terminal)(nil)
