package redis

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
	"go.uber.org/zap"

	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// link is the node's connection with Redis: whether it works, the lease, and the
// comparison of what the node has with what Redis has.
//
// After one failure Redis counts as away, and nobody asks it but the link's own
// goroutine, now and then: however slow Redis is, requests do not pile up.
type link struct {
	r  *Registry
	up atomic.Bool
	// redis is nil until the first connection, which is made as access says.
	redis   atomic.Pointer[rueidis.Client]
	conns   conns
	access  access
	cluster atomic.Bool
	// sharded says that the nodes send their messages by sharded Pub/Sub, and byShard
	// starts to listen to those.
	sharded atomic.Bool
	byShard sync.Once
	// wake has the goroutine look at once.
	wake chan struct{}
	// refusing is until when a Reject newcomer is refused, in Unix nanoseconds.
	refusing atomic.Int64
	// reached says that Redis has once been told all that this node has.
	reached atomic.Bool
	// unloaded logs that scripts cannot be loaded.
	unloaded sync.Once
	// asking has room for those who ask whether Redis has lost anything.
	asking chan struct{}
	// opened is when the goroutines were started. It is set by open and not changed.
	opened time.Time

	// mu guards the fields below it.
	mu sync.Mutex
	// suspect are the buckets to be compared at once.
	suspect map[*bucket]bool
	// logged is when it was last told that Redis is away, told that it was since it is,
	// and cause why it is.
	logged time.Time
	told   bool
	cause  error
	// epoch is that of the last hello.
	epoch string
	// here and there are one moment, by this node's monotonic clock and by Redis' own.
	// They stay as they are while they are right, so that what is asked at one time here
	// has one age there.
	here  time.Time
	there int64
	// within is how far off that may be.
	within time.Duration
	// past has how the clocks stood before one of them jumped, the oldest first.
	past []reckoning
	// leased is when the last renewal began that reached Redis as a whole.
	leased time.Time
	// fence goes off before the lease runs out; nil: nobody is fenced. hung says that it
	// went off while Redis did not count as away, and waits for one more renewal.
	fence *time.Timer
	hung  bool

	// These belong to the goroutine.

	announced bool
	// asked is when the epochs of the buckets were asked for.
	asked time.Time
	// next is when the next renewal is due.
	next time.Time
}

const (
	// leastWait and mostWait bound the time between two attempts to reach Redis; see
	// link.longer.
	leastWait = 50 * time.Millisecond
	mostWait  = time.Second
	// renewals is how often a lease is renewed while it lasts. Whatever was missed is
	// found by then.
	renewals = 4
	// logEvery is how often it is told that Redis is away.
	logEvery = time.Minute
)

func newLink(r *Registry) *link {
	l := &link{
		r: r, wake: make(chan struct{}, 1), suspect: make(map[*bucket]bool), leased: time.Now(),
		asking: make(chan struct{}, mostAsking),
	}
	l.access.client, l.access.identity = r.options.Client, r.options.Identity
	return l
}

// holds notes that the lease has been renewed by what began then, and returns when it was
// renewed before.
func (l *link) holds(began time.Time) (before time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before, l.leased, l.hung = l.leased, began, false
	if l.r.options.OnError == Fence && l.r.ctx.Err() == nil {
		due := time.Until(began.Add(l.r.options.Lease * 9 / 10))
		if l.fence == nil {
			l.fence = time.AfterFunc(due, l.runsOut)
		} else {
			l.fence.Reset(due)
		}
	}
	return before
}

func (l *link) isUp() bool { return l.up.Load() }

func (l *link) isCluster() bool { return l.cluster.Load() }

// client returns nil until Redis was reached for the first time.
func (l *link) client() rueidis.Client {
	if c := l.redis.Load(); c != nil {
		return *c
	}
	return nil
}

// open starts the goroutines, and waits for the first attempt, but not for long.
func (l *link) open() error {
	l.opened = time.Now()
	first := make(chan error, 1)
	l.r.wg.Go(func() { l.run(first) })
	timer := time.NewTimer(2 * l.r.options.Timeout)
	defer timer.Stop()
	select {
	case err := <-first:
		if errors.Is(err, errVersion) {
			return err
		}
	case <-timer.C:
	}
	return nil
}

