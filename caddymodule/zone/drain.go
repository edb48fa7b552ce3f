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
}

// draining is how far the end of all streams of a zone is.
type draining struct {
	once   sync.Once
	began  chan struct{} // closed
	window time.Duration // set before
	over   time.Time     // when the window is; set before
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
		z.draining.window, z.draining.over = d.Window, time.Now().Add(d.Window)
		close(z.draining.began)
		streams := z.Streams.all()
		if len(streams) == 0 {
			return
		}
		logger.Info("draining", zap.String("zone", z.Name), zap.Int("streams", len(streams)), zap.Duration("window", d.Window))
		endInSteps(endParked(streams), d)
	})
}

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

// endInSteps ends streams at an even rate, at the given one if that is enough.
func endInSteps(streams []*stream.Stream, d Drain) {
	steps := max(int(d.Window/2/drainStep), 1)
	batch := (len(streams) + steps - 1) / steps
	if d.Rate > 0 {
		batch = max(batch, int(time.Duration(d.Rate)*drainStep/time.Second))
	}
	ticker := time.NewTicker(drainStep)
	defer ticker.Stop()
	for len(streams) > 0 {
		n := min(batch, len(streams))
		for _, s := range streams[:n] {
			s.End(registry.Ending{Reason: reason.Shutdown})
		}
		if streams = streams[n:]; len(streams) > 0 {
			<-ticker.C
		}
	}
}

// waitEmpty waits until the last stream is gone, or the window is over. The zone must be
// draining.
func (z *Zone) waitEmpty() {
	look := time.NewTicker(emptyLook)
	defer look.Stop()
	for z.Streams.Len() > 0 && time.Now().Before(z.draining.over) {
		<-look.C
	}
}

// emptyLook is how often it is looked whether the last stream is gone.
const emptyLook = 5 * time.Millisecond
