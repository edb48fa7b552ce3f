package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// place is one stream's place, and what is left of it until the stream's upstream
// request is gone and Redis knows.
type place struct {
	r      *Registry
	b      *bucket
	ticket ticket
	holder *registry.Holder
	rule   registry.Rule
	// group is what the reserved places of one request have in common; nil: the place
	// was never reserved.
	group *group
	// prefer names who makes room before others at the commit.
	prefer []registry.StreamID

	// These are guarded by the bucket's lock.

	// local is the same place in the registry of this process; nil: not yet, or it was
	// over before.
	local registry.Place
	state entryState
	// began is since when the stream holds, by this node's monotonic clock.
	began time.Time
	// order numbers the holders of this node in the order in which they came to hold.
	order uint64
	// called says that Leave was called, denied that the place was given back since the
	// stream is denied, and departed that the upstream is gone.
	called, denied, departed bool
	keptUntil                time.Time
	timer                    *time.Timer // of a kept place; nil: none
	// known is as what Redis knows the place, and knownDeparted that it knows of the
	// departure.
	known         entryState
	knownDeparted bool
	// remembered says that the place is over, and kept in mind until Redis is back.
	remembered bool
	// committing says that Redis may have made it a held place, and this node has yet to
	// hear the answer.
	committing bool
	awaited    []*departure
}

// group is what the places have in common that one call of Admit has reserved.
type group struct {
	// asOne says that all of them are committed at once.
	asOne bool
	// mu guards gone. No other lock is taken under it.
	mu sync.Mutex
	// gone names the streams that do not count: they were about to end already, or were
	// ended by another commit of the group.
	gone []registry.StreamID
}

func (g *group) named() []registry.StreamID {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clip(g.gone)
}

func (g *group) add(victims []registry.Victim) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.gone = appendVictims(g.gone, victims)
}

// newPlace enters a place of that state.
func (r *Registry) newPlace(t ticket, ask *registry.Ask, state entryState) *place {
	b := r.bucketOf(ask.Holder.Key)
	p := &place{r: r, b: b, ticket: t, holder: ask.Holder, rule: ask.Rule, state: state, began: time.Now()}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.places[t] = p
	if state == held {
		p.holds()
	}
	return p
}

// holds notes that the place is held from now on. The bucket is locked.
func (p *place) holds() {
	p.state, p.began, p.order = held, time.Now(), p.r.order.Add(1)
	p.r.streams.add(p)
}

// mirror has the place kept in this process too.
func (p *place) mirror(local registry.Place) {
	p.b.mu.Lock()
	p.local = local
	over, departed := p.state == left, p.departed
	p.b.mu.Unlock()
	if over {
		local.Leave(registry.Keep{})
	}
	if departed {
		local.Departed()
	}
}

// Leave implements registry.Place. Redis is told soon.
func (p *place) Leave(keep registry.Keep) {
	p.b.mu.Lock()
	if p.called {
		p.b.mu.Unlock()
		return
	}
	p.called = true
	local := p.local
	switch {
	case p.state == held && keep.For > 0 && !p.holder.Yields && !p.b.closed:
		p.state, p.keptUntil = kept, time.Now().Add(keep.For)
		p.timer = time.AfterFunc(keep.For, p.lapse)
		p.tell(opKeep)
		if p.r.link.isUp() { // Redis says whose it is; the registry of this process might say otherwise
			keep = registry.Keep{}
			p.r.streams.keep(p)
		}
	case p.state == held || p.state == reserved:
		keep = registry.Keep{}
		p.over()
		p.tell(opLeave)
	}
	p.b.mu.Unlock()
	if local != nil {
		local.Leave(keep)
	}
}

// lapse gives up a place that was kept for so long.
func (p *place) lapse() {
	p.b.mu.Lock()
	lapsed := p.state == kept && !p.b.closed
	if lapsed {
		p.over()
		p.tell(opLeave)
	}
	p.b.mu.Unlock()
	if lapsed {
		p.giveUpLocally()
	}
}

// giveUpLocally takes a kept place out of the registry of this process, which has it if
// its client left while Redis was away.
func (p *place) giveUpLocally() {
	_, _ = p.r.local.End(context.Background(), registry.Selector{ID: p.holder.ID, Key: p.holder.Key}, registry.Ending{}) // never fails
}

// tell has Redis told. While it is away it is not: it will be asked what it has. The
// bucket is locked.
func (p *place) tell(kind opKind) {
	if p.r.link.isUp() {
		p.b.enqueue(op{kind: kind, place: p})
	} else {
		p.forgetRedis()
	}
}

// over notes that the place is not held any more. The bucket is locked.
func (p *place) over() {
	p.state = left
	p.stopTimer()
	p.r.streams.remove(p)
}

