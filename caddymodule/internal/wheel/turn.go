package wheel

import "time"

// start sets the clock and the timer going with the first entry. It is called with
// the lock held.
func (w *Wheel) start(elapsed time.Duration) {
	if w.ticking {
		return
	}
	w.ticking = true
	w.tell(elapsed)
	w.turned = w.Now() // all slots are empty
	w.arm(elapsed)
}

// tell sets the clock.
func (w *Wheel) tell(elapsed time.Duration) { w.now.Store(int64(elapsed / Precision)) }

// arm sets the timer for the next tick.
func (w *Wheel) arm(elapsed time.Duration) { w.timer.Reset(Precision - elapsed%Precision) }

// plan has e visited at a tick whose slot is still to be emptied.
func (w *Wheel) plan(e *Entry, at Tick) {
	e.at.Store(int64(at))
	w.slots[at%slotCount].push(e)
}

// forget lets go of an entry that no list has.
func (w *Wheel) forget(e *Entry) {
	e.at.Store(left)
	w.size--
}

// turn visits all that are due, batch by batch, and sets the timer again. It is what
// the timer calls.
func (w *Wheel) turn() {
	if !w.beginTurn() {
		return
	}
	defer w.visits.Done()
	var next [maxBatch]time.Duration
	for w.step(next[:]) {
		now := w.Now()
		for i, e := range w.batch {
			if e.left() {
				continue
			}
			next[i] = e.visitor.Visit(now)
		}
	}
}

// beginTurn reports false if the wheel is closed.
func (w *Wheel) beginTurn() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return false
	}
	w.visits.Add(1) // under the lock: not any more when Close waits
	return true
}

// step plans anew the batch that has been visited, each entry in the time given
// for it, and fills it with those to be visited next. It reports false if the
// turn is over.
func (w *Wheel) step(next []time.Duration) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.replan(next)
	if w.closed {
		return false
	}
	elapsed := time.Since(w.begin)
	w.tell(elapsed)
	if w.fill() {
		return true
	}
	if w.ticking = w.size > 0; w.ticking {
		w.arm(elapsed)
	}
	return false
}

// replan ends the batch.
func (w *Wheel) replan(next []time.Duration) {
	now := w.Now() // still what the visitors were told
	for i, e := range w.batch {
		switch {
		case e.left():
		case next[i] > 0:
			w.plan(e, now+ticks(next[i]))
		default:
			w.forget(e)
		}
	}
	clear(w.batch) // or it would keep alive those who left
	w.batch = w.batch[:0]
}

// fill turns the wheel up to now, or until it has looked at maxBatch entries, and
// takes those that are due into the batch. It reports false if there was nothing
// to look at.
func (w *Wheel) fill() bool {
	now, looked := w.Now(), 0
	w.turned = max(w.turned, now-slotCount) // one revolution passes all
	for looked < maxBatch {
		e := w.due.first
		if e == nil {
			if w.turned == now {
				break
			}
			w.turned++
			w.due.take(&w.slots[w.turned%slotCount])
			continue
		}
		looked++
		e.unlink()
		if at := Tick(e.at.Load()); at > now {
			w.plan(e, at) // its revolution is still to come
			continue
		}
		e.at.Store(visiting)
		w.batch = append(w.batch, e)
	}
	return looked > 0
}
