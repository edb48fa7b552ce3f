package check

import (
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// Step is one line of what happened.
type Step struct {
	// At is the time since the check began.
	At time.Duration `json:"-"`
	// Stream is the number of the stream, from 1; 0: none of them.
	Stream int `json:"stream,omitempty"`
	// Text says what happened to it.
	Text string `json:"text"`
}

func (w *watch) step(at time.Duration, s *stream, format string, args ...any) {
	step := Step{At: at, Text: fmt.Sprintf(format, args...)}
	if s != nil {
		step.Stream = s.number
	}
	w.steps = append(w.steps, step)
	if w.config.OnStep != nil {
		w.config.OnStep(step)
	}
}

// asks notes that a request is about to be sent.
func (w *watch) asks(s *stream, c *connect, at time.Duration) {
	c.asked = at
	s.connects = append(s.connects, c)
	switch {
	case c.tombstone:
		w.step(at, s, "comes back, and shows its tombstone")
	case len(s.connects) > 1:
		w.step(at, s, "comes back")
	case s.number == 1:
		w.step(at, s, "asks for %s", w.address())
	default:
		w.step(at, s, "asks")
	}
}

// address is the URL without what may be a secret.
func (w *watch) address() string {
	u, err := url.Parse(w.config.URL)
	if err != nil {
		return "the URL"
	}
	return clean(bare(u))
}

func (w *watch) fails(s *stream, c *connect, err error, at time.Duration) {
	c.err, c.ended, c.endedAt = err, true, at
	w.step(at, s, "gets no answer: %s", plainly(err))
}

func (w *watch) answers(s *stream, c *connect, a *answer, at time.Duration) {
	c.answer = a
	if a.url != "" {
		w.step(at, s, "is redirected to %s", a.url)
	}
	switch {
	case a.isStream:
		w.step(at, s, "is open")
		return
	case a.status == http.StatusNoContent && c.tombstone:
		w.step(at, s, "gets 204: it stays closed")
	default:
		w.step(at, s, "gets %s", a)
	}
	c.ended, c.endedAt = true, at
	if t := toldBy(a.body); t != nil && t.Reason != "" {
		w.notes(s, c, &Notice{Status: a.status, Reason: t.Reason, Message: clean(t.Error.Message)}, at)
	}
}

// reads notes that bytes have come, for the first time or with notices.
func (w *watch) reads(s *stream, c *connect, notices []*Notice, at time.Duration) {
	c.spoke = true
	for _, n := range notices {
		w.notes(s, c, n, at)
		w.step(at, s, "gets %s, reason %s, %s after the newest request", n.Event, n.Reason, brief(n.After))
	}
}

func (w *watch) notes(s *stream, c *connect, n *Notice, at time.Duration) {
	n.at, n.After = at, at-w.newestOf(s)
	if c.notice == nil {
		c.notice = n
	}
}

// newestOf is when the newest stream but s asked first; where there is none, s itself.
func (w *watch) newestOf(s *stream) time.Duration {
	asked := s.last().asked
	if s.notice() == nil && s.number < len(w.streams) {
		for _, other := range w.streams[s.number:] {
			if len(other.connects) > 0 {
				asked = other.connects[0].asked
			}
		}
	}
	return asked
}

// ends notes the end of an event stream.
func (w *watch) ends(s *stream, c *connect, err error, at time.Duration) {
	c.ended, c.endedAt = true, at
	if err == nil {
		w.step(at, s, "is finished")
	} else {
		w.step(at, s, "is cut off")
	}
}

// String says what an answer is that is no event stream.
func (a *answer) String() string {
	text := fmt.Sprintf("%d %s", a.status, http.StatusText(a.status))
	if a.contentType != "" {
		text += ", " + clean(a.contentType)
	}
	return text
}

// brief writes a duration as a person says it.
func brief(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	default:
		return d.Round(100 * time.Millisecond).String()
	}
}
