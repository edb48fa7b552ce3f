package check

import (
	"net/http"
	"sync/atomic"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/reason"
)

// stream is what was seen of one tab's EventSource: all its connections.
type stream struct {
	number   int // from 1
	connects []*connect
	closed   bool // it will not come back
}

// connect is what was seen of one request and its answer. Times count from the
// beginning of the check.
type connect struct {
	asked     time.Duration
	tombstone bool // it carried one as Last-Event-ID

	answer *answer // nil: there is none, or not yet
	err    error   // why there is none

	spoke  bool // bytes of the body have come
	notice *Notice
	// events counts the application's. The tab does, while others read it.
	events atomic.Int64

	ended   bool
	endedAt time.Duration
}

// answer is the header of an answer and, if that is no event stream, what its body begins with.
type answer struct {
	status      int
	contentType string
	header      http.Header
	url         string // without query, where it is not that which was asked for
	body        []byte
	isStream    bool
}

// Notice is what the guard told a stream, or a request.
type Notice struct {
	// Event is the name of the event; empty where a status told it.
	Event string `json:"event,omitempty"`
	// Status is the status that told it, or 0.
	Status int `json:"status,omitempty"`
	// Reason is one of the reasons in README.
	Reason  reason.Reason `json:"reason"`
	Message string        `json:"message,omitempty"`
	// Tombstone says that the event's id keeps the client from coming back.
	Tombstone bool `json:"tombstone"`
	// Retry is when the client is told to come back.
	Retry time.Duration `json:"-"`
	// After is the time from the newest request of all to the notice.
	After time.Duration `json:"-"`

	at time.Duration
}

// Ends reports whether the notice says that the stream ends for a newer one's sake.
func (n *Notice) Ends() bool {
	return n.Reason == reason.Superseded || n.Reason == reason.Replaced
}

// Refuses reports whether it says that the stream is refused for an older one's sake.
func (n *Notice) Refuses() bool {
	return n.Reason == reason.Rejected || n.Reason == reason.Parked
}

func (s *stream) last() *connect {
	if len(s.connects) == 0 {
		return nil
	}
	return s.connects[len(s.connects)-1]
}

// answered reports whether the tab's first request was: one that has come back was.
func (s *stream) answered() bool {
	c := s.last()
	return s.closed || c != nil && (c.answer != nil || c.err != nil || len(s.connects) > 1)
}

// spoke reports whether the last request's stream has said anything, or is over.
func (s *stream) spoke() bool {
	c := s.last()
	return s.closed || c != nil && (c.spoke || c.ended || c.err != nil)
}

// isOpen reports whether the last request's answer is an event stream that goes on.
func (s *stream) isOpen() bool {
	c := s.last()
	return c != nil && c.answer != nil && c.answer.isStream && !c.ended
}

// notice is the first that the stream got, or nil.
func (s *stream) notice() *Notice {
	if c := s.noticeOf(); c != nil {
		return c.notice
	}
	return nil
}

// noticeOf is the connection that got it.
func (s *stream) noticeOf() *connect {
	for _, c := range s.connects {
		if c.notice != nil {
			return c
		}
	}
	return nil
}

// showed is the first request that showed a tombstone and was answered, or nil.
func (s *stream) showed() *connect {
	for _, c := range s.connects {
		if c.tombstone && (c.answer != nil || c.err != nil) {
			return c
		}
	}
	return nil
}

// events is how many the application sent, over all connections.
func (s *stream) events() (n int64) {
	for _, c := range s.connects {
		n += c.events.Load()
	}
	return n
}

// spokeEver reports whether any body had a byte in it.
func (s *stream) spokeEver() bool {
	for _, c := range s.connects {
		if c.spoke {
			return true
		}
	}
	return false
}
