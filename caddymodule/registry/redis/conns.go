package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"sync"

	"github.com/redis/rueidis"
)

// conns are the connections with Redis, so that they can be dropped. Behind an address
// that leads to another server after a failover, the old one keeps those that it has.
type conns struct {
	// mu guards open. No other lock is taken under it.
	mu   sync.Mutex
	open map[*conn]bool
}

type conn struct {
	net.Conn
	of *conns
}

type dialFunc = func(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error)

// dialer dials as another would, or, without one, as the client of Redis would by itself.
func (cs *conns) dialer(dial dialFunc) dialFunc {
	if dial == nil {
		dial = func(ctx context.Context, addr string, dialer *net.Dialer, config *tls.Config) (net.Conn, error) {
			if config == nil {
				return dialer.DialContext(ctx, "tcp", addr)
			}
			return (&tls.Dialer{NetDialer: dialer, Config: config}).DialContext(ctx, "tcp", addr)
		}
	}
	return func(ctx context.Context, addr string, dialer *net.Dialer, config *tls.Config) (net.Conn, error) {
		inner, err := dial(ctx, addr, dialer, config)
		if err != nil {
			return nil, err
		}
		c := &conn{inner, cs}
		cs.mu.Lock()
		defer cs.mu.Unlock()
		if cs.open == nil {
			cs.open = make(map[*conn]bool)
		}
		cs.open[c] = true
		return c, nil
	}
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

// drop closes all connections. The client of Redis makes new ones.
func (cs *conns) drop() {
	cs.mu.Lock()
	open := cs.open
	cs.open = nil
	cs.mu.Unlock()
	for c := range open {
		_ = c.Conn.Close() // the client may have closed it just now
	}
}

// isWrongServer reports whether a server has said that it is none to write to, or not yet:
// a replica, or one that has yet to read its data. The address may lead to another by now.
func isWrongServer(err error) bool {
	var e *rueidis.RedisError
	if !errors.As(err, &e) {
		return false
	}
	for _, code := range []string{"READONLY", "MASTERDOWN", "LOADING"} {
		// Before version 7, what a script runs into stands behind the script's name.
		if strings.HasPrefix(e.Error(), code) || strings.Contains(e.Error(), "-"+code+" ") {
			return true
		}
	}
	return false
}
