package expiry

import "github.com/sse-guard/sse-guard/caddymodule/registry"

// arm sets the timer for the earliest deadline, or for the next look at the
// clock. It is called, with the lock held, whenever the earliest deadline may
// have changed.
func (d *Deadlines) arm() {
	if d.closed || d.sweeping {
		return // a sweep arms the timer when it is through
	}
	if len(d.queue) == 0 {
		d.armed = false
		d.timer.Stop()
		return
	}
	sleep := min(d.queue[0].at.Sub(d.now()), maxSleep)
	if d.armed && sleep == maxSleep {
		return // it wakes in time anyway
	}
	d.armed = true
	d.timer.Reset(max(sleep, 0))
}

// sweep ends the streams that are due, step by step, and arms the timer again. It
// is what the timer calls.
func (d *Deadlines) sweep() {
	if !d.beginSweep() {
		return
	}
	defer d.sweeps.Done()
	for {
		due := d.step()
		if len(due) == 0 {
			return
		}
		d.end(due)
	}
}

// beginSweep reports false if there is to be no sweep: another is on its way, as
// the timer may be set again when it has just fired, or d is closed.
func (d *Deadlines) beginSweep() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sweeping || d.closed {
		return false
	}
	d.sweeping, d.armed = true, false
	d.sweeps.Add(1) // under the lock: not any more when Close waits
	return true
}

// step takes out the next streams that are due. If there are none, the sweep is
// over.
func (d *Deadlines) step() []*registry.Stream {
	d.mu.Lock()
	defer d.mu.Unlock()
	var due []*registry.Stream
	if !d.closed {
		due = d.takeDue()
	}
	if len(due) == 0 {
		d.sweeping = false
		d.arm()
	}
	return due
}

func (d *Deadlines) takeDue() []*registry.Stream {
	var due []*registry.Stream
	for now := d.now(); len(due) < maxBatch && len(d.queue) > 0; {
		e := d.queue[0]
		if e.at.After(now) {
			break
		}
		d.remove(e)
		due = append(due, e.stream)
	}
	return due
}
