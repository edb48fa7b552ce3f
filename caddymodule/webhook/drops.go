package webhook

import (
	"sync"
	"time"

	"go.uber.org/zap"
)

// cause is why something is not posted.
type cause string

const (
	// causeFull: there was no room for more.
	causeFull cause = "queue_full"
	// causeLate: the receiver could not be reached for longestTry.
	causeLate cause = "too_late"
	// causeRefused: the receiver does not want it, whenever it comes.
	causeRefused cause = "refused"
	// causeClosed: the process ended before it was posted.
	causeClosed cause = "shutdown"
	// causeInvalid: it could not be written as JSON.
	causeInvalid cause = "invalid"
)

// dropsEvery is how often a line says what was dropped.
const dropsEvery = time.Minute

// drops counts what is not posted. The first are told at once, and those that follow
// within a minute when it is over.
type drops struct {
	logger *zap.Logger

	// mu guards the fields below. No line is written with it held.
	mu    sync.Mutex
	total uint64
	// untold counts by cause what no line has told.
	untold map[cause]int
	// pause runs while no line may be written; nil: one may.
	pause *time.Timer
}

func (d *drops) add(why cause, n int) {
	if n == 0 {
		return
	}
	d.mu.Lock()
	d.total += uint64(n)
	if d.untold == nil {
		d.untold = make(map[cause]int)
	}
	d.untold[why] += n
	var tell map[cause]int
	if d.pause == nil {
		tell = d.take()
		d.pause = time.AfterFunc(dropsEvery, d.tick)
	}
	d.mu.Unlock()
	d.tell(tell)
}

// take takes what is untold; mu is held.
func (d *drops) take() map[cause]int {
	untold := d.untold
	d.untold = nil
	return untold
}

// tick tells what was counted since the last line.
func (d *drops) tick() {
	d.mu.Lock()
	tell := d.take()
	if d.pause = nil; tell != nil {
		d.pause = time.AfterFunc(dropsEvery, d.tick)
	}
	d.mu.Unlock()
	d.tell(tell)
}

// flush tells what is untold.
func (d *drops) flush() {
	d.mu.Lock()
	tell := d.take()
	if d.pause != nil {
		d.pause.Stop()
		d.pause = nil
	}
	d.mu.Unlock()
	d.tell(tell)
}

func (d *drops) count() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.total
}

func (d *drops) tell(dropped map[cause]int) {
	for why, n := range dropped {
		d.logger.Warn("webhook: events were dropped, and are not posted", zap.String("cause", string(why)), zap.Int("events", n))
	}
}
