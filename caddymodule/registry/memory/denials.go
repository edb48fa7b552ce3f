package memory

import (
	"container/heap"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// denials is the list of who is no longer welcome. It is bounded in size, by
// max, and in time: who is past its time is forgotten at the next addition.
type denials struct {
	// now tells the time of the wall clock, by which tokens expire.
	now func() time.Time
	max int

	tokens   denialTable
	clients  denialTable // of a token with one client id
	subjects denialTable

	// mu lets one at a time add to the list. It is taken before a table's locks.
	mu sync.Mutex
	// due has all denials, the one to be forgotten next first.
	due queue
}

// MaxDenials is how many denials are kept.
const MaxDenials = 1 << 17

func (d *denials) init() { d.now, d.max = time.Now, MaxDenials }

// Deny keeps whom the denials name from being admitted, from now on. Those that
// name nobody, or whose time is over, are ignored. Its error is nil or
// registry.ErrManyDenials: there may be MaxDenials, and more were in force.
func (r *Registry) Deny(_ context.Context, denials ...registry.Denial) error {
	if forgotten := r.denials.add(denials); forgotten > 0 {
		return fmt.Errorf("denying streams: %d forgotten to keep %d: %w",
			forgotten, r.denials.max, registry.ErrManyDenials)
	}
	return nil
}

// Denied reports whether a denial in force names s. Its error is always nil.
func (r *Registry) Denied(_ context.Context, s *registry.Stream) (bool, error) {
	return r.denials.name(s), nil
}

// name tells whether a denial in force names s. It looks at nothing, not even at
// s, as long as nobody is denied.
func (d *denials) name(s *registry.Stream) bool {
	return !d.tokens.empty() && !s.Token.IsZero() &&
		d.tokens.deny(party{id: s.Token}, s, d.now) ||
		!d.clients.empty() && !s.Token.IsZero() && !s.Client.IsZero() &&
			d.clients.deny(party{s.Token, s.Client}, s, d.now) ||
		!d.subjects.empty() && !s.Subject.IsZero() && !s.IssuedAt.IsZero() &&
			d.subjects.deny(party{id: s.Subject}, s, d.now)
}

// add puts the given denials in force, and returns how many others it forgot
// before their time. Only if more are given than there may be, some of them are
// forgotten too.
func (d *denials) add(given []registry.Denial) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now().Round(0)
	for len(d.due) > 0 && !now.Before(d.due[0].until) {
		d.forget()
	}

	var entered queue
	for _, g := range given {
		// Without the reading of the monotonic clock, which stands still while the
		// computer sleeps, times compare by the wall clock.
		until := g.Until.Round(0)
		if !now.Before(until) {
			continue
		}
		if n := d.ofToken(g); n != nil {
			n.until = until
			entered = d.enter(entered, n)
		}
		if n := d.ofSubject(g); n != nil {
			n.until = until
			entered = d.enter(entered, n)
		}
	}
	return d.settle(entered)
}

// ofToken returns the denial of the token of g, or of one client of it; nil if g
// names none.
func (d *denials) ofToken(g registry.Denial) *denial {
	switch {
	case g.Token.IsZero():
		return nil
	case g.Client.IsZero():
		return &denial{table: &d.tokens, of: party{id: g.Token}}
	default:
		return &denial{table: &d.clients, of: party{g.Token, g.Client}}
	}
}

// ofSubject returns the denial of the older tokens of the subject of g; nil if g
// names none.
func (d *denials) ofSubject(g registry.Denial) *denial {
	if g.Subject.IsZero() || g.IssuedBefore.IsZero() {
		return nil
	}
	return &denial{table: &d.subjects, of: party{id: g.Subject}, issuedBefore: g.IssuedBefore.Round(0)}
}

