package stream

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

var stateNames = [states]string{
	stateNone: "none", stateAsked: "asked", stateEndsAtHeader: "ends at the header", stateLeft: "left",
	statePassing: "passing", stateOpening: "opening", stateParked: "parked", stateLive: "live", stateEnding: "ending",
	stateRefused: "refused", stateUnwound: "unwound", stateClosed: "closed", stateOverdue: "overdue",
	stateAborted: "aborted", stateFinishing: "finishing", stateGone: "gone",
}

func (s state) String() string { return nameIn(stateNames[:], int(s)) }

var occurrenceNames = [occurrences]string{
	onJudgedPass: "judged: pass", onJudgedRefuse: "judged: refuse", onJudgedAdmit: "judged: admit", onOpened: "opened",
	onEnd: "end", onBoundary: "boundary", onKeyFree: "key free", onClientLeft: "client left", onOuterEnd: "outer end",
	onWriteFailed: "write failed", onTimeout: "timeout", onReturned: "returned", onFinished: "finished",
}

func (o occurrence) String() string { return nameIn(occurrenceNames[:], int(o)) }

var effectNames = [doForget + 1]string{
	doCancel: "cancel", doCancelAsClient: "cancel as client", doCancelAsEOF: "cancel as EOF", doUnwind: "unwind",
	doAnswerLeft: "answer left", doLeave: "leave", doKeep: "keep", doNoteLeft: "note left", doDeparted: "departed",
	doWatch: "watch", doUnvisit: "unvisit", doUnwatch: "unwatch", doStartTimer: "start timer", doSettle: "settle",
	doNotice: "notice", doLastNotice: "last notice", doTellReturn: "tell return", doFlushHeld: "flush held",
	doCutIfStuck: "cut if stuck", doCut: "cut", doForget: "forget",
}

func (e effect) String() string { return nameIn(effectNames[:], int(e)) }

func nameIn(names []string, i int) string {
	if i < len(names) && names[i] != "" {
		return names[i]
	}
	return fmt.Sprintf("unnamed %d", i)
}

// course is what has happened to a response.
type course struct {
	at state
	// left counts the effects that give the place back, and so on.
	left, departed, forgotten, notices, canceled int
	// opened says that the header is out, and timed that the timer was started.
	opened, timed bool
}

func (c course) String() string {
	return fmt.Sprintf("%s (left %d, departed %d, forgotten %d, notices %d, canceled %d, opened %t, timed %t)",
		c.at, c.left, c.departed, c.forgotten, c.notices, c.canceled, c.opened, c.timed)
}

func (c course) after(o occurrence, m move) course {
	c.at = m.to
	c.opened = c.opened || o == onOpened
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
		case doStartTimer, doCutIfStuck, doCut: // these start it again
			c.timed = true
		}
	}
	return c
}

// everyCourse calls f with every step of every course that begins so. way is the whole
// course up to there, for messages.
func everyCourse(begin course, f func(before, after course, o occurrence, way string)) {
	ways := map[course]string{begin: begin.at.String()}
	todo := []course{begin}
	for len(todo) > 0 {
		c := todo[0]
		todo = todo[1:]
		for o := range occurrences {
			m := moves[c.at][o]
			if m.to == stateNone {
				continue
			}
			next := c.after(o, m)
			way := fmt.Sprintf("%s, %s -> %s %v", ways[c], o, m.to, m.do)
			f(c, next, o, way)
			if _, seen := ways[next]; !seen {
				ways[next] = way
				todo = append(todo, next)
			}
		}
	}
}

// requireGoesOn: a course does not wait for ever for something that nobody brings
// about. What has been told to end, and has its header out, has its timer, and its
// upstream's request is canceled once nothing of it is relayed any more.
func requireGoesOn(t *testing.T, c course, way string) {
	t.Helper()
	switch {
	case c.at == stateEnding && c.opened:
		require.True(t, c.timed, "entering it starts the timer: %s", way)
	case c.at == stateEnding:
		require.Contains(t, moves[c.at][onOpened].do, doStartTimer, "the timer starts with the header: %s", way)
	case c.at == stateOverdue, c.at == stateAborted:
		require.True(t, c.timed, "the timer goes on, until the client is cut off: %s", way)
		require.Equal(t, 1, c.canceled, "the upstream goes: %s", way)
	}
}

func TestMoves_EveryCourse(t *testing.T) {
	ends := 0
	everyCourse(course{at: stateAsked}, func(before, after course, _ occurrence, way string) {
		require.GreaterOrEqual(t, after.at, before.at, "it goes back: %s", way)
		require.LessOrEqual(t, after.left, 1, "the place is given back once: %s", way)
		require.LessOrEqual(t, after.departed, 1, way)
		require.LessOrEqual(t, after.forgotten, 1, way)
		require.LessOrEqual(t, after.notices, 1, way)
		if before.forgotten > 0 {
			require.Equal(t, statePassing, before.at, "nothing happens to a stream that is forgotten: %s", way)
		}
		if after.at.over() {
			require.Equal(t, 1, after.left, "who is over holds nothing: %s", way)
		}
		if after.at == stateLeft || after.at >= stateRefused && after.at < stateFinishing {
			require.Equal(t, 1, after.canceled, "the upstream goes: %s", way)
		}
		requireGoesOn(t, after, way)
		if after.at == stateGone {
			ends++
			require.Equal(t, 1, after.departed, way)
			require.Equal(t, 1, after.forgotten, way)
		}
	})
	require.Positive(t, ends)
}

func TestMoves_EveryCourseOfWhoIsParked(t *testing.T) {
	ends := 0
	// Its header is out before it is parked.
	everyCourse(course{at: stateParked, opened: true}, func(before, after course, _ occurrence, way string) {
		require.GreaterOrEqual(t, after.at, before.at, "it goes back: %s", way)
		require.Zero(t, after.left, "it has no place: %s", way)
		require.LessOrEqual(t, after.notices, 1, way)
		requireGoesOn(t, after, way)
		if after.at == stateGone {
			ends++
			require.Equal(t, 1, after.forgotten, way)
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
		require.Equal(t, stateGone, at, "from %s", s)
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
		require.True(t, does, "occurrence %s", occurrence(o))
		require.NotEmpty(t, occurrenceNames[o], "occurrence %d", o)
	}
	for s := stateAsked; s < states; s++ {
		require.True(t, reached[s], "state %s", s)
		require.NotEmpty(t, stateNames[s], "state %d", uint32(s))
	}
	for e := doCancel; e <= doForget; e++ {
		require.True(t, slices.Contains(done, e), "effect %s", e)
		require.NotEmpty(t, effectNames[e], "effect %d", uint8(e))
	}
}
