package registrytest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// pairing runs a registry and its model side by side.
type pairing struct {
	site
	model *model
	// now is the time that the model knows; it stands still unless the registry is Clocked.
	now   time.Time
	began time.Time // when it was so
	// most is how many denials there is room for.
	most       int
	denials    int // how many were drawn
	holders    []*registry.Holder
	places     []placePair
	waiters    []waiterPair
	departures []departurePair
}

type placePair struct {
	real  registry.Place
	model *modelPlace
}

type waiterPair struct {
	real  registry.Waiter
	model *modelWaiter
}

// departurePair is a channel, and the streams whose departure closes it.
type departurePair struct {
	real    <-chan struct{}
	streams []*registry.Holder
}

// fewDenials are soon too many.
const fewDenials = 4

func testModel(t *testing.T, open Open) {
	all, late := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		p := newPairing(open.unclosed(t))
		defer p.close(rt)
		for range rapid.IntRange(0, 20).Draw(rt, "arrivals") {
			p.admitOne(rt)
		}
		actions := map[string]func(*rapid.T){
			"admit":     p.admitOne,
			"admit all": p.admitAll,
			"commit":    p.commit,
			"leave":     p.leave,
			"leaves":    p.leave,
			"depart":    p.depart,
			"end":       p.end,
			"deny":      p.deny,
			"wait":      p.wait,
			"stop":      p.stop,
			"":          p.check,
		}
		if c, ok := p.Registry.(Clocked); ok {
			c.SetNow(func() time.Time { return p.now })
			actions["later"] = p.later
		}
		for name, action := range actions {
			actions[name] = func(rt *rapid.T) {
				if !p.late() {
					action(rt)
				}
			}
		}
		rt.Repeat(actions)
		all++
		if p.late() {
			late++
		}
		p.finish(rt)
	})
	t.Logf("%d histories, %d of them too slow to be compared to the end", all, late)
	require.LessOrEqual(t, late, max(all/2, 1), "the machine is too slow")
}

// late reports whether a key that came free in the time of the model may be free for long
// in that of the registry: the two cannot be compared any more.
func (p *pairing) late() bool {
	_, clocked := p.Registry.(Clocked)
	return !clocked && time.Since(p.began) >= registry.FreeLately
}

func newPairing(s site) *pairing {
	now := time.Now()
	p := &pairing{site: s, now: now.Truncate(time.Second), began: now, most: math.MaxInt}
	p.model = newModel(func() time.Time { return p.now })
	if b, ok := s.Registry.(Bounded); ok {
		p.most = fewDenials
		b.SetMaxDenials(fewDenials)
	}
	return p
}

// finish has all leave, and checks that nothing is left behind.
func (p *pairing) finish(t *rapid.T) {
	p.site.end(t, registry.Selector{All: true}, registry.Ending{})
	for _, place := range p.places {
		leaveAndDepart(place.real)
	}
	for _, w := range p.waiters {
		w.real.Stop()
	}
	for _, d := range p.departures {
		require.True(t, isClosed(d.real))
	}
	p.requireEmpty(t)
}

// Few of each, so that they meet.
var (
	someFingerprints = []registry.ID{{}, ID("f1"), ID("f2")}
	issuedAgo        = []time.Duration{-1, 2 * time.Hour, time.Hour, 0}
	askedAgo         = []time.Duration{0, 0, 0, -time.Second, -2 * time.Second}
)

// drawIssued draws when a token was issued; the zero time: not known.
func (p *pairing) drawIssued(t *rapid.T, label string) time.Time {
	ago := rapid.SampledFrom(issuedAgo).Draw(t, label)
	if ago < 0 {
		return time.Time{}
	}
	return p.now.Add(-ago).Truncate(time.Hour)
}

func (p *pairing) drawHolder(t *rapid.T) *registry.Holder {
	h := &registry.Holder{
		ID:          registry.NewStreamID(),
		Key:         rapid.SampledFrom(someKeys).Draw(t, "key"),
		Token:       rapid.SampledFrom(someTokens).Draw(t, "token"),
		Client:      rapid.SampledFrom(someClients).Draw(t, "client"),
		Tab:         rapid.Bool().Draw(t, "tab"),
		Subject:     rapid.SampledFrom(someSubjects).Draw(t, "subject"),
		Session:     rapid.SampledFrom(someSessions).Draw(t, "session"),
		Fingerprint: rapid.SampledFrom(someFingerprints).Draw(t, "fingerprint"),
		IssuedAt:    p.drawIssued(t, "issued at"),
		Yields:      rapid.IntRange(0, 3).Draw(t, "yields") == 3,
		Asked:       p.now.Add(rapid.SampledFrom(askedAgo).Draw(t, "asked")),
		Addr:        fmt.Sprintf("s%d", len(p.holders)),
		Since:       p.now.Add(time.Duration(len(p.holders))),
	}
	p.holders = append(p.holders, h)
	return h
}

