package zone

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"maps"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/event"
	"github.com/sse-guard/sse-guard/caddymodule/eventstream"
	"github.com/sse-guard/sse-guard/caddymodule/presence"
	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/stream"
)

// Directory lists the streams of this process by their id: those that hold a key,
// those that are untracked, those that are parked, and those that were ended and
// whose upstream is not yet gone. It is the registry.Node through which a
// registry reaches them. All methods may be called concurrently.
type Directory struct {
	observers event.Observers
	presence  *presence.Groups
	// node names this process to whoever looks at several.
	node string
	// shards have the streams by the first bits of their ids, so that going through
	// the shards is going through the ids in order.
	shards [directoryShards]directoryShard
}

const (
	directoryShards = 1 << directoryBits
	directoryBits   = 6
)

type directoryShard struct {
	mu sync.Mutex
	// streams is guarded by mu. With it held, streams are only asked for what they know
	// without a lock.
	streams map[registry.StreamID]*stream.Stream
}

func newDirectory(observers event.Observers, p *presence.Groups) *Directory {
	d := &Directory{observers: observers, presence: p, node: nodeName()}
	for i := range d.shards {
		d.shards[i].streams = make(map[registry.StreamID]*stream.Stream)
	}
	return d
}

// nodeName names this process among those of all machines, as a person would.
func nodeName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost" // the process is told from others of this machine, at least
	}
	return host + ":" + strconv.Itoa(os.Getpid())
}

func shardOf(id registry.StreamID) int { return int(id[0] >> (8 - directoryBits)) }

func (d *Directory) enter(s *stream.Stream) {
	id := s.Holder().ID
	sh := &d.shards[shardOf(id)]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.streams[id] = s
}

// forget takes s out, and no other that has its id.
func (d *Directory) forget(s *stream.Stream) {
	id := s.Holder().ID
	sh := &d.shards[shardOf(id)]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.streams[id] == s {
		delete(sh.streams, id)
	}
}

// find returns the stream of that id, nil if there is none.
func (d *Directory) find(id registry.StreamID) *stream.Stream {
	sh := &d.shards[shardOf(id)]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.streams[id]
}

// Len returns how many streams there are.
func (d *Directory) Len() int {
	n := 0
	for i := range d.shards {
		sh := &d.shards[i]
		sh.mu.Lock()
		n += len(sh.streams)
		sh.mu.Unlock()
	}
	return n
}

// Holds reports whether the stream of that id holds a key.
func (d *Directory) Holds(id registry.StreamID) bool {
	s := d.find(id)
	return s != nil && s.Holds()
}

// End implements registry.Node. A stream that loses its key to a newcomer is told to
// the observers first.
func (d *Directory) End(id registry.StreamID, e registry.Ending) {
	s := d.find(id)
	if s == nil {
		return
	}
	// Who yields is not one that the user's own streams take the key from.
	if (e.Reason == reason.Superseded || e.Reason == reason.Replaced) && !s.Holder().Yields {
		fate, told := s.Fate(), time.Now()
		d.observers.Tell(event.Lost{Loser: s.Holder(), To: e.For, Gone: func() bool {
			// A zombie has not closed its connection, but never acknowledges what it
			// was told.
			return fate.ClientLeft() || fate.SilentSince(told)
		}})
	}
	s.End(e)
	d.presence.Ending(id)
}

// EndAll implements registry.Node.
func (d *Directory) EndAll(_ context.Context, ids []registry.StreamID, e registry.Ending) error {
	for _, id := range ids {
		d.End(id, e)
	}
	return nil
}

// Probe implements registry.Node.
func (d *Directory) Probe(ctx context.Context, id registry.StreamID, within time.Duration) (lives bool) {
	s := d.find(id)
	if s == nil {
		return false
	}
	proof := s.Probe(ctx, within)
	d.observers.Tell(event.Probed{Stream: s.Holder(), Proof: proof})
	return proof.Lives()
}

// Census is what all streams of a Directory are together.
type Census struct {
	// States counts them by their state.
	States map[registry.State]int
	// Events and Bytes count what was relayed to them so far.
	Events, Bytes uint64
}

// Census counts the streams. It costs the streams there are, some dozen nanoseconds each,
// and delays none of them.
func (d *Directory) Census() Census {
	c := Census{States: make(map[registry.State]int, len(registry.States))}
	for i := range d.shards {
		d.shards[i].count(&c)
	}
	return c
}

func (sh *directoryShard) count(c *Census) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for _, s := range sh.streams {
		c.States[s.State()]++
		events, bytes := s.Relayed()
		c.Events += events
		c.Bytes += uint64(bytes)
	}
}

