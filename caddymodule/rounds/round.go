package rounds

import "time"

// start sets the clock and the timer going with the first entry. It is called with
// the lock held.
func (r *Rounds) start(elapsed time.Duration) {
	if r.ticking {
		return
	}
	r.ticking = true
	r.tell(elapsed)
	r.turned = r.Now() // all slots are empty
	r.arm(elapsed)
}

// tell sets the clock.
func (r *Rounds) tell(elapsed time.Duration) { r.now.Store(int64(elapsed / Precision)) }

// arm sets the timer for the next tick.
func (r *Rounds) arm(elapsed time.Duration) { r.timer.Reset(Precision - elapsed%Precision) }

// plan has e visited at a tick whose slot is still to be emptied.
func (r *Rounds) plan(e *Entry, at Tick) {
	e.at.Store(int64(at))
	r.wheel[at%slots].push(e)
}

// forget lets go of an entry that no list has.
func (r *Rounds) forget(e *Entry) {
	e.at.Store(left)
	r.size--
}

// round visits all who are due, batch by batch, and sets the timer again. It is
// what the timer calls.
func (r *Rounds) round() {
	if !r.beginRound() {
		return
	}
	defer r.visits.Done()
	var next [maxBatch]time.Duration
	for r.step(next[:]) {
		now := r.Now()
		for i, e := range r.batch {
			if e.left() {
				continue
			}
			next[i] = e.visitor.Visit(now)
		}
	}
}

// beginRound reports false if r is closed.
func (r *Rounds) beginRound() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.visits.Add(1) // under the lock: not any more when Close waits
	return true
}

// step plans anew the batch that has been visited, each entry in the time given
// for it, and fills it with those to be visited next. It reports false if the
// round is over.
func (r *Rounds) step(next []time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.replan(next)
	if r.closed {
		return false
	}
	elapsed := time.Since(r.begin)
	r.tell(elapsed)
	if r.fill() {
		return true
	}
	if r.ticking = r.size > 0; r.ticking {
		r.arm(elapsed)
	}
	return false
}

// replan ends the batch.
func (r *Rounds) replan(next []time.Duration) {
	now := r.Now() // still what the visitors were told
	for i, e := range r.batch {
		switch {
		case e.left():
		case next[i] > 0:
			r.plan(e, now+ticks(next[i]))
		default:
			r.forget(e)
		}
	}
	clear(r.batch) // or it would keep alive those who left
	r.batch = r.batch[:0]
}

// fill turns the wheel up to now, or until it has looked at maxBatch entries, and
// takes those that are due into the batch. It reports false if there was nothing
// to look at.
func (r *Rounds) fill() bool {
	now, looked := r.Now(), 0
	r.turned = max(r.turned, now-slots) // one revolution passes all
	for looked < maxBatch {
		e := r.due.first
		if e == nil {
			if r.turned == now {
				break
			}
			r.turned++
			r.due.take(&r.wheel[r.turned%slots])
			continue
		}
		looked++
		e.unlink()
		if at := Tick(e.at.Load()); at > now {
			r.plan(e, at) // its revolution is still to come
			continue
		}
		e.at.Store(visiting)
		r.batch = append(r.batch, e)
	}
	return looked > 0
}
