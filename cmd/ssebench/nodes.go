package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// nodesBench measures takeovers on one node that keeps its holders in memory, and on
// several that share a Redis, where each newcomer comes to another node than the stream
// that it supersedes.
type nodesBench struct {
	opts   options
	stderr io.Writer
}

// nodesRun is what was measured on one side.
type nodesRun struct {
	nodes int // 0: not measured
	load
	// most is the load at the highest rate that was carried.
	most load

	rssPerStream float64 // bytes, on the nodes, settled
	nodesIdleCPU float64 // of a core, of all nodes
	redisIdle    redisLoad
	redisMemory  float64 // bytes a stream
}

// load is what came of takeovers at some rate.
type load struct {
	offered, done  float64 // a second
	told, answered []float64
	nodesCPU       time.Duration // of all nodes, a takeover
	redis          redisLoad
}

// redisLoad is what Redis did meanwhile.
type redisLoad struct {
	cores    float64
	scripts  float64 // a second
	commands float64 // a second, with those inside of scripts
}

func measureNodes(ctx context.Context, opts options, stderr io.Writer) (runs [2]nodesRun, err error) {
	b := &nodesBench{opts, stderr}
	for i, nodes := range []int{1, opts.nodes} {
		s, err := b.start(ctx, nodes, i == 1)
		if err != nil {
			return runs, err
		}
		runs[i], err = b.run(ctx, s)
		if err = errors.Join(err, s.clear()); err != nil {
			return runs, fmt.Errorf("%s: %w", s, err)
		}
	}
	return runs, nil
}

// scene is the nodes, what is behind them, and their clients.
type scene struct {
	stage *stage
	nodes []*child
	redis *redisServer // nil: the one node has its holders in memory
	// crowds are the clients of each node.
	crowds []*crowd
	held   []*heldKey
	next   int // of held, to be taken over
}

// heldKey is a key, the node that has its stream, and the stream. They belong to who has
// set busy.
type heldKey struct {
	busy   atomic.Bool
	node   int
	stream *stream
}

func (s *scene) String() string {
	if s.redis == nil {
		return "one node, memory"
	}
	return fmt.Sprintf("%d nodes, Redis", len(s.nodes))
}

func (s *scene) clear() error {
	for _, c := range s.crowds {
		c.close()
	}
	var errs []error
	for _, n := range s.nodes {
		errs = append(errs, n.stop())
	}
	if s.redis != nil {
		errs = append(errs, s.redis.stop())
	}
	return errors.Join(append(errs, s.stage.clear())...)
}

