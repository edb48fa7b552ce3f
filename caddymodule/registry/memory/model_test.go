package memory_test

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/registry/memory"
)

// model is a registry as it is described, not as it is built: one slice of
// places, in the order of their commits, searched from end to end.
type model struct {
	reserved []*modelPlace
	held     []*modelPlace
	waiters  []*modelWaiter
	endings  map[*registry.Stream][]registry.Ending
	denials  []*modelDenial
}

type modelPlace struct {
	stream *registry.Stream
	rule   registry.Rule
}

type modelWaiter struct {
	stream *registry.Stream
	rule   registry.Rule
	told   bool
}

// modelDenial is of one token, one client or one subject.
type modelDenial struct {
	registry.Denial
	// given tells that the Deny at work was given it.
	given bool
}

func newModel() *model { return &model{endings: make(map[*registry.Stream][]registry.Ending)} }

// who names the client of s; a stream without one is its own.
func who(s *registry.Stream) any {
	if s.Client.IsZero() {
		return s
	}
	return s.Client
}

func clientsOf(streams []*registry.Stream) map[any]bool {
	out := make(map[any]bool)
	for _, s := range streams {
		out[who(s)] = true
	}
	return out
}

// on returns the streams of those places that are for key.
func on(key registry.ID, places []*modelPlace) []*registry.Stream {
	var out []*registry.Stream
	for _, p := range places {
		if p.stream.Key == key {
			out = append(out, p.stream)
		}
	}
	return out
}

// ownTab tells whether older is a stream that newcomer, a tab's, replaces.
func ownTab(newcomer, older *registry.Stream) bool {
	return newcomer.Tab && !newcomer.Client.IsZero() && newcomer.Client == older.Client
}

// others returns whom s finds before it under Reject, but for its own tab.
func (m *model) others(s *registry.Stream) []*registry.Stream {
	var out []*registry.Stream
	for _, h := range on(s.Key, m.held) {
		if !ownTab(s, h) {
			out = append(out, h)
		}
	}
	for _, h := range on(s.Key, m.reserved) {
		if !ownTab(s, h) || !h.Tab {
			out = append(out, h)
		}
	}
	return out
}

// present returns all who hold or have reserved the key of s.
func (m *model) present(s *registry.Stream) []*registry.Stream {
	return append(on(s.Key, m.held), on(s.Key, m.reserved)...)
}

func (m *model) admitted(s *registry.Stream, rule registry.Rule) bool {
	if rule.Policy == registry.Supersede || rule.Limit == 0 {
		return true
	}
	if rule.Unit == registry.Clients {
		clients := clientsOf(m.present(s))
		return clients[who(s)] || len(clients) < rule.Limit
	}
	return len(m.others(s)) < rule.Limit
}

func (m *model) takesPlace(s *registry.Stream, rule registry.Rule) bool {
	if rule.Unit == registry.Clients {
		return !clientsOf(m.present(s))[who(s)]
	}
	return len(m.others(s)) == len(m.present(s))
}

// victims takes holders away, one after the other, until s fits.
func (m *model) victims(s *registry.Stream, rule registry.Rule) []registry.Victim {
	held := on(s.Key, m.held)
	left := slices.Clone(held)
	reasons := make(map[*registry.Stream]registry.Reason)
	take := func(reason registry.Reason, goes func(*registry.Stream) bool) {
		left = slices.DeleteFunc(left, func(h *registry.Stream) bool {
			if goes(h) {
				reasons[h] = reason
			}
			return goes(h)
		})
	}
	take(registry.Replaced, func(h *registry.Stream) bool { return ownTab(s, h) })
	for rule.Policy == registry.Supersede && rule.Limit > 0 {
		if rule.Unit == registry.Clients {
			if len(clientsOf(append(slices.Clone(left), s))) <= rule.Limit {
				break
			}
			oldest := stalest(left, who(s))
			take(registry.Superseded, func(h *registry.Stream) bool { return who(h) == oldest })
			continue
		}
		if len(left)+1 <= rule.Limit {
			break
		}
		victim, reason := left[0], registry.Superseded
		for _, h := range left {
			if who(h) == who(s) {
				victim, reason = h, registry.Replaced
				break
			}
		}
		take(reason, func(h *registry.Stream) bool { return h == victim })
	}
	var out []registry.Victim
	for _, h := range held {
		if reason, ok := reasons[h]; ok {
			out = append(out, registry.Victim{Stream: h, Reason: reason})
		}
	}
	return out
}

