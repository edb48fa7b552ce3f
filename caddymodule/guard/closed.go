package guard

import (
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/event"
	"github.com/sse-guard/sse-guard/caddymodule/reason"
)

// tellClosed tells that the request's stream is over, if it held a key. It is called
// when the handlers behind the guard have returned, or panicked, as reverse_proxy does
// where the backend fails in the middle of a stream.
func (q *request) tellClosed() {
	if !q.held {
		return
	}
	s := q.response.Stream()
	events, bytes := s.Relayed()
	q.tell(event.Closed{
		Stream:      q.self(),
		Reason:      q.closedBy(),
		Age:         time.Since(q.holder.Since),
		Events:      events,
		Bytes:       bytes,
		LastEventID: s.LastEventID(),
	})
}

// closedBy is why the request's stream is over. If another guard of the request has
// ended it, or has seen the client leave, this one saw only that it ended.
func (q *request) closedBy() reason.Reason {
	if e := q.response.Stream().Ended(); e != nil {
		return e.Reason
	}
	why := event.Finished
	for o := q.chain.innermost; o != nil; o = o.outer {
		s := o.response.Stream()
		switch {
		case s == nil:
		case s.Ended() != nil:
			return s.Ended().Reason
		case s.ClientLost():
			why = reason.Dead
		case s.ClientLeft() && why != reason.Dead:
			why = event.Left
		}
	}
	return why
}
