package zone

import (
	"context"
	"errors"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/event"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// measured is a registry whose answers are timed. Denied is not: it does not leave the
// process, and every request asks it.
type measured struct {
	registry.Registry
	metrics event.Metrics
}

// Unwrap is for registry.As.
func (m *measured) Unwrap() registry.Registry { return m.Registry }

// Admit implements registry.Registry.
func (m *measured) Admit(
	ctx context.Context, phase registry.Phase, consent registry.Consent, asks []registry.Ask, leaving []registry.StreamID,
) ([]registry.Admission, error) {
	began := time.Now()
	admissions, err := m.Registry.Admit(ctx, phase, consent, asks, leaving)
	m.answered(ctx, event.OpAdmit, began, err)
	if phase != registry.Reserve {
		return admissions, err // nobody commits
	}
	for i, a := range admissions {
		if a.Place != nil {
			admissions[i].Place = &measuredPlace{a.Place, m}
		}
	}
	return admissions, err
}

// End implements registry.Registry.
func (m *measured) End(ctx context.Context, sel registry.Selector, e registry.Ending) (registry.Ended, error) {
	began := time.Now()
	ended, err := m.Registry.End(ctx, sel, e)
	m.answered(ctx, event.OpEnd, began, err)
	return ended, err
}

// Find implements registry.Registry.
func (m *measured) Find(
	ctx context.Context, sel registry.Selector, cursor string, limit int,
) ([]*registry.Holder, string, error) {
	began := time.Now()
	found, next, err := m.Registry.Find(ctx, sel, cursor, limit)
	m.answered(ctx, event.OpFind, began, err)
	return found, next, err
}

// Wait implements registry.Registry.
func (m *measured) Wait(ctx context.Context, ask registry.Ask) (registry.Waiter, error) {
	began := time.Now()
	waiter, err := m.Registry.Wait(ctx, ask)
	m.answered(ctx, event.OpWait, began, err)
	return waiter, err
}

// Deny implements registry.Registry.
func (m *measured) Deny(ctx context.Context, denials ...registry.Denial) error {
	began := time.Now()
	err := m.Registry.Deny(ctx, denials...)
	m.answered(ctx, event.OpDeny, began, err)
	return err
}

// Each implements registry.Registry. The time that f takes is not the registry's.
func (m *measured) Each(ctx context.Context, f func(registry.Node)) error {
	began := time.Now()
	err := m.Registry.Each(ctx, func(n registry.Node) {
		called := time.Now()
		f(n)
		began = began.Add(time.Since(called))
	})
	m.answered(ctx, event.OpEach, began, err)
	return err
}

// measuredPlace is a reserved place.
type measuredPlace struct {
	registry.Place
	registry *measured
}

// Commit implements registry.Place.
func (p *measuredPlace) Commit(ctx context.Context) ([]registry.Victim, error) {
	began := time.Now()
	ended, err := p.Place.Commit(ctx)
	p.registry.answered(ctx, event.OpCommit, began, err)
	return ended, err
}

func (m *measured) answered(ctx context.Context, op event.Operation, began time.Time, err error) {
	m.metrics.RegistryAnswered(op, time.Since(began), err != nil && !isAnswer(err) && ctx.Err() == nil)
}

// isAnswer reports whether err is an answer of a registry that works.
func isAnswer(err error) bool {
	for _, answer := range []error{
		registry.ErrDenied, registry.ErrOutasked, registry.ErrNotReserved, registry.ErrManyDenials, registry.ErrManyWaiters,
		registry.ErrNoKey,
	} {
		if errors.Is(err, answer) {
			return true
		}
	}
	return false
}

var (
	_ registry.Registry = (*measured)(nil)
	_ registry.Place    = (*measuredPlace)(nil)
)
