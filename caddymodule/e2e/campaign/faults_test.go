package campaign

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/checker"
	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// step is one thing that is done to the world, so long after the round began.
type step struct {
	at   time.Duration
	what string
	do   func()
}

// trouble makes the steps of a round. Whatever it breaks it mends.
type trouble struct {
	w     *world
	r     *recorder
	rand  *rand.Rand
	deck  []kind
	steps []step
	// nodes are those to which nothing is done in this round yet.
	nodes []*node
	// redis says that something is done to Redis itself.
	redis bool
}

// kind is a kind of trouble.
type kind struct {
	name string
	// node says that it is done to one node, redis that it is done to Redis itself. One
	// of each can be done at a time.
	node, redis bool
	plan        func(*trouble, *node)
}

// kinds are all that is done.
var kinds = []kind{
	{"cut, longer than the lease", true, false, func(tr *trouble, n *node) { tr.cut(tr.between(5, 8), n) }},
	{"cut, shortly", true, false, func(tr *trouble, n *node) { tr.cut(tr.between(0.2, 2), n) }},
	{"cut for all", true, true, func(tr *trouble, _ *node) { tr.cut(tr.between(1, 7), tr.w.nodes...) }},
	{"black hole, longer than the lease", true, false, func(tr *trouble, n *node) { tr.blackHole(tr.between(5, 8), n) }},
	{"slow", true, false, func(tr *trouble, n *node) { tr.slow(500*time.Millisecond, tr.between(2, 6), n) }},
	{"slow for all", true, true, func(tr *trouble, _ *node) { tr.slow(500*time.Millisecond, tr.between(2, 6), tr.w.nodes...) }},
	{"slower than the timeout", true, false, func(tr *trouble, n *node) { tr.slow(1500*time.Millisecond, tr.between(2, 7), n) }},
	{"flushed", false, true, (*trouble).flush},
	{"restarted", false, true, (*trouble).restart},
	{"failed over", false, true, (*trouble).failOver},
	{"pubsub killed", false, true, (*trouble).killPubSub},
	{"pubsub killed again and again", false, true, func(tr *trouble, n *node) {
		for range 5 {
			tr.killPubSub(n)
		}
	}},
	{"killed", true, false, func(tr *trouble, n *node) { tr.down(checker.NodeKilled, n) }},
	{"stopped", true, false, func(tr *trouble, n *node) { tr.down(checker.NodeStopped, n) }},
	{"frozen, longer than the lease", true, false, func(tr *trouble, n *node) { tr.freeze(tr.between(5, 7), n) }},
	{"frozen, shortly", true, false, func(tr *trouble, n *node) { tr.freeze(tr.between(0.5, 3), n) }},
}

// round returns the steps of the next round, in their order. All kinds have their turn
// before one comes again.
func (tr *trouble) round() []step {
	tr.steps, tr.nodes, tr.redis = nil, slices.Clone(tr.w.nodes), false
	for range 2 + tr.rand.IntN(2) {
		if len(tr.deck) == 0 {
			tr.deck = slices.Clone(kinds)
			tr.rand.Shuffle(len(tr.deck), func(i, j int) { tr.deck[i], tr.deck[j] = tr.deck[j], tr.deck[i] })
		}
		i := slices.IndexFunc(tr.deck, tr.fits)
		if i < 0 {
			break
		}
		k := tr.deck[i]
		tr.deck = slices.Delete(tr.deck, i, i+1)
		var n *node
		switch {
		case k.node && k.redis: // to all
			tr.nodes = nil
		case k.node:
			j := tr.rand.IntN(len(tr.nodes))
			n = tr.nodes[j]
			tr.nodes = slices.Delete(tr.nodes, j, j+1)
		}
		tr.redis = tr.redis || k.redis
		k.plan(tr, n)
	}
	slices.SortStableFunc(tr.steps, func(a, b step) int { return cmp.Compare(a.at, b.at) })
	return tr.steps
}

func (tr *trouble) fits(k kind) bool {
	if k.node && k.redis {
		return len(tr.nodes) == nodeCount && !tr.redis
	}
	return (!k.node || len(tr.nodes) > 0) && (!k.redis || !tr.redis)
}

func (tr *trouble) between(least, most float64) time.Duration {
	return time.Duration((least + tr.rand.Float64()*(most-least)) * float64(time.Second))
}

// traffic is how long clients are at work in a round.
const traffic = 10 * time.Second

// lasting plans what begins at a random time and is over after so long.
func (tr *trouble) lasting(what string, d time.Duration, begin, end func()) {
	at := 500*time.Millisecond + time.Duration(tr.rand.Float64()*float64(max(0, traffic-time.Second-d)))
	tr.steps = append(tr.steps, step{at, what, begin})
	if end != nil {
		tr.steps = append(tr.steps, step{at + d, what + ": over", end})
	}
}

