//go:build !linux

package main

import "os/exec"

// apart has no portable way: a terminal's Ctrl-C reaches all processes, which end by
// themselves then.
func apart(*exec.Cmd) {}

// endWithParent has no portable way.
func endWithParent() {}
