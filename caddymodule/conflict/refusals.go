package conflict

import "github.com/sse-guard/sse-guard/caddymodule/registry"

// refused is whose newcomers are refused, and how.
type refused struct {
	key    registry.ID
	parked bool
}

// refusals are the newcomers of one key that were refused since the last line.
type refusals struct {
	attempts int
	line     func(attempts int)
}

func (r *refusals) add(line func(attempts int)) {
	r.attempts++
	r.line = line
}

// take returns the line that tells them, and starts anew.
func (r *refusals) take() line {
	out := line{r.attempts, r.line}
	*r = refusals{}
	return out
}

// line is a line of the log, to be told when no lock is held.
type line struct {
	attempts int
	call     func(attempts int)
}

type lines []line

// with appends l, if it has anything to tell.
func (ls lines) with(l line) lines {
	if l.attempts == 0 {
		return ls
	}
	return append(ls, l)
}

func (ls lines) tell() {
	for _, l := range ls {
		l.call(l.attempts)
	}
}
