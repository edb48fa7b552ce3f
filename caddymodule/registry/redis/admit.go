package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/redis/rueidis"

	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// admission is one call of Admit.
type admission struct {
	r       *Registry
	phase   registry.Phase
	consent registry.Consent
	asks    []registry.Ask
	leaving []registry.StreamID
	// buckets are those of the asks' keys, each once.
	buckets []*bucket
	tickets []ticket
	// sure says that the epoch was asked for.
	sure bool
	// undenied has denials not looked for.
	undenied bool
	// plan has the streams that end for the asks, where there are several.
	plan []registry.StreamID
}

// tracked is the rule under which streams are kept in this process too: Redis has
// decided by then.
var tracked = registry.Rule{Policy: registry.Supersede, Unit: registry.Streams}

// Admit implements registry.Registry by one call of one script.
func (r *Registry) Admit(
	ctx context.Context, phase registry.Phase, consent registry.Consent, asks []registry.Ask, leaving []registry.StreamID,
) ([]registry.Admission, error) {
	c := &admission{r: r, phase: phase, consent: consent, asks: asks, leaving: leaving}
	for i := range asks {
		if asks[i].Holder.Key.IsZero() {
			return nil, fmt.Errorf("admitting a stream: %w", registry.ErrNoKey)
		}
		if b := r.bucketOf(asks[i].Holder.Key); !slices.Contains(c.buckets, b) {
			c.buckets = append(c.buckets, b)
		}
	}
	if len(asks) == 0 {
		return nil, nil
	}
	if err := r.Start(); err != nil {
		return nil, fmt.Errorf("admitting a stream: %w", err)
	}
	if !r.link.isUp() {
		return c.away(ctx)
	}
	if err := r.refuseUnsure(asks); err != nil {
		return nil, err
	}
	if len(c.buckets) > 1 && r.link.isCluster() {
		return (&spread{admission: c}).decide(ctx)
	}
	return c.ask(ctx)
}

// ask has Redis decide.
func (c *admission) ask(ctx context.Context) ([]registry.Admission, error) {
	r := c.r
	c.enterPending()
	re, err := r.call(ctx, r.scripts.admit, c.args(), c.buckets...)
	if says(err, epochError) && !c.sure {
		c.leavePending(false)
		return c.askAgain(ctx)
	}
	if err != nil {
		c.leavePending(c.phase != registry.Early)
		if r.options.OnError == Allow && !r.link.isUp() {
			return c.away(ctx)
		}
		return nil, fmt.Errorf("admitting a stream: %w", r.link.since(err))
	}
	admissions, err := c.read(re)
	if err != nil {
		re.finish()
		c.leavePending(true)
		return nil, fmt.Errorf("admitting a stream: %w", err)
	}
	places := c.places(admissions)
	re.finish() // ends this node's victims
	c.leavePending(false)
	c.mirror(ctx, admissions, places)
	return admissions, nil
}

// askAgain asks once more after it has asked whether Redis has lost anything.
func (c *admission) askAgain(ctx context.Context) ([]registry.Admission, error) {
	err := c.r.link.askEpochsOf(c.buckets)
	if errors.Is(err, errManyAsk) {
		return nil, fmt.Errorf("admitting a stream: %w", err)
	}
	if err != nil {
		c.r.link.failed(err)
		return c.away(ctx)
	}
	if err := c.r.refuseUnsure(c.asks); err != nil {
		return nil, err
	}
	c.tickets, c.sure = nil, true
	return c.ask(ctx)
}

// enterPending makes tickets, which a comparison with Redis then leaves alone.
func (c *admission) enterPending() {
	for i := range c.asks {
		b := c.r.bucketOf(c.asks[i].Holder.Key)
		b.mu.Lock()
		t := c.r.newTicket(b)
		b.pending[t] = nil
		b.tellFirst(c.asks[i].Holder.Key)
		b.mu.Unlock()
		c.tickets = append(c.tickets, t)
	}
}

