package guard

import "io"

// mostUnread is how much of an HTTP/1 request nobody has read the server reads before
// it sends the header of the answer (net/http's maxPostHandlerReadBytes).
const mostUnread = 256 << 10

// incoming is the body of an HTTP/1 request that may not be all there when it is
// answered. The server then keeps the header of the answer back until it is. Until
// then no stream may be ended for the newcomer: its client may never finish the
// request, and would have nothing for it.
type incoming struct {
	io.ReadCloser

	// turn has a value while nobody reads: the handlers behind the guard, whose transport
	// may still be sending the body, and await take turns.
	turn chan struct{}
}

// watchBody has the body of q's request read through an incoming, where an answer would
// wait for it.
func watchBody(q *request) {
	body := q.r.Body
	if q.r.ProtoMajor != 1 || body == nil || q.r.ContentLength == 0 || q.chain.incoming != nil || q.env.FullDuplex() {
		return // Caddy gives a body also to requests that have none
	}
	b := &incoming{body, make(chan struct{}, 1)}
	b.turn <- struct{}{}
	q.chain.incoming, q.r.Body = b, b
}

// Read implements io.Reader.
func (b *incoming) Read(p []byte) (int, error) {
	<-b.turn
	defer func() { b.turn <- struct{}{} }()
	return b.ReadCloser.Read(p)
}

// await waits until all of the body has come, or the client has left, which cancels its
// request. What nobody has read by now is read as the server would do it. Nil has no
// body.
func (b *incoming) await() {
	if b != nil {
		_, _ = io.CopyN(io.Discard, b, mostUnread+1) // an error says that there is nothing to wait for
	}
}