// fault is lasting, with the fault noted.
func (tr *trouble) fault(f checker.Fault, d time.Duration, begin, end func()) {
	what := fmt.Sprintf("%s %s", f.Kind, cmp.Or(f.Node, "all"))
	if f.Delay > 0 {
		what += " by " + f.Delay.String()
	}
	var over func()
	tr.lasting(what, d, func() {
		over = tr.r.fault(f)
		begin()
	}, func() {
		end()
		over()
	})
}

func named(nodes []*node) string {
	if len(nodes) == 1 {
		return nodes[0].name
	}
	return ""
}

func (tr *trouble) cut(d time.Duration, nodes ...*node) {
	tr.fault(checker.Fault{Kind: checker.RedisCut, Node: named(nodes)}, d, func() {
		for _, n := range nodes {
			n.cable.Stop()
		}
	}, func() {
		for _, n := range nodes {
			if err := n.cable.Start(); err != nil {
				tr.w.t.Errorf("mending the cable of %s: %v", n.name, err)
			}
		}
	})
}

// blackHole loses what is sent, and tells nobody.
func (tr *trouble) blackHole(d time.Duration, n *node) {
	tr.fault(checker.Fault{Kind: checker.RedisCut, Node: n.name}, d, func() {
		n.toxic(tr.w.t, "to", "timeout", "upstream", `"timeout": 0`)
		n.toxic(tr.w.t, "from", "timeout", "downstream", `"timeout": 0`)
	}, func() {
		n.healthy(tr.w.t, "to")
		n.healthy(tr.w.t, "from")
	})
}

func (tr *trouble) slow(by, d time.Duration, nodes ...*node) {
	tr.fault(checker.Fault{Kind: checker.RedisSlow, Node: named(nodes), Delay: by}, d, func() {
		for _, n := range nodes {
			n.toxic(tr.w.t, "slow", "latency", "downstream", fmt.Sprintf(`"latency": %d`, by.Milliseconds()))
		}
	}, func() {
		for _, n := range nodes {
			n.healthy(tr.w.t, "slow")
		}
	})
}

// moment plans what is over at once.
func (tr *trouble) moment(k checker.Kind, do func()) {
	tr.lasting(string(k), 0, func() {
		over := tr.r.fault(checker.Fault{Kind: k})
		do()
		over()
	}, nil)
}

func (tr *trouble) flush(*node) {
	tr.moment(checker.RedisFlushed, func() { tr.w.master.Do(tr.w.t, "FLUSHALL") })
}

func (tr *trouble) killPubSub(*node) {
	tr.moment(checker.PubSubKilled, func() { tr.w.master.Do(tr.w.t, "CLIENT", "KILL", "TYPE", "pubsub") })
}

func (tr *trouble) restart(*node) {
	tr.fault(checker.Fault{Kind: checker.RedisRestarted}, tr.between(0.1, 6), tr.w.master.Kill, func() {
		tr.w.master.Start(tr.w.t)
		tr.w.replicate()
	})
}

// failOver has the replica take over, which has not had the last writes.
func (tr *trouble) failOver(*node) {
	w := tr.w
	var over func()
	at, lost, gap := tr.between(0.5, 5), tr.between(0, 1), tr.between(0, 2)
	tr.steps = append(tr.steps,
		step{at, "the replica loses its master", func() {
			over = tr.r.fault(checker.Fault{Kind: checker.RedisFailedOver})
			w.replica.Do(w.t, "REPLICAOF", "NO", "ONE")
		}},
		step{at + lost, "the master dies", func() { w.master.Kill() }},
		step{at + lost + gap, "the replica takes over", func() {
			w.master, w.replica = w.replica, w.master
			for _, n := range w.nodes {
				n.reach(w.t, w.master)
			}
			w.replica.Start(w.t)
			w.replicate()
			over()
		}},
	)
}

func (tr *trouble) down(k checker.Kind, n *node) {
	tr.fault(checker.Fault{Kind: k, Node: n.name}, tr.between(0, 6), func() {
		if k == checker.NodeKilled {
			n.process.Kill()
		} else {
			n.process.Stop(tr.w.t)
		}
	}, func() { n.start(tr.w.t) })
}

func (tr *trouble) freeze(d time.Duration, n *node) {
	tr.fault(checker.Fault{Kind: checker.NodeFrozen, Node: n.name}, d,
		func() { n.process.Pause(tr.w.t) }, func() { n.process.Resume(tr.w.t) })
}

// reach has the node's cable lead to that Redis. If it is cut it stays so.
func (n *node) reach(t interface{ Errorf(string, ...any) }, redis *harness.Redis) {
	cut := !n.cable.Enabled
	n.cable.Stop()
	n.cable.Upstream = redis.Addr
	if cut {
		return
	}
	if err := n.cable.Start(); err != nil {
		t.Errorf("starting the cable of %s: %v", n.name, err)
	}
}
