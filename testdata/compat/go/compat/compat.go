// Package compat is what the Go clients share: they read what to do from their
// environment and standard input, and print what they see as JSON lines. See
// ../../README.md.
package compat

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync"
)

// What to do.
var (
	URL    = os.Getenv("COMPAT_URL")
	Token  = os.Getenv("COMPAT_TOKEN")
	N      = os.Getenv("COMPAT_N")
	Events = fmt.Sprintf("%s/events?token=%s&n=%s", URL, Token, N)
)

type line struct {
	Saw  string `json:"saw"`
	Name string `json:"name,omitempty"`
	Data string `json:"data"`
	ID   string `json:"id,omitempty"`
	Text string `json:"text,omitempty"`
}

var mu sync.Mutex // one line at a time

func print(l line) {
	mu.Lock()
	defer mu.Unlock()
	_ = json.NewEncoder(os.Stdout).Encode(l)
}

// Event reports an event.
func Event(name, data, id string) {
	if name == "" {
		name = "message"
	}
	print(line{Saw: "event", Name: name, Data: data, ID: id})
}

// Error reports what the library's user is told.
func Error(err error) { print(line{Saw: "error", Text: err.Error()}) }

// Run connects now, and once more for each line of standard input. An attempt
// before is over by then, or its context is cancelled.
func Run(connect func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	attempt := func(ctx context.Context) {
		if err := connect(ctx); err != nil {
			Error(err)
		} else {
			print(line{Saw: "end"})
		}
	}
	go attempt(ctx)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		cancel()
		ctx, cancel = context.WithCancel(context.Background())
		go attempt(ctx)
	}
	cancel()
}
