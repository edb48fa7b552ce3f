// Command go-sse is github.com/tmaxmax/go-sse's client.
package main

import (
	"context"
	"net/http"

	"github.com/tmaxmax/go-sse"

	"github.com/sse-guard/sse-guard/testdata/compat/go/compat"
)

func main() {
	compat.Run(func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, compat.Events, nil)
		if err != nil {
			return err
		}
		connection := sse.NewConnection(request)
		connection.SubscribeToAll(func(e sse.Event) { compat.Event(e.Type, e.Data, e.LastEventID) })
		return connection.Connect()
	})
}
