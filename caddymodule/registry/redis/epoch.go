package redis

import (
	"context"
	"fmt"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// epochsEvery is how often the epochs of the buckets are asked for at least. They are kept
// for a day after that.
const epochsEvery = time.Hour

// askEpochs asks a cluster for the epochs of all buckets: each of its servers may lose what
// it has. It is done before there is anything to lose, so that a loss is known by it.
func (l *link) askEpochs() error {
	err := l.r.each(true, (*bucket).askEpoch)
	if err == nil {
		l.asked = time.Now()
	}
	return err
}

// keepEpochs has a cluster keep the epochs of the buckets.
func (l *link) keepEpochs() error {
	if !l.isCluster() || time.Since(l.asked) < epochsEvery {
		return nil
	}
	return l.askEpochs()
}

// errManyAsk is returned where so many ask whether Redis has lost anything that one more
// would wait for too long.
var errManyAsk = fmt.Errorf("many newcomers ask redis whether it has lost anything: %w", registry.ErrAway)

// askEpochsOf asks whether Redis has lost anything of what it has of those buckets. It waits
// while many others ask, as they do after a loss, but no longer than for Redis.
func (l *link) askEpochsOf(buckets []*bucket) error {
	timer := time.NewTimer(l.r.options.Timeout)
	defer timer.Stop()
	select {
	case l.asking <- struct{}{}:
		defer func() { <-l.asking }()
	case <-timer.C:
		return errManyAsk
	}
	if !l.isUp() {
		return ErrAway
	}
	if err := l.hello(); err != nil || !l.isCluster() {
		return err
	}
	return atOnce(mostRenewing, buckets, (*bucket).askEpoch)
}

// askEpoch asks for the bucket's epoch. If a loss has begun it, holders are yet to be
// registered again. If it has begun just now, it may have been a loss of which only others
// know: a node that was started since has begun it then.
func (b *bucket) askEpoch() error {
	r := b.r
	b.mu.Lock()
	known := b.epoch
	b.mu.Unlock()
	var a args
	a.add(known, r.freshEpoch())
	ctx, cancel := context.WithTimeout(r.ctx, r.options.Timeout)
	defer cancel()
	parts, err := r.scripts.began.Exec(ctx, r.link.client(), []string{r.key(b.tag, "g")}, a).ToArray()
	if err != nil {
		return explain(err)
	}
	if len(parts) != 3 {
		return fmt.Errorf("asking for the epoch of bucket %s: %d parts, not 3", b.tag, len(parts))
	}
	epoch, err := parts[0].ToString()
	if err != nil {
		return fmt.Errorf("asking for the epoch of bucket %s: %w", b.tag, err)
	}
	ns, err := numbers(parts[1:], 2)
	if err != nil {
		return err
	}
	age, loss := time.Duration(ns[0])*time.Millisecond, ns[1] == 1
	if loss {
		extend(&b.refusing, r.options.Lease-age)
	} else {
		extend(&b.refusing, r.link.patience()-age)
	}
	b.mu.Lock()
	b.epoch = epoch
	b.mu.Unlock()
	if known != "" && known != epoch {
		r.link.compareSoon(b)
	}
	return nil
}

// freshEpoch returns the name of an epoch that nobody else begins.
func (r *Registry) freshEpoch() string { return r.id + fmt.Sprint(time.Now().UnixNano()) }