// run keeps the link until the registry is closed.
func (l *link) run(first chan<- error) {
	wait := leastWait
	for l.r.ctx.Err() == nil {
		if l.isUp() {
			l.pause(l.untilRenewal())
			l.attend()
			continue
		}
		err := l.reach()
		select {
		case first <- err:
		default:
		}
		if err == nil {
			wait = leastWait
			continue
		}
		l.dropIfWrong(err)
		l.tellAway(err)
		l.pause(wait/2 + rand.N(wait/2)) //nolint:gosec // spreads attempts, no secret
		wait = l.longer(wait)
	}
}

// longer is how long to wait after one more attempt to reach Redis: twice as long, up to
// mostWait, or to an eighth of a short lease, so that its fence does not go off meanwhile.
func (l *link) longer(wait time.Duration) time.Duration {
	return min(2*wait, max(leastWait, l.r.options.Lease/8), mostWait)
}

// untilRenewal is how long there is nothing to do, unless the goroutine is woken.
func (l *link) untilRenewal() time.Duration { return time.Until(l.next) }

// attend does what is due: a renewal, or what the goroutine was woken for.
func (l *link) attend() {
	suspect := l.takeSuspects()
	if len(suspect) > 0 { // something was missed, such as a restart of Redis
		l.loadScripts(l.client())
	}
	all := !time.Now().Before(l.next)
	if all {
		if err := l.keepEpochs(); err != nil {
			l.failed(err)
			return
		}
		// A little less than the lease's part, so that nodes that were started together
		// do not come together.
		part := l.r.options.Lease / renewals
		l.next = time.Now().Add(part - rand.N(part/5+1)) //nolint:gosec // spreads renewals, no secret
	}
	l.renew(all, suspect)
}

// pause waits, unless it is woken.
func (l *link) pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-l.wake:
	case <-l.r.ctx.Done():
	}
}

func (l *link) wakeUp() { poke(l.wake) }

// poke has whoever receives from c look, once if it is poked again before. The channel has
// room for one element.
func poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// compareSoon has what the node has of the bucket compared at once.
func (l *link) compareSoon(buckets ...*bucket) {
	l.mu.Lock()
	for _, b := range buckets {
		l.suspect[b] = true
	}
	l.mu.Unlock()
	l.wakeUp()
}

func (l *link) compareAllSoon() { l.compareSoon(l.r.allBuckets()...) }

func (l *link) takeSuspects() map[*bucket]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.suspect
	l.suspect = make(map[*bucket]bool)
	return s
}

// reach connects, if need be, and has Redis know all that this node has.
func (l *link) reach() error {
	if l.client() == nil {
		if err := l.connect(); err != nil {
			return err
		}
	}
	began := time.Now()
	if l.isCluster() {
		if err := l.reachShards(); err != nil {
			return err
		}
		if err := l.askEpochs(); err != nil {
			return err
		}
	}
	if err := l.waitToHear(); err != nil {
		return err
	}
	l.loadScripts(l.client())
	l.r.doubtDenials()
	if err := l.greet(); err != nil {
		return err
	}
	if !l.announced { // else the others hear of this node when they renew
		l.announced = true
		l.callAll()
	}
	// What dead nodes have left can wait: others that were cut off may yet come back.
	differing, err := l.renewLeases(l.reached.Load(), false, func(*bucket) (renews, suspect bool) { return true, true })
	if err != nil {
		return err
	}
	if before := l.holds(began); began.Sub(before) > l.r.options.Lease {
		l.refuseFor(l.r.options.Lease) // the leases of other nodes may have run out too
	}
	if err := l.compare(differing); err != nil {
		return err
	}
	l.mu.Lock()
	told := l.told
	l.cause, l.told = nil, false
	l.mu.Unlock()
	l.reached.Store(true)
	l.up.Store(true)
	poke(l.r.groups.check)
	if told {
		l.r.options.Logger.Info("redis is back", zap.String("zone", l.r.zone))
	}
	l.r.registerAll()
	return nil
}

// loadScripts has Redis know the scripts, before anything is asked whose order counts. It
// does not wait for long: a server of a cluster that cannot be reached may be a replica.
func (l *link) loadScripts(client rueidis.Client) {
	ctx, cancel := context.WithTimeout(l.r.ctx, l.r.options.Timeout/4)
	defer cancel()
	err := l.r.scripts.load(ctx, client)
	if refused := (*rueidis.RedisError)(nil); errors.As(err, &refused) {
		l.unloaded.Do(func() {
			l.r.options.Logger.Warn("redis lets this user load no scripts (script|exists, script|load): after a restart of Redis, the first calls may get there in another order",
				zap.String("zone", l.r.zone), zap.Error(err))
		})
	}
}

