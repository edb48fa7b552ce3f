// Package zone is what guards share: who holds what, the streams of this process
// by their id, the sessions whose tokens are renewed, and the end of them all when
// the server stops. It outlives configuration reloads: a stream that was opened
// under an old configuration still counts, expires and can be logged out under a
// new one.
package zone

import (
	"context"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/conflict"
	"github.com/sse-guard/sse-guard/caddymodule/event"
	"github.com/sse-guard/sse-guard/caddymodule/internal/due"
	"github.com/sse-guard/sse-guard/caddymodule/internal/wheel"
	"github.com/sse-guard/sse-guard/caddymodule/presence"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/stream"
)

// Zone is what guards with one zone name share.
type Zone struct {
	// Name is the namespace of keys; it is bound into tombstones.
	Name string
	// Registry keeps the holders.
	Registry registry.Registry
	// Streams are those of this process, holders or not.
	Streams *Directory
	// Sessions finds the streams whose end a later token moves.
	Sessions Sessions
	// Arrivals are the requests that may yet become streams.
	Arrivals Arrivals
	// Recent are the tokens that a logout of their user has to name one by one.
	Recent RecentTokens
	// Held are the tokens that held a stream lately, until when that is.
	Held *due.Set[registry.ID]
	// Damping knows who takes keys back again and again.
	Damping *conflict.Damping
	// Returns knows who was parked, left, and is to come back later.
	Returns *conflict.Returns
	// Audit counts what happens to contested keys.
	Audit *conflict.Audit
	// Feed hands what happens on to whoever listens.
	Feed *event.Feed
	// Presence tells the streams of a group how many there are.
	Presence *presence.Groups
	// Metrics count what happens in the zone.
	Metrics event.Metrics
	// Nesting knows behind which guards others stand.
	Nesting *Nesting
	// Wheel looks after the streams.
	Wheel *wheel.Wheel

	shared   bool         // other nodes have streams too; not changed
	telling  atomic.Int64 // how many times Telling was called, and told was not
	draining draining
	drain    atomic.Pointer[Drain] // by the guard that went last; nil: there was none
}

// New returns a zone whose holders are kept by the registry that open returns, and
// in which metrics count. The node that open is given are the zone's streams.
func New(name string, open func(registry.Node) (registry.Registry, error), metrics event.Metrics) (*Zone, error) {
	z := &Zone{
		Name:     name,
		Damping:  conflict.NewDamping(),
		Returns:  conflict.NewReturns(),
		Audit:    conflict.NewAudit(),
		Metrics:  metrics,
		Held:     due.NewSet[registry.ID](maxHeld),
		Feed:     event.NewFeed(name, nodeName()),
		Presence: presence.New(),
		Nesting:  newNesting(),
		Wheel:    wheel.New(),
	}
	z.draining.began, z.draining.hurried = make(chan struct{}), make(chan struct{})
	z.Streams = newDirectory(event.Observers{z.Damper(), metrics, z.Feed}, z.Presence)
	opened, err := open(z.Streams)
	if err != nil {
		return nil, err
	}
	z.Registry = opened
	if shared, ok := registry.As[registry.Sharing](opened); ok {
		z.shared = true
		z.Feed.Share(shared)
	}
	if grouping, ok := registry.As[registry.Grouping](opened); ok {
		z.Presence.Share(grouping)
	}
	if announcing, ok := registry.As[registry.Announcing](opened); ok {
		announcing.HearAll(z.Damping.Hear)
		z.Damping.Share(announcing.TellAll)
	}
	if metrics != (event.NoMetrics{}) {
		z.Registry = &measured{opened, metrics}
	}
	return z, nil
}

// HolderOf returns a function that tells whether a stream, of whatever node, holds the key
// now. It asks the registry once at most, about streams that are not of this process; of
// those it says no where the registry does not answer.
func (z *Zone) HolderOf(ctx context.Context, key registry.ID) func(registry.StreamID) bool {
	foreign := sync.OnceValue(func() []*registry.Holder {
		if !z.shared {
			return nil
		}
		holders, _, err := z.Registry.Find(ctx, registry.Selector{Key: key}, "", mostHolders)
		if err != nil {
			return nil
		}
		return holders
	})
	return func(id registry.StreamID) bool {
		if s := z.Streams.find(id); s != nil {
			return s.Holds()
		}
		return slices.ContainsFunc(foreign(), func(h *registry.Holder) bool { return h.ID == id })
	}
}

// mostHolders is of how many holders of a key it is looked whether one is among them.
const mostHolders = 1000

// Enter lists s, which is about to be admitted, or parked.
func (z *Zone) Enter(s *stream.Stream) { z.Streams.enter(s) }

// Telling is for a guard that is about to forget a stream, and to tell its observers that.
// The zone is not drained before told is called.
func (z *Zone) Telling() (told func()) {
	z.telling.Add(1)
	return func() { z.telling.Add(-1) }
}

// Forget is for streams that are over. It is for their guard to tell that.
func (z *Zone) Forget(s *stream.Stream) {
	z.Streams.forget(s)
	z.Sessions.remove(s.Holder())
	z.Presence.Leave(s.Holder().ID)
}

const (
	// maxHeld is how many tokens are remembered that held a stream lately.
	maxHeld = 1 << 14
	// heldLately is for how long.
	heldLately = 5 * time.Minute
)

// NoteHeld notes that a stream of the token holds a key now, or has held it until now.
func (z *Zone) NoteHeld(token registry.ID) {
	if !token.IsZero() {
		z.Held.Add(token, time.Now().Add(heldLately))
	}
}

// Close closes the registry, tells what is untold of contested keys, and forgets what
// was learned. Streams that still run are looked after until they end: the wheel stops
// with the last one.
func (z *Zone) Close() error {
	z.Audit.Close()
	z.Damping.Close()
	z.Returns.Close()
	z.Held.Close()
	z.Presence.Close()
	if c, ok := registry.As[io.Closer](z.Registry); ok {
		return c.Close()
	}
	return nil
}

// RegistryAway is why the registry cannot be reached; nil: it can, or need not be.
func (z *Zone) RegistryAway() error {
	if r, ok := registry.As[registry.Reachable](z.Registry); ok {
		return r.Away()
	}
	return nil
}

// MayMissStreams reports whether there may be streams that the registry does not know of
// for now.
func (z *Zone) MayMissStreams() bool {
	r, ok := registry.As[registry.Reachable](z.Registry)
	return ok && r.Missing()
}

// Damper is the observer that has flap damping know of those who lose a key, and
// of those who show their tombstone.
func (z *Zone) Damper() event.Observer { return damper{z.Damping} }

type damper struct{ damping *conflict.Damping }

// Observe implements event.Observer.
func (d damper) Observe(e event.Event) {
	switch e := e.(type) {
	case event.Lost:
		d.damping.Lost(conflict.Loss{
			Stream:  e.Loser.ID,
			By:      e.To,
			Key:     e.Loser.Key,
			Token:   e.Loser.Token,
			Subject: e.Loser.Subject,
			Gone:    e.Gone,
		})
	case event.Shown:
		d.damping.Shown(e.Client, e.Made)
	}
}
