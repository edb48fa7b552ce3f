// Command r3labs is github.com/r3labs/sse's client.
package main

import (
	"context"

	"github.com/r3labs/sse/v2"

	"github.com/sse-guard/sse-guard/testdata/compat/go/compat"
)

func main() {
	client := sse.NewClient(compat.Events)
	compat.Run(func(ctx context.Context) error {
		return client.SubscribeRawWithContext(ctx, func(e *sse.Event) {
			compat.Event(string(e.Event), string(e.Data), string(e.ID))
		})
	})
}
