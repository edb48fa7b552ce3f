package guard

import (
	"slices"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/zone"
)

// route is the way that the request takes, as the guard knows it.
func (q *request) route() zone.Route {
	return zone.Route{Guard: q.guard.name, Depth: q.depth, Method: q.r.Method, Host: q.r.Host, Path: q.guard.Identity.Path(q.env.Path())}
}

// learn notes whether another guard stands behind this one. Only requests that ask
// for a stream tell: no others are decided early.
func (q *request) learn(nested bool) {
	if q.governed && q.asks {
		q.guard.Zone.Nesting.Note(q.route(), nested)
	}
}

// together returns, the innermost first, the guards that decide early with q, to which
// the request has come last: all that hold a key for it. It returns none if nobody is
// to end early: one of them cannot decide yet, or there may be another further inside,
// which could yet refuse.
func (c *chain) together(q *request) (deciding []*request) {
	if !q.guard.Zone.Nesting.Innermost(q.route()) {
		return nil
	}
	if q.outer == nil {
		return []*request{q}
	}
	for o := q; o != nil; o = o.outer {
		switch {
		case !o.mayRefuse():
		case !o.acceptsEarly():
			return nil
		case !o.governed || o.anonymous() || c.covers(o):
		case !o.decidesEarly():
			return nil
		default:
			deciding = append(deciding, o)
		}
	}
	return deciding
}

// mayRefuse reports whether the guard has a say at the header.
func (q *request) mayRefuse() bool {
	return q.governed || q.guard.RequireToken || q.guard.Verifier != nil
}

// acceptsEarly reports whether the guard accepts who asks, and will not think of that
// again at the header.
func (q *request) acceptsEarly() bool {
	q.identify()
	return identified(q) == nil && (!q.guard.Unverified || q.holder.Token.IsZero())
}

// covers reports whether a guard further out is to hold the key of q for it.
func (c *chain) covers(q *request) bool {
	for o := q.outer; o != nil; o = o.outer {
		if o.holdsFor(q) {
			return true
		}
	}
	return false
}

// holdsFor reports whether q asks for the key that the request of a guard further inside
// asks for, so that it holds it for that one too.
func (q *request) holdsFor(inner *request) bool {
	return q.governed && q.guard.Zone.Name == inner.guard.Zone.Name &&
		q.keyed() && inner.keyed() && q.holder.Key == inner.holder.Key
}

// decideTogether decides early for those who decide with q, all or none, and waits for
// the departures of those that it ends. With nobody deciding, nobody is ended.
//
// It returns what becomes of q. Undecided is also that another guard would not admit
// it, for what that guard could say early it has said when the request came by.
func (q *request) decideTogether(deciding []*request) (registry.Admission, error) {
	if len(deciding) == 0 {
		a, err := q.askEarly(registry.Consent{})
		if err == nil && a.Outcome == registry.Admitted {
			q.awaitEarly(a.Departed)
		}
		return a, err
	}
	groups := byZone(deciding)
	prefer := make([][]registry.StreamID, len(groups))
	if len(groups) > 1 {
		var a registry.Admission
		var err error
		if prefer, a, err = q.foreseeEarly(groups); err != nil || a.Outcome != registry.Admitted {
			return a, err
		}
	}
	var departed []<-chan struct{}
	for i, group := range groups {
		admissions, err := q.chain.askZone(registry.Early, consentOfAll(group), group, prefer[i], q.chain.ended)
		if err != nil {
			return registry.Admission{}, err
		}
		if n := notAdmitted(admissions); n >= 0 {
			q.awaitEarly(departed...)
			return ownOf(q, group[n], admissions[n]), nil
		}
		for n, a := range admissions {
			group[n].endedEarly(a.Ends)
			departed = append(departed, a.Departed)
		}
	}
	q.awaitEarly(departed...)
	return registry.Admission{Outcome: registry.Admitted}, nil
}

// ownOf is what an answer to one of the guards is to q.
func ownOf(q, to *request, a registry.Admission) registry.Admission {
	if q != to {
		return registry.Admission{}
	}
	return a
}

// foreseeEarly has all registries say whom they would end. It returns Admitted if all
// would admit the newcomer, and end only whom it may end early.
func (q *request) foreseeEarly(groups [][]*request) (prefer [][]registry.StreamID, a registry.Admission, err error) {
	a.Outcome = registry.Admitted
	prefer, err = q.chain.foresee(groups, 0, func(asked *request, answer registry.Admission) {
		switch {
		case answer.Outcome != registry.Admitted && answer.Outcome != registry.Undecided:
			a = ownOf(q, asked, answer)
		case !asked.mayEnd(answer.Ends):
			a = registry.Admission{}
		}
	})
	return prefer, a, err
}

// foresee asks the registries what they would do, the outermost first, and ends
// nobody. It returns whom each group is to prefer: those whom the groups further out
// have to end. The groups before the first are not asked; heard is told the answers.
func (c *chain) foresee(
	groups [][]*request, first int, heard func(*request, registry.Admission),
) (prefer [][]registry.StreamID, err error) {
	prefer = make([][]registry.StreamID, len(groups))
	var outer []registry.StreamID
	for i := len(groups) - 1; i >= 0; i-- {
		prefer[i] = slices.Clip(outer)
		if i < first {
			continue
		}
		admissions, err := c.askZone(registry.Early, registry.Consent{}, groups[i], outer, c.ended)
		if err != nil {
			return nil, err
		}
		for n, a := range admissions {
			outer = append(outer, streamsOf(a.Ends)...)
			heard(groups[i][n], a)
		}
	}
	return prefer, nil
}

// askZone asks the registry that the guards of a group share.
func (*chain) askZone(
	phase registry.Phase, consent registry.Consent, group []*request, prefer, leaving []registry.StreamID,
) ([]registry.Admission, error) {
	asks := make([]registry.Ask, len(group))
	for i, q := range group {
		asks[i] = question(q)
		asks[i].Prefer = prefer
	}
	return group[0].guard.Zone.Registry.Admit(group[0].r.Context(), phase, consent, asks, leaving)
}

func streamsOf(victims []registry.Victim) []registry.StreamID {
	ids := make([]registry.StreamID, len(victims))
	for i, v := range victims {
		ids[i] = v.Holder.ID
	}
	return ids
}

// consentOfAll is whom all of the guards may end early.
func consentOfAll(group []*request) registry.Consent {
	all := registry.Consent{SameToken: true, SameSubject: true}
	for _, q := range group {
		c := q.consent()
		all.SameToken, all.SameSubject = all.SameToken && c.SameToken, all.SameSubject && c.SameSubject
	}
	return all
}

// mayEnd reports whether the newcomer may end all of these early.
func (q *request) mayEnd(victims []registry.Victim) bool {
	return !slices.ContainsFunc(victims, func(v registry.Victim) bool { return !q.consent().Allows(q.holder, v.Holder) })
}

// endedEarly notes, and tells, who was ended for the newcomer. Their streams may still
// hold keys of other guards by the time of the header.
func (q *request) endedEarly(victims []registry.Victim) {
	q.chain.ended = append(q.chain.ended, streamsOf(victims)...)
	q.tellSuperseded(victims)
}

// awaitEarly waits for departures, before the upstream sees the newcomer. Nil is of none.
func (q *request) awaitEarly(departed ...<-chan struct{}) {
	q.takesOver = len(q.chain.ended) > 0 || slices.ContainsFunc(departed, func(c <-chan struct{}) bool { return c != nil })
	q.guard.awaitDeparture(q.r.Context(), departed...)
}
