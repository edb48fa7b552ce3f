package e2e

import (
	"os/exec"
	"syscall"
)

// dieWithParent lets no server outlive a test binary that panicked or was killed.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
