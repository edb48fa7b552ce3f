package memory

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// call is one call of Admit. Its methods are called with the shards of all its keys
// locked, but for those that say otherwise.
type call struct {
	in      *Registry
	phase   registry.Phase
	consent registry.Consent
	asks    []registry.Ask
	leaving []registry.StreamID
	answers []registry.Admission
	// plan names, where there are several asks, who ends for them.
	plan []registry.StreamID
}

// judged is a newcomer, and what becomes of it as far as it alone is concerned.
type judged struct {
	newcomer
	// cost is who makes room for it, where it is Admitted.
	cost
	outcome registry.Outcome
	// until and taken are those of a registry.Admission that is Entombed.
	until time.Time
	taken <-chan struct{}
}

// Admit answers for all guards of one request: all are admitted, or none. Its error
// is registry.ErrNoKey or nil.
//
// A denial is looked for before a full key: Denied goes before Rejected, Outasked and
// Damped, but not before Entombed. Where two asks are for the same key, they do not
// count against each other.
func (r *Registry) Admit(
	ctx context.Context, phase registry.Phase, consent registry.Consent, asks []registry.Ask, leaving []registry.StreamID,
) ([]registry.Admission, error) {
	for i := range asks {
		if asks[i].Holder.Key.IsZero() {
			return nil, fmt.Errorf("admitting a stream: %w", registry.ErrNoKey)
		}
	}
	answers := make([]registry.Admission, len(asks))
	c := call{in: r, phase: phase, consent: consent, asks: asks, leaving: leaving, answers: answers}
	set := shardsOf(asks)
	r.lock(set)
	refused, suspects := c.decide()
	r.unlock(set)
	if refused >= 0 {
		answers[refused].Suspects = suspects.choose(ctx, r)
	}
	if phase != registry.Reserve {
		for i := range answers {
			if answers[i].Outcome == registry.Admitted {
				r.end(answers[i].Ends, asks[i].Holder)
			}
		}
	}
	return answers, nil
}

// decide fills the answers, but for the suspects of the ask that is Rejected: it
// returns its index, negative if there is none, and who may be suspected.
func (c *call) decide() (int, suspects) {
	var room [1]judged // spares an allocation: most requests have one guard
	js, refused := c.judge(room[:0])
	switch {
	case refused != nil && refused.outcome == registry.Entombed:
		c.answers[len(js)] = registry.Admission{Outcome: registry.Entombed, Until: refused.until, Taken: refused.taken}
	case (refused != nil || c.phase == registry.Early) && c.deny():
	case refused != nil:
		a := &c.answers[len(js)]
		a.Outcome = refused.outcome
		switch a.Outcome {
		case registry.Rejected:
			a.Holders = refused.someHolders(c.in)
			return len(js), refused.suspects()
		case registry.Outasked:
			a.Holders = []*registry.Holder{youngest(viaKey, refused.slot.held).holder}
		}
	case c.phase == registry.Early:
		c.makeWay(js)
	default:
		c.admit(js)
	}
	return -1, nil
}

// deny answers Denied for the first ask whose stream is denied, and reports whether
// there is one.
func (c *call) deny() bool {
	for i := range c.asks {
		if c.in.denials.name(c.asks[i].Holder) {
			c.answers[i].Outcome = registry.Denied
			return true
		}
	}
	return false
}

// judge adds the newcomers to js until one of them is not admitted, which it
// returns. It changes nothing that others see.
func (c *call) judge(js []judged) ([]judged, *judged) {
	gone := c.leaving
	c.lookAhead()
	for i := range c.asks {
		js = append(js, judged{newcomer: c.newcomer(i, gone)})
		j := &js[i]
		if j.judge(c.in, &c.asks[i]); j.outcome != registry.Admitted {
			refused := *j // js stays on the stack
			return js[:i], &refused
		}
		if i == len(c.asks)-1 {
			break
		}
		gone = slices.Clip(gone) // the caller's is not written to
		for _, v := range j.ends {
			gone = append(gone, v.entry.holder.ID)
		}
	}
	return js, nil
}

// newcomer looks up what the stream of the i-th ask finds.
func (c *call) newcomer(i int, gone []registry.StreamID) newcomer {
	h := c.asks[i].Holder
	n := c.in.shard(h.Key).newcomer(h, termsOf(c.asks[i].Rule))
	n.regard(c.in, gone, c.prefer(i))
	return n
}

// prefer names who makes room before others for the i-th ask.
func (c *call) prefer(i int) []registry.StreamID {
	if len(c.plan) == 0 {
		return c.asks[i].Prefer
	}
	return slices.Concat(c.asks[i].Prefer, c.plan)
}

// mostSpared bounds for how many of a plan it is tried whether they can stay.
const mostSpared = 64

