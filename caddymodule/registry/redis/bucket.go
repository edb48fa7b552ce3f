package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
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
	// refusing is until when a Reject newcomer for one of the keys is refused, in Unix
	// nanoseconds.
	refusing atomic.Int64

	// mu guards the fields below it, and those of the places and waiters in them. With
	// it held, nothing outside of the package is called.
	mu      sync.Mutex
	places  map[ticket]*place
	waiters map[ticket]*waiter
	// pending has the admissions under way, and how their stream was ended before the
	// answer was there; nil: it was not.
	pending map[ticket]*registry.Ending
	// queue has what Redis is yet to be told, and first the keys of which the next call
	// tells it all that is queued, however much that is.
	queue []op
	first map[registry.ID]bool
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
	// step is closed when a call is over, or flushing; nil: nobody waits for that.
	step chan struct{}
	// remembered counts the places that are over and wait for Redis to be back.
	remembered int
	closed     bool
	// epoch is that of the bucket alone, as it was last heard; empty: it was not.
	epoch string
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
	b.first = make(map[registry.ID]bool)
}

// enqueue has Redis told ops soon. mu is held.
func (b *bucket) enqueue(ops ...op) {
	b.queue = append(b.queue, ops...)
	b.kick()
}

// kick has the queue told, if somebody listens. mu is held.
func (b *bucket) kick() {
	if len(b.queue) == 0 || b.flushing || !b.tells() {
		return
	}
	b.flushing = true
	b.r.wg.Go(b.flush)
}

// tells reports whether Redis is told what is queued. It is not while the registry is being
// closed: all that the node has is taken out then, and what fails does not make Redis count
// as away. mu is held.
func (b *bucket) tells() bool { return !b.closed && b.r.ctx.Err() == nil && b.r.link.isUp() }

// flush tells Redis what is queued until nothing is.
func (b *bucket) flush() {
	for {
		b.mu.Lock()
		if len(b.queue) == 0 || !b.tells() {
			b.flushing = false
			b.stepped()
			b.mu.Unlock()
			return
		}
		long := len(b.queue) > mostTold
		b.mu.Unlock()
		b.tellSome(long)
	}
}

// tellSome tells Redis what is first in the queue. Of long queues only a few are told at a
// time.
func (b *bucket) tellSome(long bool) {
	if long {
		select {
		case b.r.telling <- struct{}{}:
			defer func() { <-b.r.telling }()
		case <-b.r.ctx.Done():
		}
	}
	if reply, err := b.r.call(context.Background(), b.r.scripts.settle, nil, b); err == nil {
		reply.finish()
	}
}

// stepped has those look who wait for something that is told. mu is held.
func (b *bucket) stepped() {
	if b.step != nil {
		close(b.step)
		b.step = nil
	}
}

// await has the queue told until done is true, which is called with mu held, or Redis is
// away.
func (b *bucket) await(done func() bool) {
	for {
		b.mu.Lock()
		b.kick()
		if done() || !b.r.link.isUp() || !b.flushing && len(b.calls) == 0 {
			b.mu.Unlock()
			return
		}
		if b.step == nil {
			b.step = make(chan struct{})
		}
		step := b.step
		b.mu.Unlock()
		select {
		case <-step:
		case <-b.r.ctx.Done():
			return
		}
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

// take begins a call, and takes out of the queue what is to be told by it: not much, and
// of each key what was queued before the rest. mu is held.
func (b *bucket) take() (ops []op, call uint64) {
	b.lastCall++
	b.calls[b.lastCall] = true
	b.queue = slices.DeleteFunc(b.queue, func(o op) bool { return o.isDone() })
	if len(b.queue) <= mostTold {
		ops, b.queue = b.queue, nil
		return ops, b.lastCall
	}
	var rest []op
	for _, o := range b.queue {
		if len(ops) < mostTold || b.first[o.keyOf()] {
			ops = append(ops, o)
		} else {
			rest = append(rest, o)
		}
	}
	b.queue = rest
	clear(b.first)
	return ops, b.lastCall
}

// tellFirst has the next call tell Redis all that is queued for the key: it is about to
// decide who holds it. mu is held.
func (b *bucket) tellFirst(key registry.ID) {
	if len(b.queue) > mostTold {
		b.first[key] = true
	}
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
	b.stepped()
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

// keyOf is the key that the op is about.
func (o *op) keyOf() registry.ID {
	switch {
	case o.place != nil:
		return o.place.holder.Key
	case o.waiter != nil:
		return o.waiter.holder.Key
	default:
		return o.key
	}
}

// isDone reports whether Redis has the stream that is to be registered as it stands: each
// comparison queues those that it finds missing, also while they are queued. The bucket is
// locked.
func (o *op) isDone() bool {
	return o.kind == opRegister && o.place != nil && o.place.known == o.place.state
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
		w.known, w.again = true, true
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
	heard bool
}

// hear notes what was told to Redis, and does what this node was told.
func (re *reply) hear() {
	if re.heard {
		return
	}
	re.heard = true
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
}

// finish hears what the caller has not heard yet, and ends the call.
func (re *reply) finish() {
	re.hear()
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
	if !r.calls.enter() {
		return nil, ErrAway
	}
	defer r.calls.leave()
	return r.callLast(ctx, script, a, buckets...)
}

// callLast is call also when the registry is being closed.
func (r *Registry) callLast(ctx context.Context, script *rueidis.Lua, a args, buckets ...*bucket) (*reply, error) {
	if r.link.client() == nil {
		return nil, ErrAway
	}
	re, keys, said := r.begin(buckets)
	if err := re.run(ctx, script, keys, append(said, a...)); err != nil {
		return nil, err
	}
	return re, nil
}

// caller is call or callLast.
type caller = func(context.Context, *rueidis.Lua, args, ...*bucket) (*reply, error)

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
func (re *reply) run(ctx context.Context, script *rueidis.Lua, keys []string, a args) (err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), re.r.options.Timeout)
	defer cancel()
	if err = re.r.acquire(ctx); err == nil {
		defer re.r.release() // not before it is noted that Redis is away
		re.answer, err = exec(ctx, re.r.link.client(), script, keys, a)
	}
	if err != nil {
		if !errors.Is(err, ErrAway) { // else it is known, and may be over by now
			re.r.link.failed(err)
		}
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
		b.kick()
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
		b.await(func() bool { return len(b.queue) == 0 && len(b.calls) == 0 && !b.flushing })
	}
}
