package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// bucket has what this node has of the keys that fall to one bucket.
type bucket struct {
	r     *Registry
	index int
	// tag names the bucket's slot.
	tag string
	// keys names the five Redis keys of the bucket.
	keys []string

	// mu guards the fields below it, and those of the places and waiters in them. With
	// it held, nothing outside of the package is called.
	mu      sync.Mutex
	places  map[ticket]*place
	waiters map[ticket]*waiter
	// pending has the admissions under way, and how their stream was ended before the
	// answer was there; nil: it was not.
	pending map[ticket]*registry.Ending
	// queue has what Redis is yet to be told.
	queue []op
	// flushing says that a goroutine tells it.
	flushing bool
	// calls has the numbers of the calls of scripts under way, and version counts those
	// that are over: a comparison counts only if neither has changed meanwhile.
	calls   map[uint64]bool
	version uint64
	// lastCall is the number of the last call, and gone has the places that nobody needs
	// any more but, maybe, the answers to calls under way: the oldest first.
	lastCall uint64
	gone     []gonePlace
	// unsure counts the comparisons, one after the other, that did not count.
	unsure int
	// idle is closed when nothing is queued or under way; nil: nobody asks.
	idle   chan struct{}
	closed bool
}

// gonePlace is a place, and the number of the last call that may know of it.
type gonePlace struct {
	*place
	lastCall uint64
}

// op is one thing that Redis is yet to be told. To tell it twice does no harm.
type op struct {
	kind   opKind
	place  *place  // of all but stop and cancel
	waiter *waiter // of stop, and of the registration of one that waits
	// key and ticket are those of a cancel.
	key    registry.ID
	ticket ticket
	// as is how the place stood that is registered, and departed that its upstream was gone.
	as       entryState
	departed bool
}

type opKind string

const (
	opLeave    opKind = "leave"
	opKeep     opKind = "keep"
	opDeparted opKind = "departed"
	opStop     opKind = "stop"
	opCancel   opKind = "cancel"
	opRegister opKind = "register"
)

func (b *bucket) init(r *Registry, index int) {
	b.r, b.index = r, index
	b.tag = fmt.Sprintf("%02d", index)
	for _, name := range []string{"e", "n", "f", "t", "x"} {
		b.keys = append(b.keys, r.key(b.tag, name))
	}
	b.places = make(map[ticket]*place)
	b.waiters = make(map[ticket]*waiter)
	b.pending = make(map[ticket]*registry.Ending)
	b.calls = make(map[uint64]bool)
}

// enqueue has Redis told ops soon. mu is held.
func (b *bucket) enqueue(ops ...op) {
	b.queue = append(b.queue, ops...)
	b.kick()
}

// kick has the queue told, if somebody listens. mu is held.
func (b *bucket) kick() {
	if len(b.queue) == 0 || b.flushing || b.closed || !b.r.link.isUp() {
		return
	}
	b.flushing = true
	b.r.wg.Go(b.flush)
}

// flush tells Redis what is queued until nothing is.
func (b *bucket) flush() {
	for {
		b.mu.Lock()
		if len(b.queue) == 0 || b.closed || !b.r.link.isUp() {
			b.flushing = false
			b.settled()
			b.mu.Unlock()
			return
		}
		b.mu.Unlock()
		if reply, err := b.r.call(context.Background(), b.r.scripts.settle, nil, b); err == nil {
			reply.finish()
		}
	}
}

// settled tells those who wait for it that nothing is queued. mu is held.
func (b *bucket) settled() {
	if b.idle != nil && len(b.queue) == 0 && len(b.calls) == 0 && !b.flushing {
		close(b.idle)
		b.idle = nil
	}
}

func (b *bucket) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for _, p := range b.places {
		p.stopTimer()
	}
}

// take begins a call, and takes what is queued out, to be told by it. mu is held.
func (b *bucket) take() (ops []op, call uint64) {
	ops = b.queue
	b.queue = nil
	b.lastCall++
	b.calls[b.lastCall] = true
	return ops, b.lastCall
}

// over notes that a call is over. mu is held.
func (b *bucket) over(call uint64) {
	delete(b.calls, call)
	b.version++
	oldest := b.lastCall + 1
	for n := range b.calls {
		oldest = min(oldest, n)
	}
	needed := slices.IndexFunc(b.gone, func(g gonePlace) bool { return g.lastCall >= oldest })
	if needed < 0 {
		needed = len(b.gone)
	}
	b.gone = slices.Delete(b.gone, 0, needed)
	b.settled()
}