func (p *place) stopTimer() {
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
}

// Departed implements registry.Place. Redis is told soon.
func (p *place) Departed() {
	p.b.mu.Lock()
	if p.departed {
		p.b.mu.Unlock()
		return
	}
	p.departed = true
	local, awaited := p.local, p.awaited
	p.awaited = nil
	p.tell(opDeparted)
	p.b.mu.Unlock()
	for _, d := range awaited {
		d.one()
	}
	if local != nil {
		local.Departed()
	}
}

// leftInRedis notes that Redis has the place among those that have left. The bucket is
// locked.
func (p *place) leftInRedis() {
	p.known = left
	if p.knownDeparted {
		p.known = none
	}
}

// mostRemembered is how many places that are over a bucket remembers while Redis is away.
const mostRemembered = 1024

// forgetRedis has nothing more told of the place, since Redis is away. Where it is over,
// it is remembered for when Redis is back; of too many, a scan then finds what Redis has.
// The bucket is locked.
func (p *place) forgetRedis() {
	switch {
	case p.state != left || !p.departed || p.remembered:
	case p.known != none && p.b.remembered < mostRemembered:
		p.remembered = true
		p.b.remembered++
	default:
		p.known = none
	}
	p.tidy()
}

// tidy forgets the place once nobody needs it. The bucket is locked.
func (p *place) tidy() {
	b := p.b
	if p.state != left || !p.departed || p.known != none || b.places[p.ticket] != p {
		return
	}
	delete(b.places, p.ticket)
	if p.remembered {
		b.remembered--
	}
	if len(b.calls) > 0 {
		b.gone = append(b.gone, gonePlace{p, b.lastCall})
	}
}

// end ends the stream, if the place is still held, and reports whether it was. It was
// taken away by others, or is by this.
func (p *place) end(e registry.Ending, tell bool) (was entryState) {
	p.b.mu.Lock()
	was = p.state
	if was == left {
		p.b.mu.Unlock()
		return was
	}
	local := p.local
	p.over()
	if tell {
		p.tell(opLeave)
	}
	p.b.mu.Unlock()
	if was == kept {
		p.giveUpLocally()
		return was
	}
	if local != nil {
		local.Leave(registry.Keep{})
	}
	p.r.node.End(p.holder.ID, e)
	return was
}

// deny gives a reserved place back, since the stream is denied: its Commit says so.
func (p *place) deny() {
	p.b.mu.Lock()
	defer p.b.mu.Unlock()
	if p.state != reserved {
		return
	}
	p.denied = true
	p.over()
	p.tell(opLeave)
}

// Commit implements registry.Place.
func (p *place) Commit(ctx context.Context) ([]registry.Victim, error) {
	p.b.mu.Lock()
	state, known, denied := p.state, p.known, p.denied
	p.denied = false // it is said once
	p.committing = state == reserved
	p.b.mu.Unlock()
	switch {
	case denied:
		return nil, registry.ErrDenied
	case state != reserved:
		return nil, registry.ErrNotReserved
	}
	defer p.committed()
	if p.r.local.Denied(p.holder) {
		p.Leave(registry.Keep{})
		return nil, registry.ErrDenied
	}
	var victims []registry.Victim
	var err error
	if known == reserved && p.r.link.isUp() {
		victims, err = p.commitInRedis(ctx)
	} else {
		victims, err = p.commitAway(ctx)
	}
	p.group.add(victims)
	return victims, err
}

// committed notes that this node knows what became of the commit.
func (p *place) committed() {
	p.b.mu.Lock()
	defer p.b.mu.Unlock()
	p.committing = false
}

func (p *place) commitInRedis(ctx context.Context) ([]registry.Victim, error) {
	re, err := p.askCommit(ctx)
	switch {
	case err == nil:
		return p.hearCommit(ctx, re)
	case p.r.options.OnError == Fence:
		return p.refuseCommit(p.r.link.since(err))
	default:
		return p.commitAway(ctx)
	}
}

// askCommit has Redis make the place a held one.
func (p *place) askCommit(ctx context.Context) (*reply, error) {
	p.b.mu.Lock()
	p.b.tellFirst(p.holder.Key)
	p.b.mu.Unlock()
	var a args
	a.add(string(p.holder.Key[:]))
	a.ticket(p.ticket)
	a.add(p.holder.Addr)
	a.flag(p.group.asOne)
	a.responses(p.group.named())
	a.responses(p.prefer)
	return p.r.call(ctx, p.r.scripts.commit, a, p.b)
}

