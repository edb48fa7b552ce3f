package guard

import (
	"errors"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/stream"
)

const (
	// parkHeartbeat keeps proxies from closing a parked stream for idleness, where
	// the guard has no heartbeat of its own.
	parkHeartbeat = 15 * time.Second
	// parkReturn is the retry of a parked newcomer whose turn has come. The
	// browser keeps it for later reconnects too, so it is not shorter.
	parkReturn = 500 * time.Millisecond
)

// park lets the newcomer wait for the key, as one that supersedes nobody. It
// reports false if it cannot wait: too many do already.
func (f *refusal) park(q *request, w http.ResponseWriter) bool {
	g := q.guard
	waiter, left := enqueue(q)
	if waiter == nil {
		return left
	}
	heartbeat := g.Stream.Heartbeat
	if heartbeat == 0 {
		heartbeat = parkHeartbeat
	}
	parked := stream.Park(w, q.r, &g.Stream, stream.Parking{
		Terms: stream.Terms{
			Holder:     q.holder,
			Notice:     noticeOf(q),
			Connection: q.connection(),
			Gone:       g.Zone.Forget,
		},
		Notice:    g.appendNotice(nil, stream.Notice{Reason: f.reason, Message: messageOf(q, f.reason)}),
		Waiter:    waiter,
		Free:      q.mayComeBack,
		Heartbeat: heartbeat,
		Return:    parkReturn,
	})
	g.Zone.Enter(parked.Stream())
	if g.Zone.IsDraining() {
		parked.Stream().End(registry.Ending{Reason: reason.Shutdown}) // the drain may not have seen it
	}
	sum := parked.Wait()
	if parked.Stream().ClientLeft() {
		g.Zone.Returns.Left(q.holder, g.Retry)
	}
	if sum.Cut {
		panic(http.ErrAbortHandler)
	}
	return true
}

// enqueue has the newcomer wait for the key; nil: it cannot, or its client has left.
func enqueue(q *request) (waiter registry.Waiter, left bool) {
	g := q.guard
	q.waits = true
	if q.back.flaps && q.holder.Tab {
		// It waits for its own other stream too, which it would replace: that is what
		// it flaps with.
		waiting := *q.holder // others may look at that one
		waiting.Tab = false
		q.holder = &waiting
	}
	waiter, err := g.Zone.Registry.Wait(q.r.Context(), registry.Ask{Holder: q.holder, Rule: q.rule()})
	if err != nil {
		if !errors.Is(err, registry.ErrManyWaiters) {
			g.Logger.Log(registryFailed(err), "a newcomer cannot wait: asking the registry", g.zoneField(), zap.Error(err))
		}
		left = !holdUp(q, nil)
		g.Zone.Returns.Left(q.holder, g.Retry) // whatever its client is told
		return nil, left
	}
	if !holdUp(q, waiter.Free()) {
		waiter.Stop()
		return nil, true
	}
	return waiter, false
}

// mostHeldUp bounds how long a newcomer is held up.
const mostHeldUp = 10 * time.Second

// holdUp holds a newcomer that is back long before it was to come, without an answer,
// until then, or until the key is free: some clients ask again at once, whatever they
// are told. It reports false if its client has left meanwhile.
func holdUp(q *request, free <-chan struct{}) bool {
	z := q.guard.Zone
	early := min(z.Returns.Early(q.holder), mostHeldUp)
	if early == 0 || !q.guard.hold(q.r.Context(), time.Now().Add(early), free) {
		return true
	}
	z.Returns.Left(q.holder, q.guard.Retry)
	return false
}

// mayComeBack tells a parked newcomer to ask again: it would be admitted, or it is
// welcome no more and is to hear that.
func (q *request) mayComeBack() bool {
	if q.denied() || q.claims != nil && q.guard.expired(q.claims) {
		return true
	}
	// It may end nobody yet, not even a tab's own older stream. That it then cannot
	// be decided says that it would be admitted. It would ask anew.
	asking := *q.holder // others may look at that one
	asking.Asked = time.Now()
	q.holder = &asking
	a, err := q.askEarly(registry.Consent{})
	return err == nil && (a.Outcome == registry.Admitted || a.Outcome == registry.Undecided)
}
