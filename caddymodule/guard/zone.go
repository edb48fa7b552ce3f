package guard

import (
	"context"
	"errors"
	"io"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/sse-guard/sse-guard/caddymodule/contest"
	"github.com/sse-guard/sse-guard/caddymodule/expiry"
	"github.com/sse-guard/sse-guard/caddymodule/fights"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/rounds"
)

// Zone is what guards with one zone name share, over configuration reloads: a
// stream that was opened under an old configuration still counts, expires and
// can be logged out under a new one.
type Zone struct {
	// Name is the namespace of keys; it is bound into tombstones.
	Name string
	// Registry keeps the holders.
	Registry registry.Registry

	deadlines *expiry.Deadlines
	contests  *contest.Log
	fights    *fights.Fights
	rounds    *rounds.Rounds
	arrivals  arrivals
	leaving   leaving
	recent    recentTokens
	draining  draining
	drain     atomic.Pointer[Drain] // by the latest guard
}

// NewZone returns a zone whose holders r keeps.
func NewZone(name string, r registry.Registry) *Zone {
	z := &Zone{Name: name, Registry: r, contests: contest.New(), fights: fights.New(), rounds: rounds.New()}
	z.draining.began = make(chan struct{})
	z.deadlines = expiry.New(z.expire)
	return z
}

// Rounds look after the zone's streams.
func (z *Zone) Rounds() *rounds.Rounds { return z.rounds }

// Use has the zone drain by d once no guard uses it any more.
func (z *Zone) Use(d Drain) { z.drain.Store(&d) }

// DrainAndClose closes the zone once its streams, if there are any, were told to
// end. It does not wait for that.
func (z *Zone) DrainAndClose(logger *zap.Logger) error {
	d := z.drain.Load()
	switch {
	case d == nil:
		return z.Close()
	case z.rounds.Len() == 0:
		z.Drain(*d, logger) // nobody is admitted any more
		return z.Close()
	}
	go func() {
		z.Drain(*d, logger)
		if err := z.Close(); err != nil {
			logger.Error("closing a zone", zap.String("zone", z.Name), zap.Error(err))
		}
	}()
	return nil
}

// Close closes the registry and tells what is untold of contests. Streams of a
// configuration that was replaced may still run: they expire all the same.
func (z *Zone) Close() error {
	z.rounds.Close()
	z.contests.Close()
	if c, ok := z.Registry.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// expire ends streams whose token's life is over.
func (z *Zone) expire(streams []*registry.Stream) {
	victims := make([]registry.Victim, len(streams))
	for i, s := range streams {
		victims[i] = registry.Victim{Stream: s, Reason: registry.Expired}
	}
	z.end(victims)
}

// end ends streams for reasons that no request has given.
func (z *Zone) end(victims []registry.Victim) {
	if _, err := z.Registry.Evict(context.Background(), victims, ""); err != nil {
		// A registry that cannot be reached must not keep streams alive.
		for _, v := range victims {
			v.Stream.Handle.End(registry.Ending{Reason: v.Reason})
		}
	}
}

// deny is Registry.Deny, where full lists are the registry's own business: what
// was given is in force.
func (z *Zone) deny(ctx context.Context, denials ...registry.Denial) (full bool, err error) {
	err = z.Registry.Deny(ctx, denials...)
	if errors.Is(err, registry.ErrManyDenials) {
		return true, nil
	}
	return false, err
}
