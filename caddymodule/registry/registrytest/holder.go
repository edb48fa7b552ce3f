package registrytest

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// ID names something; the empty name is the zero ID.
func ID(name string) registry.ID {
	if name == "" {
		return registry.ID{}
	}
	return sha256.Sum256([]byte(name))
}

// Anon returns a stream without a client id, of the key "key" and the token
// "token". Its address is its name.
func Anon(name string) *registry.Holder {
	return &registry.Holder{ID: registry.NewStreamID(), Key: ID("key"), Token: ID("token"), Addr: name}
}

// Device returns a stream like Anon's, of a client id that names a device.
func Device(name, client string) *registry.Holder {
	h := Anon(name)
	h.Client = ID(client)
	return h
}

// Tab returns a stream like Anon's, of a client id that names a tab.
func Tab(name, client string) *registry.Holder {
	h := Device(name, client)
	h.Tab = true
	return h
}

// Supersede is the rule by which the newest hold a key.
func Supersede(limit int, unit registry.Unit) registry.Rule {
	return registry.Rule{Policy: registry.Supersede, Limit: limit, Unit: unit}
}

// Reject is the rule by which the oldest hold a key.
func Reject(limit int, unit registry.Unit) registry.Rule {
	return registry.Rule{Policy: registry.Reject, Limit: limit, Unit: unit}
}

// Track admits anyone and ends nobody but a tab's own older streams.
var Track = registry.Rule{Policy: registry.Supersede, Unit: registry.Streams}

// anyToken lets an Early question end whoever has the newcomer's token.
var anyToken = registry.Consent{SameToken: true}

func fingerprinted(name, fingerprint string) *registry.Holder {
	h := Anon(name)
	h.Fingerprint = ID(fingerprint)
	return h
}

func withKey(h *registry.Holder, key string) *registry.Holder {
	h.Key = ID(key)
	return h
}

func withToken(h *registry.Holder, token string) *registry.Holder {
	h.Token = ID(token)
	return h
}

// names returns the holders' addresses; nil for none.
func names(holders []*registry.Holder) []string {
	var out []string
	for _, h := range holders {
		out = append(out, h.Addr)
	}
	return out
}

// sorted returns the holders' addresses in order; nil for none.
func sorted(holders []*registry.Holder) []string {
	out := names(holders)
	slices.Sort(out)
	return out
}

// told returns victims as "name reason".
func told(victims []registry.Victim) []string {
	var out []string
	for _, v := range victims {
		out = append(out, fmt.Sprintf("%s %s", v.Holder.Addr, v.Reason))
	}
	return out
}

// ask asks for one stream and key, without consent.
func (s site) ask(t require.TestingT, phase registry.Phase, h *registry.Holder, rule registry.Rule) registry.Admission {
	return s.askWith(t, phase, registry.Consent{}, h, rule)
}

func (s site) askWith(
	t require.TestingT, phase registry.Phase, consent registry.Consent, h *registry.Holder, rule registry.Rule,
) registry.Admission {
	as, err := s.Admit(context.Background(), phase, consent, []registry.Ask{{Holder: h, Rule: rule}}, nil)
	require.NoError(t, err)
	require.Len(t, as, 1)
	requireSound(t, phase, as[0])
	return as[0]
}

// requireSound checks that an answer has what its outcome says, and nothing else.
func requireSound(t require.TestingT, phase registry.Phase, a registry.Admission) {
	require.Equal(t, a.Outcome == registry.Admitted && phase != registry.Early, a.Place != nil)
	require.LessOrEqual(t, len(a.Holders), registry.MostHolders)
	require.LessOrEqual(t, len(a.Suspects), registry.MostSuspects)
	if a.Outcome != registry.Admitted {
		require.Nil(t, a.Departed)
	}
	if a.Outcome != registry.Admitted && (a.Outcome != registry.Undecided || phase != registry.Early) {
		require.Empty(t, a.Ends)
	}
	require.Equal(t, a.Until.IsZero(), a.Taken == nil)
	if a.Outcome != registry.Entombed {
		require.Nil(t, a.Taken)
	}
	if a.Outcome != registry.Rejected && a.Outcome != registry.Outasked {
		require.Empty(t, a.Holders)
	}
	if a.Outcome != registry.Rejected {
		require.Empty(t, a.Suspects)
	}
}

// hold admits h at the header.
func (s site) hold(t require.TestingT, h *registry.Holder, rule registry.Rule) registry.Place {
	a := s.ask(t, registry.Header, h, rule)
	require.Equal(t, registry.Admitted, a.Outcome, "%s is refused", h.Addr)
	return a.Place
}

// holdAll admits all at the header, without a limit.
func (s site) holdAll(t require.TestingT, hs ...*registry.Holder) {
	for _, h := range hs {
		s.hold(t, h, Track)
	}
}

func (s site) reserve(t require.TestingT, h *registry.Holder, rule registry.Rule) registry.Place {
	a := s.ask(t, registry.Reserve, h, rule)
	require.Equal(t, registry.Admitted, a.Outcome, "%s is refused", h.Addr)
	return a.Place
}

func commit(t require.TestingT, p registry.Place) []registry.Victim {
	victims, err := p.Commit(context.Background())
	require.NoError(t, err)
	return victims
}

// find returns all holders that sel names, in no order that the contract promises.
func (s site) find(t require.TestingT, sel registry.Selector) []*registry.Holder {
	var all []*registry.Holder
	for cursor := ""; ; {
		page, next, err := s.Find(context.Background(), sel, cursor, 7)
		require.NoError(t, err)
		require.LessOrEqual(t, len(page), 7)
		all = append(all, page...)
		if next == "" {
			return all
		}
		require.NotEqual(t, cursor, next)
		cursor = next
	}
}

// holders returns the sorted addresses of who holds the key of that name.
func (s site) holders(t require.TestingT, key string) []string {
	return sorted(s.find(t, registry.Selector{Key: ID(key)}))
}

func (s site) end(t require.TestingT, sel registry.Selector, e registry.Ending) registry.Ended {
	ended, err := s.End(context.Background(), sel, e)
	require.NoError(t, err)
	return ended
}

func (s site) deny(t require.TestingT, denials ...registry.Denial) {
	require.NoError(t, s.Deny(context.Background(), denials...))
}

func (s site) wait(t require.TestingT, h *registry.Holder, rule registry.Rule) registry.Waiter {
	w, err := s.Wait(context.Background(), registry.Ask{Holder: h, Rule: rule})
	require.NoError(t, err)
	return w
}

// leaveAndDepart gives a place back, and has its stream's upstream request gone.
func leaveAndDepart(p registry.Place) {
	p.Leave(registry.Keep{})
	p.Departed()
}

// isClosed tells whether c is closed, or nil.
func isClosed(c <-chan struct{}) bool {
	if c == nil {
		return true
	}
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// free tells of each waiter whether it was told.
func free(ws ...registry.Waiter) []bool {
	out := make([]bool, len(ws))
	for i, w := range ws {
		out[i] = isClosed(w.Free())
	}
	return out
}

// soon is how long the suite waits for what must happen by itself, and aWhile how
// often it looks.
const (
	soon   = 10 * time.Second
	aWhile = 2 * time.Millisecond
)
