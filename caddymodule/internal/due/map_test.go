package due_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sse-guard/sse-guard/caddymodule/internal/due"
)

func TestMap_FindsByKeyAndByTime(t *testing.T) {
	m := due.NewMap[string, int](3)
	require.Nil(t, m.Find("a"))
	require.Nil(t, m.First())
	a, forgotten := m.Add("a", at(20))
	require.Nil(t, forgotten)
	a.Value = 1
	b, _ := m.Add("b", at(10))

	require.Same(t, a, m.Find("a"))
	require.Equal(t, 1, m.Find("a").Value)
	require.Same(t, b, m.First())
	require.Nil(t, m.Due(at(9)))
	require.Same(t, b, m.Due(at(10)))
	m.Remove(b)
	m.Remove(b)
	require.Nil(t, m.Find("b"))
	require.Same(t, a, m.First())
	require.Equal(t, 1, m.Len())
}

func TestMap_ExtendsButNeverShortens(t *testing.T) {
	m := due.NewMap[string, int](3)
	a, _ := m.Add("a", at(10))
	b, _ := m.Add("b", at(20))
	m.Extend(a, at(5))
	require.Equal(t, at(10), a.At())
	require.Same(t, a, m.First())
	m.Extend(a, at(30))
	require.Equal(t, at(30), a.At())
	require.Same(t, b, m.First())
}

func TestMap_FullForgetsTheFirst(t *testing.T) {
	m := due.NewMap[string, int](2)
	m.Add("a", at(20))
	b, _ := m.Add("b", at(10))
	b.Value = 7
	c, forgotten := m.Add("c", at(1))
	require.Same(t, b, forgotten)
	require.Equal(t, 7, forgotten.Value)
	require.Equal(t, "b", forgotten.Key)
	require.Nil(t, m.Find("b"))
	require.Same(t, c, m.First(), "the new one is not forgotten for itself")
	require.Equal(t, 2, m.Len())
	m.Remove(forgotten)
	require.Equal(t, 2, m.Len())
}

func TestMap_HasRoomForOneAtLeast(t *testing.T) {
	m := due.NewMap[string, int](0)
	m.Add("a", at(1))
	_, forgotten := m.Add("b", at(2))
	require.Equal(t, "a", forgotten.Key)
	require.Equal(t, 1, m.Len())
}

// A removed entry of a key must not take out the key's next one.
func TestMap_RemovingAnOldEntryKeepsTheNewOne(t *testing.T) {
	m := due.NewMap[string, int](2)
	old, _ := m.Add("a", at(1))
	m.Remove(old)
	next, _ := m.Add("a", at(2))
	m.Remove(old)
	require.Same(t, next, m.Find("a"))
}

func TestMap_BehavesAsASortedList(t *testing.T) {
	type item struct {
		key int
		at  time.Time
	}
	rapid.Check(t, func(rt *rapid.T) {
		const keys = 8
		limit := rapid.IntRange(1, keys).Draw(rt, "limit")
		m := due.NewMap[int, struct{}](limit)
		var model []item // sorted by time
		for range rapid.IntRange(1, 100).Draw(rt, "steps") {
			key := rapid.IntRange(0, keys-1).Draw(rt, "key")
			// No two times are the same, so that their order is known.
			when := at(keys*rapid.IntRange(0, 20).Draw(rt, "time") + key)
			known := slices.IndexFunc(model, func(i item) bool { return i.key == key })
			e := m.Find(key)
			require.Equal(rt, known >= 0, e != nil)
			switch {
			case e == nil:
				_, forgotten := m.Add(key, when)
				require.Equal(rt, len(model) == limit, forgotten != nil)
				if forgotten != nil {
					require.Equal(rt, model[0].key, forgotten.Key)
					model = model[1:]
				}
				model = append(model, item{key, when})
			case rapid.Bool().Draw(rt, "extend"):
				m.Extend(e, when)
				if when.After(model[known].at) {
					model[known].at = when
				}
			default:
				m.Remove(e)
				model = slices.Delete(model, known, known+1)
			}
			slices.SortFunc(model, func(a, b item) int { return a.at.Compare(b.at) })
			require.Equal(rt, len(model), m.Len())
			if len(model) > 0 {
				require.Equal(rt, model[0].key, m.First().Key)
				require.Equal(rt, model[0].at, m.First().At())
			}
		}
	})
}