// stalest returns the client, not own, whose newest stream is oldest.
func stalest(held []*registry.Stream, own any) any {
	newest := make(map[any]int)
	for age, h := range held {
		newest[who(h)] = age
	}
	var found any
	for client, age := range newest {
		if client != own && (found == nil || age < newest[found]) {
			found = client
		}
	}
	return found
}

func (m *model) judge(s *registry.Stream, rule registry.Rule) registry.Judgement {
	if !m.admitted(s, rule) {
		return registry.Judgement{Holders: on(s.Key, m.held)}
	}
	return registry.Judgement{Admitted: true, Ends: m.victims(s, rule)}
}

func (m *model) reserve(p *modelPlace) {
	m.reserved = append(m.reserved, p)
	m.tell(p.stream.Key, 0)
}

func (m *model) commit(p *modelPlace) []registry.Victim {
	victims := m.victims(p.stream, p.rule)
	m.reserved = slices.DeleteFunc(m.reserved, func(q *modelPlace) bool { return q == p })
	m.held = append(m.held, p)
	for _, v := range victims {
		m.end(v.Stream, registry.Ending{Reason: v.Reason, By: p.stream.Addr})
	}
	m.tell(p.stream.Key, 0)
	return victims
}

func (m *model) isReserved(p *modelPlace) bool { return slices.Contains(m.reserved, p) }

func (m *model) isHeld(s *registry.Stream) bool {
	return slices.ContainsFunc(m.held, func(p *modelPlace) bool { return p.stream == s })
}

// leave takes the place of s away, if it has one.
func (m *model) leave(s *registry.Stream) {
	n := len(m.reserved) + len(m.held)
	theirs := func(p *modelPlace) bool { return p.stream == s }
	m.reserved = slices.DeleteFunc(m.reserved, theirs)
	m.held = slices.DeleteFunc(m.held, theirs)
	if len(m.reserved)+len(m.held) < n {
		m.tell(s.Key, 1)
	}
}

// end ends s, a holder.
func (m *model) end(s *registry.Stream, e registry.Ending) {
	m.endings[s] = append(m.endings[s], e)
	m.leave(s)
}

// deny does as Deny, and reports whether any were forgotten before their time. No
// two denials may have the same Until.
func (m *model) deny(given []registry.Denial, limit int, now time.Time) bool {
	m.denials = slices.DeleteFunc(m.denials, func(d *modelDenial) bool { return !d.Until.After(now) })
	for _, d := range m.denials {
		d.given = false
	}
	for _, g := range given {
		if g.Until.After(now) {
			m.denyOne(g)
		}
	}
	many := false
	for len(m.denials) > limit {
		many = true
		goes := slices.MinFunc(m.denials, func(a, b *modelDenial) int {
			return cmp.Or(goesLast(a)-goesLast(b), a.Until.Compare(b.Until))
		})
		m.denials = slices.DeleteFunc(m.denials, func(d *modelDenial) bool { return d == goes })
	}
	return many
}

// goesLast is 1 for a denial that others make room for, else 0.
func goesLast(d *modelDenial) int {
	if d.given {
		return 1
	}
	return 0
}

