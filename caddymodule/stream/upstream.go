package stream

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Source is where a stream's bytes come from.
type Source interface {
	// End ends it with cause. Only the first call counts. It does not block.
	End(cause error)
}

// upstream is the context of the request that goes to the backend, and the Source
// of its response. It has the values of the client's request, but the guard, not
// the client's connection, decides when it is done and with which error.
//
// Err returns whatever end was given, which bends the context contract
// (Canceled or DeadlineExceeded): HTTP/1 transports hand a context's cause to
// the body's reader, but HTTP/2 transports hand it Err. Only with io.EOF from
// both does reverse_proxy see an ordinary end of the body, and neither logs
// nor panics.
//
// Most requests get no stream, and many are answered without that anybody waits
// for their context. So what it takes to wait is made when Done is first called.
type upstream struct {
	values context.Context // as the handlers behind the guard see them
	client context.Context // of the client's request
	owner  leaver          // is told when client is done

	// mu guards err, and the making of made. It may be held while locks of package
	// context are taken, and those of a guard further out.
	mu   sync.Mutex
	err  error
	made atomic.Pointer[detached]
}

// leaver is who is told that the client's request is done.
type leaver interface{ clientDone() }

// Deadline implements context.Context: the guard sets none, and the client's does
// not count.
func (*upstream) Deadline() (time.Time, bool) { return time.Time{}, false }

// Done implements context.Context.
func (u *upstream) Done() <-chan struct{} { return u.detach().child.Done() }

// Err implements context.Context.
func (u *upstream) Err() error {
	if d := u.made.Load(); d != nil {
		return d.child.Err()
	}
	if u.client.Err() != nil {
		u.owner.clientDone() // nobody has told it
	}
	if !u.ended() {
		return nil
	}
	return u.detach().child.Err() // context.Cause looks there
}

// Value implements context.Context. Package context asks for its own *cancelCtx,
// after Done or Err, to link children to it without a goroutine. It gets that of
// the child, never the client's.
func (u *upstream) Value(key any) any {
	if d := u.made.Load(); d != nil {
		if v := d.child.Value(key); v != nil {
			return v
		}
	}
	return u.values.Value(key)
}

// End implements Source.
func (u *upstream) End(cause error) {
	u.mu.Lock()
	if u.err != nil {
		u.mu.Unlock()
		return
	}
	u.err = cause
	d := u.made.Load()
	u.mu.Unlock()
	if d != nil {
		d.end(cause)
	}
}

func (u *upstream) ended() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.err != nil
}

// detach makes, once, what others can wait for.
func (u *upstream) detach() *detached {
	if d := u.made.Load(); d != nil {
		return d
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if d := u.made.Load(); d != nil {
		return d
	}
	d := newDetached()
	if u.err != nil {
		d.end(u.err)
	} else {
		d.forget = context.AfterFunc(u.client, u.owner.clientDone)
	}
	u.made.Store(d)
	return d
}

// release lets go of what still hangs on the context, and of the client's.
func (u *upstream) release() {
	u.End(context.Canceled)
	if d := u.made.Load(); d != nil && d.forget != nil {
		d.forget()
	}
}

// detached is a context without values that is done when it is told to be, with any
// error. Its one child is what everybody waits for: a plain *cancelCtx, to which
// the standard library links further children directly. Without it each of them
// would cost a goroutine for as long as the stream lives.
type detached struct {
	child  context.Context
	cancel context.CancelFunc
	forget func() bool // the client's end; nil where nobody waits for it

	// mu guards the fields below it. Nothing is called with it held.
	mu    sync.Mutex
	err   error
	after func() // ends the child
}

// never is the Done channel of every detached: its one child hears of the end
// through AfterFunc.
var never = make(chan struct{})

func newDetached() *detached {
	d := new(detached)
	d.child, d.cancel = context.WithCancel(d)
	return d
}

// Deadline implements context.Context.
func (*detached) Deadline() (time.Time, bool) { return time.Time{}, false }

// Done implements context.Context.
func (*detached) Done() <-chan struct{} { return never }

// Value implements context.Context.
func (*detached) Value(any) any { return nil }

// Err implements context.Context.
func (d *detached) Err() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

// AfterFunc is how package context links a child to a context that is not its
// own, without a goroutine: newDetached makes the one child, before there is an
// end. Unlike context.AfterFunc it calls f in the goroutine that ends the context.
func (d *detached) AfterFunc(f func()) (stop func() bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.after = f
	return func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		stopped := d.after != nil
		d.after = nil
		return stopped
	}
}

// end makes the context done with err. It is called once.
func (d *detached) end(err error) {
	d.mu.Lock()
	d.err = err
	after := d.after
	d.after = nil
	d.mu.Unlock()
	if after != nil {
		after()
	}
	d.cancel() // does nothing any more: the child has err
}
