package harness

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"
)

// uvicorn is a server process that runs testdata/fastapi.
type uvicorn struct {
	url    string
	cmd    *exec.Cmd
	log    *serverLog
	exited chan struct{} // closed after err is set
	err    error
}

// launchUvicorn starts the server on a free port, which uvicorn itself chooses,
// and returns once it listens.
func launchUvicorn() (*uvicorn, error) {
	root, err := findRoot()
	if err != nil {
		return nil, err
	}
	python := filepath.Join(root, ".cache", "venv", "bin", "python")
	if _, err := os.Stat(python); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no Python environment for the FastAPI application: run `make deps` (%w)", err)
	}

	log := &serverLog{listening: make(chan string, 1)}
	cmd := exec.Command(python, "-B", "-m", "uvicorn", "app:app", "--host", "127.0.0.1", "--port", "0",
		"--no-access-log", "--no-use-colors", "--timeout-graceful-shutdown", "1")
	cmd.Dir = filepath.Join(root, "testdata", "fastapi")
	cmd.Env = append(os.Environ(), "WEBHOOK_SECRET="+WebhookSecret)
	cmd.Stdout, cmd.Stderr = log, log
	dieWithParent(cmd)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the FastAPI application: %w", err)
	}
	u := &uvicorn{cmd: cmd, log: log, exited: make(chan struct{})}
	go func() {
		u.err = cmd.Wait()
		close(u.exited)
	}()

	timeout := time.NewTimer(2 * Patience)
	defer timeout.Stop()
	select {
	case u.url = <-log.listening:
		return u, nil
	case <-u.exited:
		return nil, fmt.Errorf("the FastAPI application ended as it started: %w; its log:\n%s", u.err, log)
	case <-timeout.C:
		return nil, errors.Join(fmt.Errorf("the FastAPI application does not listen; its log:\n%s", log), u.kill())
	}
}

func (u *uvicorn) running() bool {
	select {
	case <-u.exited:
		return false
	default:
		return true
	}
}

// stop asks the server to end, and waits. It is an error if it has to be
// killed, or ended badly. Stopping it twice is fine.
func (u *uvicorn) stop() error {
	if err := u.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	timeout := time.NewTimer(Patience)
	defer timeout.Stop()
	select {
	case <-u.exited:
	case <-timeout.C:
		return errors.Join(fmt.Errorf("the FastAPI application does not end; its log:\n%s", u.log), u.kill())
	}
	// uvicorn raises the signal again once it has cleaned up.
	if status, ok := u.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() && status.Signal() == syscall.SIGTERM {
		return nil
	}
	return u.err
}

func (u *uvicorn) kill() error {
	err := u.cmd.Process.Kill()
	<-u.exited
	return err
}

var listeningLine = regexp.MustCompile(`Uvicorn running on (http://\S+)`)

// serverLog keeps what the server prints and picks out where it listens.
type serverLog struct {
	listening chan string

	// mu guards the fields below. Write sends to listening with it held, which has
	// room for the one value that it gets.
	mu    sync.Mutex
	text  strings.Builder
	found bool
}

func (l *serverLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(p)
	if !l.found {
		if m := listeningLine.FindStringSubmatch(l.text.String()); m != nil {
			l.found = true
			l.listening <- m[1]
		}
	}
	return len(p), nil
}

func (l *serverLog) String() string { return l.from(0) }

func (l *serverLog) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Len()
}

func (l *serverLog) from(offset int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()[offset:]
}