// enter puts n in force, or into the denial of the same party, and adds that to
// entered. What is entered is not due: the room for it is made at others' cost.
func (d *denials) enter(entered queue, n *denial) queue {
	known := n.table.enter(n)
	switch {
	case known == nil:
		return append(entered, n)
	case known.place == nowhere:
		return entered // given twice
	default:
		heap.Remove(&d.due, known.place)
		known.place = nowhere
		return append(entered, known)
	}
}

// settle makes what was entered due, once there is room for it. It returns how
// many were forgotten.
func (d *denials) settle(entered queue) int {
	forgotten := 0
	for len(d.due) > 0 && len(d.due)+len(entered) > d.max {
		d.forget()
		forgotten++
	}
	for _, n := range entered {
		heap.Push(&d.due, n)
	}
	for len(d.due) > d.max {
		d.forget()
		forgotten++
	}
	return forgotten
}

// forget takes the next denial off the list.
func (d *denials) forget() {
	next := heap.Pop(&d.due).(*denial)
	next.table.leave(next)
}

// denial says that a party is no longer welcome.
type denial struct {
	table *denialTable
	of    party
	// place is where it is in the queue; guarded by the lock of the list.
	place int

	// These are changed under the lock of the list and that of the table.

	until time.Time
	// issuedBefore, if not zero, spares tokens that were issued later.
	issuedBefore time.Time
}

// party is whom a denial is about: a token or a subject; a client too, or none.
type party struct{ id, client registry.ID }

// inForce tells whether the denial, which names the party of s, is in force for
// its token.
func (d *denial) inForce(s *registry.Stream, now time.Time) bool {
	return now.Before(d.until) && (d.issuedBefore.IsZero() || s.IssuedAt.Before(d.issuedBefore))
}

// extend makes d deny all that n does too.
func (d *denial) extend(n *denial) {
	if n.until.After(d.until) {
		d.until = n.until
	}
	if n.issuedBefore.After(d.issuedBefore) {
		d.issuedBefore = n.issuedBefore
	}
}

// denialTable finds the denials of one kind.
type denialTable struct {
	// size spares newcomers the locks as long as nobody is denied.
	size   atomic.Int64
	shards [shards]denialShard
}

type denialShard struct {
	mu      sync.RWMutex
	denials map[party]*denial
}

func (t *denialTable) empty() bool { return t.size.Load() == 0 }

// deny tells whether the denial of p, if there is one, is in force for s.
func (t *denialTable) deny(p party, s *registry.Stream, now func() time.Time) bool {
	sh := t.shard(p)
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	d := sh.denials[p]
	return d != nil && d.inForce(s, now())
}

// enter adds n. If there is a denial of the same party, it is extended instead,
// and returned.
func (t *denialTable) enter(n *denial) *denial {
	sh := t.shard(n.of)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if known := sh.denials[n.of]; known != nil {
		known.extend(n)
		return known
	}
	if sh.denials == nil {
		sh.denials = make(map[party]*denial)
	}
	n.place = nowhere
	sh.denials[n.of] = n
	t.size.Add(1)
	return nil
}

// leave takes d out, which enter has added.
func (t *denialTable) leave(d *denial) {
	sh := t.shard(d.of)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	delete(sh.denials, d.of)
	if len(sh.denials) == 0 {
		sh.denials = nil // an emptied map would keep its memory
	}
	t.size.Add(-1)
}

func (t *denialTable) shard(p party) *denialShard { return &t.shards[p.id[0]%shards] }

// queue is a heap of denials, the one to be forgotten next on top.
type queue []*denial

// nowhere is the place of a denial that is in no queue.
const nowhere = -1

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].until.Before(q[j].until) }

func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i, j
}

// Push and Pop are for package heap: they add and take the last.

func (q *queue) Push(d any) {
	d.(*denial).place = len(*q)
	*q = append(*q, d.(*denial))
}

func (q *queue) Pop() any {
	last := len(*q) - 1
	d := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	return d
}

var _ heap.Interface = (*queue)(nil)
