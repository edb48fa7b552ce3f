package guard

import (
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// decideEarly decides about a request that asks for a stream before the
// upstream sees it, as far as the request alone allows. It returns nil if the
// request may go on.
//
// A page of another origin reads only what CORS allows, and takes anything else
// for final: the temporary refusals that it is to come back after wait for the
// header, where the upstream's CORS fields are known.
func (v *visit) decideEarly() *refusal {
	f := v.judgeEarly()
	if f != nil && f.temporary && f.header == nil && v.crossOrigin() {
		return nil
	}
	return f
}

func (v *visit) judgeEarly() *refusal {
	if v.guard.Zone.draining.is() {
		return v.guard.Zone.refusal()
	}
	if v.entombed() {
		return entombed()
	}
	if f := v.admissible(); f != nil {
		return f
	}
	if v.anonymous() {
		return nil
	}
	if !v.keyed() && len(v.guard.Key) == 0 && v.guard.DenyMissing {
		return missingKey() // the default key lacks its token, now and later
	}
	if v.guard.Takeover == TakeoverResponse || !v.keyed() || v.token.IsZero() {
		return nil
	}

	if f := v.fights(); f != nil {
		return f
	}
	for tries := 0; ; tries++ {
		judgement, err := v.guard.Zone.Registry.Judge(v.r.Context(), &v.stream, v.rule())
		if err != nil {
			return v.unreachable(err)
		}
		if judgement.Admitted {
			return v.takeOverEarly(judgement.Ends)
		}
		if v.comesBack(judgement.Holders) {
			return v.takeOverEarly(nil)
		}
		f := v.rejectEarly(judgement.Holders)
		if f == nil {
			return nil // judged at the header
		}
		if tries == mostProbes || !v.makeRoom(judgement.Holders) {
			v.logRejected(judgement.Holders)
			return f
		}
	}
}

// mostProbes is how often a newcomer has holders asked whether they live: where
// the dead one's place went to another newcomer, that one is asked too.
const mostProbes = 2

// rejectEarly refuses a newcomer without asking the upstream, if the upstream
// has authorised the same token before, for a holder, or the token was verified
// here. Backends often keep one emitter per user, and the newcomer's would
// replace the holder's.
func (v *visit) rejectEarly(holders []*registry.Stream) *refusal {
	f := rejected()
	for _, h := range holders {
		if h.Token != v.stream.Token && !v.verified() {
			continue
		}
		if !v.crossOrigin() {
			return f
		}
		// A page of another origin reads the refusal only with the fields that
		// the upstream would allow it with; the holder's response had them.
		if same, ok := h.Handle.(*visit); ok && same.r.Header.Get("Origin") == v.r.Header.Get("Origin") {
			f.header = same.cors.Clone() // others are refused with the same
			return f
		}
	}
	return nil // judged at the header
}

// takeOverEarly ends the older streams before the upstream sees the newcomer,
// if that is safe for all of them, and waits until their upstream requests are
// gone. Backends that keep emitters by user remove the newcomer's when the
// older one is cleaned up after it.
func (v *visit) takeOverEarly(victims []registry.Victim) *refusal {
	for _, victim := range victims {
		if !v.mayEndEarly(victim.Stream) {
			return nil
		}
		// An inner guard may yet refuse the newcomer, and must then find that
		// nothing has changed.
		if old, ok := victim.Stream.Handle.(*visit); ok && old.nested {
			return nil
		}
	}
	if len(victims) == 0 {
		v.waitGone(v.guard.Zone.leaving.of(v.stream.Key))
		return nil
	}
	ended, err := v.guard.Zone.Registry.Evict(v.r.Context(), victims, v.stream.Addr)
	if err != nil {
		return v.unreachable(err)
	}
	v.logSuperseded(ended)
	v.waitGone(streamsOf(ended))
	return nil
}

func streamsOf(victims []registry.Victim) []*registry.Stream {
	streams := make([]*registry.Stream, len(victims))
	for i, victim := range victims {
		streams[i] = victim.Stream
	}
	return streams
}

// mayEndEarly reports whether the newcomer may end s before the upstream has
// authorised it: s carries the same token, or, where the guard is told to, one
// of the same verified user.
func (v *visit) mayEndEarly(s *registry.Stream) bool {
	if s.Token == v.stream.Token {
		return true
	}
	return v.guard.Takeover == TakeoverRequest && v.verified() &&
		!s.Subject.IsZero() && s.Subject == v.stream.Subject
}

// waitGone waits until the upstream requests of ended streams are gone, or
// EndTimeout is over.
func (v *visit) waitGone(ended []*registry.Stream) {
	if len(ended) == 0 {
		return
	}
	timeout := time.NewTimer(v.guard.Stream.EndTimeout)
	defer timeout.Stop()
	for _, s := range ended {
		select {
		case <-s.Handle.Gone():
		case <-timeout.C:
			return
		case <-v.r.Context().Done():
			return
		}
	}
}
