package zone

import (
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/stream"
)

// Drain says how all streams end when the server stops.
type Drain struct {
	// Window is the time until the last one has ended, and the time over which
	// their clients are told to come back.
	Window time.Duration
	// Rate is the least number that end a second; 0: as many as Window demands.
	Rate int
	// EndTimeout is how long a stream may take to end once it is told to.
	EndTimeout time.Duration
}

// draining is how far the end of all streams of a zone is.
type draining struct {
	once   sync.Once
	began  chan struct{} // closed
	window time.Duration // set before
	// over is until when streams are waited for. It is set before Drain returns.
	over time.Time

	hurry   sync.Once
	hurried chan struct{} // closed
}

// DrainedBy is how the zone drains once no guard uses it any more.
func (z *Zone) DrainedBy(d Drain) { z.drain.Store(&d) }

// IsDraining reports whether no more streams are admitted.
func (z *Zone) IsDraining() bool {
	select {
	case <-z.draining.began:
		return true
	default:
		return false
	}
}

// DrainBegan is closed when no more streams are admitted.
func (z *Zone) DrainBegan() <-chan struct{} { return z.draining.began }

// DrainReturn is when a client is to come back that is turned away, or ended, by
// the drain: a random part of its window, so that not all come back at once. The
// zone must be draining.
func (z *Zone) DrainReturn() time.Duration { return stream.Spread(z.draining.window) }

// drainStep is the time between two batches of streams that end.
const drainStep = 50 * time.Millisecond

// Drain ends all streams of the zone, and admits no more. Their clients are told
// to come back at different times within the window. It returns when the last one
// was told to end, after half the window at most, so that there is time left to
// see them go. Only the first call does anything, but all wait for it.
func (z *Zone) Drain(d Drain, logger *zap.Logger) {
	z.draining.once.Do(func() {
		z.draining.window = d.Window
		close(z.draining.began)
		if streams := z.Streams.all(); len(streams) > 0 {
			logger.Info("draining", zap.String("zone", z.Name), zap.Int("streams", len(streams)), zap.Duration("window", d.Window))
			endInSteps(endParked(streams), d, z.draining.hurried)
		}
		z.draining.over = time.Now().Add(d.EndTimeout + endMargin)
	})
}

// HurryDrain has Drain end at once who is still there, now or later.
func (z *Zone) HurryDrain() { z.draining.hurry.Do(func() { close(z.draining.hurried) }) }

// DrainLast drains the zone as the guard that went last says, and waits for the streams to
// be gone, and their observers to know. It does not wait for the window to be over, but for
// EndTimeout: what has not ended by then hangs, its place was given back, and its client
// cut off.
//
// No guard uses the zone any more, but streams of a configuration that was replaced may
// still run.
func (z *Zone) DrainLast(logger *zap.Logger) {
	d := z.drain.Load()
	if d == nil {
		return
	}
	z.Drain(*d, logger)
	look := time.NewTicker(goneLook)
	defer look.Stop()
	left := func() int { return z.Streams.Len() + int(z.telling.Load()) }
	n := left()
	for ; n > 0 && time.Now().Before(z.draining.over); n = left() {
		<-look.C
	}
	if n > 0 {
		logger.Warn("streams hang, and are not waited for: if the process ends now, no webhook is told how they end",
			zap.String("zone", z.Name), zap.Int("streams", n))
	}
}

const (
	// endMargin is what a stream has besides EndTimeout to be gone.
	endMargin = 500 * time.Millisecond
	// goneLook is how often it is looked whether the last stream is gone.
	goneLook = 5 * time.Millisecond
)

// endParked ends those at once that only wait, and returns the others.
func endParked(streams []*stream.Stream) (others []*stream.Stream) {
	return slices.DeleteFunc(streams, func(s *stream.Stream) bool {
		parked := s.State() == registry.StateParked
		if parked {
			s.End(registry.Ending{Reason: reason.Shutdown})
		}
		return parked
	})
}

// endInSteps ends streams at an even rate, at the given one if that is enough, and the
// rest once it is hurried.
func endInSteps(streams []*stream.Stream, d Drain, hurried <-chan struct{}) {
	steps := max(int(d.Window/2/drainStep), 1)
	batch := (len(streams) + steps - 1) / steps
	if d.Rate > 0 {
		batch = max(batch, int((time.Duration(d.Rate)*drainStep+time.Second-1)/time.Second))
	}
	ticker := time.NewTicker(drainStep)
	defer ticker.Stop()
	for len(streams) > 0 {
		n := min(batch, len(streams))
		for _, s := range streams[:n] {
			s.End(registry.Ending{Reason: reason.Shutdown})
		}
		if streams = streams[n:]; len(streams) > 0 {
			select {
			case <-ticker.C:
			case <-hurried:
				batch = len(streams)
			}
		}
	}
}
