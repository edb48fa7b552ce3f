package conflict

import "time"

// maxBatch is how many windows are looked at while the lock is held once.
const maxBatch = 256

// next returns when the first window is over; zero: there is none. It is called with
// the lock held.
func (a *Audit) next() time.Time {
	r, t := a.refusals.First(), a.takeovers.First()
	switch {
	case r == nil && t == nil:
		return time.Time{}
	case r == nil || t != nil && t.At().Before(r.At()):
		return t.At()
	default:
		return r.At()
	}
}

// take ends the next windows that are over, and returns what tells their lines; nil:
// none is over. It is called with the lock held.
func (a *Audit) take(now time.Time) (tell func()) {
	var untold lines
	ended := 0
	for ; ended < maxBatch; ended++ {
		first := a.next()
		if first.IsZero() || first.After(now) {
			break
		}
		untold = untold.with(a.end(first, now))
	}
	if ended == 0 {
		return nil
	}
	return untold.tell
}

// end ends the first window, which was over at first. Refusals that came within
// it are told, and open another.
func (a *Audit) end(first, now time.Time) line {
	if e := a.takeovers.First(); e != nil && e.At().Equal(first) {
		a.takeovers.Remove(e)
		return line{}
	}
	e := a.refusals.First()
	if e.Value.attempts == 0 {
		a.refusals.Remove(e)
		return line{}
	}
	a.refusals.Extend(e, now.Add(minute))
	return e.Value.take()
}
