package redis

import (
	"context"
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"runtime"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// Abandon ends the registry as the end of its process would: Redis is told nothing.
func (r *Registry) Abandon() {
	r.link.up.Store(false)
	r.cancel()
	r.wg.Wait()
	r.link.close()
	_ = r.local.Close() // never fails
}

// BackAfter has f done while Redis counts as away, when all has been compared and only
// that it is back is still to be noted.
func (r *Registry) BackAfter(f func()) {
	r.link.up.Store(false)
	f()
	r.link.up.Store(true)
	r.registerAll()
}

// Known returns how many entries of this node Redis should have, and whether the two
// agree, as far as the node knows.
func (r *Registry) Known() (n int64) {
	for i := range r.buckets {
		b := &r.buckets[i]
		b.mu.Lock()
		n += b.sum().count
		b.mu.Unlock()
	}
	return n
}

// Places returns how many places the node knows of, in whatever state.
func (r *Registry) Places() (n int) {
	for i := range r.buckets {
		n += len(r.buckets[i].all())
	}
	return n
}

// EntriesKey is the name of the Redis hash that has the entries of a bucket.
func (r *Registry) EntriesKey(i int) string { return r.buckets[i].keys[0] }

// AsCluster has the registry ask as it would a cluster, which is not new.
func (r *Registry) AsCluster() error {
	c := r.link.client()
	for i := range r.buckets {
		epoch := c.B().Hset().Key(r.key(r.buckets[i].tag, "g")).FieldValue().
			FieldValue("id", "old").FieldValue("began", "0").FieldValue("loss", "0").FieldValue("v", "1")
		if err := c.Do(context.Background(), epoch.Build()).Error(); err != nil {
			return err
		}
	}
	r.link.cluster.Store(true)
	return nil
}

// What the nodes write and read.
var (
	EncodeHolder = encodeHolder
	DecodeHolder = decodeHolder
	SpellEffect  = spellEffect
	ParseEffects = parseEffects
)

// AdmitLate has an admission done that this node has given up before.
func (r *Registry) AdmitLate(ctx context.Context, ask registry.Ask) error {
	c := &admission{r: r, phase: registry.Header, asks: []registry.Ask{ask}, buckets: []*bucket{r.bucketOf(ask.Holder.Key)}}
	c.enterPending()
	c.leavePending(true)
	r.Settle()
	re, err := r.call(ctx, r.scripts.admit, c.args(), c.buckets...)
	if err == nil {
		re.finish()
	}
	return err
}

// CommitComparedMeanwhile commits a place. What the node has is compared with what Redis
// has after the commit, and before the node hears the answer.
func (r *Registry) CommitComparedMeanwhile(ctx context.Context, of registry.Place) ([]registry.Victim, error) {
	p := of.(*place)
	p.b.mu.Lock()
	p.committing = true
	p.b.mu.Unlock()
	defer p.committed()
	re, err := p.askCommit(ctx)
	if err != nil {
		return nil, err
	}
	if err := p.b.compare(true); err != nil {
		return nil, err
	}
	p.b.awaitTold()
	return p.hearCommit(ctx, re)
}

// AskComparedMeanwhile admits a stream. What the node has is compared with what Redis has
// before the node reads the answer.
func (r *Registry) AskComparedMeanwhile(ctx context.Context, ask registry.Ask) (registry.Admission, error) {
	b := r.bucketOf(ask.Holder.Key)
	c := &admission{r: r, phase: registry.Header, asks: []registry.Ask{ask}, buckets: []*bucket{b}}
	c.enterPending()
	re, err := r.call(ctx, r.scripts.admit, c.args(), b)
	if err != nil {
		return registry.Admission{}, err
	}
	if err := b.compare(true); err != nil {
		return registry.Admission{}, err
	}
	b.awaitTold()
	as, err := c.read(re)
	if err != nil {
		return registry.Admission{}, err
	}
	c.mirror(ctx, as, c.places(as))
	re.finish()
	c.leavePending(false)
	return as[0], nil
}

// WaitLate has a newcomer wait that this node has given up before.
func (r *Registry) WaitLate(ctx context.Context, ask registry.Ask) error {
	w := r.enterWaiter(ask)
	w.b.forget(w, true)
	r.Settle()
	re, err := r.call(ctx, r.scripts.wait, w.args(), w.b)
	if err == nil {
		re.finish()
	}
	return err
}

// RegisterLate has a held place registered by a call that gets to Redis after what is done
// meanwhile was told.
func (r *Registry) RegisterLate(ctx context.Context, of registry.Place, meanwhile func()) error {
	b := of.(*place).b
	b.mu.Lock()
	b.queue = append(b.queue, op{kind: opRegister, place: of.(*place)})
	b.mu.Unlock()
	re, keys, said := r.begin([]*bucket{b})
	meanwhile()
	b.awaitTold()
	if err := re.run(ctx, r.scripts.settle, keys, said); err != nil {
		return err
	}
	re.finish()
	r.Settle()
	return nil
}

// Compare compares all that the node has with what Redis has.
func (r *Registry) Compare() error {
	return r.each(false, func(b *bucket) error { return b.compare(true) })
}

// CompareSoon has all buckets compared, at once.
func (r *Registry) CompareSoon() { r.link.compareAllSoon() }

// Identity is that of the connection.
func (r *Registry) Identity() string {
	r.link.access.mu.Lock()
	defer r.link.access.mu.Unlock()
	return r.link.access.by
}

// awaitTold returns once all that is queued was told, while another call is under way.
func (b *bucket) awaitTold() {
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for range ticker.C {
		b.mu.Lock()
		told := len(b.queue) == 0 && len(b.calls) == 1
		b.mu.Unlock()
		if told {
			return
		}
	}
}

// IsCluster reports whether the registry asks as it must ask a cluster.
func (r *Registry) IsCluster() bool { return r.link.isCluster() }

// TellLate has the waiter hear now that it was told: of a message that was slow.
func (r *Registry) TellLate(of registry.Waiter) {
	r.effect([]string{"told", fmt.Sprint(uint64(of.(*waiter).ticket))})
}

// WhileBusy calls f while another call is under way in the bucket.
func (r *Registry) WhileBusy(i int, f func() error) error { return r.buckets[i].busy(f) }

// RenewBusy renews the lease in the bucket of the place while another call is under way.
func (r *Registry) RenewBusy(of registry.Place) error {
	b := of.(*place).b
	return b.busy(func() error {
		differs, err := b.renew(false, true)
		if differs {
			err = b.compare(false)
		}
		return err
	})
}

// CompareBusy compares the bucket of the waiter while another call is under way.
func (r *Registry) CompareBusy(of registry.Waiter) error {
	b := of.(*waiter).b
	return b.busy(func() error { return b.compare(true) })
}

// busy calls f while another call is under way.
func (b *bucket) busy(f func() error) error {
	b.mu.Lock()
	ops, call := b.take()
	b.queue = ops
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		b.over(call)
		b.mu.Unlock()
	}()
	return f()
}