func (m *model) denyOne(g registry.Denial) {
	if g.Token.IsZero() && (g.Subject.IsZero() || g.IssuedBefore.IsZero()) {
		return
	}
	for _, d := range m.denials {
		if d.Token != g.Token || d.Subject != g.Subject || !d.Token.IsZero() && d.Client != g.Client {
			continue
		}
		d.given = true
		if g.Until.After(d.Until) {
			d.Until = g.Until
		}
		if g.IssuedBefore.After(d.IssuedBefore) {
			d.IssuedBefore = g.IssuedBefore
		}
		return
	}
	m.denials = append(m.denials, &modelDenial{g, true})
}

func (m *model) denied(s *registry.Stream, now time.Time) bool {
	return slices.ContainsFunc(m.denials, func(d *modelDenial) bool {
		switch {
		case !d.Until.After(now):
			return false
		case !d.Token.IsZero():
			return d.Token == s.Token && (d.Client.IsZero() || d.Client == s.Client)
		default:
			return d.Subject == s.Subject && !s.IssuedAt.IsZero() && s.IssuedAt.Before(d.IssuedBefore)
		}
	})
}

func (m *model) waiting(key registry.ID) int {
	n := 0
	for _, w := range m.waiters {
		if w.stream.Key == key {
			n++
		}
	}
	return n
}

func (m *model) tell(key registry.ID, places int) {
	for _, w := range slices.Clone(m.waiters) {
		if w.stream.Key != key || !m.admitted(w.stream, w.rule) {
			continue
		}
		if m.takesPlace(w.stream, w.rule) {
			if places == 0 {
				continue
			}
			places--
		}
		w.told = true
		m.forget(w)
	}
}

func (m *model) forget(w *modelWaiter) {
	m.waiters = slices.DeleteFunc(m.waiters, func(x *modelWaiter) bool { return x == w })
}

// pairing runs a registry and its model side by side.
type pairing struct {
	real    *memory.Registry
	model   *model
	clock   *clock
	denials int // how many were drawn
	streams []*registry.Stream
	places  []placePair
	waiters []waiterPair
}

type placePair struct {
	real  registry.Place
	model *modelPlace
}

type waiterPair struct {
	real  registry.Waiter
	model *modelWaiter
}

// Few of each, so that they meet.
var (
	someKeys    = []registry.ID{id("k1"), id("k2")}
	someTokens  = []registry.ID{{}, id("t1"), id("t2")}
	someClients = []registry.ID{{}, id("c1"), id("c2"), id("c3")}
	someReasons = []registry.Reason{registry.Superseded, registry.Replaced}
	someIndices = []registry.Index{registry.ByKey, registry.ByToken, registry.ByClient, registry.BySubject}
	somePolicy  = []registry.Policy{registry.Supersede, registry.Reject}
	someUnits   = []registry.Unit{registry.Streams, registry.Clients}

	someSubjects = []registry.ID{{}, id("u1"), id("u2")}
	someIssued   = []time.Time{{}, noon.Add(-2 * time.Hour), noon.Add(-time.Hour), noon}
	someIDs      = map[registry.Index][]registry.ID{
		registry.ByKey: someKeys, registry.ByToken: someTokens,
		registry.ByClient: someClients, registry.BySubject: someSubjects,
	}
)

// fewDenials are soon too many.
const fewDenials = 4

// under tells whether index must know s under id, if s holds.
func under(index registry.Index, id registry.ID, s *registry.Stream) bool {
	has := map[registry.Index]registry.ID{
		registry.ByKey: s.Key, registry.ByToken: s.Token, registry.ByClient: s.Client, registry.BySubject: s.Subject,
	}[index]
	return has == id && !id.IsZero()
}

func (p *pairing) drawStream(t *rapid.T) *registry.Stream {
	s := &registry.Stream{
		Key:    rapid.SampledFrom(someKeys).Draw(t, "key"),
		Token:  rapid.SampledFrom(someTokens).Draw(t, "token"),
		Client: rapid.SampledFrom(someClients).Draw(t, "client"),
		Tab:    rapid.Bool().Draw(t, "tab"),

		Subject:  rapid.SampledFrom(someSubjects).Draw(t, "subject"),
		IssuedAt: rapid.SampledFrom(someIssued).Draw(t, "issued at"),

		Addr:   fmt.Sprintf("s%d", len(p.streams)),
		Handle: new(spy),
	}
	p.streams = append(p.streams, s)
	return s
}