// leavePending forgets the tickets. If so wanted, Redis is told that none of them is to
// be admitted any more: its answer was lost, or has yet to be made.
func (c *admission) leavePending(cancel bool) {
	for i, t := range c.tickets {
		b := t.bucket(c.r)
		b.mu.Lock()
		if cancel {
			b.enqueue(op{kind: opCancel, key: c.asks[i].Holder.Key, ticket: t})
		}
		ended := b.pending[t]
		delete(b.pending, t)
		p := b.places[t]
		b.mu.Unlock()
		if ended != nil && p != nil {
			p.end(*ended, false)
		}
	}
}

func (c *admission) args() (a args) {
	a.num(int64(c.phase))
	a.flag(c.consent.SameToken)
	a.flag(c.consent.SameSubject)
	a.num(int64(slices.IndexFunc(c.asks, func(ask registry.Ask) bool { return !c.undenied && c.r.local.Denied(ask.Holder) }) + 1))
	a.flag(c.sure)
	a.num(int64(len(c.asks)))
	for i := range c.asks {
		ask := &c.asks[i]
		a.num(int64(slices.Index(c.buckets, c.r.bucketOf(ask.Holder.Key)) + 1))
		a.add(string(ask.Holder.Key[:]))
		a.ticket(c.tickets[i])
		a.num(c.r.link.age(ask.Holder.Asked))
		a.add(encodeRule(ask.Rule))
		a.flag(ask.Tombstone != nil)
		a.flag(ask.Damped)
		a.add(encodeHolder(ask.Holder), ask.Holder.Addr)
		a.responses(ask.Prefer)
	}
	a.responses(c.leaving)
	return a
}

// read reads the answers. Places are not among them yet.
func (c *admission) read(re *reply) ([]registry.Admission, error) {
	if len(re.out) != len(c.asks) {
		return nil, fmt.Errorf("a script answered %d asks, not %d", len(re.out), len(c.asks))
	}
	admissions := make([]registry.Admission, len(c.asks))
	for i := range re.out {
		parts, err := re.out[i].ToArray()
		if err != nil {
			return nil, fmt.Errorf("reading an answer: %w", err)
		}
		if err := c.readOne(parts, &c.asks[i], &admissions[i]); err != nil {
			return nil, err
		}
	}
	return admissions, nil
}

func (c *admission) readOne(parts []rueidis.RedisMessage, ask *registry.Ask, a *registry.Admission) error {
	ns, err := numbers(parts, 2)
	if err != nil || len(parts) != 7 {
		return fmt.Errorf("reading an answer of %d parts: %w", len(parts), err)
	}
	key := ask.Holder.Key
	a.Outcome = registry.Outcome(ns[0])
	plan, err := parts[2].AsStrSlice()
	if err != nil {
		return fmt.Errorf("reading who ends for all asks: %w", err)
	}
	c.plan = nil
	for _, id := range plan {
		c.plan = append(c.plan, registry.StreamID([]byte(id)))
	}
	ends, err := references(parts[3])
	if err != nil {
		return err
	}
	if a.Ends, _, err = c.r.victims(key, ends); err != nil {
		return err
	}
	holders, err := references(parts[4])
	if err != nil {
		return err
	}
	for _, ref := range holders {
		h, err := c.r.holder(key, ref)
		if err != nil {
			return err
		}
		a.Holders = append(a.Holders, h)
	}
	departing, err := references(parts[6])
	if err != nil {
		return err
	}
	a.Departed = c.r.awaitEntries(departing)
	switch {
	case a.Outcome == registry.Rejected:
		a.Suspects, err = c.r.suspects(parts[5])
	case a.Outcome == registry.Entombed && ns[1] > 0:
		a.Until = time.Now().Add(time.Duration(ns[1]) * time.Millisecond)
		a.Taken = c.r.taken.await(key, a.Until)
	}
	return err
}

// victims reads who was ended, or is to be.
func (r *Registry) victims(key registry.ID, refs []reference) (victims []registry.Victim, holders []*registry.Holder, err error) {
	for _, ref := range refs {
		h, err := r.holder(key, ref)
		if err != nil {
			return nil, nil, err
		}
		victims = append(victims, registry.Victim{Holder: h, Reason: reason.Reason(ref.last)})
		holders = append(holders, h)
	}
	return victims, holders, nil
}

