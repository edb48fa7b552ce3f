package guard

import (
	"io"
	"net/http"
	"time"
)

// bodyPatience is how long the end of an HTTP/3 request may come after its header.
// Clients send both at once.
const bodyPatience = 100 * time.Millisecond

// isBodiless reports whether nothing of the request is yet to arrive. A client that
// expects a 100 Continue may never send what it announces.
func isBodiless(r *http.Request) bool {
	return r.ContentLength == 0 && len(r.Header["Expect"]) == 0
}

// isOpenEnded reports whether only reading tells that the request has no body: on
// HTTP/3 the length of a body that is not announced is unknown, even of one that is
// not there.
func isOpenEnded(r *http.Request) bool {
	return r.ProtoMajor == 3 && r.ContentLength < 0 && r.Method == http.MethodGet && len(r.Header["Expect"]) == 0
}

// awaitBody finds out whether an open-ended request has a body. If it has one, or
// that is not known in time, what follows is left for the handlers to read.
func awaitBody(q *request) {
	ahead := readAhead(q.r.Body)
	if ahead.isEmpty(q.r.Context().Done()) {
		q.bodiless = true
		q.r.Body, q.r.ContentLength = http.NoBody, 0
		return
	}
	q.ahead, q.r.Body = ahead, ahead
}

// ahead is a body of which the first byte, or the end, is being read by a goroutine of
// its own, until stop is called. It is read by one other goroutine at a time.
type ahead struct {
	io.ReadCloser
	came chan struct{} // closed when it was read
	// first and err are what came. They are used after that only.
	first []byte
	err   error
}

func readAhead(body io.ReadCloser) *ahead {
	b := &ahead{ReadCloser: body, came: make(chan struct{})}
	go func() {
		defer close(b.came)
		first := make([]byte, 1)
		for len(b.first) == 0 && b.err == nil {
			var n int
			n, b.err = body.Read(first)
			b.first = first[:n]
		}
	}()
	return b
}

// isEmpty reports whether the end comes in time, before anything else.
func (b *ahead) isEmpty(done <-chan struct{}) bool {
	timeout := time.NewTimer(bodyPatience)
	defer timeout.Stop()
	select {
	case <-b.came:
		return len(b.first) == 0 && b.err == io.EOF //nolint:errorlint // readers return it as it is
	case <-timeout.C:
		return false
	case <-done:
		return false
	}
}

// Read implements io.Reader.
func (b *ahead) Read(p []byte) (int, error) {
	<-b.came
	if len(b.first) > 0 {
		n := copy(p, b.first)
		b.first = b.first[n:]
		return n, nil
	}
	if b.err != nil {
		return 0, b.err
	}
	return b.ReadCloser.Read(p)
}

// stop ends the reading, if there is any. Nobody reads any more.
func (b *ahead) stop() {
	if b == nil {
		return
	}
	select {
	case <-b.came:
	default:
		_ = b.Close()
		<-b.came
	}
}
