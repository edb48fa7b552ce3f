package guard

import (
	"github.com/sse-guard/sse-guard/caddymodule/event"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/stream"
)

// standing is the value of a placeholder that tells how the request stands: for access
// logs and traces, once it is over. Of several guards, the one that refuses tells, or the
// innermost that has a stream.
func (c *chain) standing(name string) (value string, ok bool) {
	switch name {
	case "sse_guard.stream":
		if q, s := c.shown(); s != nil {
			return q.holder.ID.String(), true
		}
	case "sse_guard.state":
		return c.state(), true
	case "sse_guard.reason":
		return c.why(), true
	default:
		return "", false
	}
	return "", true
}

// stateRefused is the state of a request that is answered in place of its stream.
const stateRefused = "refused"

func (c *chain) state() string {
	q, s := c.shown()
	switch {
	case s == nil && c.outcome() != "":
		return stateRefused
	case s == nil:
		return ""
	case q.parked == s:
		return string(registry.StateParked)
	case q.tracked():
		return string(registry.StateLive)
	default:
		return string(registry.StateUntracked)
	}
}

// why is why the stream is over, or the request was refused; empty: neither.
func (c *chain) why() string {
	for q := c.innermost; q != nil; q = q.outer {
		if s := q.shownStream(); s != nil && s.Ended() != nil {
			return string(s.Ended().Reason)
		}
	}
	if o := c.outcome(); o != "" {
		return string(o)
	}
	if q, s := c.shown(); s != nil && s.State() == registry.StateEnding {
		return string(q.endedBy())
	}
	return ""
}

// outcome is that of the guard that has refused; empty: none has.
func (c *chain) outcome() event.Outcome {
	for q := c.innermost; q != nil; q = q.outer {
		if q.refusedAs != "" {
			return q.refusedAs
		}
	}
	return ""
}

// shown is the request of the innermost guard that has a stream; nil: none has.
func (c *chain) shown() (*request, *stream.Stream) {
	for q := c.innermost; q != nil; q = q.outer {
		if s := q.shownStream(); s != nil {
			return q, s
		}
	}
	return nil, nil
}

// shownStream is the request's stream, if its header went out, or it is parked.
func (q *request) shownStream() *stream.Stream {
	if q.parked != nil {
		return q.parked
	}
	if s := q.response.Stream(); s != nil && s.Opened() {
		return s
	}
	return nil
}
