package eventstream_test

import (
	"fmt"

	"github.com/sse-guard/sse-guard/caddymodule/eventstream"
)

func ExampleScanner() {
	var s eventstream.Scanner
	for _, piece := range []string{"data: a\n\ndata:", " b\n", "\n: heartbeat\n"} {
		fmt.Println(s.Scan([]byte(piece)), s.AtBoundary())
	}
	// Output:
	// 9 false
	// -1 false
	// 13 true
}

func ExampleEvent_Append() {
	event := eventstream.Event{ID: "41", Name: "greeting", Data: "hello\nworld"}
	block, err := event.Append(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Print(string(block))
	// Output:
	// id: 41
	// event: greeting
	// data: hello
	// data: world
}
