//go:build !linux

package main

import "os/exec"

// apart has no portable way: a terminal's Ctrl-C ends the process too.
func apart(*exec.Cmd) {}
