package guard

import (
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/event"
	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/stream"
)

// gone is for the request's stream when it is over, or its answer has proved to be none.
// The handlers behind the guard may have panicked, as reverse_proxy does where the backend
// fails in the middle of a stream.
func (q *request) gone(s *stream.Stream) {
	defer q.guard.Zone.Telling()()
	q.guard.Zone.Forget(s)
	if !s.Opened() {
		return
	}
	events, bytes := s.Relayed()
	q.tell(event.Ended{
		Stream:      q.labeled(),
		Held:        q.held,
		Reason:      q.endedBy(),
		Ending:      s.Ended(),
		Delivered:   s.Delivered(),
		Age:         time.Since(q.holder.Since),
		Events:      events,
		Bytes:       bytes,
		LastEventID: s.LastEventID(),
	})
}

// endedBy is why the request's stream is over. If another guard of the request has
// ended it, or has seen the client leave, this one saw only that it ended.
func (q *request) endedBy() reason.Reason {
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