// lookAhead plans who ends, where there are several asks, so that nobody ends for room
// that is made anyway.
func (c *call) lookAhead() {
	if len(c.asks) < 2 {
		return
	}
	for i := range c.asks {
		c.plan = append(c.plan, c.besides(i)...)
	}
	if len(c.plan) < 2 || len(c.plan) > mostSpared {
		return
	}
	for _, spared := range slices.Clone(c.plan) {
		whole := c.plan
		c.plan = slices.DeleteFunc(slices.Clone(whole), func(id registry.StreamID) bool { return id == spared })
		for i := range c.asks {
			if len(c.besides(i)) > 0 {
				c.plan = whole
				break
			}
		}
	}
}

// besides names those who have to end for the i-th ask and are not in the plan.
func (c *call) besides(i int) (more []registry.StreamID) {
	n := c.newcomer(i, c.leaving)
	for _, v := range n.cost().ends {
		if !slices.ContainsFunc(c.plan, v.entry.holder.ID.SameResponse) {
			more = append(more, v.entry.holder.ID)
		}
	}
	return more
}

// judge finds out what becomes of the newcomer.
func (j *judged) judge(in *Registry, ask *registry.Ask) {
	j.outcome = registry.Admitted
	admitted := j.admitted()
	if admitted {
		j.cost = j.newcomer.cost()
	}
	endsProper := slices.ContainsFunc(j.ends, func(v victim) bool { return !v.entry.holder.Yields })
	full := j.terms.limit() > 0 && (!admitted || j.outasked || endsProper)
	switch {
	case ask.Tombstone != nil && full:
		j.outcome = registry.Entombed
	case ask.Tombstone != nil && j.holdUp(in):
	case !admitted:
		j.outcome = registry.Rejected
	case j.outasked:
		j.outcome = registry.Outasked
	case ask.Damped && full:
		j.outcome = registry.Damped
	}
}

// holdUp has the newcomer, which shows a tombstone, ask again if its key was full
// until lately. It reports whether it does.
func (j *judged) holdUp(in *Registry) bool {
	freed := &in.shard(j.holder.Key).freed
	latest, places := freed.lately(j.holder.Key, in.now())
	if latest == nil || j.occupied()+places < j.terms.limit() || j.terms.limit() == 0 {
		return false
	}
	j.outcome, j.until, j.taken = registry.Entombed, latest.until(), freed.await(latest)
	return true
}

// makeWay answers an Early question: it ends whom the newcomers may end.
func (c *call) makeWay(js []judged) {
	for i := range js {
		for _, v := range js[i].ends {
			if !c.consent.Allows(js[i].holder, v.entry.holder) {
				for i := range js {
					c.answers[i].Ends = js[i].victims()
				}
				return
			}
		}
	}
	for i := range js {
		sh := c.in.shard(js[i].holder.Key)
		var departing []*entry
		for _, v := range js[i].ends {
			sh.drop(v.entry)
			if !v.entry.departed {
				departing = append(departing, v.entry)
			}
		}
		departing = sh.departing(js[i].holder, departing)
		c.answers[i] = registry.Admission{
			Outcome: registry.Admitted, Ends: js[i].victims(), Departed: allDeparted(departing),
		}
	}
}

// admit gives the newcomers their places, unless one is denied.
func (c *call) admit(js []judged) {
	entries := make([]*entry, 0, 2)
	for i := range js {
		n := &js[i].newcomer
		sh := c.in.shard(n.holder.Key)
		if i > 0 { // an ask before may have made them
			n.find(sh)
		}
		e := &entry{in: c.in, holder: n.holder, slot: n.slot, claim: n.claim}
		sh.reserve(e)
		if c.phase == registry.Header {
			sh.hold(e)
		}
		entries = append(entries, e)
	}
	// Held first, then asked: who denies does the opposite, so either finds the
	// other.
	if c.deny() {
		for _, e := range entries {
			c.in.shard(e.holder.Key).takeBack(e)
		}
		return
	}
	g := c.group()
	for i, e := range entries {
		j := &js[i]
		a := &c.answers[i]
		a.Outcome, a.Ends, a.Place = registry.Admitted, j.victims(), e
		if c.phase == registry.Reserve {
			c.in.shard(e.holder.Key).giveUp(j.back)
			a.Place = &reservation{entry: e, terms: j.terms, prefer: c.prefer(i), group: g}
		} else {
			c.in.shard(e.holder.Key).pay(j.cost)
		}
	}
	for _, e := range entries {
		e.slot.tell(0)
	}
}

// group returns what the places of a Reserve have in common.
func (c *call) group() *group {
	if c.phase != registry.Reserve {
		return nil
	}
	return &group{gone: slices.Clone(c.leaving)}
}