// find returns the place of that ticket, also one that only answers may know of; nil:
// there is none. mu is held.
func (b *bucket) find(t ticket) *place {
	if p := b.places[t]; p != nil {
		return p
	}
	for _, g := range b.gone {
		if g.ticket == t {
			return g.place
		}
	}
	return nil
}

// append adds the op to a script's arguments, and reports whether there was anything to
// tell. The bucket is locked.
func (o *op) append(a *args) bool {
	switch o.kind {
	case opCancel:
		a.add(string(o.kind), string(o.key[:]))
		a.ticket(o.ticket)
	case opStop:
		a.add(string(o.kind), string(o.waiter.holder.Key[:]))
		a.ticket(o.waiter.ticket)
	case opRegister:
		return o.appendRegister(a)
	case opLeave, opDeparted, opKeep:
		a.add(string(o.kind), string(o.place.holder.Key[:]))
		a.ticket(o.place.ticket)
		if o.kind == opKeep {
			a.num(time.Until(o.place.keptUntil).Milliseconds())
		}
	}
	return true
}

// appendRegister tells of a stream as it stands by now, if it still stands.
func (o *op) appendRegister(a *args) bool {
	if w := o.waiter; w != nil {
		if w.told || w.stopped {
			return false
		}
		a.add(string(o.kind), string(w.holder.Key[:]))
		a.ticket(w.ticket)
		a.add("0", "0", encodeRule(w.rule))
		a.num(int64(waiting))
		a.add("0", "0", encodeHolder(w.holder))
		return true
	}
	p := o.place
	if p.state != reserved && p.state != held && p.state != kept {
		return false
	}
	a.add(string(o.kind), string(p.holder.Key[:]))
	a.ticket(p.ticket)
	a.num(p.r.link.age(p.holder.Asked))
	a.num(p.r.link.age(p.began))
	a.add(encodeRule(p.rule))
	a.num(int64(p.state))
	keptFor := int64(0)
	if p.state == kept {
		keptFor = time.Until(p.keptUntil).Milliseconds()
	}
	a.num(keptFor)
	a.flag(p.departed)
	a.add(encodeHolder(p.holder))
	o.as, o.departed = p.state, p.departed
	return true
}

// told notes that Redis has done the op. The bucket is locked.
func (o *op) told(b *bucket) {
	switch o.kind {
	case opRegister:
		o.registered(b)
	case opLeave:
		o.place.leftInRedis()
	case opKeep:
		switch o.place.known {
		case held:
			o.place.known = kept
		case reserved:
			o.place.leftInRedis()
		}
	case opDeparted:
		o.place.knownDeparted = true
		if o.place.known == left {
			o.place.known = none
		}
	case opStop:
		o.waiter.known = false
	case opCancel:
	}
	if o.place != nil {
		o.place.tidy()
	}
}

// registered notes that Redis has the place, or the waiter. What was told of it after the
// registration was written may have got there before it, and found nothing: it is told
// again.
func (o *op) registered(b *bucket) {
	if w := o.waiter; w != nil {
		if w.told || w.stopped {
			b.enqueue(op{kind: opStop, waiter: w})
			return
		}
		w.known = true
		return
	}
	p := o.place
	if p.known < o.as { // Redis takes no state back
		p.known = o.as
	}
	p.knownDeparted = p.knownDeparted || o.departed
	switch p.state {
	case o.as:
	case left:
		b.enqueue(op{kind: opLeave, place: p})
		if p.departed {
			b.enqueue(op{kind: opDeparted, place: p})
		}
	default:
		b.enqueue(op{kind: opRegister, place: p})
	}
}

// reply is what a script has answered. It must be finished, once the caller has noted
// what it has heard: only then is the call over.
type reply struct {
	*answer
	r       *Registry
	buckets []*bucket
	ops     [][]op
	// numbers has the number of the call in each bucket.
	numbers []uint64
	// known tells, of each bucket, whether Redis should have known of something in it.
	known []bool
}

