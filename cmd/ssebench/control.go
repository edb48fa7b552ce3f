package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"runtime/pprof"
	"strings"
)

// Commands that a sub-process understands on its standard input, one a line.
// It answers each with one line of JSON.
const (
	commandUsage = "usage"
	// commandHeap is followed by a space and a file name; a heap profile is
	// written there.
	commandHeap = "heap"
	// commandSettle collects garbage and gives free memory back before it
	// answers like usage.
	commandSettle = "settle"
)

// ready is a sub-process's first line.
type ready struct {
	Address string `json:"address"`
}

// serveControl says that the role is ready and answers commands until in ends.
func serveControl(address string, in io.Reader, out io.Writer) error {
	enc := json.NewEncoder(out)
	if err := enc.Encode(ready{Address: address}); err != nil {
		return fmt.Errorf("saying that it is ready: %w", err)
	}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		command, file, _ := strings.Cut(lines.Text(), " ")
		switch command {
		case commandUsage:
		case commandSettle:
			debug.FreeOSMemory()
		case commandHeap:
			if err := writeHeapProfile(file); err != nil {
				return err
			}
		default:
			return fmt.Errorf("unknown command %q", command)
		}
		u, err := readUsage()
		if err != nil {
			return err
		}
		if err := enc.Encode(u); err != nil {
			return fmt.Errorf("answering %q: %w", command, err)
		}
	}
	return lines.Err()
}

func writeHeapProfile(file string) error {
	f, err := os.Create(file)
	if err != nil {
		return fmt.Errorf("heap profile: %w", err)
	}
	return errors.Join(pprof.Lookup("heap").WriteTo(f, 0), f.Close())
}