// List implements registry.Node: the streams come in the order of their ids, and a
// cursor is the last one's.
func (d *Directory) List(
	_ context.Context, f registry.Filter, cursor string, limit int,
) (rows []registry.Row, next string, err error) {
	after, err := registry.ParseCursor(cursor)
	switch {
	case err != nil:
		return nil, "", fmt.Errorf("listing streams: %w", err)
	case limit <= 0:
		return nil, "", fmt.Errorf("listing streams: the limit is %d; ask for one at least", limit)
	}
	for s := range d.filtered(f, after) {
		if len(rows) == limit {
			return rows, rows[limit-1].Holder.ID.String(), nil
		}
		row := s.Row()
		row.Node = d.node
		rows = append(rows, row)
	}
	return rows, "", nil
}

// Notify implements registry.Node. Where several guards have streams of one response,
// its client gets the event once.
func (d *Directory) Notify(_ context.Context, f registry.Filter, name, data string) (notified int, err error) {
	e, err := eventstream.Event{Name: name, Data: data}.Append(nil)
	if err != nil {
		return 0, fmt.Errorf("notifying streams: %w", err)
	}
	var last registry.StreamID
	for s := range d.filtered(f, registry.StreamID{}) {
		// Streams of one response come one after the other.
		if id := s.Holder().ID; !id.SameResponse(last) && s.Notify(e) {
			notified++
			last = id
		}
	}
	return notified, nil
}

// Count implements registry.Node.
func (d *Directory) Count(context.Context) (registry.Counts, error) {
	c := registry.Counts{Node: d.node, States: make(map[registry.State]int)}
	for s := range d.selected(func(*registry.Holder) bool { return true }, registry.StreamID{}) {
		state := s.State()
		c.States[state]++
		if state == registry.StateLive {
			countLabels(&c, s.About().Labels)
		}
	}
	for name, values := range c.Labels {
		if others := keepMost(values, registry.MostValues); others > 0 {
			if c.Others == nil {
				c.Others = make(map[string]int)
			}
			c.Others[name] = others
		}
	}
	return c, nil
}

func countLabels(c *registry.Counts, labels registry.Labels) {
	for i, value := range labels.Values {
		if value == "" {
			continue
		}
		name := labels.Names[i]
		if c.Labels == nil {
			c.Labels = make(map[string]map[string]int)
		}
		if c.Labels[name] == nil {
			c.Labels[name] = make(map[string]int)
		}
		c.Labels[name][value]++
	}
}

// keepMost leaves the values with the highest counts, most of them at most, and returns
// the sum of the others.
func keepMost(counts map[string]int, most int) (others int) {
	if len(counts) <= most {
		return 0
	}
	values := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	for _, value := range values[most:] {
		others += counts[value]
		delete(counts, value)
	}
	return others
}

// all lists all streams.
func (d *Directory) all() []*stream.Stream {
	return slices.Collect(d.selected(func(*registry.Holder) bool { return true }, registry.StreamID{}))
}

// filtered ranges over the streams behind after that f names, in the order of their
// ids.
func (d *Directory) filtered(f registry.Filter, after registry.StreamID) iter.Seq[*stream.Stream] {
	return func(yield func(*stream.Stream) bool) {
		if !f.ID.IsZero() {
			s := d.find(f.ID)
			if s != nil && f.ID.Compare(after) > 0 && f.Names(s.Holder()) && f.Shows(s.State(), s.About()) {
				yield(s)
			}
			return
		}
		if f.IsZero() {
			return
		}
		for s := range d.selected(f.Names, after) {
			if f.Shows(s.State(), s.About()) && !yield(s) {
				return
			}
		}
	}
}

// selected ranges over the streams behind after whose holders match, in the order of
// their ids. It costs the streams there are. No lock is held for longer than it takes to
// look at the holders of one shard, nor while a stream is yielded.
func (d *Directory) selected(matches func(*registry.Holder) bool, after registry.StreamID) iter.Seq[*stream.Stream] {
	return func(yield func(*stream.Stream) bool) {
		for i := shardOf(after); i < directoryShards; i++ {
			for _, s := range d.shards[i].selected(matches, after) {
				if !yield(s) {
					return
				}
			}
		}
	}
}

// selected calls matches with mu held.
func (sh *directoryShard) selected(matches func(*registry.Holder) bool, after registry.StreamID) []*stream.Stream {
	sh.mu.Lock()
	var found []*stream.Stream
	for id, s := range sh.streams {
		if id.Compare(after) > 0 && matches(s.Holder()) {
			found = append(found, s)
		}
	}
	sh.mu.Unlock()
	slices.SortFunc(found, func(a, b *stream.Stream) int { return a.Holder().ID.Compare(b.Holder().ID) })
	return found
}

// Interface guard
var _ registry.Node = (*Directory)(nil)
