package memory

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/internal/due"
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

	// mu guards due, and lets one at a time add to the list. A table's lock is taken
	// with it held.
	mu sync.Mutex
	// due has all denials, the one to be forgotten next first.
	due due.Queue[party, *denial]
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

// Denied reports whether a denial in force names h.
func (r *Registry) Denied(h *registry.Holder) bool { return r.denials.name(h) }

// name tells whether a denial in force names h. It looks at nothing, not even at
// h, as long as nobody is denied.
func (d *denials) name(h *registry.Holder) bool {
	return !d.tokens.empty() && !h.Token.IsZero() &&
		d.tokens.deny(party{id: h.Token}, h, d.now) ||
		!d.clients.empty() && !h.Token.IsZero() && !h.Client.IsZero() &&
			d.clients.deny(party{h.Token, h.Client}, h, d.now) ||
		!d.subjects.empty() && !h.Subject.IsZero() &&
			d.subjects.deny(party{id: h.Subject}, h, d.now)
}

// add puts the given denials in force, and returns how many others it forgot
// before their time. Only if more are given than there may be, some of them are
// forgotten too.
func (d *denials) add(given []registry.Denial) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now().Round(0)
	for next := d.due.Due(now); next != nil; next = d.due.Due(now) {
		d.forget(next.Value)
	}

	var entered []*denial
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
		return newDenial(&d.tokens, party{id: g.Token})
	default:
		return newDenial(&d.clients, party{g.Token, g.Client})
	}
}

// ofSubject returns the denial of the older tokens of the subject of g; nil if g
// names none.
func (d *denials) ofSubject(g registry.Denial) *denial {
	if g.Subject.IsZero() || g.IssuedBefore.IsZero() {
		return nil
	}
	n := newDenial(&d.subjects, party{id: g.Subject})
	n.issuedBefore = g.IssuedBefore.Round(0)
	return n
}

// enter puts n in force, or into the denial of the same party, and adds that to
// entered. What is entered is not due: the room for it is made at others' cost.
func (d *denials) enter(entered []*denial, n *denial) []*denial {
	known := n.table.enter(n)
	switch {
	case known == nil:
		return append(entered, n)
	case !known.due.Queued():
		return entered // given twice
	default:
		d.due.Remove(&known.due)
		return append(entered, known)
	}
}

// settle makes what was entered due, once there is room for it. It returns how
// many were forgotten.
func (d *denials) settle(entered []*denial) int {
	forgotten := 0
	for d.due.Len() > 0 && d.due.Len()+len(entered) > d.max {
		d.forget(d.due.First().Value)
		forgotten++
	}
	for _, n := range entered {
		d.due.Put(&n.due, n.until)
	}
	for d.due.Len() > d.max {
		d.forget(d.due.First().Value)
		forgotten++
	}
	return forgotten
}

// forget takes a denial off the list.
func (d *denials) forget(n *denial) {
	d.due.Remove(&n.due)
	n.table.leave(n)
}

// denial says that a party is no longer welcome.
type denial struct {
	table *denialTable
	// due is when it is to be forgotten, and, as its key, whom it names; guarded by
	// the lock of the list.
	due due.Entry[party, *denial]

	// These are changed under the lock of the list and that of the table.

	until time.Time
	// issuedBefore, if not zero, spares tokens that were issued later.
	issuedBefore time.Time
}

func newDenial(table *denialTable, of party) *denial {
	n := &denial{table: table}
	n.due.Key, n.due.Value = of, n
	return n
}

// of is whom the denial names.
func (d *denial) of() party { return d.due.Key }

// party is whom a denial is about: a token or a subject; a client too, or none.
type party struct{ id, client registry.ID }

// inForce tells whether the denial, which names the party of h, is in force for
// its token. One that does not tell when it was issued was by now.
func (d *denial) inForce(h *registry.Holder, now time.Time) bool {
	issued := h.IssuedAt
	if issued.IsZero() {
		issued = now
	}
	return now.Before(d.until) && (d.issuedBefore.IsZero() || issued.Before(d.issuedBefore))
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
	// mu guards denials, and when each is in force. No other lock is taken under it.
	mu      sync.RWMutex
	denials map[party]*denial
}

func (t *denialTable) empty() bool { return t.size.Load() == 0 }

// deny tells whether the denial of p, if there is one, is in force for h.
func (t *denialTable) deny(p party, h *registry.Holder, now func() time.Time) bool {
	sh := t.shard(p)
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	d := sh.denials[p]
	return d != nil && d.inForce(h, now())
}

// enter adds n. If there is a denial of the same party, it is extended instead,
// and returned.
func (t *denialTable) enter(n *denial) *denial {
	sh := t.shard(n.of())
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if known := sh.denials[n.of()]; known != nil {
		known.extend(n)
		return known
	}
	if sh.denials == nil {
		sh.denials = make(map[party]*denial)
	}
	sh.denials[n.of()] = n
	t.size.Add(1)
	return nil
}

// leave takes d out, which enter has added.
func (t *denialTable) leave(d *denial) {
	sh := t.shard(d.of())
	sh.mu.Lock()
	defer sh.mu.Unlock()
	delete(sh.denials, d.of())
	if len(sh.denials) == 0 {
		sh.denials = nil // an emptied map would keep its memory
	}
	t.size.Add(-1)
}

func (t *denialTable) shard(p party) *denialShard { return &t.shards[shardOf(p.id)] }
