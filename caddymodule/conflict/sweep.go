package conflict

import (
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/internal/due"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

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

// next returns when something is to be forgotten first; zero: nothing is. It is called
// with the lock held.
func (d *Damping) next() time.Time {
	first, oldest := d.known.First(), d.aging.First()
	switch {
	case first == nil:
		return time.Time{}
	case oldest != nil && oldest.At().Before(first.At()):
		return oldest.At()
	default:
		return first.At()
	}
}

// take forgets the next that are of no account any more; nil: nothing is. It is called
// with the lock held.
func (d *Damping) take(now time.Time) (act func()) {
	for range maxBatch {
		first := d.next()
		if first.IsZero() || first.After(now) {
			break
		}
		act = func() {} // there may be more
		if e := d.known.Due(now); e != nil {
			d.remove(e)
			continue
		}
		e := d.known.Find(d.aging.First().Key)
		e.Value.age(now)
		d.age(e)
	}
	return act
}

func (d *Damping) remove(e *due.Entry[registry.ID, history]) {
	d.aging.Remove(&e.Value.aging)
	d.known.Remove(e)
}

// age puts the key where its oldest loss is one no more.
func (d *Damping) age(e *due.Entry[registry.ID, history]) {
	h := &e.Value
	if len(h.losses) == 0 {
		d.aging.Remove(&h.aging)
		return
	}
	d.aging.Put(&h.aging, h.losses[0].at.Add(excuseTime))
}
