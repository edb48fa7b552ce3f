package harness

import (
	"os/exec"
	"syscall"
)

// dieWithParent has the kernel kill the process if this one panics or is killed.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