// holder returns the stream of an entry.
func (r *Registry) holder(key registry.ID, ref reference) (*registry.Holder, error) {
	if ref.node != r.id {
		return decodeHolder(key, ref.holder)
	}
	b := ref.ticket.bucket(r)
	b.mu.Lock()
	p := b.find(ref.ticket)
	b.mu.Unlock()
	if p != nil {
		return p.holder, nil
	}
	// Redis has what this node has given back: the comparison takes it out.
	return &registry.Holder{Key: key}, nil
}

// places makes those of the newcomers that are admitted.
func (c *admission) places(admissions []registry.Admission) []*place {
	if c.phase == registry.Early {
		return nil
	}
	state := held
	var g *group
	if c.phase == registry.Reserve {
		state, g = reserved, &group{gone: slices.Clone(c.leaving)}
	}
	places := make([]*place, len(admissions))
	for i := range admissions {
		if admissions[i].Outcome != registry.Admitted {
			continue
		}
		p := c.r.newPlace(c.tickets[i], &c.asks[i], state)
		p.b.mu.Lock()
		p.group, p.known = g, state
		p.prefer = slices.Concat(c.asks[i].Prefer, c.plan)
		p.b.mu.Unlock()
		places[i], admissions[i].Place = p, p
	}
	return places
}

// mirror has the places kept in this process too. Who is denied by now was admitted
// before: it is ended as by the logout.
func (c *admission) mirror(ctx context.Context, admissions []registry.Admission, places []*place) {
	var gone []registry.StreamID
	for i := range admissions {
		gone = appendVictims(gone, admissions[i].Ends)
	}
	for i, p := range places {
		if p == nil {
			continue
		}
		ask := []registry.Ask{{Holder: withoutTab(c.asks[i].Holder), Rule: tracked}} // and nobody ends
		local, err := c.r.local.Admit(ctx, c.phase, registry.Consent{}, ask, append(gone, c.leaving...))
		if err == nil && local[0].Outcome == registry.Admitted {
			p.mirror(local[0].Place)
			continue
		}
		if c.phase == registry.Reserve { // it has held nothing yet, and has ended nobody
			p.deny()
			continue
		}
		p.end(registry.Ending{Reason: reason.Logout}, true)
	}
}

// withoutTab returns h as the registry of this process gets it: it is not to end a tab's
// other streams once more.
func withoutTab(h *registry.Holder) *registry.Holder {
	if !h.Tab {
		return h
	}
	other := *h
	other.Tab = false
	return &other
}

// away answers while Redis cannot be reached.
func (c *admission) away(ctx context.Context) ([]registry.Admission, error) {
	r := c.r
	if r.options.OnError != Allow {
		return nil, fmt.Errorf("admitting a stream: %w", ErrAway)
	}
	if err := r.refuseUnsure(c.asks); err != nil {
		return nil, err
	}
	admissions, err := r.local.Admit(ctx, c.phase, c.consent, c.asks, c.leaving)
	if err != nil {
		return nil, err
	}
	g := &group{}
	for i := range admissions {
		a := &admissions[i]
		if c.phase != registry.Reserve {
			r.endedLocally(a.Ends)
		}
		if a.Place == nil {
			continue
		}
		state := held
		if c.phase == registry.Reserve {
			state = reserved
		}
		b := r.bucketOf(c.asks[i].Holder.Key)
		p := r.newPlace(r.newTicket(b), &c.asks[i], state)
		p.group = g
		p.mirror(a.Place)
		a.Place = p
		b.mu.Lock()
		p.tell(opRegister) // if it is back by now
		b.mu.Unlock()
	}
	return admissions, nil
}

// endedLocally notes that the registry of this process has ended streams.
func (r *Registry) endedLocally(victims []registry.Victim) {
	for _, v := range victims {
		p := r.streams.find(v.Holder.ID)
		if p == nil {
			continue
		}
		p.b.mu.Lock()
		if p.state == held || p.state == kept {
			p.over()
			p.tell(opLeave)
		}
		p.b.mu.Unlock()
	}
}
