//go:build !linux

package e2e

import "os/exec"

// dieWithParent has no portable way; TestMain stops the server in all but a panic.
func dieWithParent(*exec.Cmd) {}