func drawRule(t *rapid.T) registry.Rule {
	return registry.Rule{
		Policy: rapid.SampledFrom(somePolicies).Draw(t, "policy"),
		Limit:  rapid.IntRange(0, 4).Draw(t, "limit"),
		Unit:   rapid.SampledFrom(someUnits).Draw(t, "unit"),
	}
}

func (p *pairing) drawAsks(t *rapid.T, n int) []registry.Ask {
	asks := make([]registry.Ask, n)
	for i := range asks {
		asks[i] = registry.Ask{
			Holder: p.drawHolder(t), Rule: drawRule(t),
			Damped: rapid.IntRange(0, 4).Draw(t, "damped") == 0,
		}
		if rapid.IntRange(0, 4).Draw(t, "tombstone") == 0 {
			asks[i].Tombstone = &p.now
		}
		asks[i].Prefer = p.drawLeaving(t)
		if i > 0 {
			asks[i].Holder.ID = asks[0].Holder.ID.Nth(i)
		}
	}
	return asks
}

// drawLeaving draws streams that guards of other registries are about to end, or have
// to.
func (p *pairing) drawLeaving(t *rapid.T) []registry.StreamID {
	var out []registry.StreamID
	for range rapid.SampledFrom([]int{0, 0, 1, 3}).Draw(t, "leaving") {
		out = append(out, rapid.SampledFrom(p.holders).Draw(t, "who leaves").ID.Nth(9))
	}
	return out
}

// admitOne admits one stream, as most are.
func (p *pairing) admitOne(t *rapid.T) {
	p.admit(t, registry.Header, registry.Consent{}, p.drawAsks(t, 1), nil)
}

// admitAll asks for one stream or several, in any phase.
func (p *pairing) admitAll(t *rapid.T) {
	asks := p.drawAsks(t, rapid.IntRange(1, 3).Draw(t, "asks"))
	phase := rapid.SampledFrom([]registry.Phase{registry.Early, registry.Header, registry.Reserve}).Draw(t, "phase")
	consent := registry.Consent{
		SameToken: rapid.Bool().Draw(t, "same token"), SameSubject: rapid.Bool().Draw(t, "same subject"),
	}
	p.admit(t, phase, consent, asks, p.drawLeaving(t))
}

func (p *pairing) admit(
	t *rapid.T, phase registry.Phase, consent registry.Consent, asks []registry.Ask, leaving []registry.StreamID,
) {
	want := p.model.admit(phase, consent, asks, leaving, p.now)
	got, err := p.Admit(context.Background(), phase, consent, asks, leaving)
	require.NoError(t, err)
	if p.late() {
		for i := range got {
			if got[i].Place != nil {
				p.places = append(p.places, placePair{got[i].Place, want[i].place})
			}
		}
		return
	}
	require.Len(t, got, len(want))
	for i, w := range want {
		require.Equal(t, w.outcome, got[i].Outcome, "of ask %d", i)
		require.Equal(t, told(w.ends), told(got[i].Ends))
		requireSound(t, phase, got[i])
		require.Equal(t, w.outcome == registry.Entombed && w.held, got[i].Taken != nil, "of ask %d", i)
		switch {
		case w.outcome == registry.Outasked:
			require.True(t, asks[i].Holder.Asked.Before(got[i].Holders[0].Asked))
		case w.outcome == registry.Rejected:
			p.requireRejection(t, asks[i].Holder, got[i])
			require.Len(t, got[i].Holders, min(len(p.named(registry.Selector{Key: asks[i].Holder.Key})), registry.MostHolders))
		case w.place != nil:
			p.places = append(p.places, placePair{got[i].Place, w.place})
		case phase == registry.Early:
			p.departures = append(p.departures, departurePair{got[i].Departed, w.departing})
		}
	}
}