// finish notes what was told to Redis, and does what this node was told.
func (re *reply) finish() {
	for i, b := range re.buckets {
		b.mu.Lock()
		for j := range re.ops[i] {
			re.ops[i][j].told(b)
		}
		b.mu.Unlock()
	}
	for _, e := range re.effects {
		re.r.effect(e) // may call back
	}
	for i, b := range re.buckets {
		if i < len(re.lost) && re.lost[i] && re.known[i] {
			re.r.link.compareSoon(b)
		}
		b.mu.Lock()
		b.over(re.numbers[i])
		b.mu.Unlock()
	}
}

// isKnown reports whether Redis should know of something in the bucket. mu is held.
func (b *bucket) isKnown() bool {
	for _, p := range b.places {
		if p.known != none {
			return true
		}
	}
	return false
}

// call runs a script of one bucket or several, which are told first what is queued for
// them. What the script did if it fails is not known. Of two calls at once either may get
// there first.
func (r *Registry) call(ctx context.Context, script *rueidis.Lua, a args, buckets ...*bucket) (*reply, error) {
	client := r.link.client()
	if client == nil || !r.calls.enter() {
		return nil, ErrAway
	}
	defer r.calls.leave()
	re, keys, said := r.begin(buckets)
	if err := re.run(ctx, client, script, keys, append(said, a...)); err != nil {
		return nil, err
	}
	return re, nil
}

// begin begins a call: it takes what is queued for the buckets, and spells it as the
// scripts read it.
func (r *Registry) begin(buckets []*bucket) (re *reply, keys []string, all args) {
	all.add(r.id)
	all.num(r.options.Lease.Milliseconds())
	all.add(r.channel(buckets[0].tag)...)
	all.add(r.link.knownEpoch())
	all.num(int64(len(buckets)))
	re = &reply{r: r, buckets: buckets}
	keys = make([]string, 0, 5*len(buckets))
	for _, b := range buckets {
		b.mu.Lock()
		ops, call := b.take()
		re.numbers = append(re.numbers, call)
		re.known = append(re.known, b.isKnown())
		var said args
		told := ops[:0]
		for i := range ops {
			if ops[i].append(&said) {
				told = append(told, ops[i])
			}
		}
		b.mu.Unlock()
		all.num(int64(len(told)))
		all.add(said...)
		re.ops = append(re.ops, told)
		keys = append(keys, b.keys...)
	}
	return re, keys, all
}

// run has the script run. If it fails, the call is over.
func (re *reply) run(ctx context.Context, client rueidis.Client, script *rueidis.Lua, keys []string, a args) (err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), re.r.options.Timeout)
	defer cancel()
	re.answer, err = exec(ctx, client, script, keys, a)
	if now := re.r.link.client(); errors.Is(err, rueidis.ErrClosing) && now != client { // it was changed, and did nothing
		re.answer, err = exec(ctx, now, script, keys, a)
	}
	if err != nil {
		re.r.link.failed(err)
		for i, b := range re.buckets {
			b.mu.Lock()
			b.untold(re.ops[i])
			b.over(re.numbers[i])
			b.mu.Unlock()
		}
	}
	return err
}

// untold puts back what may not have reached Redis. While Redis is away only what a
// comparison would not find is kept: the comparison after it is back does the rest.
// mu is held.
func (b *bucket) untold(ops []op) {
	if b.r.link.isUp() {
		b.queue = append(ops, b.queue...)
		return
	}
	all := slices.Concat(ops, b.queue)
	b.queue = nil
	for i := range all {
		if all[i].kind == opCancel && len(b.queue) < mostCancels {
			b.queue = append(b.queue, all[i])
		} else if p := all[i].place; p != nil {
			p.forgetRedis()
		}
	}
}

// mostCancels is how many admissions that were given up a bucket remembers while Redis
// is away.
const mostCancels = 1024

// Settle returns once Redis was told all that was queued, and the node what came of it, or
// Redis is away.
func (r *Registry) Settle() {
	for i := range r.buckets {
		b := &r.buckets[i]
		b.mu.Lock()
		if !r.link.isUp() || len(b.queue) == 0 && len(b.calls) == 0 && !b.flushing {
			b.mu.Unlock()
			continue
		}
		if b.idle == nil {
			b.idle = make(chan struct{})
		}
		idle := b.idle
		b.kick()
		b.mu.Unlock()
		select {
		case <-idle:
		case <-r.ctx.Done():
			return
		}
	}
}