// hearCommit does what the answer to a commit says.
func (p *place) hearCommit(ctx context.Context, re *reply) ([]registry.Victim, error) {
	victims, state, err := p.readCommit(re)
	if err != nil {
		re.finish()
		return nil, err
	}
	switch state {
	case int64(reserved), int64(held):
	case outaskedState:
		p.b.mu.Lock()
		p.leftInRedis()
		p.b.mu.Unlock()
		re.finish()
		p.Leave(registry.Keep{})
		return nil, registry.ErrOutasked
	default:
		re.finish()
		return p.commitAway(ctx) // Redis has lost it, and will hear of it again
	}
	p.b.mu.Lock()
	if p.state != reserved {
		p.b.mu.Unlock()
		re.finish()
		return victims, nil // the stream has left meanwhile, and Redis will hear of it
	}
	p.known = held
	p.holds()
	local := p.local
	p.b.mu.Unlock()
	re.finish() // ends this node's victims, so that none are left for the local commit
	if local == nil {
		return victims, nil
	}
	if _, err := local.Commit(ctx); errors.Is(err, registry.ErrDenied) {
		// Its victims are told by now: it was admitted, and then denied.
		p.end(registry.Ending{Reason: reason.Logout}, true)
	}
	return victims, nil
}

// outaskedState is what scripts/commit.lua says of a place that it has given back.
const outaskedState = 9

// readCommit reads who was ended, and as what the place was found: reserved if the
// script has committed it.
func (p *place) readCommit(re *reply) (victims []registry.Victim, state int64, err error) {
	ns, err := numbers(re.out, 1)
	if err != nil || len(re.out) < 2 {
		return nil, 0, errors.Join(err, errors.New("reading the answer to a commit"))
	}
	refs, err := references(re.out[1])
	if err != nil {
		return nil, 0, err
	}
	victims, _, err = p.r.victims(p.holder.Key, refs)
	return victims, ns[0], err
}

// refuseCommit gives the place back, which may be one too many under Fence.
func (p *place) refuseCommit(err error) ([]registry.Victim, error) {
	p.Leave(registry.Keep{})
	return nil, fmt.Errorf("committing a place: %w", err)
}

// commitAway makes the place a held one without Redis, which hears of it when it is
// back. Under Deny too: Redis has admitted the stream, and another guard's commit may have
// ended somebody for it by now.
func (p *place) commitAway(ctx context.Context) ([]registry.Victim, error) {
	if p.r.options.OnError == Fence && !p.r.link.isUp() {
		return p.refuseCommit(ErrAway)
	}
	p.b.mu.Lock()
	if p.state != reserved {
		p.b.mu.Unlock()
		return nil, registry.ErrNotReserved
	}
	local := p.local
	p.b.mu.Unlock()
	if local == nil {
		return nil, registry.ErrNotReserved
	}
	victims, err := local.Commit(ctx)
	if err != nil {
		p.Leave(registry.Keep{}) // it has been given back there too
		return nil, err
	}
	p.r.endedLocally(victims)
	p.b.mu.Lock()
	defer p.b.mu.Unlock()
	if p.state == reserved {
		p.holds()
		p.tell(opRegister)
	}
	return victims, nil
}

// streams finds this node's holders, and those for whom places are kept, by their ID.
type streams struct {
	// mu guards the fields below it. It is taken with a bucket's lock held, and none is
	// taken under it.
	mu   sync.Mutex
	byID map[registry.StreamID]*place
	// kept has the places that are kept, but for those that the registry of this process
	// knows.
	kept map[*place]bool
}

func (s *streams) add(p *place) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byID == nil {
		s.byID = make(map[registry.StreamID]*place)
	}
	s.byID[p.holder.ID] = p
}

// remove takes p out, and no other of its ID.
func (s *streams) remove(p *place) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byID[p.holder.ID] == p {
		delete(s.byID, p.holder.ID)
	}
	delete(s.kept, p)
}

func (s *streams) keep(p *place) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept == nil {
		s.kept = make(map[*place]bool)
	}
	s.kept[p] = true
}

// keptFor lists, in the order of their IDs, the kept places that sel names and that come
// after the given one.
func (s *streams) keptFor(sel *registry.Selector, after registry.StreamID) (found []*place) {
	s.mu.Lock()
	for p := range s.kept {
		if p.holder.ID.Compare(after) > 0 && sel.Matches(p.holder) {
			found = append(found, p)
		}
	}
	s.mu.Unlock()
	slices.SortFunc(found, func(a, b *place) int { return a.holder.ID.Compare(b.holder.ID) })
	return found
}

func (s *streams) find(id registry.StreamID) *place {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byID[id]
}

// response is what the streams of one response have in common.
func response(id registry.StreamID) string { return string(id[:len(id)-1]) }

var _ registry.Place = (*place)(nil)
