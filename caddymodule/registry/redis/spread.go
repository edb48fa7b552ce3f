package redis

import (
	"context"
	"fmt"
	"slices"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// spread is an admission on a cluster whose keys are in different buckets, so that no
// script sees them all. It asks for one key after the other, first without effect: who
// would have to end, and whether all would be admitted. What scripts/admit.lua does for
// keys of one bucket at once is done here in the same order. Only then is anything
// reserved, or anybody ended. Should something have changed meanwhile, the reserved
// places are given back; early, some streams may then have ended for nothing, all of
// them of the newcomer's own token or subject.
type spread struct {
	*admission
	// plan has the streams that end for the asks, so that nobody ends for room that is
	// made anyway.
	plan []registry.StreamID
}

// mostSpared is how long a plan may be for its streams to be tried one by one.
const mostSpared = 64

func (s *spread) decide(ctx context.Context) ([]registry.Admission, error) {
	if err := s.lookAhead(ctx); err != nil {
		return s.failed(ctx, err)
	}
	looks, refused, err := s.judge(ctx)
	if err != nil {
		return s.failed(ctx, err)
	}
	answers := make([]registry.Admission, len(s.asks))
	denied := slices.IndexFunc(s.asks, func(ask registry.Ask) bool { return s.r.local.Denied(ask.Holder) })
	switch {
	case refused >= 0 && (denied < 0 || looks[refused].Outcome == registry.Entombed):
		answers[refused] = looks[refused]
		return answers, nil
	case denied >= 0:
		answers[denied].Outcome = registry.Denied
		return answers, nil
	}
	if s.phase == registry.Early && !s.allows(looks) {
		for i := range looks {
			answers[i].Ends = looks[i].Ends
		}
		return answers, nil
	}
	return s.act(ctx)
}

// failed answers where Redis has not answered, and nothing was done yet.
func (s *spread) failed(ctx context.Context, err error) ([]registry.Admission, error) {
	if !s.r.link.isUp() {
		return s.away(ctx)
	}
	return nil, err
}

// look tells how an ask would be answered, and does nothing.
func (s *spread) look(ctx context.Context, i int, gone []registry.StreamID) (registry.Admission, error) {
	part := s.part(registry.Early, gone, i)
	part.consent, part.undenied = registry.Consent{}, true
	answers, err := part.ask(ctx)
	if err != nil {
		return registry.Admission{}, err
	}
	return answers[0], nil
}

// part is the admission of some of the asks, whose keys are in one bucket.
func (s *spread) part(phase registry.Phase, leaving []registry.StreamID, asks ...int) *admission {
	part := &admission{r: s.r, phase: phase, consent: s.consent, leaving: leaving}
	for _, i := range asks {
		ask := s.asks[i]
		ask.Prefer = slices.Concat(ask.Prefer, s.plan)
		part.asks = append(part.asks, ask)
	}
	part.buckets = []*bucket{s.r.bucketOf(part.asks[0].Holder.Key)}
	return part
}

func refuses(a *registry.Admission) bool {
	return a.Outcome != registry.Undecided && a.Outcome != registry.Admitted
}

// lookAhead makes the plan.
func (s *spread) lookAhead(ctx context.Context) error {
	for i := range s.asks {
		more, err := s.besides(ctx, i)
		if err != nil {
			return err
		}
		s.plan = append(s.plan, more...)
	}
	if len(s.plan) < 2 || len(s.plan) > mostSpared {
		return nil
	}
	for _, spared := range slices.Clone(s.plan) {
		whole := s.plan
		s.plan = slices.DeleteFunc(slices.Clone(whole), func(id registry.StreamID) bool { return id == spared })
		for i := range s.asks {
			more, err := s.besides(ctx, i)
			if err != nil {
				return err
			}
			if len(more) > 0 {
				s.plan = whole
				break
			}
		}
	}
	return nil
}

// besides lists who has to end for an ask and is not in the plan.
func (s *spread) besides(ctx context.Context, i int) (more []registry.StreamID, err error) {
	a, err := s.look(ctx, i, s.leaving)
	if err != nil {
		return nil, err
	}
	for _, v := range a.Ends {
		if !slices.ContainsFunc(s.plan, v.Holder.ID.SameResponse) {
			more = append(more, v.Holder.ID)
		}
	}
	return more, nil
}

// judge tells how each ask would be answered if those before it were admitted, up to the
// first that would be refused; -1: none would be.
func (s *spread) judge(ctx context.Context) (looks []registry.Admission, refused int, err error) {
	gone := slices.Clone(s.leaving)
	for i := range s.asks {
		a, err := s.look(ctx, i, gone)
		if err != nil {
			return nil, -1, err
		}
		looks = append(looks, a)
		if refuses(&a) {
			return looks, i, nil
		}
		gone = appendVictims(gone, a.Ends)
	}
	return looks, -1, nil
}

func appendVictims(ids []registry.StreamID, victims []registry.Victim) []registry.StreamID {
	for _, v := range victims {
		ids = append(ids, v.Holder.ID)
	}
	return ids
}

// allows reports whether all victims may be ended early.
func (s *spread) allows(looks []registry.Admission) bool {
	for i := range looks {
		for _, v := range looks[i].Ends {
			if !s.consent.Allows(s.asks[i].Holder, v.Holder) {
				return false
			}
		}
	}
	return true
}

// act ends the streams that have to end early, or reserves the places, and makes them
// held ones if the header is there.
func (s *spread) act(ctx context.Context) ([]registry.Admission, error) {
	phase := s.phase
	if phase == registry.Header {
		phase = registry.Reserve
	}
	answers := make([]registry.Admission, len(s.asks))
	gone := slices.Clone(s.leaving)
	for _, asks := range s.byBucket() {
		part, err := s.part(phase, gone, asks...).ask(ctx)
		if err != nil {
			giveBack(answers)
			return s.failed(ctx, err)
		}
		complete := true
		for j, i := range asks {
			answers[i] = part[j]
			complete = complete && part[j].Outcome == registry.Admitted
			gone = appendVictims(gone, part[j].Ends)
		}
		if !complete {
			giveBack(answers)
			return answers, nil
		}
	}
	if phase == registry.Early {
		return answers, nil
	}
	g := &group{gone: slices.Clone(s.leaving), asOne: s.phase == registry.Header}
	for i := range answers {
		answers[i].Place.(*place).group = g
	}
	if s.phase == registry.Header {
		return answers, commitAll(ctx, answers)
	}
	return answers, nil
}

// byBucket lists the asks of each bucket.
func (s *spread) byBucket() (parts [][]int) {
	for _, b := range s.buckets {
		var asks []int
		for i := range s.asks {
			if s.r.bucketOf(s.asks[i].Holder.Key) == b {
				asks = append(asks, i)
			}
		}
		parts = append(parts, asks)
	}
	return parts
}

func commitAll(ctx context.Context, answers []registry.Admission) error {
	for i := range answers {
		ends, err := answers[i].Place.Commit(ctx)
		if err != nil {
			giveBack(answers)
			return fmt.Errorf("admitting a stream: %w", err)
		}
		answers[i].Ends = ends
	}
	return nil
}

// giveBack gives back the places of those that were admitted, since others were not.
func giveBack(answers []registry.Admission) {
	for i := range answers {
		if p := answers[i].Place; p != nil {
			p.Leave(registry.Keep{})
			p.Departed()
		}
		if answers[i].Outcome == registry.Admitted {
			answers[i] = registry.Admission{}
		}
	}
}