// requireRejection checks that a newcomer is told of some who hold the key.
func (p *pairing) requireRejection(t *rapid.T, h *registry.Holder, a registry.Admission) {
	held, kept := on(h.Key, p.model.held), on(h.Key, p.model.kept)
	require.Subset(t, slices.Concat(held, kept), a.Holders)
	require.Subset(t, ids(held), a.Suspects)
}

// drawPlace draws a place of any state, if there was ever one.
func (p *pairing) drawPlace(t *rapid.T) (placePair, bool) {
	if len(p.places) == 0 {
		return placePair{}, false
	}
	// Mostly a recent one, which is likely still to be there.
	recent := p.places[max(0, len(p.places)-6):]
	from := rapid.SampledFrom([][]placePair{recent, recent, p.places}).Draw(t, "which")
	return rapid.SampledFrom(from).Draw(t, "place"), true
}

func (p *pairing) commit(t *rapid.T) {
	place, ok := p.drawPlace(t)
	if !ok {
		return
	}
	victims, err := place.real.Commit(context.Background())
	switch {
	case !p.model.isReserved(place.model):
		require.Error(t, err)
		require.NotErrorIs(t, err, registry.ErrDenied)
		require.NotErrorIs(t, err, registry.ErrOutasked)
		require.Empty(t, victims)
	case p.model.denied(place.model.holder, p.now):
		require.ErrorIs(t, err, registry.ErrDenied)
		require.Empty(t, victims)
		p.model.drop(place.model.holder)
	case place.model.holder.Yields && !p.model.fits(place.model):
		require.ErrorIs(t, err, registry.ErrOutasked)
		require.Empty(t, victims)
		p.model.drop(place.model.holder)
	default:
		want, outasked := p.model.commit(place.model)
		require.Equal(t, outasked, errors.Is(err, registry.ErrOutasked))
		require.Equal(t, outasked, err != nil)
		require.Equal(t, told(want), told(victims))
	}
}

func (p *pairing) leave(t *rapid.T) {
	place, ok := p.drawPlace(t)
	if !ok {
		return
	}
	keep := rapid.SampledFrom([]registry.Keep{{}, forAnHour}).Draw(t, "keep")
	place.real.Leave(keep)
	p.model.leave(place.model, keep)
}

func (p *pairing) depart(t *rapid.T) {
	place, ok := p.drawPlace(t)
	if !ok {
		return
	}
	place.real.Departed()
	p.model.depart(place.model.holder)
}

// drawSelector draws what may name a few, many, or nobody.
func (p *pairing) drawSelector(t *rapid.T) registry.Selector {
	var sel registry.Selector
	for range rapid.IntRange(1, 2).Draw(t, "fields") {
		switch rapid.SampledFrom([]string{"key", "token", "client", "subject", "session", "stream"}).Draw(t, "field") {
		case "key":
			sel.Key = rapid.SampledFrom(someKeys).Draw(t, "key")
		case "token":
			sel.Token = rapid.SampledFrom(someTokens).Draw(t, "token")
		case "client":
			sel.Client = rapid.SampledFrom(someClients).Draw(t, "client")
		case "subject":
			sel.Subject = rapid.SampledFrom(someSubjects).Draw(t, "subject")
		case "session":
			sel.Session = rapid.SampledFrom(someSessions).Draw(t, "session")
		default:
			if len(p.holders) > 0 {
				sel.ID = rapid.SampledFrom(p.holders).Draw(t, "stream").ID
			}
		}
	}
	return sel
}

func (p *pairing) end(t *rapid.T) {
	sel := p.drawSelector(t)
	require.ElementsMatch(t, p.named(sel), p.find(t, sel))
	e := registry.Ending{Reason: reason.Logout, By: "admin"}
	ended := p.site.end(t, sel, e)
	var want, kept, departing []*registry.Holder
	for _, place := range slices.Concat(p.model.held, p.model.kept) {
		switch h := place.holder; {
		case !sel.Matches(h):
		case p.model.isHeld(place):
			want = append(want, h)
			if !p.model.departed[h.ID] {
				departing = append(departing, h)
			}
			p.model.end(h, e)
		default:
			kept = append(kept, h)
			p.model.drop(h)
		}
	}
	require.ElementsMatch(t, slices.Concat(want, kept), ended.Holders)
	yields := slices.ContainsFunc(ended.Holders, func(h *registry.Holder) bool { return h.Yields }) // in any order
	if (registry.Selector{Session: sel.Session}) != sel && !yields {                                // else by Holder.Since, if by anything
		streams := slices.DeleteFunc(slices.Clone(ended.Holders), func(h *registry.Holder) bool { return slices.Contains(kept, h) })
		require.Equal(t, names(byAge(want)), names(streams))
	}
	p.departures = append(p.departures, departurePair{ended.Departed, departing})
}