// start starts the processes. Their configuration damps no flapping: the same keys are
// taken again and again.
func (b *nodesBench) start(ctx context.Context, nodes int, shared bool) (s *scene, err error) {
	s = new(scene)
	if s.stage, err = newStage(ctx, b.stderr); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.clear())
		}
	}()
	guard := object{"handler": "sse_guard", "flap": object{"count": 0}}
	if shared {
		if s.redis, err = startRedis(ctx, s.stage.dir); err != nil {
			return nil, err
		}
		guard["registry"] = object{"module": "redis", "addresses": []string{s.redis.address}}
	}
	for i := range nodes {
		node, err := s.stage.startCaddy(ctx, b.stderr, fmt.Sprintf("node%d", i), guard, nil)
		if err != nil {
			return nil, err
		}
		s.nodes = append(s.nodes, node)
		if err := warmUp(ctx, node.address, guarded); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// run opens the streams, looks at them while nothing happens, and takes them over.
func (b *nodesBench) run(ctx context.Context, s *scene) (r nodesRun, err error) {
	r.nodes = len(s.nodes)
	before, err := b.weigh(ctx, s)
	if err != nil {
		return r, err
	}
	if err := b.open(ctx, s); err != nil {
		return r, err
	}
	after, err := b.weigh(ctx, s)
	if err != nil {
		return r, err
	}
	streams := float64(len(s.held))
	r.rssPerStream = float64(after.rss-before.rss) / streams
	r.redisMemory = float64(after.redis-before.redis) / streams

	b.progress("%s: %d streams, nothing happens for %s", s, len(s.held), b.opts.idle)
	idle, err := b.watch(s, func() error { return pause(ctx, b.opts.idle) })
	if err != nil {
		return r, err
	}
	r.redisIdle, r.nodesIdleCPU = idle.redis, idle.nodes.Seconds()/idle.took.Seconds()

	b.progress("%s: %d takeovers a second for %s", s, b.opts.takeoverRate, b.opts.takeoverTime)
	if r.load, err = b.takeOver(ctx, s, float64(b.opts.takeoverRate), b.opts.takeoverTime); err != nil {
		return r, err
	}
	r.most = r.load
	err = b.ramp(ctx, s, &r)
	return r, err
}

// carriedShare is how many of the takeovers that were asked for in a second have to be
// done in it.
const carriedShare = 0.95

// mostLate is from which p99 on a rate does not count as carried.
const mostLate = 250 * time.Millisecond

// ramp doubles the rate until it is not carried.
func (b *nodesBench) ramp(ctx context.Context, s *scene, r *nodesRun) error {
	if b.opts.rampTime == 0 {
		return nil
	}
	for rate := 2 * float64(b.opts.takeoverRate); ; rate *= 1.5 {
		b.progress("%s: %.0f takeovers a second for %s", s, rate, b.opts.rampTime)
		l, err := b.takeOver(ctx, s, rate, b.opts.rampTime)
		if err != nil {
			return err
		}
		if l.done < carriedShare*l.offered || quantile(l.told, 0.99) > millis(mostLate) {
			return nil
		}
		r.most = l
	}
}

func (b *nodesBench) progress(format string, args ...any) {
	fmt.Fprintf(b.stderr, format+"\n", args...)
}

// open opens the streams, as many on each node.
func (b *nodesBench) open(ctx context.Context, s *scene) error {
	n := b.opts.nodes * b.opts.nodeStreams / len(s.nodes)
	for i, node := range s.nodes {
		b.progress("%s: opening %d streams on node %d", s, n, i+1)
		c := newCrowd(ctx, node.address, "idle")
		s.crowds = append(s.crowds, c)
		c.first = len(s.held)
		if err := c.open(ctx, n); err != nil {
			return err
		}
		c.mu.Lock()
		for _, one := range c.streams {
			s.held = append(s.held, &heldKey{node: i, stream: one})
		}
		c.mu.Unlock()
	}
	rand.Shuffle(len(s.held), func(i, j int) { s.held[i], s.held[j] = s.held[j], s.held[i] }) //nolint:gosec // no secret
	return nil
}

// takeOver takes one key after the other over, at a rate, however long each takes. What
// is due while the key is still being taken over is left out, and so is not done.
func (b *nodesBench) takeOver(ctx context.Context, s *scene, rate float64, long time.Duration) (l load, err error) {
	runtime.GC() // of this process, which measures the time
	var (
		mu       sync.Mutex // guards l and failed
		failed   error
		underWay sync.WaitGroup
	)
	due := max(int(rate*long.Seconds()), 1)
	seen, err := b.watch(s, func() error {
		defer underWay.Wait()
		began := time.Now()
		for i := range due {
			if err := pause(ctx, time.Until(began.Add(time.Duration(float64(i)/rate*float64(time.Second))))); err != nil {
				return err
			}
			key := s.held[s.next%len(s.held)]
			s.next++
			if !key.busy.CompareAndSwap(false, true) {
				continue
			}
			underWay.Go(func() {
				defer key.busy.Store(false)
				t, err := s.takeOver(ctx, key)
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					failed = err
					return
				}
				l.told = append(l.told, millis(t.told))
				l.answered = append(l.answered, millis(t.answered))
			})
		}
		return nil
	})
	switch {
	case err != nil:
		return l, err
	case failed != nil:
		return l, fmt.Errorf("a takeover: %w", failed)
	case len(l.told) == 0:
		return l, errors.New("no takeover was done")
	}
	l.offered, l.done = float64(due)/long.Seconds(), float64(len(l.told))/seen.took.Seconds()
	l.nodesCPU = seen.nodes / time.Duration(len(l.told))
	l.redis = seen.redis
	return l, nil
}

// takeOver has a newcomer come for the key, to another node than that which has its
// stream, if there is another.
func (s *scene) takeOver(ctx context.Context, key *heldKey) (takeover, error) {
	to := key.node
	if n := len(s.nodes); n > 1 {
		to = (key.node + 1 + rand.N(n-1)) % n //nolint:gosec // no secret
	}
	t, err := s.crowds[to].takeOver(ctx, key.stream, guarded)
	if err == nil {
		key.node, key.stream = to, t.newer
	}
	return t, err
}

// seen is what the processes have done in a time.
type seen struct {
	took  time.Duration
	nodes time.Duration // CPU
	redis redisLoad
}

// watch measures while act runs.
func (b *nodesBench) watch(s *scene, act func() error) (seen, error) {
	read := func() (cpu time.Duration, redis redisUse, err error) {
		for _, n := range s.nodes {
			u, err := n.usage()
			if err != nil {
				return 0, redis, err
			}
			cpu += u.CPU
		}
		if s.redis != nil {
			redis, err = s.redis.use()
		}
		return cpu, redis, err
	}
	cpu, redis, err := read()
	if err != nil {
		return seen{}, err
	}
	began := time.Now()
	if err := act(); err != nil {
		return seen{}, err
	}
	took := time.Since(began)
	cpuAfter, redisAfter, err := read()
	if err != nil {
		return seen{}, err
	}
	each := took.Seconds()
	return seen{took: took, nodes: cpuAfter - cpu, redis: redisLoad{
		cores:    (redisAfter.cpu - redis.cpu).Seconds() / each,
		scripts:  float64(redisAfter.scripts-redis.scripts) / each,
		commands: float64(redisAfter.commands-redis.commands) / each,
	}}, nil
}

// weight is what the nodes, and Redis, have in memory.
type weight struct{ rss, redis int64 }

func (b *nodesBench) weigh(ctx context.Context, s *scene) (w weight, err error) {
	if err := pause(ctx, b.opts.settle); err != nil {
		return w, err
	}
	for _, n := range s.nodes {
		u, err := n.settle()
		if err != nil {
			return w, err
		}
		w.rss += u.RSS
	}
	if s.redis != nil {
		use, err := s.redis.use()
		if err != nil {
			return w, err
		}
		w.redis = use.memory
	}
	return w, nil
}
