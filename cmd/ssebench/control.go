package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"runtime/debug"
)

// Commands that a sub-process understands on its standard input, one a line.
// It answers each with one line of JSON.
const (
	commandUsage = "usage"
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
		switch lines.Text() {
		case commandUsage:
		case commandSettle:
			debug.FreeOSMemory()
		default:
			return fmt.Errorf("unknown command %q", lines.Text())
		}
		u, err := readUsage()
		if err != nil {
			return err
		}
		if err := enc.Encode(u); err != nil {
			return fmt.Errorf("answering %q: %w", lines.Text(), err)
		}
	}
	return lines.Err()
}
