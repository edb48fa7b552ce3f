package guard

import (
	"context"
	"slices"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/event"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// decideEarly decides about a request that asks for a stream before the
// upstream sees it, as far as the request alone allows. It returns nil if the
// request may go on.
//
// A page of another origin reads only what CORS allows, and takes anything else
// for final: the temporary refusals that it is to come back after wait for the
// header, where the upstream's CORS fields are known.
func (q *request) decideEarly() *refusal {
	f := q.through(beforeForward)
	if f != nil && f.temporary && f.header == nil && q.crossOrigin() {
		return nil
	}
	return f
}

// decidesEarly reports whether the guard may decide about the key before the
// upstream has answered.
func (q *request) decidesEarly() bool {
	return q.guard.Takeover != TakeoverResponse && q.tracked() && !q.holder.Token.IsZero()
}

// admitEarly has the registry end older streams before the upstream sees the
// newcomer, as far as that is safe, and waits until their upstream requests are
// gone, and those of the client's streams that are leaving. Backends that keep
// emitters by user remove the newcomer's when the older one is cleaned up after it.
//
// A newcomer that would be rejected is, if the upstream has authorised its token
// before, or it was verified here.
func admitEarly(q *request) *refusal {
	if !q.decidesEarly() {
		return nil
	}
	if q.back.asked {
		q.guard.awaitDeparture(q.r.Context(), q.back.departed)
		return nil
	}
	for tries := 0; ; tries++ {
		a, err := q.askEarly(q.consent())
		if err != nil {
			return q.guard.unreachable(err)
		}
		switch a.Outcome {
		case registry.Admitted:
			q.tellSuperseded(a.Ends)
			q.guard.awaitDeparture(q.r.Context(), a.Departed)
			return nil
		case registry.Denied, registry.Damped:
			return refused(q, a.Outcome)
		case registry.Undecided:
			return nil // decided at the header
		}
		f := q.rejectEarly(a.Holders)
		if f == nil {
			return nil // decided at the header
		}
		if tries == mostProbes || !q.guard.probe(q.r.Context(), a.Suspects) {
			q.tell(event.Rejected{Newcomer: q.self(), Holders: a.Holders})
			return f
		}
	}
}

// askEarly asks the registry what would become of the newcomer, and has it end
// whom the consent allows.
func (q *request) askEarly(c registry.Consent) (registry.Admission, error) {
	admissions, err := q.guard.Zone.Registry.Admit(q.r.Context(), registry.Early, c, []registry.Ask{question(q)}, nil)
	if err != nil {
		return registry.Admission{}, err
	}
	return admissions[0], nil
}

// consent is whom the newcomer may end before the upstream has authorised it:
// streams of the same token, or, where the guard is told to, those of the same
// verified user.
func (q *request) consent() registry.Consent {
	return registry.Consent{
		SameToken:   true,
		SameSubject: q.guard.Takeover == TakeoverRequest && q.verified(),
	}
}

// rejectEarly refuses a newcomer without asking the upstream, if the upstream
// has authorised the same token before, for a holder, or the token was verified
// here. Backends often keep one emitter per user, and the newcomer's would
// replace the holder's.
func (q *request) rejectEarly(holders []*registry.Holder) *refusal {
	for _, h := range holders {
		if h.Token != q.holder.Token && !q.verified() {
			continue
		}
		f := rejected()
		if !q.crossOrigin() {
			return f
		}
		// A page of another origin reads the refusal only with the fields that
		// the upstream would allow it with; the holder's response had them.
		if h.Origin == q.holder.Origin {
			f.header = h.CORS.Clone()
			return f
		}
	}
	return nil // decided at the header
}

// awaitDeparture waits until upstream requests are gone, or EndTimeout is over. A nil
// channel is that of none.
func (g *Guard) awaitDeparture(ctx context.Context, departed ...<-chan struct{}) {
	departed = slices.DeleteFunc(departed, func(gone <-chan struct{}) bool { return gone == nil })
	if len(departed) == 0 {
		return
	}
	timeout := time.NewTimer(g.Stream.EndTimeout)
	defer timeout.Stop()
	for _, gone := range departed {
		select {
		case <-gone:
		case <-timeout.C:
			return
		case <-ctx.Done():
			return
		}
	}
}
