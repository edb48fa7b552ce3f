package guard

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/sse-guard/sse-guard/caddymodule/event"
	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/stream"
	"github.com/sse-guard/sse-guard/caddymodule/zone"
)

// chain is the guards that one request passes. When the upstream has answered with
// a stream, the innermost guard that sees it has all of them decide, in this order:
//
//  1. Each guard, from the innermost outward, goes through the steps of
//     atHeader. The first refusal is the answer of all.
//  2. Then all ask their registries, the innermost first, each registry in one
//     call. All are admitted, or none. Where there are several registries, those further
//     out are asked before whom they have to end, so that these make room further inside
//     too, and nobody else does.
//  3. The header goes outward. As it passes each guard, that guard's stream opens,
//     and takes its place for good.
//
// Before the request is forwarded the guards see it one after the other, from the
// outermost inward. Each refuses then what it can refuse, but ends nobody for the
// newcomer: a guard further inside may yet refuse it. The innermost ends for all, or,
// where one of them cannot decide yet, nobody does before the header. A guard learns
// from requests whether it is the innermost (see zone.Nesting); while it does not know,
// the header decides.
type chain struct {
	// innermost is the guard that the request has come to last.
	innermost *request
	// id names the streams of the request, which differ in their last byte.
	id registry.StreamID
	// ended names, for one guard each, the streams that were ended before the request was
	// forwarded.
	ended []registry.StreamID
	// refused is the request of the guard that has refused, nil if none has.
	refused *request
	// lost says that a place was not to be had any more when it was to be committed.
	lost bool
	// incoming is the request's body, if the answer's header waits for it; else nil.
	incoming *incoming
	// answering says that a guard answers by itself: what it writes is no stream of
	// the upstream's.
	answering bool
	// user is the request as one that uses the client's connection.
	user stream.User
}

// link is a request's place in the chain of its guards.
type link struct {
	chain *chain
	outer *request // of the guard further out; nil: this is the outermost
	depth int      // 0 is the outermost
	own   chain    // of the outermost
}

// join adds q behind the guard that the request has passed before.
func (l *link) join(q *request) {
	if l.outer, _ = q.r.Context().Value(requestKey{}).(*request); l.outer == nil {
		l.chain = &l.own
		l.chain.innermost = q
		q.env.Publish(l.chain.placeholder)
		return
	}
	l.chain, l.depth = l.outer.chain, l.outer.depth+1
	l.chain.innermost = q
	for o := l.outer; o != nil && q.mayRefuse(); o = o.outer {
		o.learn(true)
	}
}

// nested reports whether a guard further inside than q has a say at the header.
func (c *chain) nested(q *request) bool {
	for inner := c.innermost; inner != q; inner = inner.outer {
		if inner.mayRefuse() {
			return true
		}
	}
	return false
}

// streamID names the request's stream.
func (l *link) streamID() registry.StreamID {
	if l.chain.id.IsZero() {
		l.chain.id = registry.NewStreamID()
	}
	return l.chain.id.Nth(l.depth)
}

// verdict is what became of a request.
type verdict struct {
	// judged says that atHeader was gone through.
	judged bool
	// refusal is why the request does not get its stream; nil if that is not this
	// guard's doing.
	refusal *refusal
	// coveredBy is the request of a guard further out that holds the same key of the
	// same zone for this one: a second place would end, or refuse, itself.
	coveredBy *request
	// place is reserved, and to be committed; nil if it needs no commit. uncommitted is
	// why it could not be.
	place       registry.Place
	uncommitted error
}

// Judge implements stream.Gate. The upstream has by now authorised the request.
func (q *request) Judge(status int, header http.Header) stream.Verdict {
	c := q.chain
	if c.answering {
		return stream.Pass
	}
	q.noteCORS(status, header)
	switch {
	case q.logout != nil && q.logout.Success(status):
		q.logOut(q.logout)
	case q.unlisted != nil && q.unlisted.Success(status):
		q.warnOfLogout(q.unlisted)
	}
	if !isStream(status, header) {
		q.leaveArrivals() // it may go on for long, as a WebSocket does
		return stream.Pass
	}
	if !q.governed {
		return c.judgeUncounted(q)
	}
	if !q.verdict.judged {
		c.judge(q)
	}
	switch {
	case c.refused != nil:
		return stream.Refuse
	case q.verdict.coveredBy != nil:
		q.tellUntracked()
		return stream.Pass
	default:
		if q.tracked() {
			q.guard.warnIfEncoded(header) // handlers further out may compress it yet
		}
		return stream.Admit
	}
}

