package guard

import (
	"context"
	"errors"
	"io"

	"github.com/sse-guard/sse-guard/caddymodule/contest"
	"github.com/sse-guard/sse-guard/caddymodule/expiry"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
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
	arrivals  arrivals
	recent    recentTokens
}

// NewZone returns a zone whose holders r keeps.
func NewZone(name string, r registry.Registry) *Zone {
	z := &Zone{Name: name, Registry: r, contests: contest.New()}
	z.deadlines = expiry.New(z.expire)
	return z
}

// Close closes the registry and tells what is untold of contests. Streams of a
// configuration that was replaced may still run: they expire all the same.
func (z *Zone) Close() error {
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
	if _, err := z.Registry.Evict(context.Background(), victims, ""); err != nil {
		// A registry that cannot be reached must not keep streams alive.
		for _, s := range streams {
			s.Handle.End(registry.Ending{Reason: registry.Expired})
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