// callAll has all nodes that can hear it say hello now. Those that cannot do so when they
// renew.
func (l *link) callAll() {
	ctx, cancel := context.WithTimeout(l.r.ctx, l.r.options.Timeout)
	defer cancel()
	_ = l.r.send(ctx, l.client(), everybody, denialsMessage).Error()
}

// connect makes the client and listens.
func (l *link) connect() error {
	option, identity := l.access.get()
	client, err := l.newClient(option)
	if err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	if l.r.ctx.Err() != nil {
		client.Close()
		return l.r.ctx.Err()
	}
	l.cluster.Store(client.Mode() == rueidis.ClientModeCluster)
	l.redis.Store(&client)
	if err := l.askTime(); err != nil {
		l.redis.Store(nil)
		client.Close()
		return err
	}
	l.access.noteConnected(identity)
	l.r.wg.Go(l.r.listen)
	l.r.wg.Go(func() { l.r.bus.work(l.r) })
	l.r.wg.Go(l.r.shared.tell)
	l.r.wg.Go(l.r.shared.work)
	l.r.wg.Go(l.r.groups.work)
	l.changeConnection() // it may be to be another by now
	return nil
}

// renew renews the lease in all buckets that the node has streams in, or in those only
// that are suspected to differ from what Redis has.
func (l *link) renew(all bool, suspect map[*bucket]bool) {
	began := time.Now()
	if err := l.greet(); err != nil {
		l.failed(err)
		return
	}
	differing, err := l.renewLeases(false, true, func(b *bucket) (bool, bool) { return all || suspect[b], suspect[b] })
	if err != nil {
		return // Redis counts as away by now
	}
	if all {
		l.holds(began)
	}
	_ = l.compare(differing) // same
}

// greet tells the zone that the node lives, and of its denials.
func (l *link) greet() error {
	if err := l.hello(); err != nil {
		return err
	}
	return l.r.denyEverywhere(l.r.ctx)
}

// renewLeases renews the leases in those buckets that the node has anything in, or in all,
// which are to be renewed, and returns those that are to be compared.
func (l *link) renewLeases(all, sweep bool, which func(*bucket) (renews, suspect bool)) (differing []*bucket, err error) {
	var mu sync.Mutex // guards differing
	err = l.r.each(all, func(b *bucket) error {
		renews, suspect := which(b)
		if !renews {
			return nil
		}
		differs, err := b.renew(suspect, sweep)
		if differs {
			mu.Lock()
			differing = append(differing, b)
			mu.Unlock()
		}
		return err
	})
	return differing, err
}

// compare compares what the node has in those buckets with what Redis has. However long
// that takes, the leases are renewed meanwhile, and what the goroutine is woken for is
// heard.
func (l *link) compare(buckets []*bucket) error {
	if len(buckets) == 0 {
		return nil
	}
	done := make(chan error, 1)
	go func() { done <- atOnce(mostComparing, buckets, func(b *bucket) error { return b.compare(false) }) }()
	ticker := time.NewTicker(l.r.options.Lease / renewals)
	defer ticker.Stop()
	woken := false
	for {
		var err error
		select {
		case err := <-done:
			if woken {
				l.wakeUp() // for the suspects, which have waited
			}
			return err
		case <-l.wake:
			woken = true
			err = l.greet()
		case <-ticker.C:
			err = l.renewMeanwhile()
		}
		if err != nil {
			l.failed(err)
			return errors.Join(err, <-done)
		}
	}
}

// renewMeanwhile renews all leases. What differs is found by the next renewal.
func (l *link) renewMeanwhile() error {
	began := time.Now()
	if err := l.greet(); err != nil {
		return err
	}
	_, err := l.renewLeases(false, false, func(*bucket) (renews, suspect bool) { return true, false })
	if err == nil {
		l.holds(began)
	}
	return err
}

// These bound how much of Redis' time a node asks for at once, of which all nodes together
// may ask as it comes back: in how many buckets leases are renewed, entries are compared,
// and much is told, and for how many newcomers it is asked whether Redis has lost anything.
const (
	mostRenewing  = 16
	mostComparing = 4
	mostTelling   = 4
	mostAsking    = 16
)

// each calls f for the buckets that the node has anything in, or for all, some at a time:
// on the wire they share a pipeline.
func (r *Registry) each(all bool, f func(*bucket) error) error {
	some := r.allBuckets()
	if !all {
		some = slices.DeleteFunc(some, (*bucket).isEmpty)
	}
	return atOnce(mostRenewing, some, f)
}

