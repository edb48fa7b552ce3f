package conflict

import (
	"slices"
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

// next returns when something is to be forgotten, or asked, first; zero: nothing is. It is
// called with the lock held.
func (d *Damping) next() (first time.Time) {
	if e := d.known.First(); e != nil {
		first = e.At()
	}
	for _, queue := range []*due.Queue[registry.ID, struct{}]{&d.aging, &d.asking} {
		if e := queue.First(); e != nil && e.At().Before(first) { // what is in them is known
			first = e.At()
		}
	}
	return first
}

// take forgets the next that are of no account any more, and returns what asks the next
// that are to be asked; nil: nothing is due. It is called with the lock held.
func (d *Damping) take(now time.Time) (act func()) {
	var asks []func()
	tookAny := false
	for range maxBatch {
		first := d.next()
		if first.IsZero() || first.After(now) {
			break
		}
		tookAny = true
		if e := d.known.Due(now); e != nil {
			d.remove(e)
			continue
		}
		if due := d.asking.Due(now); due != nil {
			e := d.known.Find(due.Key)
			key, losses := e.Key, e.Value.toAsk(now)
			asks = append(asks, func() { d.ask(key, losses) })
			d.plan(e)
			continue
		}
		e := d.known.Find(d.aging.First().Key)
		e.Value.age(now)
		d.age(e)
		d.plan(e)
	}
	if !tookAny {
		return nil
	}
	return func() { // there may be more
		for _, ask := range asks {
			ask()
		}
	}
}

func (d *Damping) remove(e *due.Entry[registry.ID, history]) {
	d.unqueue(e)
	d.known.Remove(e)
}

func (d *Damping) unqueue(e *due.Entry[registry.ID, history]) {
	d.aging.Remove(&e.Value.aging)
	d.asking.Remove(&e.Value.asking)
}

// plan puts the key where it is asked next, for the other nodes, whether a client had gone.
func (d *Damping) plan(e *due.Entry[registry.ID, history]) {
	h := &e.Value
	i := slices.IndexFunc(h.losses, (*loss).isToBeAsked)
	if i < 0 || d.tellOthers == nil {
		d.asking.Remove(&h.asking)
		return
	}
	d.asking.Put(&h.asking, h.losses[i].at.Add(askTime))
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
