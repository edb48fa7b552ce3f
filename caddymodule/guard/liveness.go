package guard

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/sse-guard/sse-guard/caddymodule/fights"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/rounds"
	"github.com/sse-guard/sse-guard/caddymodule/stream"
)

// Visit implements rounds.Visitor: the stream is looked after.
func (v *visit) Visit(now rounds.Tick) time.Duration {
	condition, next := v.response.Tend(now)
	switch condition {
	case stream.Dead:
		go v.evict(registry.Dead) // a registry may take its time
	case stream.Old:
		go v.evict(registry.MaxAge)
	}
	return next
}

// firstVisit is when a stream is to be looked after first, at the latest.
func (g *Guard) firstVisit() time.Duration {
	first := time.Minute // seldom
	for _, d := range []time.Duration{g.Stream.Heartbeat, g.Stream.DeadAfter / 2, g.Stream.MaxAge} {
		if d > 0 {
			first = min(first, d)
		}
	}
	return first
}

// evict ends the stream for a reason that no request has given.
func (v *visit) evict(reason registry.Reason) {
	if v.untracked {
		v.End(registry.Ending{Reason: reason}) // the registry does not know it
		return
	}
	v.guard.Zone.end([]registry.Victim{{Stream: &v.stream, Reason: reason}})
}

// returnee is who may have back a place that a client has left: the same client
// id, or else the same party.
func (v *visit) returnee() registry.ID {
	if !v.stream.Client.IsZero() {
		return v.stream.Client
	}
	return v.party()
}

// reserved is the place of a client that has gone away, and may come back: it
// counts as held for a while. It implements rounds.Visitor.
type reserved struct{ *visit }

// Visit gives the place up.
func (p reserved) Visit(rounds.Tick) time.Duration {
	p.place.Release()
	return 0
}

// keep keeps the place for the client that left, or gives it back.
func (v *visit) keep(place registry.Place) {
	g := v.guard
	if g.Reserve == 0 || v.rule().Policy != registry.Reject || v.response.Ended() || v.timedOut() {
		place.Release()
		return
	}
	v.mu.Lock()
	v.kept = true
	v.mu.Unlock()
	if g.Zone.rounds.Enter(reserved{v}, g.Reserve) == nil {
		place.Release() // the zone is closed
	}
}

// timedOut reports whether the kernel has given up the connection: the client has
// not left, it is dead.
func (v *visit) timedOut() bool {
	info, ok := v.env.Connection().TCP.Info()
	return ok && info.Gone && v.guard.Stream.DeadAfter > 0 && info.SinceAck >= v.guard.Stream.DeadAfter
}

// comesBack reports whether a place among the holders' is kept for the newcomer. It
// is given up only once the newcomer takes one, at the header.
func (v *visit) comesBack(holders []*registry.Stream) bool {
	for _, h := range holders {
		if old, ok := h.Handle.(*visit); ok && old.isKept() && old.returnee() == v.returnee() {
			return true
		}
	}
	return false
}

// isKept reports whether the stream's client is gone, and its place is kept.
func (v *visit) isKept() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.kept
}

// makeRoom finds out whether one of the holders need not hold the key any more:
// its client has left and is the newcomer's own, or does not prove that it lives.
// It reports whether it is worth asking the registry again.
func (v *visit) makeRoom(holders []*registry.Stream) bool {
	var present []*visit
	for _, h := range holders {
		old, ok := h.Handle.(*visit)
		switch {
		case !ok: // another process has it
		case !old.isKept():
			present = append(present, old)
		case old.returnee() == v.returnee():
			old.place.Release()
			return true
		}
	}
	if v.guard.Probe == 0 || len(present) == 0 {
		return false
	}
	return v.probe(present)
}

// probe asks the holders to prove that they live, and ends the first who does not.
// It reports whether the newcomer may now be admitted, also by a holder's leave.
func (v *visit) probe(holders []*visit) bool {
	ctx, cancel := context.WithCancel(v.r.Context())
	defer cancel()
	lives := make(chan bool, len(holders))
	for _, h := range holders {
		go func() {
			alive := h.response.Lives(ctx, v.guard.Probe)
			if !alive && h.response.Lost() {
				h.evict(registry.Dead) // if it has left, its place may be kept for it
			}
			lives <- alive
		}()
	}
	for range holders {
		select {
		case alive := <-lives:
			if !alive {
				return true
			}
		case <-ctx.Done():
			return false
		}
	}
	return false
}

// fights notes that the newcomer may take the key back from who superseded it,
// and refuses it once that has gone on for long enough.
func (v *visit) fights() *refusal {
	g := v.guard
	if g.Flap.Flaps == 0 || v.rule().Policy != registry.Supersede {
		return nil
	}
	if !g.Zone.fights.Flaps(&v.stream, v.party(), holds, g.Flap) {
		return nil
	}
	g.Security.Warn("newcomer parked: it takes the key back again and again",
		v.zone(), v.key(), v.sub(), zap.String("newcomer_ip", v.stream.Addr))
	return parked()
}

// party tells clients apart that show no tombstone.
func (v *visit) party() registry.ID { return fights.Party(&v.stream, v.r.UserAgent()) }

// lost notes that the stream lost its key to by.
func (v *visit) lost(by *visit) {
	v.mu.Lock()
	if v.left == nil {
		v.left = new(atomic.Bool)
		v.left.Store(v.response.Left())
	}
	left := v.left
	v.mu.Unlock()
	conn, told := v.env.Connection().TCP, time.Now()
	v.guard.Zone.fights.Superseded(fights.Loss{
		Stream: &v.stream,
		By:     &by.stream,
		Party:  v.party(),
		// A zombie has not closed its connection, but never acknowledges what it
		// was told.
		Gone: func() bool { return left.Load() || conn.SilentSince(told) },
	})
}

// relayed is called when the handlers behind the guard have returned, and the
// stream is over: who lost its key may have left before it was told.
func (v *visit) relayed() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.returned = true
	v.guard.Zone.leaving.leave(&v.stream)
	if v.left != nil {
		v.left.Store(v.response.Left())
	}
}

// holds reports whether s holds its key, in this process.
func holds(s *registry.Stream) bool {
	v, ok := s.Handle.(*visit)
	if !ok {
		return false
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.place != nil && !v.isOver && !v.response.Ended()
}

// spread is a random part of d, and at least a tenth: when to come back, so that
// not all do so at once.
func spread(d time.Duration) time.Duration {
	least := d / 10
	if d <= least || d <= 0 {
		return d
	}
	return least + rand.N(d-least) //nolint:gosec // to spread, not to hide
}
