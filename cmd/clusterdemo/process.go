package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// process is a running one.
type process struct {
	name    string
	cmd     *exec.Cmd
	printed *printed
	exited  chan struct{} // closed once it has ended; err is set by then
	err     error
}

func startProcess(name string, cmd *exec.Cmd, verbose bool) (*process, error) {
	p := &process{name: name, cmd: cmd, printed: &printed{name: name, show: verbose}, exited: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p.printed, p.printed
	apart(cmd)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.exited)
	}()
	return p, nil
}

// patience is how long a process may take to end.
const patience = 10 * time.Second

// stop ends the process, and returns once it is gone.
func (p *process) stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may be gone
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-p.exited:
		return nil
	case <-timer.C:
		_ = p.cmd.Process.Kill() // same
		<-p.exited
		return fmt.Errorf("%s did not end for %s, and was killed", p.name, patience)
	}
}

// unexpected is the error for a process that has ended by itself.
func (p *process) unexpected() error {
	why := "it ended"
	if p.err != nil {
		why = p.err.Error()
	}
	return fmt.Errorf("%s ended, nobody asked it to (%s); it printed:\n%s", p.name, why, p.printed)
}

// printed keeps the last of what a process prints, and shows it if so wanted.
type printed struct {
	name string
	show bool

	mu   sync.Mutex // guards what is below it, and standard error
	kept []byte
}

// mostKept is how much is kept.
const mostKept = 8 << 10

func (w *printed) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kept = append(w.kept, b...)
	if len(w.kept) > mostKept {
		w.kept = append(w.kept[:0:0], w.kept[len(w.kept)-mostKept:]...)
	}
	if w.show {
		for line := range bytes.Lines(b) {
			fmt.Fprintf(os.Stderr, "%s: %s\n", w.name, bytes.TrimRight(line, "\n"))
		}
	}
	return len(b), nil
}

func (w *printed) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return string(w.kept)
}
