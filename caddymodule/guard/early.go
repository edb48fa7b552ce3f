package guard

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/event"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// decideEarly decides about a request before the upstream sees it, as far as the
// request alone allows. It returns nil if the request may go on.
//
// One that accepts other types besides mostly gets those, and one whose method does
// not count ends nobody: they are answered as the upstream would. But whoever names
// the type needs the token that a stream would, by any method: what the upstream does
// for it may cost something.
//
// A page of another origin reads only what CORS allows, and asks again and again
// where it cannot: while nobody knows the fields with which the upstream lets it,
// refusals wait for the header. But a request that does something is not let
// through for that without the token that it needs.
func (q *request) decideEarly() *refusal {
	var f *refusal
	switch {
	case q.asks:
		f = through(q, beforeForward)
	case q.names:
		f = tokenDemanded(q)
	}
	switch {
	case f == nil || q.readable:
		return f
	case isSafe(q.r.Method):
		return nil
	case f.status == http.StatusUnauthorized:
		return f
	default:
		return tokenDemanded(q) // what else refuses is asked before the token
	}
}

// tokenDemanded demands a good token, where one is required, of a request that may
// yet get something else than a stream. One that accepts other types too is refused
// for a token that is missing or bad only: whether it needs a key set, or one token,
// its answer says.
func tokenDemanded(q *request) *refusal {
	if !q.guard.demandsToken() {
		return nil
	}
	f := identified(q)
	if f != nil && f.status != http.StatusUnauthorized && !q.only {
		return nil
	}
	return f
}

// decidesEarly reports whether the guard may decide about the key before the
// upstream has answered. Not for a request that is not all there: its client may
// never finish it, so that it has ended another's stream for nothing. Nor while nobody
// knows whether its page could read the stream: then it may be one that yields.
func (q *request) decidesEarly() bool {
	return q.bodiless && q.known && q.guard.Takeover != TakeoverResponse && q.tracked() && !q.holder.Token.IsZero()
}

// admitEarly has the registry end older streams before the upstream sees the
// newcomer, as far as that is safe, and waits until their upstream requests are
// gone, and those of the client's streams that are leaving. Backends that keep
// emitters by user remove the newcomer's when the older one is cleaned up after it.
//
// It does so for all guards of the request at once, so q has to be the innermost
// (see chain.together). The others only ask whether they are to refuse.
//
// A newcomer that would be rejected is, if the upstream has authorised its token
// before, or it was verified here.
func admitEarly(q *request) *refusal {
	if !q.decidesEarly() {
		return nil
	}
	together := q.chain.together(q)
	if q.back.asked && len(together) < 2 {
		q.awaitEarly(q.back.departed)
		return nil
	}
	for tries := 0; ; tries++ {
		a, err := q.decideTogether(together)
		if err != nil {
			return q.guard.unreachable(err)
		}
		switch a.Outcome {
		case registry.Admitted, registry.Undecided, registry.Entombed:
			return nil // if it is not Admitted, it is decided at the header
		case registry.Denied, registry.Damped, registry.Outasked:
			return refusedBy(a, q)
		}
		f := q.rejectEarly(a.Holders)
		if f == nil {
			return nil // decided at the header
		}
		if tries == mostProbes || q.yielding || !q.guard.probe(q.r.Context(), a.Suspects) {
			q.tell(event.Rejected{Newcomer: q.labeled(), Holders: a.Holders})
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
func (s *sender) consent() registry.Consent {
	return registry.Consent{
		SameToken:   true,
		SameSubject: s.guard.Takeover == TakeoverRequest && s.verified(),
	}
}

// rejectEarly refuses a newcomer without asking the upstream, if the upstream
// has authorised the same token before, for a holder, or the token was verified
// here. Backends often keep one emitter per user, and the newcomer's would
// replace the holder's.
func (q *request) rejectEarly(holders []*registry.Holder) *refusal {
	authorised := func(h *registry.Holder) bool { return h.Token == q.holder.Token || q.verified() }
	if q.readable && slices.ContainsFunc(holders, authorised) {
		return rejected()
	}
	return nil // decided at the header
}

// awaitDeparture waits until upstream requests are gone, or EndTimeout is over. Nil is
// of none.
func (g *Guard) awaitDeparture(ctx context.Context, departed ...<-chan struct{}) {
	departed = slices.DeleteFunc(departed, func(c <-chan struct{}) bool { return c == nil })
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