func drawRule(t *rapid.T) registry.Rule {
	return registry.Rule{
		Policy: rapid.SampledFrom(somePolicy).Draw(t, "policy"),
		Limit:  rapid.IntRange(0, 4).Draw(t, "limit"),
		Unit:   rapid.SampledFrom(someUnits).Draw(t, "unit"),
	}
}

func (p *pairing) reserve(t *rapid.T) {
	s, rule := p.drawStream(t), drawRule(t)
	want := p.model.judge(s, rule)
	place, j, err := p.real.Reserve(context.Background(), s, rule)
	require.NoError(t, err)
	requireSameJudgement(t, want, j)
	if !want.Admitted {
		require.Nil(t, place)
		return
	}
	mp := &modelPlace{s, rule}
	p.model.reserve(mp)
	p.places = append(p.places, placePair{place, mp})
}

func (p *pairing) judge(t *rapid.T) {
	s, rule := p.drawStream(t), drawRule(t)
	requireSameJudgement(t, p.model.judge(s, rule), judge(t, p.real, s, rule))
}

func (p *pairing) commit(t *rapid.T) {
	place, ok := p.drawPlace(t)
	if !ok {
		return
	}
	p.commitPlace(t, place)
}

func (p *pairing) commitPlace(t *rapid.T, place placePair) {
	victims, err := place.real.Commit(context.Background())
	switch {
	case !p.model.isReserved(place.model):
		require.ErrorIs(t, err, memory.ErrNotReserved)
		require.Empty(t, victims)
	case p.model.denied(place.model.stream, p.clock.now):
		require.ErrorIs(t, err, registry.ErrDenied)
		require.Empty(t, victims)
		p.model.leave(place.model.stream)
	default:
		require.NoError(t, err)
		require.Equal(t, told(p.model.commit(place.model)), told(victims))
	}
}

// admit reserves and commits in one go.
func (p *pairing) admit(t *rapid.T) {
	n := len(p.places)
	p.reserve(t)
	for _, place := range p.places[n:] {
		p.commitPlace(t, place)
	}
}

func (p *pairing) deny(t *rapid.T) {
	given := make([]registry.Denial, rapid.SampledFrom([]int{1, 1, 1, 2, 3, fewDenials + 1}).Draw(t, "denials"))
	for i := range given {
		given[i] = p.drawDenial(t)
	}
	many := p.model.deny(given, fewDenials, p.clock.now)
	err := p.real.Deny(context.Background(), given...)
	if many {
		require.ErrorIs(t, err, registry.ErrManyDenials)
	} else {
		require.NoError(t, err)
	}
	require.Equal(t, len(p.model.denials), p.real.Denials())
}

