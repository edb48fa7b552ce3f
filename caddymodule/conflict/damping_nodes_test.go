package conflict_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/conflict"
)

// A load balancer has each request come to another node, so that no node sees more than a
// part of what happens to the key.
func TestNodes_PagesThatFlapComeToRest(t *testing.T) {
	for _, nodes := range []int{2, 3, 7} {
		for _, pages := range somePages {
			for _, after := range []time.Duration{200 * time.Millisecond, time.Second, 2 * time.Second} {
				t.Run(fmt.Sprintf("%d/%s/%s", nodes, pages, after), func(t *testing.T) {
					dampingInBubble(t, func(t *testing.T, s *dampingSite) {
						s.onNodes(nodes)
						for _, token := range pages {
							s.flap(token, after)
							pass(after/2 + 1)
						}
						s.requireRest(t, 40*time.Second, len(pages))
					})
				})
				t.Run(fmt.Sprintf("%d/%s/%s/Rebuild", nodes, pages, after), func(t *testing.T) {
					dampingInBubble(t, func(t *testing.T, s *dampingSite) {
						s.onNodes(nodes)
						for _, token := range pages {
							s.rebuild(token, after)
							pass(told + after)
						}
						s.requireRest(t, 40*time.Second, len(pages))
					})
				})
			}
		}
	}
}

// A page that is loaded again and again leaves by itself. Only the node that has its older
// stream knows that; the page comes to another one.
func TestNodes_AReloadedPageIsNotParked(t *testing.T) {
	dampingInBubble(t, func(t *testing.T, s *dampingSite) {
		s.onNodes(3)
		c := s.open("a")
		for range 50 {
			newer := s.open("a")
			require.NotNil(t, newer, "it is parked")
			c.gone.Store(true)
			pass(4 * time.Second)
			c = newer
		}
	})
}

// What a client was told may yet be on its way to it, so that it seems to be silent: the
// other nodes are told when that has turned out.
func TestNodes_AreNotToldTooEarlyWhoHadGone(t *testing.T) {
	dampingInBubble(t, func(t *testing.T, s *dampingSite) {
		s.onNodes(2)
		asked := make(chan time.Duration, 9)
		lostAt := time.Now()
		s.Lost(lost(newcomer(key, "a"), newcomer(key, "a"), func() bool {
			asked <- time.Since(lostAt)
			return false
		}))
		pass(time.Minute)
		require.Len(t, asked, 1, "once")
		require.Equal(t, 2*time.Second, <-asked)
	})
}

// A tab that is opened beside another stays where it is: its tombstone is shown, to any
// node.
func TestNodes_TabsThatBehaveAreNotParked(t *testing.T) {
	dampingInBubble(t, func(t *testing.T, s *dampingSite) {
		s.onNodes(3)
		for range 10 {
			require.NotNil(t, s.behave("a", told))
			pass(5 * time.Second)
		}
		_, _, parked := s.counts()
		require.Zero(t, parked)
	})
}

// A person may take the key three times a minute, not three times on each node.
func TestNodes_TakesAreCountedOnAll(t *testing.T) {
	dampingInBubble(t, func(t *testing.T, s *dampingSite) {
		s.onNodes(3)
		s.rule.Count = 1
		s.open("a")
		s.open("a")
		for range conflict.MaxTakes {
			pass(4 * time.Second)
			require.NotNil(t, s.take("a"))
		}
		pass(4 * time.Second)
		require.Nil(t, s.take("a"))
	})
}

func TestHear_LeavesAloneWhatItCannotRead(t *testing.T) {
	d := conflict.NewDamping()
	defer d.Close()
	var notes [][]byte
	other := conflict.NewDamping()
	defer other.Close()
	other.Share(func(_ time.Time, b []byte) { notes = append(notes, b) })
	other.Lost(lost(newcomer(key, "a"), newcomer(key, "a"), nil))
	require.Len(t, notes, 1)
	for _, b := range [][]byte{nil, {1}, notes[0][1:], append(slices.Clip(notes[0]), 0)} {
		d.Hear(time.Now(), b)
		require.Zero(t, d.Keys())
	}
	d.Hear(time.Now().Add(-time.Hour), notes[0])
	require.Zero(t, d.Keys(), "it is of no account any more")
	d.Hear(time.Now(), notes[0])
	require.Equal(t, 1, d.Losses(key))
}
