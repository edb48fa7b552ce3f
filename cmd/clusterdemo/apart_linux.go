package main

import (
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// apart has a terminal's Ctrl-C not reach the process, which is ended in its turn, and
// the kernel kill it if this program is killed.
func apart(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// endWithParent has the kernel tell this program to end when who started it, which is
// make, is killed.
func endWithParent() {
	_ = unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGTERM), 0, 0, 0) // never fails with a valid signal
}
