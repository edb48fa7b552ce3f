// Package redis keeps who holds what for any number of nodes, in Redis or Valkey.
//
// The keys of a zone are spread over buckets. A bucket has its keys in one slot of a
// Redis Cluster, so that one script sees all that an admission needs: scripts/ has
// them, and scripts/bucket.lua says what is kept. An admission is one call of one
// script. Redis decides; Go carries the questions and the answers.
//
// A node has a lease in each bucket that it has streams in. It renews it for all of
// them at once. Each renewal compares how many entries the node has, and the sum of
// their tickets, with what Redis has. Where they differ, a message or a write was
// lost: the node compares them one by one, ends what was taken from it, and registers
// again, by its age, what Redis has lost. Whatever a node misses is thus found within
// a quarter of the lease.
//
// Everything that a node has is in a registry of package memory too. It finds streams
// by token, client and subject, keeps the denials, and admits while Redis is away and
// the options say so.
package redis

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
	"go.uber.org/zap"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/registry/memory"
)

// OnError is what a node does while Redis cannot be reached.
type OnError string

const (
	// Allow: nodes go on with what they know themselves.
	Allow OnError = "allow"
	// Deny: newcomers are refused for the time being; streams live on.
	Deny OnError = "deny"
	// Fence: as Deny, and a node that could not renew its lease ends its streams when
	// it runs out, so that no other node's newcomer finds them alive.
	Fence OnError = "fence"
)

// Options are those of a registry.
type Options struct {
	// Client says how Redis is reached, and Identity stands for it; see Reconnect.
	Client   rueidis.ClientOption
	Identity string
	// Prefix begins the names of all Redis keys.
	Prefix string
	// Lease is how long a node holds what it holds without a word from it.
	Lease time.Duration
	// Timeout bounds how long Redis is waited for.
	Timeout time.Duration
	OnError OnError
	Logger  *zap.Logger
}

// Registry is a registry.Registry for one zone on many nodes. It is to be closed.
type Registry struct {
	options Options
	zone    string
	node    registry.Node
	// id names this node for as long as the registry is open.
	id      string
	local   *memory.Registry
	scripts scripts
	link    *link
	buckets [bucketCount]bucket
	// underWay has a value for each call that is under way.
	underWay chan struct{}
	// telling has room for those who tell Redis of much.
	telling chan struct{}

	// calls lets calls of scripts through, until the registry is closed.
	calls gate

	tickets atomic.Uint64
	// order numbers what becomes a holder here.
	order atomic.Uint64

	streams    streams
	departures departures
	taken      takenKeys
	bus        bus
	peers      peers
	shared     shared
	groups     groups

	start  func() error    // once
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // of all goroutines
}

const (
	// mostCalls is how many calls may be under way at once. Others wait, no longer than for
	// Redis.
	mostCalls = 1024
	// ringScale is that of rueidis' list of what has yet to be answered on a connection. Who
	// finds no room in it waits for that whatever the context says. It has room for twice
	// mostCalls, since what was given up stays in it until Redis answers; and Redis counts as
	// away then, so that there is no more.
	ringScale = 11
)

// acquire waits until one more call may be under way, unless Redis is away by then. The
// caller releases its room when it is over.
func (r *Registry) acquire(ctx context.Context) error {
	wasUp := r.link.isUp()
	select {
	case r.underWay <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("waiting for one of %d calls of redis to end: %w", mostCalls, ctx.Err())
	}
	if wasUp && !r.link.isUp() {
		r.release()
		return ErrAway
	}
	return nil
}

func (r *Registry) release() { <-r.underWay }

// bucketCount is how many buckets a zone has. All nodes must agree.
const bucketCount = 64

// ErrAway is returned while Redis cannot be reached and the options do not let nodes
// go on without it.
var ErrAway = fmt.Errorf("redis: %w", registry.ErrAway)

// Open returns the registry of a zone, started; see New and Start.
func Open(zone string, node registry.Node, options Options) (*Registry, error) {
	r := New(zone, node, options)
	if err := r.Start(); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// New returns the registry of a zone, of whose streams this node has those that node
// has. Redis is not reached before Start, or the first admission.
func New(zone string, node registry.Node, options Options) *Registry {
	var id [nodeIDSize]byte
	_, _ = rand.Read(id[:]) // never fails
	r := &Registry{
		options: options,
		zone:    zone,
		node:    node,
		id:      string(id[:]),
		local:   memory.New(node),
		scripts: newScripts(),

		underWay: make(chan struct{}, mostCalls),
		telling:  make(chan struct{}, mostTelling),
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.bus.given = make(map[string]*given)
	r.bus.messages = make(chan message, mostMessages)
	r.shared.init(r)
	r.groups.init(r)
	for i := range r.buckets {
		r.buckets[i].init(r, i)
	}
	r.link = newLink(r)
	r.start = sync.OnceValue(r.link.open)
	return r
}

// Start reaches Redis, and waits for that, but not for long. It fails only if Redis has
// data of a newer version: where it cannot be reached, the registry does as the options
// say until it can.
func (r *Registry) Start() error { return r.start() }

const nodeIDSize = 8

// name is how the node is called in log lines.
func (r *Registry) name() string { return hex.EncodeToString([]byte(r.id)) }

// Close takes what this node has out of Redis, as far as that goes within the timeout,
// and ends all goroutines.
func (r *Registry) Close() error {
	r.cancel()
	wasUp := r.link.up.Swap(false)
	r.wg.Wait()
	wasUp = r.link.up.Swap(false) || wasUp // it may have come back just then
	r.calls.shut()
	if wasUp { // else the lease runs out
		r.link.sayGoodbye()
	}
	for i := range r.buckets {
		r.buckets[i].close()
	}
	r.link.close()
	return r.local.Close()
}

// gate is what the calls of scripts pass, until it is shut: what the node takes out of
// Redis at its end is not to be put there again.
type gate struct {
	// mu guards isShut, and is held when underWay is added to.
	mu       sync.Mutex
	isShut   bool
	underWay sync.WaitGroup
}

// enter reports whether a call may begin; it is to leave then.
func (g *gate) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.isShut {
		g.underWay.Add(1)
	}
	return !g.isShut
}

func (g *gate) leave() { g.underWay.Done() }

// shut lets nobody enter any more, and waits for those who have.
func (g *gate) shut() {
	g.mu.Lock()
	g.isShut = true
	g.mu.Unlock()
	g.underWay.Wait()
}

// key returns the name of a Redis key of the zone, in the slot that tag names.
func (r *Registry) key(tag, name string) string {
	return fmt.Sprintf("{%s/%s/%s}%s", r.options.Prefix, r.zone, tag, name)
}

const (
	randomBits = 4
	bucketBits = 6
)

// newTicket returns one that no other entry of this node has.
func (r *Registry) newTicket(b *bucket) ticket {
	random := mathrand.Uint64() & (1<<randomBits - 1) //nolint:gosec // not secret
	return ticket((r.tickets.Add(1)<<randomBits|random)<<bucketBits | uint64(b.index))
}

func (r *Registry) bucketOf(key registry.ID) *bucket { return &r.buckets[key[0]%bucketCount] }

func (t ticket) bucket(r *Registry) *bucket { return &r.buckets[t%bucketCount] }

var (
	_ registry.Registry   = (*Registry)(nil)
	_ registry.Starter    = (*Registry)(nil)
	_ registry.Sharing    = (*Registry)(nil)
	_ registry.Announcing = (*Registry)(nil)
	_ io.Closer           = (*Registry)(nil)
)
