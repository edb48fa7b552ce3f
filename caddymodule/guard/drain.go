package guard

import (
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/rounds"
)

// draining is how far the end of all streams of a zone is.
type draining struct {
	once   sync.Once
	began  chan struct{} // closed
	window time.Duration // set before
}

// is reports whether no more streams are admitted.
func (d *draining) is() bool {
	select {
	case <-d.began:
		return true
	default:
		return false
	}
}

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
		var streams []*visit
		z.rounds.Each(func(visitor rounds.Visitor) bool {
			if v, ok := visitor.(*visit); ok {
				streams = append(streams, v)
			}
			return true
		})
		if len(streams) == 0 {
			return
		}
		logger.Info("draining", zap.String("zone", z.Name), zap.Int("streams", len(streams)), zap.Duration("window", d.Window))
		z.endInSteps(streams, d)
	})
}

// endInSteps ends streams at an even rate, at the given one if that is enough.
func (z *Zone) endInSteps(streams []*visit, d Drain) {
	steps := max(int(d.Window/2/drainStep), 1)
	batch := (len(streams) + steps - 1) / steps
	if d.Rate > 0 {
		batch = max(batch, int(time.Duration(d.Rate)*drainStep/time.Second))
	}
	ticker := time.NewTicker(drainStep)
	defer ticker.Stop()
	for len(streams) > 0 {
		n := min(batch, len(streams))
		for _, v := range streams[:n] {
			v.evict(registry.Shutdown)
		}
		if streams = streams[n:]; len(streams) > 0 {
			<-ticker.C
		}
	}
}
