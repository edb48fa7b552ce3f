package stream

import (
	"context"
	"sync"
)

// upstreamContext is the context of the request that goes to the backend. It
// has the values of the client's request, but the guard, not the client's
// connection, decides when it is done and with which error.
//
// Err returns whatever end was given, which bends the context contract
// (Canceled or DeadlineExceeded): HTTP/1 transports hand a context's cause to
// the body's reader, but HTTP/2 transports hand it Err. Only with io.EOF from
// both does reverse_proxy see an ordinary end of the body, and neither logs
// nor panics.
type upstreamContext struct {
	context.Context // the request's values, never done

	mu    sync.Mutex
	err   error
	after func() // ends the one child
}

// never is the Done channel of every upstreamContext: its one child hears of
// the end through AfterFunc, and is what everybody else waits for.
var never = make(chan struct{})

// newUpstreamContext returns a context with parent's values for the handlers
// behind the guard, and the function that ends it.
//
// The context returned is a plain cancelable child of the upstreamContext:
// the standard library finds a *cancelCtx below any number of WithValue
// layers and links further children to it directly. Without it each of them
// would cost a goroutine for as long as the stream lives.
func newUpstreamContext(parent context.Context) (ctx context.Context, end func(error)) {
	u := &upstreamContext{Context: context.WithoutCancel(parent)}
	ctx, cancel := context.WithCancel(u)
	return ctx, func(err error) {
		// A second call, at the same time, must not cancel: it might overtake
		// the first one's error.
		if u.end(err) {
			cancel()
		}
	}
}

func (u *upstreamContext) Done() <-chan struct{} { return never }

func (u *upstreamContext) Err() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.err
}

// AfterFunc is how package context links a child to a context that is not its
// own, without a goroutine: newUpstreamContext makes the one child. Unlike
// context.AfterFunc it calls f in the goroutine that ends the context.
func (u *upstreamContext) AfterFunc(f func()) (stop func() bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.after = f
	return func() bool {
		u.mu.Lock()
		defer u.mu.Unlock()
		stopped := u.after != nil
		u.after = nil
		return stopped
	}
}

// end makes the context done with err. Only the first call counts, and reports
// true.
func (u *upstreamContext) end(err error) bool {
	u.mu.Lock()
	if u.err != nil {
		u.mu.Unlock()
		return false
	}
	u.err = err
	after := u.after
	u.after = nil
	u.mu.Unlock()
	if after != nil {
		after()
	}
	return true
}
