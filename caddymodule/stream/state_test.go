package stream

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// course is what has happened to a response.
type course struct {
	at state
	// left counts the effects that give the place back, and so on.
	left, departed, forgotten, notices, canceled int
}

func (c course) after(m move) course {
	c.at = m.to
	for _, e := range m.do {
		switch e {
		case doLeave, doKeep:
			c.left++
		case doDeparted:
			c.departed++
		case doForget:
			c.forgotten++
		case doNotice, doLastNotice, doTellReturn:
			c.notices++
		case doCancel, doCancelAsClient, doCancelAsEOF:
			c.canceled = 1 // only the first counts
		}
	}
	return c
}

// everyCourse calls f with every course that begins in from, and how it goes on.
func everyCourse(from state, f func(before, after course, o occurrence)) {
	seen := map[course]bool{}
	todo := []course{{at: from}}
	for len(todo) > 0 {
		c := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for o := range occurrences {
			m := moves[c.at][o]
			if m.to == stateNone {
				continue
			}
			next := c.after(m)
			f(c, next, o)
			if !seen[next] {
				seen[next] = true
				todo = append(todo, next)
			}
		}
	}
}

func TestMoves_EveryCourse(t *testing.T) {
	ends := 0
	everyCourse(stateAsked, func(before, after course, o occurrence) {
		require.GreaterOrEqual(t, after.at, before.at, "%d in state %d goes back", o, before.at)
		require.LessOrEqual(t, after.left, 1, "the place is given back once")
		require.LessOrEqual(t, after.departed, 1)
		require.LessOrEqual(t, after.forgotten, 1)
		require.LessOrEqual(t, after.notices, 1)
		if before.forgotten > 0 {
			require.Equal(t, statePassing, before.at, "nothing happens to a stream that is forgotten")
		}
		if after.at.over() {
			require.Equal(t, 1, after.left, "who is over holds nothing: state %d by %d", after.at, o)
		}
		if after.at >= stateRefused && after.at < stateFinishing && o != onBoundary {
			require.Equal(t, 1, after.canceled, "the upstream goes: state %d by %d", after.at, o)
		}
		if after.at == stateGone {
			ends++
			require.Equal(t, 1, after.departed)
			require.Equal(t, 1, after.forgotten)
		}
	})
	require.Positive(t, ends)
}

func TestMoves_EveryCourseOfWhoIsParked(t *testing.T) {
	ends := 0
	everyCourse(stateParked, func(before, after course, _ occurrence) {
		require.GreaterOrEqual(t, after.at, before.at)
		require.Zero(t, after.left, "it has no place")
		require.LessOrEqual(t, after.notices, 1)
		if after.at == stateGone {
			ends++
			require.Equal(t, 1, after.forgotten)
		}
	})
	require.Positive(t, ends)
}

func TestMoves_EveryStateLeadsToGone(t *testing.T) {
	for s := stateAsked; s < stateGone; s++ {
		at := s
		if m := moves[at][onReturned]; m.to != stateNone {
			at = m.to
		}
		if m := moves[at][onFinished]; m.to != stateNone {
			at = m.to
		}
		require.Equal(t, stateGone, at, "from %d", s)
	}
}

func TestMoves_EverythingIsThereForSomething(t *testing.T) {
	var occurred [occurrences]bool
	var done []effect
	reached := map[state]bool{stateAsked: true, stateParked: true}
	for _, row := range moves {
		for o, m := range row {
			occurred[o] = occurred[o] || m.to != stateNone
			reached[m.to] = true
			done = append(done, m.do...)
		}
	}
	for o, does := range occurred {
		require.True(t, does, "occurrence %d", o)
	}
	for s := stateAsked; s < states; s++ {
		require.True(t, reached[s], "state %d", s)
	}
	for e := doCancel; e <= doForget; e++ {
		require.True(t, slices.Contains(done, e), "effect %d", e)
	}
}