// judgeUncounted decides about a stream that does not count. It is verified all the
// same.
func (c *chain) judgeUncounted(q *request) stream.Verdict {
	if !c.passes(q, uncounted) {
		return stream.Refuse
	}
	q.open(stream.Terms{Untracked: true})
	return stream.Admit
}

// passes has q go through steps at the header, and notes its refusal.
func (c *chain) passes(q *request, steps []step) bool {
	q.identify()
	q.yields(q.response.Header())
	f := through(q, steps)
	if f != nil {
		c.refuse(q, f)
	}
	return f == nil
}

// judge decides for from, whose upstream answers with a stream, and all guards
// further out.
func (c *chain) judge(from *request) {
	c.incoming.await()
	var asking []*request
	for q := from; q != nil; q = q.outer {
		if q.verdict.judged {
			continue
		}
		if !q.governed { // it counts nothing, but its refusal is to end nobody
			if !c.passes(q, uncounted) {
				return
			}
			continue
		}
		q.verdict.judged = true
		q.learn(c.nested(q))
		if !c.passes(q, atHeader) {
			return
		}
		if q.tracked() {
			asking = append(asking, q)
		} else if q.verdict.coveredBy == nil {
			q.open(stream.Terms{Untracked: true})
		}
	}
	if from.r.Context().Err() != nil {
		c.refuse(from, unheard(unavailable())) // nobody is to end for it
		return
	}
	for _, q := range asking {
		q.open(q.terms())
	}
	if q, f := c.admit(asking); f != nil {
		c.refuse(q, f)
	}
}

// cover looks for a guard further out that holds the same key of the same zone
// for this very request. That one takes over what this one has verified and it has
// not: the stream expires, and is found by its user.
func (c *chain) cover(q *request) {
	for o := q.outer; o != nil; o = o.outer {
		if !o.governed || o.guard.Zone.Name != q.guard.Zone.Name {
			continue
		}
		if !o.keyed() && o.guard.KeyFromRequest {
			o.findKey()
		}
		if !o.holdsFor(q) {
			continue
		}
		q.verdict.coveredBy = o
		if o.claims == nil && q.verified() {
			adopted := *o.holder // others may look at that one
			adopted.Subject, adopted.IssuedAt = q.holder.Subject, q.holder.IssuedAt
			adopted.Client, adopted.Tab = q.holder.Client, q.holder.Tab
			o.claims, o.holder = q.claims, &adopted
		}
		return
	}
}

func (c *chain) refuse(q *request, f *refusal) { c.refused, q.verdict.refusal = q, f }

// mostProbes is how often a newcomer has holders asked whether they live: where
// the dead one's place went to another newcomer, that one is asked too.
const mostProbes = 2

// admit has those who ask admitted, all or none. It returns who is refused, and
// why.
func (c *chain) admit(asking []*request) (*request, *refusal) {
	for tries := 0; len(asking) > 0; tries++ {
		q, a, err := c.ask(asking)
		switch {
		case err != nil:
			return q, q.guard.unreachable(err)
		case q == nil:
			return nil, nil
		case a.Outcome == registry.Entombed && !a.Until.IsZero():
			if f := heldUp(q, a); f != nil {
				return q, f
			}
			tries-- // nobody was probed
			continue
		case a.Outcome != registry.Rejected:
			return q, refusedBy(a, q)
		}
		if tries == mostProbes || q.yielding || !q.guard.probe(q.r.Context(), a.Suspects) {
			q.tell(event.Rejected{Newcomer: q.labeled(), Holders: a.Holders})
			return q, rejected()
		}
	}
	return nil, nil
}

