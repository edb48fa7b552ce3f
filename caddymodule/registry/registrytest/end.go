package registrytest

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// selection is a selector, and what a stream must have to be named by it.
type selection struct {
	name     string
	selector registry.Selector
	// other makes a stream of mine one that the selector does not name.
	other func(*registry.Holder)
}

// mine gives h all that a selector can ask for.
func mine(h *registry.Holder) *registry.Holder {
	h.Key, h.Token, h.Client, h.Subject, h.Session = ID("my key"), ID("my token"), ID("my client"), ID("my subject"), ID("my session")
	return h
}

func selections() []selection {
	none, other := registry.ID{}, ID("another")
	return []selection{
		{"Key", registry.Selector{Key: ID("my key")}, func(h *registry.Holder) { h.Key = other }},
		{"Token", registry.Selector{Token: ID("my token")}, func(h *registry.Holder) { h.Token = other }},
		{"Token_None", registry.Selector{Token: ID("my token")}, func(h *registry.Holder) { h.Token = none }},
		{"Client", registry.Selector{Client: ID("my client")}, func(h *registry.Holder) { h.Client = other }},
		{"Client_None", registry.Selector{Client: ID("my client")}, func(h *registry.Holder) { h.Client = none }},
		{"Subject", registry.Selector{Subject: ID("my subject")}, func(h *registry.Holder) { h.Subject = other }},
		{"Subject_None", registry.Selector{Subject: ID("my subject")}, func(h *registry.Holder) { h.Subject = none }},
		{"Session", registry.Selector{Session: ID("my session")}, func(h *registry.Holder) { h.Session = other }},
		{"AllOfASession", registry.Selector{All: true, Session: ID("my session")}, func(h *registry.Holder) { h.Session = none }},
		{"TokenOfAClient", registry.Selector{Token: ID("my token"), Client: ID("my client")}, func(h *registry.Holder) { h.Token = other }},
		{"ClientOfAToken", registry.Selector{Token: ID("my token"), Client: ID("my client")}, func(h *registry.Holder) { h.Client = other }},
		{"TokenOfAKey", registry.Selector{Key: ID("my key"), Token: ID("my token")}, func(h *registry.Holder) { h.Key = other }},
		{"SubjectOfAKey", registry.Selector{Key: ID("my key"), Subject: ID("my subject")}, func(h *registry.Holder) { h.Subject = other }},
	}
}

func testEnd(t *testing.T, open Open) {
	for _, sel := range selections() {
		t.Run(sel.name, func(t *testing.T) { sel.testEnd(t, open.site(t)) })
	}
	runSpecs(t, open, []spec{
		{"OneStream", func(t *testing.T, s site) {
			a, b := Anon("a"), Anon("b")
			b.ID = a.ID.Nth(1)
			p := s.hold(t, a, Track)
			s.hold(t, b, Track)
			e := registry.Ending{Reason: reason.Dead}
			require.Empty(t, s.end(t, registry.Selector{ID: a.ID, Token: ID("another")}, e).Holders)
			require.Empty(t, s.end(t, registry.Selector{ID: registry.NewStreamID()}, e).Holders)
			require.Equal(t, []string{"a"}, names(s.end(t, registry.Selector{ID: a.ID, Key: a.Key}, e).Holders))
			require.Equal(t, []registry.Ending{e}, s.node.Endings(a.ID))
			require.Equal(t, []string{"b"}, s.holders(t, "key"))
			leaveAndDepart(p)
			require.Equal(t, []string{"b"}, names(s.end(t, registry.Selector{ID: b.ID}, e).Holders))
		}},
		{"All", func(t *testing.T, s site) {
			var want []string
			for i := range 20 {
				h := withKey(Anon(fmt.Sprint(i)), fmt.Sprint("key", i%7))
				h.Since = time.Unix(int64(i), 0)
				s.hold(t, h, Track)
				want = append(want, h.Addr)
			}
			require.Equal(t, want, names(s.end(t, registry.Selector{All: true}, registry.Ending{}).Holders))
			require.Empty(t, s.find(t, registry.Selector{All: true}))
		}},
		{"ZeroSelectorNamesNobody", func(t *testing.T, s site) {
			s.hold(t, withToken(Anon("a"), ""), Track)
			ended := s.end(t, registry.Selector{}, registry.Ending{})
			require.Equal(t, registry.Ended{}, ended)
			require.Empty(t, s.find(t, registry.Selector{}))
			require.Empty(t, s.node.Ended())
		}},
	})
	for name, sel := range map[string]registry.Selector{
		"Token": {Token: ID("token")}, "Client": {Client: ID("my client")}, "Subject": {Subject: ID("my subject")},
	} {
		t.Run("OldestFirstAcrossKeys/"+name, func(t *testing.T) { testEndOldestFirst(t, open.site(t), sel) })
	}
}

func (sel selection) testEnd(t *testing.T, s site) {
	logout := registry.Ending{Reason: reason.Logout, By: "192.0.2.1", Message: "We close at six.\n— ops"}
	var ours, others []*registry.Holder
	for i := range 3 {
		a, b := mine(Anon("a")), mine(Anon("b"))
		a.Since = time.Unix(int64(i), 0)
		sel.other(b)
		s.holdAll(t, a, b)
		ours, others = append(ours, a), append(others, b)
	}
	reserved := mine(Anon("r"))
	p := s.reserve(t, reserved, Track)
	leaveAndDepart(s.hold(t, mine(Anon("l")), Track))

	require.ElementsMatch(t, ours, s.find(t, sel.selector), "a reservation holds nothing")
	require.Equal(t, ours, s.end(t, sel.selector, logout).Holders, "oldest first")
	require.Equal(t, ids(ours), s.node.Ended())
	for _, h := range ours {
		require.Equal(t, []registry.Ending{logout}, s.node.Endings(h.ID))
	}
	require.Empty(t, s.find(t, sel.selector))
	require.ElementsMatch(t, others, s.find(t, registry.Selector{All: true}))
	require.Empty(t, s.end(t, sel.selector, logout).Holders, "nobody is ended twice")

	commit(t, p)
	require.Equal(t, []*registry.Holder{reserved}, s.find(t, sel.selector))
	require.Equal(t, []*registry.Holder{reserved}, s.end(t, sel.selector, logout).Holders,
		"a reservation is found once it is held")
}

func testEndOldestFirst(t *testing.T, s site, sel registry.Selector) {
	var want []*registry.Holder
	for i := range 20 {
		h := withKey(Device(fmt.Sprint(i), "my client"), fmt.Sprint("key", i%7))
		h.Subject = ID("my subject")
		p := s.hold(t, h, Track)
		if i%3 == 0 {
			leaveAndDepart(p)
		} else {
			want = append(want, h)
		}
	}
	require.Equal(t, names(want), names(s.end(t, sel, registry.Ending{}).Holders))
	require.Equal(t, ids(want), s.node.Ended())
}
