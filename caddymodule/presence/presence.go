// Package presence tells the streams of a group how many there are, whenever that
// changes. A group is the live streams of a zone whose label has one value, such as those
// of a room.
package presence

import (
	"encoding/json"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/eventstream"
	"github.com/sse-guard/sse-guard/caddymodule/identity"
	"github.com/sse-guard/sse-guard/caddymodule/internal/due"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// settle is how long after a change a group is told at the earliest: a stream that takes
// the place of another one, maybe on another node, then does not count beside it.
const settle = 200 * time.Millisecond

// Stream is one that can be told. Its methods do not block.
type Stream interface {
	Holder() *registry.Holder
	State() registry.State
	// Framed reports whether events can be written into it.
	Framed() bool
	// Notify has an event written between two of the stream's own. It reports false where
	// it cannot be, for now.
	Notify(event []byte) bool
}

// Telling says what a stream of a group is told.
type Telling struct {
	// Event is the event's name.
	Event string
	// Interval is the least time between two of them.
	Interval time.Duration
}

// Groups are those of a zone that this process has streams of. All methods may be called
// concurrently.
//
// A change has its group told once it is settled, and Interval after the group was told
// last: all changes until then are told as one, and the last is never left out. One timer
// serves all groups.
type Groups struct {
	others registry.Grouping // nil: there are none; not changed once the zone is in use

	// size is how many streams there are, for who need not look while there are none.
	size atomic.Int64

	// mu guards the fields below, and those of the groups. With it held, streams are only
	// asked for what they know without a lock.
	mu     sync.Mutex
	groups map[registry.ID]*group
	// seats are those of each stream.
	seats   map[registry.StreamID][]*seat
	due     due.Queue[registry.ID, *group]
	sweeper *due.Sweeper
}

type group struct {
	label, value string
	// entry is in the queue while there is something to tell.
	entry due.Entry[registry.ID, *group]
	// seats has one stream of each response, which its id names: a client is told once,
	// and counts once, however many guards its stream has.
	seats map[registry.StreamID]*seat
	// told is when the group was told last, and interval how long it is left alone then.
	told     time.Time
	interval time.Duration
}

// seat is a stream in a group.
type seat struct {
	group  *group
	stream Stream
	Telling
	// told is the number that the stream was told last; -1: none. It belongs to the
	// sweep.
	told int
}

// New returns the groups of a zone.
func New() *Groups {
	gs := &Groups{groups: make(map[registry.ID]*group), seats: make(map[registry.StreamID][]*seat)}
	gs.sweeper = due.NewSweeper(&gs.mu, gs.next, gs.take)
	return gs
}

// Share has the streams of other nodes count too. It is called before all other methods,
// once at most.
func (gs *Groups) Share(others registry.Grouping) {
	gs.others = others
	others.Group(gs.count, gs.changedElsewhere)
}

// Close has nobody told any more. It may be called any number of times.
func (gs *Groups) Close() { gs.sweeper.Close() }

// Enter has a stream, which is admitted, count in the group of the label's value.
func (gs *Groups) Enter(s Stream, label, value string, t Telling) {
	hash, ok := identity.Key(label, value)
	if !ok {
		return
	}
	id := registry.ID(hash)
	gs.mu.Lock()
	g := gs.groups[id]
	if g == nil {
		g = &group{label: label, value: value, seats: make(map[registry.StreamID]*seat)}
		g.entry.Key, g.entry.Value = id, g
		gs.groups[id] = g
	}
	at := &seat{group: g, stream: s, Telling: t, told: -1}
	of := s.Holder().ID
	g.seats[of.Nth(0)] = at // the outermost guard's enters last, into which the others are relayed
	gs.seats[of] = append(gs.seats[of], at)
	gs.size.Store(int64(len(gs.seats)))
	gs.touch(g)
	gs.mu.Unlock()
	gs.changed(id)
}

// Leave takes a stream out of its groups.
func (gs *Groups) Leave(id registry.StreamID) {
	if gs.size.Load() == 0 {
		return
	}
	gs.mu.Lock()
	seats := gs.seats[id]
	delete(gs.seats, id)
	gs.size.Store(int64(len(gs.seats)))
	for _, at := range seats {
		if at.group.seats[id.Nth(0)] == at {
			delete(at.group.seats, id.Nth(0))
		}
	}
	groups := gs.touchAll(seats)
	gs.mu.Unlock()
	gs.changed(groups...)
}

// Ending notes that a stream was told to end: it counts no more.
func (gs *Groups) Ending(id registry.StreamID) {
	if gs.size.Load() == 0 {
		return
	}
	gs.mu.Lock()
	groups := gs.touchAll(gs.seats[id])
	gs.mu.Unlock()
	gs.changed(groups...)
}

func (gs *Groups) touchAll(seats []*seat) (groups []registry.ID) {
	for _, at := range seats {
		gs.touch(at.group)
		groups = append(groups, at.group.entry.Key)
	}
	return groups
}

// touch has the group told in due time. mu is held.
func (gs *Groups) touch(g *group) {
	if g.entry.Queued() {
		return
	}
	at := time.Now().Add(settle)
	if next := g.told.Add(g.interval); next.After(at) {
		at = next
	}
	gs.due.Put(&g.entry, at)
	gs.sweeper.Arm()
}

// changed has other nodes know.
func (gs *Groups) changed(groups ...registry.ID) {
	if gs.others != nil && len(groups) > 0 {
		gs.others.GroupChanged(groups...)
	}
}

// changedElsewhere is called with groups of which other nodes have more or fewer streams.
func (gs *Groups) changedElsewhere(groups []registry.ID) {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	for _, id := range groups {
		if g := gs.groups[id]; g != nil {
			gs.touch(g)
		}
	}
}

// count counts the streams of a group here.
func (gs *Groups) count(id registry.ID) int {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	if g := gs.groups[id]; g != nil {
		return live(maps.Values(g.seats))
	}
	return 0
}

func live(seats func(yield func(*seat) bool)) (n int) {
	for at := range seats {
		if at.stream.State() == registry.StateLive {
			n++
		}
	}
	return n
}

// next is when a group is to be told first. mu is held.
func (gs *Groups) next() time.Time {
	if e := gs.due.First(); e != nil {
		return e.At()
	}
	return time.Time{}
}

// take takes out a group that is to be told by now. mu is held.
func (gs *Groups) take(now time.Time) (act func()) {
	e := gs.due.Due(now)
	if e == nil {
		return nil
	}
	gs.due.Remove(e)
	g := e.Value
	if len(g.seats) == 0 {
		delete(gs.groups, e.Key)
	}
	g.told, g.interval = now, 0
	for _, at := range g.seats {
		g.interval = max(g.interval, at.Interval)
	}
	seats := slices.Collect(maps.Values(g.seats))
	return func() { gs.tell(g, seats) }
}

// tell tells those streams of the group that do not know how many there are. It is part
// of a sweep.
func (gs *Groups) tell(g *group, seats []*seat) {
	n := live(slices.Values(seats))
	if gs.others != nil {
		n += gs.others.Elsewhere(g.entry.Key)
	}
	events := make(map[string][]byte)
	again := false
	for _, at := range seats {
		if at.told == n || !at.stream.Framed() || at.stream.State() != registry.StateLive {
			continue
		}
		e, made := events[at.Event]
		if !made {
			e = g.event(at.Event, n)
			events[at.Event] = e
		}
		if at.stream.Notify(e) {
			at.told = n
		} else {
			again = true // its client takes nothing in for now
		}
	}
	if again {
		gs.mu.Lock()
		gs.touch(g)
		gs.mu.Unlock()
	}
}

// said is the data of an event. README documents it.
type said struct {
	Label string `json:"label"`
	Value string `json:"value"`
	Count int    `json:"count"`
}

func (g *group) event(name string, n int) []byte {
	data, err := json.Marshal(said{g.label, g.value, n})
	if err != nil {
		return nil // there is nothing in it that cannot be spelled
	}
	e, err := eventstream.Event{Name: name, Data: string(data)}.Append(nil)
	if err != nil {
		return nil // such a name is no configuration
	}
	return e
}
