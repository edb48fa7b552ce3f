package zone

import (
	"hash/maphash"
	"sync"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/internal/due"
)

// Route is what a guard knows of the way that a request takes: the guard, by what stays
// the same over reloads, how many guards the request has passed before it, and what is
// asked for.
type Route struct {
	Guard              string
	Depth              int
	Method, Host, Path string
}

// mostRoutes is how many routes are remembered, and how many guards: those that were
// seen last.
const mostRoutes = 4096

// Nesting remembers behind which guards other guards stand. A guard cannot tell that
// from its configuration, but from the requests that pass both.
type Nesting struct {
	seed maphash.Seed // of the keys, so that nobody can choose two that are the same

	// mu guards the maps. Nothing but these is called with it held.
	mu sync.Mutex
	// guards has whether another was ever seen behind the guard. Only where that is so,
	// routes has whether one was on the route.
	guards, routes *due.Map[uint64, bool]
}

func newNesting() *Nesting {
	return &Nesting{
		seed:   maphash.MakeSeed(),
		guards: due.NewMap[uint64, bool](mostRoutes),
		routes: due.NewMap[uint64, bool](mostRoutes),
	}
}

// Note notes whether another guard stands behind the route's. One that was seen is not
// forgotten for a request that does without it.
func (n *Nesting) Note(r Route, nested bool) {
	guard, route := n.keys(r)
	now := time.Now()
	n.mu.Lock()
	defer n.mu.Unlock()
	if note(n.guards, guard, nested, now) {
		note(n.routes, route, nested, now)
	}
}

// note returns what the map has from now on.
func note(m *due.Map[uint64, bool], key uint64, nested bool, now time.Time) bool {
	e := m.Find(key)
	if e == nil {
		e, _ = m.Add(key, now)
	}
	m.Extend(e, now)
	e.Value = e.Value || nested
	return e.Value
}

// Innermost reports whether it is known that no other guard stands behind the route's.
// A guard behind which none was ever seen is the innermost on all its routes.
func (n *Nesting) Innermost(r Route) bool {
	guard, route := n.keys(r)
	n.mu.Lock()
	defer n.mu.Unlock()
	e := n.guards.Find(guard)
	if e != nil && e.Value {
		e = n.routes.Find(route)
	}
	return e != nil && !e.Value
}

// keys are those of the route's guard, and of the route.
func (n *Nesting) keys(r Route) (guard, route uint64) {
	return maphash.Comparable(n.seed, Route{Guard: r.Guard, Depth: r.Depth}), maphash.Comparable(n.seed, r)
}