func (p *pairing) drawDenial(t *rapid.T) registry.Denial {
	p.denials++
	d := registry.Denial{
		// The nanoseconds tell it from others.
		Until:        p.clock.now.Add(drawMinutes(t, -1, 30)).Add(time.Duration(p.denials)),
		IssuedBefore: rapid.SampledFrom(someIssued).Draw(t, "issued before"),
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
	p.clock.now = p.clock.now.Add(drawMinutes(t, 1, 20))
}

func drawMinutes(t *rapid.T, least, most int) time.Duration {
	return time.Duration(rapid.IntRange(least, most).Draw(t, "minutes")) * time.Minute
}

func (p *pairing) release(t *rapid.T) {
	place, ok := p.drawPlace(t)
	if !ok {
		return
	}
	place.real.Release()
	p.model.leave(place.model.stream)
}

func (p *pairing) evict(t *rapid.T) {
	if len(p.streams) == 0 {
		return
	}
	var victims []registry.Victim
	for _, s := range rapid.SliceOfN(rapid.SampledFrom(p.streams), 1, 4).Draw(t, "victims") {
		victims = append(victims, registry.Victim{Stream: s, Reason: rapid.SampledFrom(someReasons).Draw(t, "reason")})
	}
	evicted, err := p.real.Evict(context.Background(), victims, "evictor")
	require.NoError(t, err)
	var want []registry.Victim
	for _, v := range victims {
		if p.model.isHeld(v.Stream) {
			p.model.end(v.Stream, registry.Ending{Reason: v.Reason, By: "evictor"})
			want = append(want, v)
		}
	}
	require.Equal(t, told(want), told(evicted))
}

func (p *pairing) endAll(t *rapid.T) {
	index := rapid.SampledFrom(someIndices).Draw(t, "index")
	id := rapid.SampledFrom(someIDs[index]).Draw(t, "id")
	e := registry.Ending{Reason: "revoked", By: "admin"}
	ended, err := p.real.EndAll(context.Background(), index, id, e)
	require.NoError(t, err)
	var want []*registry.Stream
	for _, h := range slices.Clone(p.model.held) {
		if under(index, id, h.stream) {
			p.model.end(h.stream, e)
			want = append(want, h.stream)
		}
	}
	require.Equal(t, names(want), names(ended))
}

func (p *pairing) wait(t *rapid.T) {
	s, rule := p.drawStream(t), drawRule(t)
	w, ok := p.real.Wait(s, rule)
	mw := &modelWaiter{stream: s, rule: rule, told: p.model.admitted(s, rule)}
	if !mw.told && p.model.waiting(s.Key) == memory.MaxWaiters {
		require.False(t, ok)
		return
	}
	require.True(t, ok)
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

// check compares everything that can be seen.
func (p *pairing) check(t *rapid.T) {
	for _, key := range someKeys {
		require.Equal(t, names(on(key, p.model.held)), names(holders(t, p.real, key)))
	}
	require.Equal(t, len(p.model.held), p.real.Len())
	for _, s := range p.streams {
		require.Equal(t, p.model.endings[s], endings(s), "endings of %s", s.Addr)
		require.Equal(t, p.model.denied(s, p.clock.now), denied(t, p.real, s), "denied %s", s.Addr)
	}
	for index, ids := range someIDs {
		for _, id := range ids {
			held := slices.ContainsFunc(p.model.held, func(h *modelPlace) bool { return under(index, id, h.stream) })
			require.Equal(t, held, holds(t, p.real, index, id), "holds by %s", index)
		}
	}
	for _, w := range p.waiters {
		require.Equal(t, w.model.told, free(w.real), "waiter %s", w.model.stream.Addr)
	}
}

func requireSameJudgement(t *rapid.T, want, got registry.Judgement) {
	require.Equal(t, want.Admitted, got.Admitted)
	require.Equal(t, told(want.Ends), told(got.Ends))
	require.Equal(t, names(want.Holders), names(got.Holders))
}

func TestRegistry_DoesAsItsModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r, clock := registryAtNoon()
		r.SetMaxDenials(fewDenials)
		p := &pairing{real: r, model: newModel(), clock: clock}
		for range rapid.IntRange(0, 20).Draw(t, "arrivals") {
			p.admit(t)
		}
		t.Repeat(map[string]func(*rapid.T){
			"reserve": p.reserve,
			"admit":   p.admit,
			"commit":  p.commit,
			"judge":   p.judge,
			"release": p.release,
			"evict":   p.evict,
			"end all": p.endAll,
			"deny":    p.deny,
			"later":   p.later,
			"wait":    p.wait,
			"stop":    p.stop,
			"":        p.check,
		})
		for _, place := range p.places {
			place.real.Release()
		}
		for _, w := range p.waiters {
			w.real.Stop()
		}
		require.Zero(t, p.real.Size(), "nothing is left behind")
		clock.now = clock.now.Add(time.Hour)
		deny(t, p.real)
		require.Zero(t, p.real.Denials(), "no denial is left behind")
	})
}