func (r *Registry) allBuckets() []*bucket {
	all := make([]*bucket, bucketCount)
	for i := range all {
		all[i] = &r.buckets[i]
	}
	return all
}

// isEmpty reports whether the node has nothing in the bucket.
func (b *bucket) isEmpty() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.places)+len(b.waiters)+len(b.queue)+len(b.pending) == 0
}

// atOnce calls f for the buckets, so many at a time, until one fails.
func atOnce(n int, buckets []*bucket, f func(*bucket) error) error {
	var wg sync.WaitGroup
	var next atomic.Int64
	var failed atomic.Bool
	errs := make([]error, len(buckets))
	for range min(n, len(buckets)) {
		wg.Go(func() {
			for !failed.Load() {
				i := int(next.Add(1)) - 1
				if i >= len(buckets) {
					return
				}
				if errs[i] = f(buckets[i]); errs[i] != nil {
					failed.Store(true)
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// failed notes that Redis did not answer, or not as it should.
func (l *link) failed(err error) {
	if says(err, cancelledError) || says(err, epochError) || l.r.ctx.Err() != nil {
		return
	}
	if l.up.CompareAndSwap(true, false) {
		l.dropIfWrong(err)
		l.tellAway(err)
		l.wakeUp()
	}
}

// dropIfWrong has the server dialled again if the one that answers is not to be written to.
func (l *link) dropIfWrong(err error) {
	if isWrongServer(err) {
		l.conns.drop()
	}
}

// tellAway logs once a minute that Redis is away, also if it comes back and goes again.
func (l *link) tellAway(err error) {
	if l.r.ctx.Err() != nil {
		return
	}
	l.mu.Lock()
	due := time.Since(l.logged) >= logEvery
	if due {
		l.logged, l.told = time.Now(), true
	}
	l.cause = err
	l.mu.Unlock()
	if due {
		l.r.options.Logger.Error("redis cannot be reached: "+consequences[l.r.options.OnError],
			zap.String("zone", l.r.zone), zap.String("on_error", string(l.r.options.OnError)), zap.Error(err))
	}
}

var consequences = map[OnError]string{
	Allow: "nodes go on with what they know themselves",
	Deny:  "newcomers are refused until it can",
	Fence: "newcomers are refused until it can, and this node's streams end with its lease",
}

// Away returns since when, as far as it was told, and why Redis cannot be reached; nil:
// it can.
func (r *Registry) Away() error {
	if r.link.isUp() {
		return nil
	}
	r.link.mu.Lock()
	defer r.link.mu.Unlock()
	return errors.Join(ErrAway, r.link.cause)
}

// runsOut ends all streams of this node, whose lease is about to run out: newcomers on
// other nodes get their places then. It does not wait for what the link's goroutine does.
func (l *link) runsOut() {
	l.mu.Lock()
	due := l.r.options.Lease*9/10 - time.Since(l.leased)
	switch {
	case l.r.ctx.Err() != nil:
		l.mu.Unlock()
		return
	case due > 0: // it was renewed just now
		l.fence.Reset(due)
		l.mu.Unlock()
		return
	case l.isUp() && !l.hung: // it is this node that hung: Redis is asked what came of its streams
		l.hung = true
		l.fence.Reset(l.r.options.Timeout)
		l.mu.Unlock()
		l.wakeUp()
		return
	}
	l.mu.Unlock()
	for i := range l.r.buckets {
		for _, p := range l.r.buckets[i].all() {
			p.end(registry.Ending{Reason: reason.Fenced}, true) // it may be back by now
		}
	}
}

// refuseFor has Reject newcomers refused for so long: holders may not be registered
// again yet.
func (l *link) refuseFor(d time.Duration) { extend(&l.refusing, d) }

// extend has what lasts until then last for so long from now on, if that is longer.
func extend(until *atomic.Int64, d time.Duration) {
	then := time.Now().Add(d).UnixNano()
	for {
		was := until.Load()
		if was >= then || until.CompareAndSwap(was, then) {
			return
		}
	}
}

// patience is how long nodes that live need to come back to a Redis that can be reached:
// an attempt under way fails, the next comes after a pause, and is answered.
func (l *link) patience() time.Duration {
	return min(mostWait+2*l.r.options.Timeout, l.r.options.Lease)
}

var (
	// errUnsure is returned for newcomers under Reject while holders that Redis does not
	// know of may yet be registered.
	errUnsure = fmt.Errorf("redis may not know of all who hold something: nodes may have to register again what they have: %w", registry.ErrAway)
	// errUnreached is returned for them while nothing at all is known of other nodes.
	errUnreached = fmt.Errorf("redis was not reached since this node was started, and so it knows of no other's streams: %w", registry.ErrAway)
)

// since says of an error of a call that Redis counts as away by now.
func (l *link) since(err error) error {
	if l.isUp() {
		return err
	}
	return fmt.Errorf("%w: %w", ErrAway, err)
}

// refuseUnsure refuses, for the time being, newcomers under Reject where others may hold
// what they ask for. A node that has not reached Redis yet does so for one lease: nobody
// knows how long it takes, and on_error says whether it goes on without.
func (r *Registry) refuseUnsure(asks []registry.Ask) error {
	now, reached := time.Now(), r.link.reached.Load()
	for i := range asks {
		if asks[i].Rule.Policy != registry.Reject || asks[i].Rule.Limit == 0 {
			continue
		}
		until := max(r.link.refusing.Load(), r.bucketOf(asks[i].Holder.Key).refusing.Load())
		switch {
		case !reached && now.Sub(r.link.opened) < r.options.Lease:
			return fmt.Errorf("admitting a stream: %w", errUnreached)
		case reached && now.UnixNano() < until:
			return fmt.Errorf("admitting a stream: %w", errUnsure)
		}
	}
	return nil
}

// hello tells the zone that the node lives, and hears of the others.
func (l *link) hello() error {
	r := l.r
	for {
		since := r.bus.lastDenial()
		keys := []string{r.key(zoneTag, "z"), r.key(zoneTag, "g"), r.key(zoneTag, "q"), r.key(zoneTag, "d"), r.key(zoneTag, "u")}
		var a args
		a.add(r.id)
		a.num(r.options.Lease.Milliseconds())
		a.add(l.knownEpoch())
		a.num(since)
		a.add(r.freshEpoch())
		l.addTime(&a)
		a.num(l.patience().Milliseconds())
		ctx, cancel := context.WithTimeout(r.ctx, r.options.Timeout)
		sent := time.Now()
		parts, err := r.scripts.hello.Exec(ctx, l.client(), keys, a).ToArray()
		cancel()
		if err != nil {
			return explain(err)
		}
		if len(parts) != 8 {
			return fmt.Errorf("saying hello: %d parts, not 8", len(parts))
		}
		there, err := parts[6].AsInt64()
		if err != nil {
			return fmt.Errorf("saying hello: %w", err)
		}
		l.setTime(sent, there, false)
		more, err := l.heard(parts, since)
		if err != nil || !more {
			return err
		}
	}
}

// age is how old what was asked here then is, in Redis' own time, in microseconds; 0: it is
// not said when. Clocks of other nodes do not come into it.
func (l *link) age(asked time.Time) int64 {
	if asked.IsZero() {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.past {
		if asked.Before(p.until) {
			return p.age(asked)
		}
	}
	return reckoning{here: l.here, there: l.there}.age(asked)
}

// reckoning is how two clocks stood at one moment, and until when they kept step. If this
// node was paused, and its clock with it, that is when it was found out: whoever asked
// before may have asked before the pause, and must not seem to have asked after it.
type reckoning struct {
	here  time.Time
	there int64
	until time.Time
}

func (r reckoning) age(asked time.Time) int64 { return r.there + asked.Sub(r.here).Microseconds() }

// leastJump is by how much a clock jumps at least for ages that were told before to stay as
// they were; less is drift. mostPast is how many jumps are remembered.
const (
	leastJump = 100 * time.Millisecond
	mostPast  = 16
)

// addTime adds to a script's arguments what time this node holds it to be, and by how much
// it may be wrong.
func (l *link) addTime(a *args) {
	l.mu.Lock()
	defer l.mu.Unlock()
	idea := int64(0)
	if !l.here.IsZero() {
		idea = reckoning{here: l.here, there: l.there}.age(time.Now())
	}
	a.num(idea)
	a.num((l.within + leastJump).Microseconds())
}

// moment is the inverse of age.
func (l *link) moment(age int64) time.Time {
	if age == 0 {
		return time.Time{}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.here.Add(time.Duration(age-l.there) * time.Microsecond)
}

// ahead is by how much Redis' clock is ahead of that of this node.
func (l *link) ahead() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	return time.Duration(l.there+now.Sub(l.here).Microseconds()-now.UnixMicro()) * time.Microsecond
}

// mostDrift is how far the node's idea of Redis' time may be off before it is set anew.
const mostDrift = 2 * time.Millisecond

// setTime notes that it was so late by Redis' clock some time between sent and now. The
// idea stays as it was unless that shows it wrong, or, while there is nothing yet that
// has an age, is more exact.
func (l *link) setTime(sent time.Time, there int64, better bool) {
	within := time.Since(sent) / 2
	here := sent.Add(within)
	l.mu.Lock()
	defer l.mu.Unlock()
	off := time.Duration(there-l.there)*time.Microsecond - here.Sub(l.here)
	if !l.here.IsZero() && off.Abs() > l.within+within+leastJump {
		l.past = append(l.past, reckoning{l.here, l.there, here})
		l.past = l.past[max(0, len(l.past)-mostPast):]
	}
	if l.here.IsZero() || off.Abs() > l.within+within+mostDrift || better && within < l.within {
		l.here, l.there, l.within = here, there, within
	}
}

// askTime has the first idea of Redis' time be a good one.
func (l *link) askTime() error {
	client := l.client()
	for range timesAsked {
		ctx, cancel := context.WithTimeout(l.r.ctx, l.r.options.Timeout)
		sent := time.Now()
		there, err := l.r.scripts.time.Exec(ctx, client, []string{l.r.key(zoneTag, "g")}, nil).AsInt64()
		cancel()
		if err != nil {
			return fmt.Errorf("asking for the time: %w", err)
		}
		l.setTime(sent, there, true)
	}
	return nil
}

// timesAsked is how often the time is asked for at first: the shortest answer is the most
// exact.
const timesAsked = 5

func (l *link) knownEpoch() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.epoch
}

// setEpoch notes the epoch, and returns the one before.
func (l *link) setEpoch(epoch string) (was string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	was, l.epoch = l.epoch, epoch
	return was
}

// heard reads the answer to hello, and reports whether there are more denials to ask
// for.
func (l *link) heard(parts []rueidis.RedisMessage, since int64) (more bool, err error) {
	r := l.r
	epoch, err := parts[0].ToString()
	if err != nil {
		return false, fmt.Errorf("saying hello: %w", err)
	}
	age, _ := parts[1].AsInt64()
	loss, _ := parts[2].AsInt64()
	nodes, err := parts[3].AsStrSlice()
	if err != nil {
		return false, fmt.Errorf("saying hello: %w", err)
	}
	last, _ := parts[4].AsInt64()
	denials, err := parts[5].AsStrSlice()
	if err != nil {
		return false, fmt.Errorf("saying hello: %w", err)
	}
	if loss == 1 {
		l.refuseFor(r.options.Lease - time.Duration(age)*time.Millisecond)
	}
	if unsure, _ := parts[7].AsInt64(); unsure > 0 {
		l.refuseFor(time.Duration(unsure) * time.Millisecond)
	}
	if was := l.setEpoch(epoch); was != "" && was != epoch {
		r.options.Logger.Warn("redis has lost its data: this node's streams are registered again",
			zap.String("zone", r.zone))
		r.bus.doubt(time.Time{})
		l.callAll() // those who began the epoch may not know that there was one before
		l.compareAllSoon()
	}
	r.peers.set(r, nodes)
	r.groups.hello(nodes)
	if last < since { // a failover has lost some, or all are over
		r.bus.doubt(time.Time{})
	}
	return r.bus.heard(r, since, last, denials), nil
}

// sayGoodbye gives back what the node holds, as far as that goes within the timeout. No
// other call is under way, and none is made any more.
func (l *link) sayGoodbye() {
	err := l.r.each(false, func(b *bucket) error { return b.giveAllBack() }) // else the lease runs out
	ctx, cancel := context.WithTimeout(context.Background(), l.r.options.Timeout)
	defer cancel()
	l.r.groups.sayGoodbye(ctx, l.client())
	keys := []string{l.r.key(zoneTag, "z"), l.r.key(zoneTag, "g")}
	_ = l.r.scripts.goodbye.Exec(ctx, l.client(), keys, []string{l.r.id}).Error() // same
	if err == nil {
		_ = l.r.send(ctx, l.client(), everybody, goodbyeMessage+l.r.id).Error() // else it counts as missing for a time
	}
}

func (l *link) close() {
	l.mu.Lock()
	if l.fence != nil {
		l.fence.Stop()
	}
	l.mu.Unlock()
	if c := l.client(); c != nil {
		c.Close()
	}
}
