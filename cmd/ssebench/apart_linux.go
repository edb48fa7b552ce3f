package main

import (
	"os/exec"
	"syscall"
)

// apart has a terminal's Ctrl-C not reach the process, and the kernel kill it if this
// one is killed.
func apart(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