// Advance has the node's clock seem to be ahead by so much more, as far as Redis tells. No
// hello shows that wrong: the node holds itself to be unsure of it by as much.
func (r *Registry) Advance(d time.Duration) {
	r.link.mu.Lock()
	defer r.link.mu.Unlock()
	r.link.there -= d.Microseconds()
	r.link.within += d
}

// Answered returns what the asker of a question is handed for a message: nothing if it is
// the answer to another one.
func Answered(question uint64, message string) (handed string) {
	asker := make(chan string, 1)
	ps := peers{open: map[uint64]chan string{question: asker}}
	ps.answered(message)
	select {
	case handed = <-asker:
	default:
	}
	return handed
}

// MissGroups has all that others have told of their groups be as if it had been lost on the
// way.
func (r *Registry) MissGroups() {
	r.groups.mu.Lock()
	defer r.groups.mu.Unlock()
	for _, of := range r.groups.others {
		clear(of)
	}
	for node := range r.groups.seen {
		r.groups.seen[node] = 0
	}
}

// KnownGroups returns of how many groups it is known what others have.
func (r *Registry) KnownGroups() int {
	r.groups.mu.Lock()
	defer r.groups.mu.Unlock()
	return len(r.groups.others)
}

// ScriptNames names the scripts of a bucket by their hashes.
func ScriptNames() map[string]string {
	names := make(map[string]string)
	for name, source := range map[string]string{
		"admit": admitSource, "commit": commitSource, "settle": settleSource, "wait": waitSource,
		"list": listSource, "finish": finishSource, "renew": renewSource, "sync": syncSource,
	} {
		hash := sha1.Sum([]byte(wholeSource(source)))
		names[hex.EncodeToString(hash[:])] = name
	}
	return names
}

// KeyInBucket returns a key of the first bucket.
func KeyInBucket(i int) (key registry.ID) {
	binary.BigEndian.PutUint64(key[len(key)-8:], uint64(i)+1)
	return key
}

// Renew renews all leases, and mends what is found to differ.
func (r *Registry) Renew() { r.link.renew(true, nil) }

// Differing returns how many buckets a renewal finds to differ from what Redis has.
func (r *Registry) Differing() (int, error) {
	differing, err := r.link.renewLeases(true, false, func(*bucket) (renews, suspect bool) { return true, true })
	return len(differing), err
}

// HoldBack has nobody tell Redis of much until the test lets it.
func (r *Registry) HoldBack() (release func()) {
	for range mostTelling {
		r.telling <- struct{}{}
	}
	return func() {
		for range mostTelling {
			<-r.telling
		}
	}
}

// BackAsItCloses has Redis be back just when the registry is being closed, as the link may
// find at the end of a long comparison.
func (r *Registry) BackAsItCloses() {
	r.wg.Go(func() {
		<-r.ctx.Done()
		for r.link.isUp() {
			runtime.Gosched()
		}
		r.link.up.Store(true)
		r.registerAll()
	})
}

// Queued returns how much Redis is yet to be told.
func (r *Registry) Queued() (n int) {
	for i := range r.buckets {
		b := &r.buckets[i]
		b.mu.Lock()
		n += len(b.queue)
		b.mu.Unlock()
	}
	return n
}

// CallsOf returns how many calls there were in the first bucket.
func (r *Registry) CallsOf() uint64 {
	b := &r.buckets[0]
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lastCall
}

// SweepOnce has one call sweep the first bucket, and reports whether there is more to do.
func (r *Registry) SweepOnce() (more bool, err error) {
	var a args
	a.flag(true)
	re, err := r.call(context.Background(), r.scripts.renew, a, &r.buckets[0])
	if err != nil {
		return false, err
	}
	defer re.finish()
	n, err := re.out[2].AsInt64()
	return n != 0, err
}

// What a node remembers of a bucket while Redis is away, and what one call is told.
const (
	MostRemembered = mostRemembered
	MostTold       = mostTold
)

// EntriesKeyOf is the name of the Redis hash that has the entries of a key.
func (r *Registry) EntriesKeyOf(key registry.ID) string { return r.bucketOf(key).keys[0] }
