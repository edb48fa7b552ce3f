package registrytest

import (
	"cmp"
	"slices"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// model is a registry as it is described, not as one is built: slices of places,
// searched from end to end. It keeps no time but that of denials, and of the keys
// that came free.
type model struct {
	reserved []*modelPlace
	held     []*modelPlace // in the order in which they were admitted
	kept     []*modelPlace // in the order in which the clients left
	waiters  []*modelWaiter
	endings  map[registry.StreamID][]registry.Ending
	denials  []*modelDenial
	// departing are the streams that have left and not departed.
	departing []*registry.Holder
	departed  map[registry.StreamID]bool
	// freed has the times by now when places of each key came free.
	freed map[registry.ID][]time.Time
	now   func() time.Time
}

type modelPlace struct {
	holder *registry.Holder
	rule   registry.Rule
	// gone are the streams that do not count at its commit; the places of one
	// request share it.
	gone *[]registry.StreamID
	// prefer names who makes room first at its commit.
	prefer []registry.StreamID
}

type modelWaiter struct {
	holder *registry.Holder
	rule   registry.Rule
	told   bool
}

// modelDenial is of one token, one client or one subject.
type modelDenial struct {
	registry.Denial
	// given tells that the Deny at work was given it.
	given bool
}

func newModel(now func() time.Time) *model {
	return &model{
		freed:    make(map[registry.ID][]time.Time),
		now:      now,
		endings:  make(map[registry.StreamID][]registry.Ending),
		departed: make(map[registry.StreamID]bool),
	}
}

// who names the client of h; a stream without one is its own.
func who(h *registry.Holder) any {
	if h.Client.IsZero() {
		return h
	}
	return h.Client
}

func clientsOf(holders []*registry.Holder) map[any]bool {
	out := make(map[any]bool)
	for _, h := range holders {
		out[who(h)] = true
	}
	return out
}

// on returns the streams of those places that are for key.
func on(key registry.ID, places []*modelPlace) []*registry.Holder {
	var out []*registry.Holder
	for _, p := range places {
		if p.holder.Key == key {
			out = append(out, p.holder)
		}
	}
	return out
}

// without returns the holders but for those that are in out.
func without(holders, out []*registry.Holder) []*registry.Holder {
	return slices.DeleteFunc(slices.Clone(holders), func(h *registry.Holder) bool { return slices.Contains(out, h) })
}

// isTab tells whether h replaces its client's older streams.
func isTab(h *registry.Holder) bool { return h.Tab && !h.Client.IsZero() && !h.Yields }

// ownTab tells whether older is a stream that newcomer, a tab's, replaces.
func ownTab(newcomer, older *registry.Holder) bool {
	return isTab(newcomer) && newcomer.Client == older.Client
}

// byAge orders holders by when they asked, and those of one time as they were.
func byAge(holders []*registry.Holder) []*registry.Holder {
	slices.SortStableFunc(holders, func(a, b *registry.Holder) int { return a.Asked.Compare(b.Asked) })
	return holders
}

// inTurn orders holders of a key by who goes first: those that yield, the one that came
// last first, then the others by when they asked.
func inTurn(holders []*registry.Holder) []*registry.Holder {
	yield := slices.DeleteFunc(slices.Clone(holders), func(h *registry.Holder) bool { return !h.Yields })
	slices.Reverse(yield)
	return slices.Concat(yield, byAge(slices.DeleteFunc(holders, func(h *registry.Holder) bool { return h.Yields })))
}

// isAmong tells whether one of the streams is of the same response as h's.
func isAmong(streams []registry.StreamID, h *registry.Holder) bool {
	return slices.ContainsFunc(streams, h.ID.SameResponse)
}

// view is what a newcomer finds.
type view struct {
	newcomer *registry.Holder
	rule     registry.Rule
	// held are the holders that count, the oldest first.
	held, reserved []*registry.Holder
	// prefer names who makes room first.
	prefer []registry.StreamID
	// protected are the held ones and those gone: Reject counts them.
	protected []*registry.Holder
	// back are the kept places that it takes back, and kept the others.
	back, kept []*registry.Holder
}

// view returns what h finds, who does not count those gone.
func (m *model) view(h *registry.Holder, rule registry.Rule, gone []registry.StreamID) view {
	if h.Yields {
		gone = nil
		rule.Policy = registry.Reject
	}
	v := view{newcomer: h, rule: rule, reserved: on(h.Key, m.reserved), protected: on(h.Key, m.held)}
	v.held = inTurn(slices.DeleteFunc(on(h.Key, m.held), func(h *registry.Holder) bool { return isAmong(gone, h) }))
	for _, k := range on(h.Key, m.kept) {
		if k.SameClient(h) && !h.Yields && (len(v.back) == 0 || isTab(h)) {
			v.back = append(v.back, k)
		} else {
			v.kept = append(v.kept, k)
		}
	}
	return v
}

// others returns who is there under Reject, but for the newcomer's own tab.
func (v view) others() []*registry.Holder {
	out := slices.Clone(v.kept)
	for _, h := range v.protected {
		if !ownTab(v.newcomer, h) && v.counts(h) {
			out = append(out, h)
		}
	}
	for _, h := range v.reserved {
		if !v.replacesReserved(h) && v.counts(h) {
			out = append(out, h)
		}
	}
	return out
}

// counts tells whether h counts for the newcomer under Reject.
func (v view) counts(h *registry.Holder) bool { return !h.Yields || v.newcomer.Yields }

// replacesReserved tells whether the newcomer and h, who has reserved, are of one tab:
// only one of them will stay.
func (v view) replacesReserved(h *registry.Holder) bool { return ownTab(v.newcomer, h) && isTab(h) }

// present returns all who are there, but for whom the newcomer takes its place
// from.
func (v view) present() []*registry.Holder { return slices.Concat(v.protected, v.kept, v.reserved) }

// counted returns those of the present that count under Reject.
func (v view) counted() []*registry.Holder {
	return slices.DeleteFunc(v.present(), func(h *registry.Holder) bool { return !v.counts(h) })
}

// hasPlace tells whether the newcomer's client has a place already.
func (v view) hasPlace() bool {
	return clientsOf(v.counted())[who(v.newcomer)] || len(v.back) > 0 && !v.newcomer.Client.IsZero()
}

func (v view) admitted() bool {
	if v.rule.Policy == registry.Supersede || v.rule.Limit == 0 {
		return true
	}
	if v.rule.Unit == registry.Clients {
		return v.hasPlace() || len(clientsOf(v.counted())) < v.rule.Limit
	}
	return len(v.others()) < v.rule.Limit
}

func (v view) takesPlace() bool {
	switch {
	case len(v.back) > 0:
		return false
	case v.rule.Unit == registry.Clients:
		return !v.hasPlace()
	default:
		return len(v.others()) == len(v.counted())
	}
}

// room is made for a newcomer.
type room struct {
	view
	// left hold, and kept are kept a place, so far.
	left, kept []*registry.Holder
	reasons    map[*registry.Holder]reason.Reason
	yields     []*registry.Holder
	outasked   bool
}

// isOlder tells whether the newcomer asked before h did, which does not yield.
func (v view) isOlder(h *registry.Holder) bool { return !h.Yields && v.newcomer.Asked.Before(h.Asked) }

// preferred tells whether h makes room before others.
func (v view) preferred(h *registry.Holder) bool { return isAmong(v.prefer, h) && !v.isOlder(h) }

// victims takes holders away, one after the other, until the newcomer fits, or is
// itself the one to go. The kept places given up come besides.
func (v view) victims() (ends []registry.Victim, yields []*registry.Holder, outasked bool) {
	r := &room{
		view: v, left: slices.Clone(v.held), kept: slices.Clone(v.kept),
		reasons: make(map[*registry.Holder]reason.Reason), yields: v.back,
	}
	for _, h := range v.held {
		r.outasked = r.outasked || ownTab(v.newcomer, h) && v.isOlder(h)
	}
	r.take(reason.Replaced, func(h *registry.Holder) bool { return ownTab(v.newcomer, h) })
	for v.rule.Limit > 0 && v.tooMany(r.left, r.kept) && !r.outasked {
		if goes := r.firstThatYields(); goes != nil {
			r.take(reason.Superseded, goes)
			continue
		}
		if v.rule.Policy == registry.Reject || v.newcomer.Yields {
			break
		}
		if v.rule.Unit == registry.Clients {
			r.takeClient()
		} else {
			r.takeOne()
		}
	}
	if r.outasked {
		return nil, nil, true
	}
	for _, h := range v.held {
		if why, ok := r.reasons[h]; ok {
			ends = append(ends, registry.Victim{Holder: h, Reason: why})
		}
	}
	return ends, r.yields, false
}

// firstThatYields finds the first stream that yields, or, where clients are counted,
// the first other client that has nothing else; nil: there is none.
func (r *room) firstThatYields() func(*registry.Holder) bool {
	if r.newcomer.Yields {
		return nil
	}
	for age, first := range r.left {
		if r.rule.Unit != registry.Clients {
			if first.Yields {
				return func(h *registry.Holder) bool { return h == first }
			}
			continue
		}
		theirs := func(h *registry.Holder) bool { return who(h) == who(first) }
		proper := func(h *registry.Holder) bool { return theirs(h) && !h.Yields }
		if who(first) != who(r.newcomer) && !slices.ContainsFunc(r.left[age+1:], theirs) &&
			!slices.ContainsFunc(r.left, proper) && !slices.ContainsFunc(r.kept, theirs) {
			return theirs
		}
	}
	return nil
}

// take ends those who go.
func (r *room) take(why reason.Reason, goes func(*registry.Holder) bool) {
	for _, h := range r.left {
		if goes(h) {
			r.reasons[h] = why
		}
	}
	r.left = slices.DeleteFunc(r.left, goes)
}

// yield gives up the kept places that go.
func (r *room) yield(goes func(*registry.Holder) bool) {
	for _, k := range r.kept {
		if goes(k) {
			r.yields = append(r.yields, k)
		}
	}
	r.kept = slices.DeleteFunc(r.kept, goes)
}

// takeOne makes room for one stream: by a kept place, else by the newcomer's own
// oldest stream, else by the oldest.
func (r *room) takeOne() {
	if len(r.kept) > 0 {
		first := r.kept[0]
		r.yield(func(h *registry.Holder) bool { return h == first })
		return
	}
	own := func(h *registry.Holder) bool { return who(h) == who(r.newcomer) }
	victim, why := r.left[0], reason.Superseded
	if i := slices.IndexFunc(r.left, own); i >= 0 {
		victim, why = r.left[i], reason.Replaced
	} else if i := slices.IndexFunc(r.left, r.preferred); i >= 0 {
		victim = r.left[i]
	}
	r.outasked = r.isOlder(victim)
	r.take(why, func(h *registry.Holder) bool { return h == victim })
}

// takeClient makes room for one client.
func (r *room) takeClient() {
	client := r.firstToGo(r.left, r.kept)
	goes := func(h *registry.Holder) bool { return who(h) == client }
	own := append(slices.DeleteFunc(slices.Clone(r.left), func(h *registry.Holder) bool {
		return h.Yields || who(h) != who(r.newcomer)
	}), r.newcomer)
	theirs := slices.DeleteFunc(slices.Clone(r.left), func(h *registry.Holder) bool { return h.Yields || !goes(h) })
	if len(theirs) > 0 {
		r.outasked = newest(own).Before(newest(theirs))
	}
	r.yield(goes)
	r.take(reason.Superseded, goes)
}

// newest is when the last of the holders asked.
func newest(holders []*registry.Holder) time.Time {
	return slices.MaxFunc(holders, func(a, b *registry.Holder) int { return a.Asked.Compare(b.Asked) }).Asked
}

// tooMany tells whether the newcomer does not fit beside those.
func (v view) tooMany(left, kept []*registry.Holder) bool {
	all := append(slices.Concat(left, kept), v.newcomer)
	if v.rule.Unit == registry.Clients {
		return len(clientsOf(all)) > v.rule.Limit
	}
	return len(all) > v.rule.Limit
}

// firstToGo returns the client, not the newcomer's, that must go first: one for
// which a place is only kept, else the one whose newest stream is oldest, of those
// all of whose streams are preferred, if there are any.
func (v view) firstToGo(left, kept []*registry.Holder) any {
	proper := slices.DeleteFunc(slices.Clone(left), func(h *registry.Holder) bool { return h.Yields })
	holding := clientsOf(proper)
	for _, k := range kept {
		if client := who(k); !holding[client] && client != who(v.newcomer) {
			return client
		}
	}
	newest, preferred := make(map[any]int), make(map[any]bool)
	for age, h := range left {
		_, more := newest[who(h)]
		preferred[who(h)] = v.preferred(h) && (!more || preferred[who(h)])
		newest[who(h)] = age
	}
	var found any
	for client, age := range newest {
		if client == who(v.newcomer) {
			continue
		}
		if found == nil || preferred[client] && !preferred[found] ||
			preferred[client] == preferred[found] && age < newest[found] {
			found = client
		}
	}
	return found
}

// modelAnswer is what becomes of an ask.
type modelAnswer struct {
	outcome registry.Outcome
	// held says that an Entombed newcomer is to ask again.
	held bool
	ends []registry.Victim
	// yields are the kept places given up.
	yields []*registry.Holder
	// prefer names who makes room first.
	prefer []registry.StreamID
	place  *modelPlace
	// departing are the streams whose departure is to be waited for.
	departing []*registry.Holder
}

// admit does as Admit.
func (m *model) admit(
	phase registry.Phase, consent registry.Consent, asks []registry.Ask, leaving []registry.StreamID, now time.Time,
) []modelAnswer {
	answers, all := m.decide(asks, leaving, now)
	switch {
	case !all:
		for i := range answers {
			answers[i].ends = nil
		}
	case phase == registry.Early:
		m.makeWay(consent, asks, answers)
	default:
		m.givePlaces(phase, asks, answers, leaving)
	}
	return answers
}

// plan returns who ends for the asks: first those whom each needs besides those before
// it; then, in this order, whoever can stay is left out.
func (m *model) plan(asks []registry.Ask, leaving []registry.StreamID) []registry.StreamID {
	if len(asks) < 2 {
		return nil
	}
	var plan []registry.StreamID
	missing := func(plan []registry.StreamID, a registry.Ask) (more []registry.StreamID) {
		v := m.view(a.Holder, a.Rule, leaving)
		v.prefer = slices.Concat(a.Prefer, plan)
		ends, _, _ := v.victims()
		for _, victim := range ends {
			if !isAmong(plan, victim.Holder) {
				more = append(more, victim.Holder.ID)
			}
		}
		return more
	}
	for _, a := range asks {
		plan = append(plan, missing(plan, a)...)
	}
	for _, id := range slices.Clone(plan) {
		without := slices.DeleteFunc(slices.Clone(plan), func(other registry.StreamID) bool { return other == id })
		if !slices.ContainsFunc(asks, func(a registry.Ask) bool { return len(missing(without, a)) > 0 }) {
			plan = without
		}
	}
	return plan
}

// decide finds out who makes room for each newcomer, and reports whether all are
// to be admitted.
func (m *model) decide(asks []registry.Ask, leaving []registry.StreamID, now time.Time) (out []modelAnswer, all bool) {
	out = make([]modelAnswer, len(asks))
	gone := slices.Clone(leaving)
	refused := -1
	plan := m.plan(asks, leaving)
	for i, a := range asks {
		m.decideOne(a, gone, slices.Concat(a.Prefer, plan), now, &out[i])
		if out[i].outcome != registry.Admitted {
			refused = i
			break
		}
		for _, victim := range out[i].ends {
			gone = append(gone, victim.Holder.ID)
		}
	}
	if refused >= 0 && out[refused].outcome == registry.Entombed {
		clear(out[:refused])
		return out, false
	}
	for i, a := range asks {
		if m.denied(a.Holder, now) {
			clear(out)
			out[i].outcome = registry.Denied
			return out, false
		}
	}
	clear(out[:max(refused, 0)])
	if refused < 0 {
		for i := range out {
			out[i].outcome = registry.Undecided // until it is done
		}
	}
	return out, refused < 0
}

// decideOne finds out what becomes of one newcomer.
func (m *model) decideOne(a registry.Ask, gone, prefer []registry.StreamID, now time.Time, out *modelAnswer) {
	v := m.view(a.Holder, a.Rule, gone)
	v.prefer, out.prefer = prefer, prefer
	admitted, outasked := v.admitted(), false
	if admitted {
		out.ends, out.yields, outasked = v.victims()
	}
	full := a.Rule.Limit > 0 && (!admitted || outasked ||
		slices.ContainsFunc(out.ends, func(v registry.Victim) bool { return !v.Holder.Yields }))
	lately := 0
	for _, freed := range m.freed[a.Holder.Key] {
		if now.Before(freed.Add(registry.FreeLately)) {
			lately++
		}
	}
	there := slices.DeleteFunc(append(v.present(), v.back...), func(h *registry.Holder) bool { return !v.counts(h) })
	occupied := len(there)
	if a.Rule.Unit == registry.Clients {
		occupied = len(clientsOf(there))
	}
	out.held = !full && a.Rule.Limit > 0 && a.Tombstone != nil && lately > 0 && occupied+lately >= a.Rule.Limit
	switch {
	case a.Tombstone != nil && full, out.held:
		out.outcome = registry.Entombed
	case !admitted:
		out.outcome = registry.Rejected
	case outasked:
		out.outcome = registry.Outasked
	case a.Damped && full:
		out.outcome = registry.Damped
	default:
		out.outcome = registry.Admitted
	}
}

// makeWay ends whom the newcomers of an Early question may end, or nobody.
func (m *model) makeWay(consent registry.Consent, asks []registry.Ask, answers []modelAnswer) {
	for i, a := range asks {
		for _, v := range answers[i].ends {
			if !consent.Allows(a.Holder, v.Holder) {
				return
			}
		}
	}
	for i, a := range asks {
		answers[i].outcome = registry.Admitted
		m.endAll(answers[i].ends, a.Holder)
		answers[i].departing = m.departingFor(a.Holder, answers[i].ends)
	}
}

// givePlaces reserves places for the newcomers, or has them hold.
func (m *model) givePlaces(phase registry.Phase, asks []registry.Ask, answers []modelAnswer, leaving []registry.StreamID) {
	group := slices.Clone(leaving)
	back := make([][]*registry.Holder, len(asks))
	for i, a := range asks {
		back[i] = m.view(a.Holder, a.Rule, nil).back
	}
	for i, a := range asks {
		p := &modelPlace{a.Holder, a.Rule, &group, answers[i].prefer}
		answers[i].outcome, answers[i].place = registry.Admitted, p
		if phase == registry.Reserve {
			m.reserved = append(m.reserved, p)
		} else {
			m.held = append(m.held, p)
		}
	}
	for i, a := range asks {
		if phase == registry.Reserve {
			m.giveUp(back[i])
		} else {
			m.giveUp(answers[i].yields)
			m.endAll(answers[i].ends, a.Holder)
		}
	}
	for _, a := range asks {
		m.tell(a.Holder.Key, 0)
	}
}

// departingFor returns whose departure an early newcomer waits for.
func (m *model) departingFor(h *registry.Holder, ends []registry.Victim) []*registry.Holder {
	var out []*registry.Holder
	for _, d := range slices.Concat(m.departing, on(h.Key, m.kept)) {
		ended := slices.ContainsFunc(ends, func(v registry.Victim) bool { return v.Holder == d })
		if !m.departed[d.ID] && (ended || d.Key == h.Key && d.SameClient(h)) {
			out = append(out, d)
		}
	}
	return out
}

// commit does as Place.Commit, for a stream that is not denied.
func (m *model) commit(p *modelPlace) (ends []registry.Victim, outasked bool) {
	v := m.view(p.holder, p.rule, *p.gone)
	v.prefer = p.prefer
	if !isTab(p.holder) { // it has taken its place back already
		v.kept, v.back = on(p.holder.Key, m.kept), nil
	}
	ends, yields, outasked := v.victims()
	if outasked {
		m.drop(p.holder)
		return nil, true
	}
	m.reserved = slices.DeleteFunc(m.reserved, func(q *modelPlace) bool { return q == p })
	m.held = append(m.held, p)
	m.giveUp(yields)
	m.endAll(ends, p.holder)
	m.tell(p.holder.Key, 0)
	for _, victim := range ends {
		*p.gone = append(*p.gone, victim.Holder.ID)
	}
	return ends, false
}

// fits tells whether there is a place for p, which yields.
func (m *model) fits(p *modelPlace) bool {
	v := m.view(p.holder, p.rule, nil)
	v.reserved = nil
	return v.admitted()
}

func (m *model) isReserved(p *modelPlace) bool { return slices.Contains(m.reserved, p) }

func (m *model) isHeld(p *modelPlace) bool { return slices.Contains(m.held, p) }

// leave does as Place.Leave.
func (m *model) leave(p *modelPlace, keep registry.Keep) {
	switch {
	case slices.Contains(m.kept, p):
	case m.isHeld(p) && keep.For > 0 && !p.holder.Yields:
		m.held = slices.DeleteFunc(m.held, func(q *modelPlace) bool { return q == p })
		m.kept = append(m.kept, p)
		m.tell(p.holder.Key, 0)
	default:
		m.drop(p.holder)
	}
}

// drop takes the place of h away, if it has one.
func (m *model) drop(h *registry.Holder) {
	n, standing := len(m.reserved)+len(m.held)+len(m.kept), len(m.held)+len(m.kept)
	theirs := func(p *modelPlace) bool { return p.holder == h }
	m.reserved = slices.DeleteFunc(m.reserved, theirs)
	m.held = slices.DeleteFunc(m.held, theirs)
	m.kept = slices.DeleteFunc(m.kept, theirs)
	if len(m.reserved)+len(m.held)+len(m.kept) == n {
		return
	}
	if len(m.held)+len(m.kept) < standing && !h.Yields { // else it was free before
		m.freed[h.Key] = append(m.freed[h.Key], m.now())
	}
	if !m.departed[h.ID] {
		m.departing = append(m.departing, h)
	}
	if h.Yields {
		m.tell(h.Key, 0) // it kept nobody from a place
	} else {
		m.tell(h.Key, 1)
	}
}

// depart does as Place.Departed.
func (m *model) depart(h *registry.Holder) {
	m.departed[h.ID] = true
	m.departing = without(m.departing, []*registry.Holder{h})
}

// giveUp gives up those of the kept places that are still there.
func (m *model) giveUp(kept []*registry.Holder) {
	for _, k := range kept {
		m.drop(k)
	}
}

// endAll ends victims for the newcomer by.
func (m *model) endAll(victims []registry.Victim, by *registry.Holder) {
	for _, v := range victims {
		m.end(v.Holder, registry.Ending{Reason: v.Reason, By: by.Addr, For: by.ID})
	}
}

// end ends h, a holder.
func (m *model) end(h *registry.Holder, e registry.Ending) {
	m.endings[h.ID] = append(m.endings[h.ID], e)
	m.drop(h)
}

// deny does as Deny, where there is room for limit denials, and reports whether any
// were forgotten before their time. No two denials may have the same Until.
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

func (m *model) denied(h *registry.Holder, now time.Time) bool {
	return slices.ContainsFunc(m.denials, func(d *modelDenial) bool {
		switch {
		case !d.Until.After(now):
			return false
		case !d.Token.IsZero():
			return d.Token == h.Token && (d.Client.IsZero() || d.Client == h.Client)
		default:
			issued := h.IssuedAt
			if issued.IsZero() {
				issued = now
			}
			return d.Subject == h.Subject && issued.Before(d.IssuedBefore)
		}
	})
}

func (m *model) waiting(key registry.ID) int {
	n := 0
	for _, w := range m.waiters {
		if w.holder.Key == key {
			n++
		}
	}
	return n
}

func (m *model) tell(key registry.ID, places int) {
	for _, w := range slices.Clone(m.waiters) {
		v := m.view(w.holder, w.rule, nil)
		if w.holder.Key != key || !v.admitted() {
			continue
		}
		if v.takesPlace() {
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
