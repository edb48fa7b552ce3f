package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// checkMachine reports why the benchmark cannot run here, if it cannot. The Go
// runtime has raised the limit of open files as far as it may by itself, here
// and in the sub-processes.
func checkMachine(o options) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("reading the limit of open files: %w", err)
	}
	if need := o.files(); uint64(need) > limit.Max {
		return fmt.Errorf("%d streams and %d takeovers need %d open files in one process, the limit (ulimit -Hn) is %d: raise it or lower -streams",
			o.streams, o.takeovers, need, limit.Max)
	}
	return nil
}

// readUsage reads what this process has used up to now.
func readUsage() (usage, error) {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		return usage{}, fmt.Errorf("getrusage: %w", err)
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return usage{}, err
	}
	rss, err := parseVMRSS(status)
	if err != nil {
		return usage{}, err
	}
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	return usage{
		CPU:        time.Duration(ru.Utime.Nano() + ru.Stime.Nano()),
		RSS:        rss,
		Heap:       int64(mem.HeapAlloc),
		Stacks:     int64(mem.StackInuse),
		Goroutines: runtime.NumGoroutine(),
	}, nil
}

// loadAverage is the machine's load over the last minute; empty if unknown.
func loadAverage() string {
	line, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return ""
	}
	one, _, _ := strings.Cut(string(line), " ")
	return one
}
