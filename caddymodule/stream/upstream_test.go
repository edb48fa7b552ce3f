package stream

import (
	"context"
	"io"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestUpstreamContext_EndedTwiceAtOnceKeepsItsError: a client that leaves and
// the write that fails because of it may both end it.
func TestUpstreamContext_EndedTwiceAtOnceKeepsItsError(t *testing.T) {
	for range 20000 {
		ctx, end := newUpstreamContext(context.Background())
		var both sync.WaitGroup
		for range 2 {
			both.Go(func() { end(io.EOF) })
		}
		both.Wait()
		<-ctx.Done()
		require.Equal(t, io.EOF, ctx.Err())
		require.Equal(t, io.EOF, context.Cause(ctx))
	}
}
