// Package registrytest is the suite that every registry must pass, whoever keeps
// it and wherever.
//
//	func TestRegistry(t *testing.T) {
//		registrytest.Run(t, func(t testing.TB, node registry.Node) registry.Registry {
//			return mine.New(node)
//		})
//	}
//
// The suite sees more where the registry lets it. A registry that is Sized is asked
// whether anything is left behind; the time of one that is Clocked passes as the
// suite says, so that it sees denials forgotten and keys free for long; one that is Bounded is made to
// forget them for want of room; and one that is Remote is asked less often. Such methods
// may well exist in tests only.
package registrytest

import (
	"flag"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// Open opens an empty registry of the streams that node has. If it is an io.Closer,
// the suite closes it.
type Open func(t testing.TB, node registry.Node) registry.Registry

// Sized is a registry that tells how much it keeps, denials not counted: 0 once
// all streams have left and departed, and all waiters have stopped.
type Sized interface{ Size() int }

// Clocked is a registry that takes the time from now: for denials, and for keys of
// which a place came free lately.
type Clocked interface{ SetNow(now func() time.Time) }

// Bounded is a registry that keeps so many denials at most.
type Bounded interface{ SetMaxDenials(n int) }

// Remote is a registry whose answers take a while, since they come from another process.
// OnlyCalls has it do from now on only what it is called for: by itself it may hear of
// changes, and in another order than the caller.
type Remote interface{ OnlyCalls() }

// moreRounds is for a long run of what may go wrong one time in many.
var moreRounds = flag.Int("registry.rounds", 1, "repeat what the suite of a registry repeats so many times as often")

// rounds is how often to do what is done n times with a registry in this process.
func (s site) rounds(n int) int {
	if _, remote := s.Registry.(Remote); remote {
		n = max(n/10, 1)
	}
	return n * *moreRounds
}

// group is some of the suite's tests.
type group struct {
	name string
	run  func(*testing.T, Open)
}

// Run tests that registries keep what the contract promises: all of it, or the groups of
// those names only.
func Run(t *testing.T, open Open, groups ...string) {
	ran := 0
	for _, g := range []group{
		{"Admission", testAdmission},
		{"Phases", testPhases},
		{"Asks", testAsks},
		{"NobodyEndsNeedlessly", testNeedless},
		{"Asked", testAsked},
		{"Rejected", testRejected},
		{"Tombstones", testTombstones},
		{"Damped", testDamped},
		{"Leave", testLeave},
		{"Kept", testKept},
		{"Departures", testDepartures},
		{"End", testEnd},
		{"Find", testFind},
		{"Denials", testDenials},
		{"Waiters", testWaiters},
		{"Yields", testYields},
		{"Concurrent", testConcurrent},
		{"Model", testModel},
	} {
		if len(groups) == 0 || slices.Contains(groups, g.name) {
			ran++
			t.Run(g.name, func(t *testing.T) { g.run(t, open) })
		}
	}
	if len(groups) > 0 {
		require.Equal(t, len(groups), ran, "the suite has not all of the groups %q", groups)
	}
}

// site is a registry under test, and the node that has its streams.
type site struct {
	registry.Registry
	node *FakeNode
}

func (open Open) site(t testing.TB) site {
	s := open.unclosed(t)
	t.Cleanup(func() { s.close(t) })
	return s
}

// unclosed opens a site that the test itself closes.
func (open Open) unclosed(t testing.TB) site {
	node := new(FakeNode)
	return site{open(t, node), node}
}

func (s site) close(t require.TestingT) {
	if c, ok := s.Registry.(io.Closer); ok {
		require.NoError(t, c.Close())
	}
}

// requireEmpty checks that nothing is left behind.
func (s site) requireEmpty(t require.TestingT) {
	require.Empty(t, s.find(t, registry.Selector{All: true}))
	if sized, ok := s.Registry.(Sized); ok {
		require.Zero(t, sized.Size(), "something is left behind")
	}
}

// spec is one test of a group.
type spec struct {
	name string
	run  func(t *testing.T, s site)
}

// runSpecs runs each with a registry of its own.
func runSpecs(t *testing.T, open Open, specs []spec) {
	for _, test := range specs {
		t.Run(test.name, func(t *testing.T) { test.run(t, open.site(t)) })
	}
}
