package registrytest

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

func testFind(t *testing.T, open Open) {
	runSpecs(t, open, []spec{
		{"PagesHaveEachHolderOnce", func(t *testing.T, s site) {
			hs := manyHolders(50)
			s.holdAll(t, hs...)
			s.hold(t, withKey(Anon("other"), "another"), Track)
			for _, limit := range []int{1, 7, 49, 50, 51, 1000} {
				got := s.pages(t, registry.Selector{Key: ID("key")}, limit, nil)
				require.Len(t, got, len(hs))
				require.ElementsMatch(t, hs, got)
			}
		}},
		{"WhoHoldsAllTheWhileIsListedOnce", testFindMeanwhile},
		{"KeptPlacesAreListed", func(t *testing.T, s site) {
			s.keep(t, Anon("a"))
			s.hold(t, Anon("b"), Track)
			require.Equal(t, []string{"a", "b"}, s.holders(t, "key"))
		}},
		{"NobodyIsNoPage", func(t *testing.T, s site) {
			for _, sel := range []registry.Selector{{All: true}, {Key: ID("key")}, {ID: registry.NewStreamID()}} {
				page, cursor, err := s.Find(context.Background(), sel, "", 1)
				require.NoError(t, err)
				require.Empty(t, page)
				require.Empty(t, cursor)
			}
		}},
		{"TheNodeIsThere", func(t *testing.T, s site) {
			var nodes []registry.Node
			require.NoError(t, s.Each(context.Background(), func(n registry.Node) { nodes = append(nodes, n) }))
			require.NotEmpty(t, nodes)
			require.Same(t, s.node, nodes[0], "this one first")
		}},
	})
}

// pages turns all pages; meanwhile is called between two.
func (s site) pages(t *testing.T, sel registry.Selector, limit int, meanwhile func()) []*registry.Holder {
	var all []*registry.Holder
	for cursor := ""; ; {
		page, next, err := s.Find(context.Background(), sel, cursor, limit)
		require.NoError(t, err)
		require.LessOrEqual(t, len(page), limit)
		all = append(all, page...)
		if next == "" {
			return all
		}
		require.NotEmpty(t, page)
		cursor = next
		if meanwhile != nil {
			meanwhile()
		}
	}
}

func testFindMeanwhile(t *testing.T, s site) {
	for _, sel := range []registry.Selector{{All: true}, {Key: ID("key")}, {Token: ID("token")}} {
		var stay []*registry.Holder
		var leave []registry.Place
		for i := range 40 {
			h := Anon(fmt.Sprint("h", i))
			p := s.hold(t, h, Track)
			if i%3 == 0 {
				leave = append(leave, p)
			} else {
				stay = append(stay, h)
			}
		}
		got := s.pages(t, sel, 4, func() {
			for range 2 { // some leave, others come
				if len(leave) > 0 {
					leaveAndDepart(leave[0])
					leave = leave[1:]
				}
			}
			s.hold(t, Anon("new"), Track)
		})
		times := make(map[*registry.Holder]int)
		for _, h := range got {
			times[h]++
			require.Equal(t, 1, times[h], "%s is listed twice", h.Addr)
		}
		for _, h := range stay {
			require.Equal(t, 1, times[h], "%s is not listed", h.Addr)
		}
		s.end(t, registry.Selector{All: true}, registry.Ending{})
	}
}
