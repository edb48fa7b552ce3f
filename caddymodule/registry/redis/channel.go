package redis

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"
	"go.uber.org/zap"
)

// A node listens to a channel of its own, and to one that all listen to. On a cluster,
// that of plain Pub/Sub is heard by way of all servers: each message goes to every one
// of them. Sharded Pub/Sub, which Redis has since version 7, keeps a message on the
// server of its channel's slot. There a node has one channel for each bucket, since a
// script sends from the slot that it runs in, and one for the zone.

// zoneTag names the slot of what is the zone's as a whole.
const zoneTag = "zone"

// channel returns the command by which messages are sent from the slot that tag names,
// and what begins the names of the channels: with the ID of a node, that node's.
func (r *Registry) channel(tag string) []string {
	if r.link.sharded.Load() {
		return []string{"SPUBLISH", r.shardChannel(tag)}
	}
	return []string{"PUBLISH", r.plainChannel()}
}

func (r *Registry) shardChannel(tag string) string { return r.key(tag, "to/") }

// plainChannel names the database, too: those of one server have all channels in common. A
// cluster has but one database.
func (r *Registry) plainChannel() string {
	to := "/to/"
	if db := r.link.access.database(); db != 0 {
		to = fmt.Sprintf("/to%d/", db)
	}
	return r.options.Prefix + "/" + r.zone + to
}

// send sends a message to a node.
func (r *Registry) send(ctx context.Context, client rueidis.Client, to, message string) rueidis.RedisResult {
	if err := r.acquire(ctx); err != nil {
		return rueidis.NewErrorResult(err)
	}
	defer r.release()
	if r.link.sharded.Load() {
		return client.Do(ctx, client.B().Spublish().Channel(r.shardChannel(zoneTag)+to).Message(message).Build())
	}
	return client.Do(ctx, client.B().Publish().Channel(r.plainChannel()+to).Message(message).Build())
}

// listen has messages heard until the registry is closed. Whenever a subscription
// begins, something may have been missed before: all is compared.
func (r *Registry) listen() {
	begun := func() {
		r.doubtDenials()
		r.link.compareAllSoon()
	}
	r.receive(&r.bus.plain, begun, func(client rueidis.Client) rueidis.Completed {
		return client.B().Subscribe().Channel(r.plainChannel()+r.id, r.plainChannel()+everybody).Build()
	})
}

// listenToShards starts to listen to sharded Pub/Sub too.
func (r *Registry) listenToShards() {
	for i := range r.buckets {
		b := &r.buckets[i]
		r.wg.Go(func() {
			r.receive(new(subscription), func() { r.link.compareSoon(b) }, func(client rueidis.Client) rueidis.Completed {
				return client.B().Ssubscribe().Channel(r.shardChannel(b.tag) + r.id).Build()
			})
		})
	}
	r.wg.Go(func() {
		zone := r.shardChannel(zoneTag)
		begun := func() {
			r.doubtDenials()
			r.link.wakeUp()
		}
		r.receive(&r.bus.shard, begun, func(client rueidis.Client) rueidis.Completed {
			return client.B().Ssubscribe().Channel(zone+r.id, zone+everybody).Build()
		})
	})
}

// doubtDenials has the denials of late told again: the server may be a replica that took
// over, and lacks the last.
func (r *Registry) doubtDenials() { r.bus.doubt(time.Now().Add(-2 * r.options.Lease)) }

