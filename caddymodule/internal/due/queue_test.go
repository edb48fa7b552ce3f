package due_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sse-guard/sse-guard/caddymodule/internal/due"
)

var begin = time.Unix(1_000_000, 0)

func at(n int) time.Time { return begin.Add(time.Duration(n)) }

// entry is named by its number.
type entry = due.Entry[int, struct{}]

func TestQueue_FirstIsTheEarliest(t *testing.T) {
	var q due.Queue[int, struct{}]
	require.Nil(t, q.First())
	require.Nil(t, q.Due(at(1000)))

	a, b, c := &entry{Key: 1}, &entry{Key: 2}, &entry{Key: 3}
	q.Put(a, at(20))
	q.Put(b, at(10))
	q.Put(c, at(30))
	require.Same(t, b, q.First())
	q.Put(b, at(40))
	require.Same(t, a, q.First())
	require.Equal(t, at(40), b.At())
	q.Remove(a)
	require.False(t, a.Queued())
	require.Same(t, c, q.First())
	require.Equal(t, 2, q.Len())
}

func TestQueue_DueFromItsTimeOn(t *testing.T) {
	var q due.Queue[int, struct{}]
	e := new(entry)
	q.Put(e, at(10))
	require.Nil(t, q.Due(at(9)))
	require.Same(t, e, q.Due(at(10)))
	require.Same(t, e, q.Due(at(11)), "it stays in the queue")
}

func TestQueue_RemovedTwiceAndPutAgain(t *testing.T) {
	var q due.Queue[int, struct{}]
	e := new(entry)
	q.Remove(e)
	q.Put(e, at(10))
	q.Remove(e)
	q.Remove(e)
	require.Zero(t, q.Len())
	q.Put(e, at(5))
	require.Same(t, e, q.First())
	require.Equal(t, at(5), e.At())
}

func TestQueue_BehavesAsASortedList(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		const n = 8
		var q due.Queue[int, struct{}]
		all := make([]entry, n)
		var queued []int
		for range rapid.IntRange(1, 100).Draw(rt, "steps") {
			i := rapid.IntRange(0, n-1).Draw(rt, "entry")
			e := &all[i]
			queued = slices.DeleteFunc(queued, func(j int) bool { return j == i })
			if rapid.Bool().Draw(rt, "put") {
				// No two times are the same, so that their order is known.
				q.Put(e, at(n*rapid.IntRange(0, 20).Draw(rt, "time")+i))
				queued = append(queued, i)
			} else {
				q.Remove(e)
			}
			slices.SortFunc(queued, func(i, j int) int { return all[i].At().Compare(all[j].At()) })
			require.Equal(rt, len(queued), q.Len())
			for i := range all {
				require.Equal(rt, slices.Contains(queued, i), all[i].Queued())
			}
			if len(queued) > 0 {
				require.Same(rt, &all[queued[0]], q.First())
			}
		}
		for _, i := range queued {
			require.Same(rt, &all[i], q.First())
			q.Remove(q.First())
		}
		require.Nil(rt, q.First())
	})
}
