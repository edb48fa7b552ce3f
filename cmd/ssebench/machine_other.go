//go:build !linux

package main

import (
	"errors"
	"fmt"
	"runtime"
)

// checkMachine reports that the benchmark cannot run here.
func checkMachine(options) error {
	return fmt.Errorf("ssebench measures with getrusage and /proc, which %s has not: run it on Linux", runtime.GOOS)
}

func readUsage() (usage, error) { return usage{}, errors.ErrUnsupported }

func loadAverage() string { return "" }
