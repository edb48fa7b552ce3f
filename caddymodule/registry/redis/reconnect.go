package redis

import (
	"context"
	"fmt"
	"sync"

	"github.com/redis/rueidis"
	"go.uber.org/zap"
)

// access is how Redis is reached. It may change while the registry is open: passwords and
// certificates are replaced from time to time.
type access struct {
	// mu guards the fields below it.
	mu sync.Mutex
	// client is how Redis is to be reached, and identity stands for that.
	client   rueidis.ClientOption
	identity string
	// by is the identity of the connection that there is; changing says that a goroutine
	// is about to make another.
	by        string
	connected bool
	changing  bool
}

// set notes how Redis is to be reached, and reports whether that is news.
func (a *access) set(client rueidis.ClientOption, identity string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.identity == identity {
		return false
	}
	a.client, a.identity = client, identity
	return true
}

func (a *access) get() (client rueidis.ClientOption, identity string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.client, a.identity
}

func (a *access) database() int {
	client, _ := a.get()
	return client.SelectDB
}

// noteConnected notes that there is a connection by that identity.
func (a *access) noteConnected(by string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.by, a.connected = by, true
}

// beginChange reports whether the connection is to be changed, and nobody does so yet.
func (a *access) beginChange() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.connected || a.changing || a.by == a.identity {
		return false
	}
	a.changing = true
	return true
}

// endChange reports whether the connection is as it is to be. Then nobody changes it any
// more.
func (a *access) endChange() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.changing = a.by != a.identity
	return !a.changing
}

// Reconnect has Redis reached so from now on. The identity stands for all that may have
// changed: if it is that of before, nothing happens. The node keeps the connection that it
// has until there is another one, and what it holds anyway.
func (r *Registry) Reconnect(client rueidis.ClientOption, identity string) {
	if r.link.access.set(client, identity) {
		r.link.wakeUp() // it may have no connection at all
		r.link.changeConnection()
	}
}

// changeConnection makes another connection in place of the one that there is, if that is
// not as it is to be.
func (l *link) changeConnection() {
	if l.access.beginChange() {
		l.r.wg.Go(l.change)
	}
}

func (l *link) change() {
	wait, told := leastWait, ""
	for l.r.ctx.Err() == nil {
		option, identity := l.access.get()
		err := l.changeTo(option)
		if err == nil {
			l.access.noteConnected(identity)
			l.r.options.Logger.Info("connected to redis anew, since the configuration has changed how", zap.String("zone", l.r.zone))
			if l.access.endChange() {
				return
			}
			continue
		}
		if told != identity && l.r.ctx.Err() == nil {
			told = identity
			l.r.options.Logger.Error("redis cannot be reached as the configuration says now: the connection of before is kept until it can",
				zap.String("zone", l.r.zone), zap.Error(err))
		}
		l.pauseFor(wait)
		wait = l.longer(wait)
	}
}

// newClient connects so. Each connection has room for all calls that may be under way, and
// can be dropped.
func (l *link) newClient(option rueidis.ClientOption) (rueidis.Client, error) {
	option.RingScaleEachConn = ringScale
	option.DialCtxFn = l.conns.dialer(option.DialCtxFn)
	return rueidis.NewClient(option)
}

// changeTo connects so, and closes the connection of before.
func (l *link) changeTo(option rueidis.ClientOption) error {
	client, err := l.newClient(option)
	if err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	ctx, cancel := context.WithTimeout(l.r.ctx, l.r.options.Timeout)
	defer cancel()
	if err := l.r.scripts.time.Exec(ctx, client, []string{l.r.key(zoneTag, "g")}, nil).Error(); err != nil {
		client.Close()
		return fmt.Errorf("asking for the time: %w", err)
	}
	l.loadScripts(client)
	l.cluster.Store(client.Mode() == rueidis.ClientModeCluster)
	before := l.redis.Swap(&client)
	l.pauseFor(leastWait) // whoever has taken the one before has sent by it by then
	(*before).Close()     // it waits for answers; who listens by it begins anew, by the other
	return nil
}
