// Command launchdarkly is github.com/launchdarkly/eventsource's client.
package main

import (
	"context"
	"net/http"

	"github.com/launchdarkly/eventsource"

	"github.com/sse-guard/sse-guard/testdata/compat/go/compat"
)

func main() {
	compat.Run(func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, compat.Events, nil)
		if err != nil {
			return err
		}
		handle := eventsource.StreamOptionErrorHandler(func(err error) eventsource.StreamErrorHandlerResult {
			compat.Error(err)
			return eventsource.StreamErrorHandlerResult{}
		})
		stream, err := eventsource.SubscribeWithRequestAndOptions(request, handle)
		if err != nil {
			return err
		}
		defer stream.Close()
		for {
			select {
			case e, ok := <-stream.Events:
				if !ok {
					return nil
				}
				compat.Event(e.Event(), e.Data(), e.Id())
			case <-ctx.Done():
				return nil
			}
		}
	})
}
