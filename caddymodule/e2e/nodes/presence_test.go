package nodes

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// TestPresence_OverThreeNodes, one of which dies.
func TestPresence_OverThreeNodes(t *testing.T) {
	app := harness.StartFastAPI(t)
	processes, urls := nodes(t, 3, app, harness.StartRedis(t), harness.PresenceLines)
	open := func(node int, user string) *harness.Stream {
		s := harness.NewClient(t, harness.HTTP1).Open(t, urls[node]+"/raw?room=one", harness.WithBearer(user))
		s.Next(t)
		return s
	}
	ann := open(0, "ann")
	harness.RequireCount(t, ann, 1)
	bob := open(1, "bob")
	harness.RequireCount(t, ann, 2)
	harness.RequireCount(t, bob, 2)
	cid := open(2, "cid")
	harness.RequireCount(t, ann, 3)
	harness.RequireCount(t, cid, 3)

	dan := open(0, "dan")
	harness.RequireCount(t, ann, 4)
	harness.RequireCount(t, dan, 4)
	dan.Close()
	harness.RequireCount(t, ann, 3)
	harness.RequireCount(t, cid, 3)

	// Who takes over from another node does not count twice, unless the machine is so busy
	// that the nodes hear too late of each other.
	unseen := 0
	for _, node := range []int{2, 1, 2} {
		before := len(ann.Counts())
		newer := open(node, "bob")
		harness.RequireEnded(t, bob, harness.Duplicated, "superseded")
		harness.RequireCount(t, newer, 3)
		bob = newer
		harness.WaitTold(t)
		harness.RequireCount(t, ann, 3)
		if len(ann.Counts()) == before {
			unseen++
		}
	}
	assert.NotZero(t, unseen, "takeovers of which nobody else is told")

	processes[2].Kill()
	killed := time.Now()
	harness.RequireCount(t, ann, 1)
	assert.Less(t, time.Since(killed), 2*time.Second+2*time.Second, "the lease is 2 seconds, and the machine may be busy")
	harness.RequireCount(t, open(1, "bob"), 2)
	harness.RequireCount(t, ann, 2)
	processes[1].Stop(t)
	harness.RequireCount(t, ann, 1)
}
