package campaign

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/checker"
)

// two are zones of one campaign that is to be found wanting, or not.
func two(heldTo, told checker.OnError) []zone {
	return []zone{
		{name: "one", Zone: checker.Zone{Limit: 1, OnError: heldTo}, onError: told},
		{name: "two", Zone: checker.Zone{Limit: 2, OnError: heldTo}, onError: told},
	}
}

// TestBroken_IsFound has the checker find nodes that do not keep the promise. They are
// real ones: what is broken is what they are told, or what is between them and Redis.
func TestBroken_IsFound(t *testing.T) {
	for _, test := range []struct {
		name  string
		world func(t *testing.T) *world
		// cut says that a node is cut off from Redis, also while all is quiet.
		cut bool
	}{
		// They are told to deny, and held to fence: a node that is cut off does not end its
		// streams while others take their keys.
		{"fencing is off", func(t *testing.T) *world { return newWorld(t, two(checker.Fence, checker.Deny), lease) }, true},
		// With a lease of an hour a node renews it, and so compares what it has with what
		// Redis has, after a quarter of that.
		{"every third message is lost, and nothing repairs it", func(t *testing.T) *world {
			return newWorld(t, two(checker.Deny, ""), time.Hour, deafen(t))
		}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newCampaign(test.world(t), seed(t))
			defer c.end()
			// Chance may have it that nobody takes a key that matters.
			for range 8 {
				if test.cut {
					c.play([]step{c.cutOff()})
					c.mend()
				} else {
					c.play(nil)
				}
				h := c.r.soFar()
				t.Log(summary(h))
				rules := make(map[string]int)
				for _, v := range checker.Check(h, promise) {
					rules[v.Rule]++
				}
				if rules[checker.RuleQuiet] > 0 {
					t.Logf("found: %v", rules)
					return
				}
			}
			require.Fail(t, "nothing is found")
		})
	}
}

// TestBroken_IsRepaired is the same with nothing wrong, but that messages are lost: a
// renewal of the lease finds what they said.
func TestBroken_IsRepaired(t *testing.T) {
	c := newCampaign(newWorld(t, two(checker.Deny, ""), lease, deafen(t)), seed(t))
	c.play(nil)
	h := c.r.soFar()
	c.end()
	t.Log(summary(h))
	report(t, h, checker.Check(h, promise))
}

// TestBroken_FencedIsNot is the same with a node that is cut off, and fenced.
func TestBroken_FencedIsNot(t *testing.T) {
	c := newCampaign(newWorld(t, two(checker.Fence, ""), lease), seed(t))
	c.play([]step{c.cutOff()})
	c.mend()
	h := c.r.soFar()
	c.end()
	t.Log(summary(h))
	report(t, h, checker.Check(h, promise))
}

func seed(t *testing.T) uint64 {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d", seed)
	return seed
}

// cutOff cuts a node off until mend.
func (c *campaign) cutOff() step {
	return step{traffic * 7 / 10, "cut off", func() {
		c.mended = c.r.fault(checker.Fault{Kind: checker.RedisCut, Node: c.w.nodes[0].name})
		c.w.nodes[0].cable.Stop()
	}}
}

func (c *campaign) mend() {
	require.NoError(c.w.t, c.w.nodes[0].cable.Start())
	c.mended()
}
