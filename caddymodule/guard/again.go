package guard

import (
	"context"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/stream"
)

const (
	// firstPause is how long the upstream gets to count a stream out that is gone,
	// before it is asked again. Each further pause is twice as long.
	firstPause = 20 * time.Millisecond
	// mostAgain is how often it is asked again.
	mostAgain = 5
)

// again asks the upstream again where it refuses a newcomer whose client's older
// stream is only just gone: many upstreams count a stream until some time after its
// request is over.
//
// The refused answer is thrown away as it comes. The last one passes whole.
type again struct {
	request *request
	next    Next
	began   time.Time

	// header is that of the response before the first try.
	header http.Header
	// url and fields are those of the request before the first try. Handlers change
	// them in place.
	url    url.URL
	fields http.Header
	// restore puts back what the server keeps of a request on its way.
	restore func()
}

// asksAgain reports whether the upstream is to be asked again if it refuses. A guard
// further out that does so for the whole request does it for this one too.
func asksAgain(q *request) bool {
	if !q.takesOver || q.r.Method != http.MethodGet || len(q.guard.RetryRefused) == 0 {
		return false
	}
	for o := q.outer; o != nil; o = o.outer {
		if asksAgain(o) {
			return false
		}
	}
	return true
}

// askingAgain returns next so that it asks again.
func askingAgain(q *request, next Next) Next {
	return func(w http.ResponseWriter, r *http.Request) error {
		a := &again{
			request: q,
			next:    next,
			began:   time.Now(),
			header:  w.Header().Clone(),
			url:     *r.URL,
			fields:  r.Header.Clone(),
			restore: q.env.Snapshot(),
		}
		return a.serve(r)
	}
}

func (a *again) serve(r *http.Request) error {
	for pause := firstPause; ; pause *= 2 {
		refused, err := a.try(r, pause)
		if !refused {
			return err
		}
		select {
		case <-r.Context().Done():
			a.request.response.WriteHeader(http.StatusConflict) // for the log: the client left
			return nil
		default:
			a.reset(r)
		}
	}
}

// reset makes everything what it was before the first try, in place: others hold the
// URL and the maps.
func (a *again) reset(r *http.Request) {
	*r.URL = a.url
	putBack(r.Header, a.fields)
	putBack(a.request.response.Header(), a.header)
	a.restore()
}

func putBack(h, as http.Header) {
	clear(h)
	maps.Copy(h, as.Clone())
}

// try calls the handlers once. If the upstream refuses, and may be asked again, it
// returns true when the pause is over, or the request.
func (a *again) try(r *http.Request, pause time.Duration) (refused bool, err error) {
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(context.Canceled)
	t := &try{Response: &a.request.response, again: a, pause: pause, cancel: cancel}
	defer func() {
		refused = t.over != nil
		if !refused {
			return
		}
		if p := recover(); p != nil && p != http.ErrAbortHandler { //nolint:errorlint // a panic's value, never wrapped
			panic(p)
		}
		err = nil // it was about an answer that nobody gets
		select {
		case <-t.over:
		case <-r.Context().Done():
			t.timer.Stop()
		}
	}()
	return false, a.next(t, r.WithContext(ctx))
}

// mayPause reports whether an answer with that status is to be thrown away, and the
// upstream asked again after the pause.
func (a *again) mayPause(status int, header http.Header, pause time.Duration) bool {
	g := a.request.guard
	return slices.Contains(g.RetryRefused, status) && len(header["Retry-After"]) == 0 &&
		!a.request.chain.answering && // who refuses is the upstream
		pause < firstPause<<mostAgain && time.Since(a.began)+pause <= g.Stream.EndTimeout
}

// try is what the handlers write to for one try.
type try struct {
	*stream.Response
	again  *again
	pause  time.Duration
	cancel context.CancelCauseFunc
	// over is closed when the pause after a refused answer is over, by timer. Both are
	// nil unless the answer is refused, and then thrown away. They are written with the
	// header, which comes before all else.
	over  chan struct{}
	timer *time.Timer
}

// WriteHeader throws an answer away that is refused. Its body has the pause to end:
// then its request is ended, as if that were all.
func (t *try) WriteHeader(status int) {
	if t.over != nil {
		return
	}
	if !t.again.mayPause(status, t.Header(), t.pause) {
		t.Response.WriteHeader(status)
		return
	}
	over := make(chan struct{})
	t.over = over
	t.timer = time.AfterFunc(t.pause, func() {
		t.cancel(io.EOF)
		close(over)
	})
}

func (t *try) Write(p []byte) (int, error) {
	if t.over != nil {
		return len(p), nil
	}
	return t.Response.Write(p)
}

// Flush implements http.Flusher.
func (t *try) Flush() { _ = t.FlushError() }

// FlushError is for http.ResponseController.
func (t *try) FlushError() error {
	if t.over != nil {
		return nil
	}
	return t.Response.FlushError()
}

// ReadFrom implements io.ReaderFrom.
func (t *try) ReadFrom(r io.Reader) (int64, error) {
	if t.over != nil {
		return io.Copy(io.Discard, r)
	}
	return t.Response.ReadFrom(r)
}

// Interface guards
var (
	_ http.ResponseWriter = (*try)(nil)
	_ http.Flusher        = (*try)(nil)
	_ http.Hijacker       = (*try)(nil)
	_ io.ReaderFrom       = (*try)(nil)
)