// named returns who holds, or is kept a place, and is named by sel.
func (p *pairing) named(sel registry.Selector) []*registry.Holder {
	var out []*registry.Holder
	for _, place := range slices.Concat(p.model.held, p.model.kept) {
		if sel.Matches(place.holder) {
			out = append(out, place.holder)
		}
	}
	return out
}

func (p *pairing) deny(t *rapid.T) {
	given := make([]registry.Denial, rapid.SampledFrom([]int{1, 1, 1, 2, 3, fewDenials + 1}).Draw(t, "denials"))
	for i := range given {
		given[i] = p.drawDenial(t)
	}
	many := p.model.deny(given, p.most, p.now)
	err := p.Deny(context.Background(), given...)
	if many {
		require.ErrorIs(t, err, registry.ErrManyDenials)
	} else {
		require.NoError(t, err)
	}
}

func (p *pairing) drawDenial(t *rapid.T) registry.Denial {
	p.denials++
	d := registry.Denial{
		// The milliseconds tell it from others. Without a clock that the suite sets,
		// none is forgotten meanwhile.
		Until:        p.now.Add(drawMinutes(t, -1, 30)).Add(time.Duration(p.denials) * time.Millisecond),
		IssuedBefore: p.drawIssued(t, "issued before"),
	}
	if _, ok := p.Registry.(Clocked); !ok && d.Until.After(p.now) {
		d.Until = d.Until.Add(time.Hour)
	}
	if rapid.Bool().Draw(t, "by subject") {
		d.Subject = rapid.SampledFrom(someSubjects).Draw(t, "subject")
	} else {
		d.Token = rapid.SampledFrom(someTokens).Draw(t, "token")
		d.Client = rapid.SampledFrom(someClients).Draw(t, "client")
	}
	return d
}

func (p *pairing) later(t *rapid.T) {
	p.now = p.now.Add(rapid.SampledFrom([]time.Duration{registry.FreeLately - 1, drawMinutes(t, 1, 20)}).Draw(t, "later"))
}

func drawMinutes(t *rapid.T, least, most int) time.Duration {
	return time.Duration(rapid.IntRange(least, most).Draw(t, "minutes")) * time.Minute
}

func (p *pairing) wait(t *rapid.T) {
	ask := p.drawAsks(t, 1)[0]
	w, err := p.Wait(context.Background(), ask)
	mw := &modelWaiter{holder: ask.Holder, rule: ask.Rule, told: p.model.view(ask.Holder, ask.Rule, nil).admitted()}
	if !mw.told && (ask.Holder.Yields || p.model.waiting(ask.Holder.Key) == registry.MostWaiters) {
		require.ErrorIs(t, err, registry.ErrManyWaiters)
		return
	}
	require.NoError(t, err)
	if !mw.told {
		p.model.waiters = append(p.model.waiters, mw)
	}
	p.waiters = append(p.waiters, waiterPair{w, mw})
}

func (p *pairing) stop(t *rapid.T) {
	if len(p.waiters) == 0 {
		return
	}
	w := rapid.SampledFrom(p.waiters).Draw(t, "waiter")
	w.real.Stop()
	p.model.forget(w.model)
}

// check compares everything that can be seen.
func (p *pairing) check(t *rapid.T) {
	require.ElementsMatch(t, p.named(registry.Selector{All: true}), p.find(t, registry.Selector{All: true}))
	for _, h := range p.holders {
		require.Equal(t, p.model.endings[h.ID], p.node.Endings(h.ID), "endings of %s", h.Addr)
		require.Equal(t, p.model.denied(h, p.now), p.Denied(h), "denied %s", h.Addr)
	}
	for _, w := range p.waiters {
		require.Equal(t, w.model.told, isClosed(w.real.Free()), "waiter %s", w.model.holder.Addr)
	}
	for _, d := range p.departures {
		all := !slices.ContainsFunc(d.streams, func(h *registry.Holder) bool { return !p.model.departed[h.ID] })
		require.Equal(t, all, isClosed(d.real), "departed: %s", names(d.streams))
	}
}