// receive subscribes again and again, and calls begun whenever that has succeeded.
func (r *Registry) receive(sub *subscription, begun func(), subscribe func(rueidis.Client) rueidis.Completed) {
	ctx := rueidis.WithOnSubscriptionHook(r.ctx, func(s rueidis.PubSubSubscription) {
		if s.Kind == "subscribe" || s.Kind == "ssubscribe" {
			sub.set(true, nil)
			begun()
		}
	})
	wait := leastWait
	for r.ctx.Err() == nil {
		began := time.Now()
		client := r.link.client() // there may be another
		err := client.Receive(ctx, subscribe(client), func(m rueidis.PubSubMessage) {
			if m.Message == "" {
				return
			}
			if r.shared.take(m.Message) {
				return
			}
			select {
			case r.bus.messages <- message{m.Message[:1], m.Message[1:]}:
			default:
				r.link.compareAllSoon()
			}
		})
		if err != nil && r.ctx.Err() == nil {
			sub.set(false, err)
			r.options.Logger.Debug("listening to other nodes", zap.String("zone", r.zone), zap.Error(err))
		}
		if time.Since(began) > mostWait {
			wait = leastWait
		}
		r.link.pauseFor(wait)
		wait = r.link.longer(wait)
	}
}

// subscription is whether the node has ever heard of others by some channels, and why it
// has not.
type subscription struct {
	// mu guards the fields below it.
	mu    sync.Mutex
	begun bool
	err   error
	// changed is closed, and made anew, with each change; nil: nobody waits.
	changed chan struct{}
}

func (s *subscription) set(begun bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begun, s.err = s.begun || begun, err
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// state returns whether the subscription has ever begun, what is closed when that, or
// the error, changes, and the last error.
func (s *subscription) state() (begun bool, changed <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	return s.begun, s.changed, s.err
}

// waitToHear waits until the node hears what others tell it, before they hear of it.
// It fails where it is not allowed to.
func (l *link) waitToHear() error {
	sub := &l.r.bus.plain
	if l.sharded.Load() {
		sub = &l.r.bus.shard
	}
	timer := time.NewTimer(l.r.options.Timeout)
	defer timer.Stop()
	for {
		begun, changed, err := sub.state()
		if begun {
			return nil
		}
		if _, refused := rueidis.IsRedisErr(err); refused {
			return fmt.Errorf("listening to other nodes: %w", err)
		}
		select {
		case <-changed:
		case <-timer.C:
			return fmt.Errorf("listening to other nodes: not begun in time: %w", errors.Join(err, context.DeadlineExceeded))
		case <-l.r.ctx.Done():
			return l.r.ctx.Err()
		}
	}
}

// reachShards finds out whether a cluster serves the slots of all buckets, so that no
// newcomer finds the first that it does not, and whether it knows sharded Pub/Sub. Both
// may change while the registry is open.
func (l *link) reachShards() error {
	client := l.client()
	commands := make(rueidis.Commands, bucketCount)
	for i := range commands {
		commands[i] = client.B().Spublish().Channel(l.r.shardChannel(l.r.buckets[i].tag) + l.r.id).Message("").Build()
	}
	sharded, err := l.askShards(commands)
	if err == nil && !sharded {
		for i := range commands {
			commands[i] = client.B().Exists().Key(l.r.buckets[i].keys[0]).Build()
		}
		_, err = l.askShards(commands)
	}
	if err != nil {
		return err
	}
	if sharded {
		l.byShard.Do(l.r.listenToShards)
	}
	l.sharded.Store(sharded)
	return nil
}

// askShards sends a command to the slot of each bucket, and reports whether it is known.
func (l *link) askShards(commands rueidis.Commands) (known bool, err error) {
	ctx, cancel := context.WithTimeout(l.r.ctx, l.r.options.Timeout)
	defer cancel()
	var errs []error
	known = true
	for i, answer := range l.client().DoMulti(ctx, commands...) {
		err := answer.Error()
		if e, ok := rueidis.IsRedisErr(err); ok && strings.Contains(e.Error(), "unknown command") {
			known = false
			continue
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("asking for the slot of bucket %s: %w", l.r.buckets[i].tag, err))
		}
	}
	if len(errs) > 0 {
		return known, errors.Join(errs[0], fmt.Errorf("%d of %d slots do not answer", len(errs), len(commands)))
	}
	return known, nil
}
