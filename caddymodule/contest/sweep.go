package contest

import "time"

// maxBatch is how many windows are looked after while the lock is held once.
const maxBatch = 256

// arm has the timer fire when the first window is over. It may fire too early,
// after a window was extended, but never too late.
func (l *Log) arm() {
	first := l.firstOver()
	if l.sweeping || first.IsZero() || !l.alarm.IsZero() && !first.Before(l.alarm) {
		return // a sweep arms the timer when it is through
	}
	l.alarm = first
	l.timer.Reset(max(time.Until(first), 0))
}

// firstOver returns when the first window is over; zero: there is none.
func (l *Log) firstOver() time.Time {
	r, t := l.refusals.first(), l.takeovers.first()
	switch {
	case r == nil && t == nil:
		return time.Time{}
	case r == nil || t != nil && t.over.Before(r.over):
		return t.over
	default:
		return r.over
	}
}

// sweep tells and forgets where a window is over, step by step, and arms the
// timer again. It is what the timer calls. While a line is slow, those to come
// wait, and count on.
func (l *Log) sweep() {
	if !l.beginSweep() {
		return
	}
	defer l.telling.Done()
	for more := true; more; {
		var untold lines
		untold, more = l.step()
		untold.tell()
	}
}

// beginSweep reports false if there is to be no sweep: another is on its way, as
// the timer may be set again when it has just fired, or l is closed.
func (l *Log) beginSweep() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sweeping || l.closed {
		return false
	}
	l.sweeping, l.alarm = true, time.Time{}
	l.telling.Add(1) // under the lock: not any more when Close waits
	return true
}

// step looks after the next windows that are over, and returns what there is to
// tell. If there are none, the sweep is over.
func (l *Log) step() (untold lines, more bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, ended := time.Now(), 0
	for ; ended < maxBatch; ended++ {
		first := l.firstOver()
		if first.IsZero() || first.After(now) {
			break
		}
		untold = untold.with(l.end(first, now))
	}
	if ended == 0 {
		l.sweeping = false
		l.arm()
	}
	return untold, ended > 0
}

// end ends the first window, which was over at first. Refusals that came within
// it are told, and open another.
func (l *Log) end(first, now time.Time) line {
	if w := l.takeovers.first(); w != nil && w.over.Equal(first) {
		l.takeovers.remove(w)
		return line{}
	}
	w := l.refusals.first()
	if w.of.attempts == 0 {
		l.refusals.remove(w)
		return line{}
	}
	l.refusals.extend(w, now.Add(minute))
	return w.of.take()
}
