package main

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"strings"
	"unicode/utf8"
)

// report is what a run prints.
type report struct {
	Environment environment `json:"environment"`
	Options     summary     `json:"options"`
	Rows        []row       `json:"rows"`
}

// environment is where it ran.
type environment struct {
	System string `json:"system"`
	CPUs   int    `json:"cpus"`
	Load   string `json:"load_before,omitempty"` // of the last minute before the run
	Go     string `json:"go"`
	Caddy  string `json:"caddy"`
}

// summary is what was measured.
type summary struct {
	Rounds           int  `json:"rounds"`
	Slices           int  `json:"slices_per_round"`
	Streams          int  `json:"streams"`
	Takeovers        int  `json:"takeovers_per_round"`
	RelayStreams     int  `json:"relay_streams"`
	EventsPerSlice   int  `json:"events_per_slice"`
	EventsPerSecond  int  `json:"events_per_second"`
	EventSize        int  `json:"event_size"`
	RequestsPerSlice int  `json:"requests_per_slice"`
	Quick            bool `json:"quick"`
}

func describeEnvironment() environment {
	env := environment{
		System: runtime.GOOS + "/" + runtime.GOARCH,
		CPUs:   runtime.NumCPU(),
		Load:   loadAverage(),
		Go:     runtime.Version(),
		Caddy:  "unknown version",
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range info.Deps {
			if dep.Path == "github.com/caddyserver/caddy/v2" {
				env.Caddy = dep.Version
			}
		}
	}
	return env
}

func (r report) writeJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "\t")
	return enc.Encode(r)
}

// preface says what the numbers are.
const preface = `Medians; rounds: %d; turns of relaying and answering in each: %d. "against plain" is the median of
guarded compared with plain turn by turn, and in brackets where the middle half of all turns lies: if that is wide,
the machine was busy. CPU is user and system time of the Caddy process (getrusage); KB are 1024 bytes.
RSS is read after garbage was collected and free memory given back, unless the row says otherwise.
%d events of %d bytes a turn, on %d streams, %d a second; %d JSON requests a turn; %d takeovers a round.
%s, %d CPUs, load before %s, %s, Caddy %s.

`

// elsewhere names the budgets that need no server.
const elsewhere = `
Without a server:
Admit+Leave:                 go test -run - -bench AdmitLeave ./caddymodule/registry/memory
allocations per relayed write: go test -run - -bench Relay -benchmem ./caddymodule/stream
`

// writeTable writes the report as Markdown that also reads as plain text.
func (r report) writeTable(w io.Writer) error {
	o, env := r.Options, r.Environment
	var b strings.Builder
	if o.Quick {
		b.WriteString("A quick run: it shows that everything works, its numbers mean nothing.\n\n")
	}
	fmt.Fprintf(&b, preface, o.Rounds, o.Slices, o.EventsPerSlice, o.EventSize, o.RelayStreams, o.EventsPerSecond,
		o.RequestsPerSlice, o.Takeovers, env.System, env.CPUs, env.Load, env.Go, env.Caddy)

	lines := [][]string{{"what", "plain", "guarded", "against plain", "goal", "result"}}
	for _, row := range r.Rows {
		lines = append(lines, row.cells())
	}
	writeAligned(&b, lines)
	b.WriteString(elsewhere)
	_, err := io.WriteString(w, b.String())
	return err
}

// writeAligned writes a Markdown table, the first column to the left and the
// others to the right.
func writeAligned(b *strings.Builder, lines [][]string) {
	widths := make([]int, len(lines[0]))
	for _, line := range lines {
		for i, cell := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for n, line := range lines {
		for i, cell := range line {
			fill := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i == 0 {
				b.WriteString("| " + cell + fill)
			} else {
				b.WriteString(" | " + fill + cell)
			}
		}
		b.WriteString(" |\n")
		if n == 0 {
			for i, width := range widths {
				if i == 0 {
					b.WriteString("| " + strings.Repeat("-", width))
				} else {
					b.WriteString(" | " + strings.Repeat("-", width-1) + ":")
				}
			}
			b.WriteString(" |\n")
		}
	}
}