// refusedBy is the answer to a newcomer with an outcome that probing does not change.
func refusedBy(a registry.Admission, q *request) *refusal {
	switch a.Outcome {
	case registry.Entombed:
		return sentAway(q, q.back.shown)
	case registry.Damped:
		q.tell(event.Damped{Newcomer: q.labeled()})
		return parked()
	case registry.Outasked:
		q.tell(event.Superseded{Loser: q.holder, Newcomer: event.Who{Holder: a.Holders[0]}})
		return outasked()
	default: // Denied
		return q.guard.unverifiable(errLoggedOut)
	}
}

// ask asks the registries of those who ask. It returns the first who is not
// admitted, and what it was told; nil if all are.
func (c *chain) ask(asking []*request) (refused *request, a registry.Admission, err error) {
	phase := registry.Header
	if len(asking) > 1 {
		phase = registry.Reserve // what reaches a guard further out may be no stream any more
	}
	groups := byZone(asking)
	prefer, err := c.foresee(groups, 1, func(*request, registry.Admission) {})
	if err != nil {
		return asking[0], a, err
	}
	leaving := slices.Clip(c.ended)
	for i, group := range groups {
		first := group[0]
		admissions, err := c.askZone(phase, registry.Consent{}, group, prefer[i], leaving)
		if err != nil {
			release(groups[:i])
			return first, a, err
		}
		if n := notAdmitted(admissions); n >= 0 {
			release(groups[:i])
			return group[n], admissions[n], nil
		}
		for n, a := range admissions {
			group[n].verdict.place = a.Place
			if phase == registry.Header {
				group[n].tellSuperseded(a.Ends)
				continue
			}
			leaving = append(leaving, streamsOf(a.Ends)...)
		}
	}
	for _, q := range asking {
		c.hold(q, phase)
	}
	return nil, a, nil
}

// byZone groups requests by their zone, which is to say by their registry, in
// order.
func byZone(asking []*request) (groups [][]*request) {
	at := make(map[*zone.Zone]int, 1)
	for _, q := range asking {
		i, known := at[q.guard.Zone]
		if !known {
			i = len(groups)
			at[q.guard.Zone] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], q)
	}
	return groups
}

// notAdmitted returns the index of the first Ask that was answered with no, -1 if
// there is none. One that is undecided has lost by another's no.
func notAdmitted(admissions []registry.Admission) int {
	undecided := -1
	for i, a := range admissions {
		switch a.Outcome {
		case registry.Admitted:
		case registry.Undecided:
			undecided = i
		default:
			return i
		}
	}
	return undecided
}

// release gives back what was reserved, since another registry has refused.
func release(groups [][]*request) {
	for _, group := range groups {
		for _, q := range group {
			q.verdict.place.Leave(registry.Keep{})
			q.verdict.place.Departed()
			q.verdict.place = nil
		}
	}
}

// hold has the request's stream hold its place.
func (c *chain) hold(q *request, phase registry.Phase) {
	q.response.Stream().Hold(q.verdict.place)
	if phase == registry.Header {
		q.verdict.place = nil // there is nothing to commit
	}
}

// commit makes the places held ones that opened and those further inside have
// reserved, the innermost first: what it ends counts as gone for those further out,
// which would else end another for it. Those further out wait for their own header,
// which whoever answers between may hold back. One whose response has proved to be no
// stream has lost its place. Where one loses it to others, so do those further out: the
// stream is to end, and nobody for it.
func (c *chain) commit(ctx context.Context, opened *request) {
	for q := c.innermost; q != opened.outer; q = q.outer {
		place := q.verdict.place
		if place == nil {
			continue
		}
		q.verdict.place = nil
		if c.lost {
			place.Leave(registry.Keep{})
			q.verdict.uncommitted = errPlaceLost
			continue
		}
		var ended []registry.Victim
		ended, q.verdict.uncommitted = place.Commit(ctx)
		c.lost = q.verdict.uncommitted != nil
		q.tellSuperseded(ended)
	}
}

// errPlaceLost is why a place is not committed of a request that has lost another one.
var errPlaceLost = errors.New("a guard further inside has lost the stream's place")

// tellSuperseded tells of each holder that lost its stream to this one.
func (q *request) tellSuperseded(ended []registry.Victim) {
	for _, victim := range ended {
		if victim.Reason == reason.Superseded {
			q.supersedes = true
			q.tell(event.Superseded{Loser: victim.Holder, Newcomer: q.self()})
		}
	}
}
