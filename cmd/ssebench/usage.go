package main

import (
	"bytes"
	"fmt"
	"strconv"
	"time"
)

// usage is what a sub-process has used up to now, as it reports itself.
type usage struct {
	// CPU is the user and system time of all its threads (getrusage).
	CPU time.Duration `json:"cpu_ns"`
	// RSS is its resident memory in bytes (VmRSS of /proc/self/status).
	RSS int64 `json:"rss"`
	// Heap is the memory of the objects on its heap in bytes.
	Heap int64 `json:"heap"`
	// Stacks is the memory of its goroutine stacks in bytes.
	Stacks int64 `json:"stacks"`
	// Goroutines is how many it runs.
	Goroutines int `json:"goroutines"`
}

// parseVMRSS finds the resident memory, in bytes, in a /proc/<pid>/status.
func parseVMRSS(status []byte) (int64, error) {
	for line := range bytes.Lines(status) {
		value, found := bytes.CutPrefix(line, []byte("VmRSS:"))
		if !found {
			continue
		}
		number, unit, _ := bytes.Cut(bytes.TrimSpace(value), []byte(" "))
		kb, err := strconv.ParseInt(string(number), 10, 64)
		if err != nil || string(unit) != "kB" {
			return 0, fmt.Errorf("VmRSS of the process status: expected a number of kB, got %q", bytes.TrimSpace(value))
		}
		return kb << 10, nil
	}
	return 0, fmt.Errorf("the process status has no VmRSS")
}
