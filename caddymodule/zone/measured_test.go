package zone

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/event"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/registry/memory"
)

// answer is what Metrics are told of the registry.
type answer struct {
	op     event.Operation
	took   time.Duration
	failed bool
}

type noting struct {
	event.NoMetrics
	mu      sync.Mutex
	answers []answer
}

// RegistryAnswered implements event.Metrics.
func (n *noting) RegistryAnswered(op event.Operation, took time.Duration, failed bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.answers = append(n.answers, answer{op, took, failed})
}

// remote is a registry that takes a second for each answer, and fails with err if that
// is set.
type remote struct {
	*memory.Registry
	err    error
	closed bool
}

func (r *remote) Admit(ctx context.Context, phase registry.Phase, c registry.Consent, asks []registry.Ask, leaving []registry.StreamID) ([]registry.Admission, error) {
	<-time.After(time.Second)
	if r.err != nil {
		return nil, r.err
	}
	admissions, err := r.Registry.Admit(ctx, phase, c, asks, leaving)
	for i := range admissions {
		if admissions[i].Place != nil {
			admissions[i].Place = remotePlace{admissions[i].Place}
		}
	}
	return admissions, err
}

type remotePlace struct{ registry.Place }

func (p remotePlace) Commit(ctx context.Context) ([]registry.Victim, error) {
	<-time.After(time.Second)
	return p.Place.Commit(ctx)
}

func (r *remote) End(ctx context.Context, sel registry.Selector, e registry.Ending) (registry.Ended, error) {
	<-time.After(time.Second)
	return r.Registry.End(ctx, sel, e)
}

func (r *remote) Find(ctx context.Context, sel registry.Selector, cursor string, limit int) ([]*registry.Holder, string, error) {
	<-time.After(time.Second)
	return r.Registry.Find(ctx, sel, cursor, limit)
}

func (r *remote) Wait(ctx context.Context, ask registry.Ask) (registry.Waiter, error) {
	<-time.After(time.Second)
	return r.Registry.Wait(ctx, ask)
}

func (r *remote) Deny(ctx context.Context, denials ...registry.Denial) error {
	<-time.After(time.Second)
	return r.Registry.Deny(ctx, denials...)
}

func (r *remote) Each(ctx context.Context, f func(registry.Node)) error {
	<-time.After(time.Second)
	return r.Registry.Each(ctx, f)
}

func (r *remote) Away() error   { return r.err }
func (r *remote) Missing() bool { return r.err != nil }
func (r *remote) Close() error  { r.closed = true; return r.Registry.Close() }

func withRemote(t *testing.T, test func(*testing.T, *Zone, *remote, *noting)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n, r := new(noting), new(remote)
		z, err := New("zone", func(node registry.Node) (registry.Registry, error) {
			r.Registry = memory.New(node)
			return r, nil
		}, n)
		require.NoError(t, err)
		test(t, z, r, n)
		require.NoError(t, z.Close())
		require.True(t, r.closed)
	})
}

func askOf(key string) registry.Ask {
	return registry.Ask{
		Holder: &registry.Holder{ID: registry.NewStreamID(), Key: id(key), Asked: time.Now()},
		Rule:   registry.Rule{Policy: registry.Reject, Limit: 1, Unit: registry.Streams},
	}
}

func TestMeasured_EveryOperationIsTimed(t *testing.T) {
	withRemote(t, func(t *testing.T, z *Zone, _ *remote, n *noting) {
		ctx, r := t.Context(), z.Registry
		a, err := r.Admit(ctx, registry.Reserve, registry.Consent{}, []registry.Ask{askOf("a")}, nil)
		require.NoError(t, err)
		_, err = a[0].Place.Commit(ctx)
		require.NoError(t, err)
		w, err := r.Wait(ctx, askOf("a"))
		require.NoError(t, err)
		w.Stop()
		_, _, err = r.Find(ctx, registry.Selector{All: true}, "", 10)
		require.NoError(t, err)
		require.NoError(t, r.Deny(ctx, registry.Denial{Token: id("t"), Until: time.Now().Add(time.Hour)}))
		require.NoError(t, r.Each(ctx, func(registry.Node) { <-time.After(time.Minute) }), "a node's time is its own")
		_, err = r.End(ctx, registry.Selector{All: true}, registry.Ending{})
		require.NoError(t, err)
		r.Denied(&registry.Holder{})

		var ops []event.Operation
		for _, a := range n.answers {
			require.Equal(t, time.Second, a.took, a.op)
			require.False(t, a.failed, a.op)
			ops = append(ops, a.op)
		}
		require.ElementsMatch(t, event.Operations, ops)
	})
}

func TestMeasured_ADecisionIsNoFailure(t *testing.T) {
	withRemote(t, func(t *testing.T, z *Zone, r *remote, n *noting) {
		left, leave := context.WithCancel(t.Context())
		leave()
		for _, test := range []struct {
			ctx    context.Context
			err    error
			failed bool
		}{
			{t.Context(), nil, false},
			{t.Context(), errors.New("the connection is refused"), true},
			{t.Context(), context.DeadlineExceeded, true},
			{t.Context(), errors.Join(registry.ErrDenied, errors.New("by token")), false},
			{t.Context(), registry.ErrNotReserved, false},
			{left, context.Canceled, false},
		} {
			r.err, n.answers = test.err, nil
			_, err := z.Registry.Admit(test.ctx, registry.Early, registry.Consent{}, []registry.Ask{askOf("a")}, nil)
			require.Equal(t, test.err, err)
			require.Equal(t, []answer{{event.OpAdmit, time.Second, test.failed}}, n.answers, "%v", test.err)
		}
	})
}

func TestMeasured_ShowsWhatItWraps(t *testing.T) {
	withRemote(t, func(t *testing.T, z *Zone, r *remote, _ *noting) {
		found, ok := registry.As[*remote](z.Registry)
		require.True(t, ok)
		require.Same(t, r, found)
		_, ok = registry.As[io.Closer](z.Registry)
		require.True(t, ok)
		_, ok = registry.As[interface{ Nothing() }](z.Registry)
		require.False(t, ok)

		require.NoError(t, z.RegistryAway())
		r.err = errors.New("the connection is refused")
		require.ErrorIs(t, z.RegistryAway(), r.err)
	})
	inZone(t, func(t *testing.T, h *house) {
		require.NoError(t, h.RegistryAway(), "who has nowhere to be is never away")
		_, is := h.Registry.(*memory.Registry)
		require.True(t, is, "nobody counts, nothing is wrapped")
	})
}

func TestSuperseded_EndsWithTheTimeThatItsNewcomerAsked(t *testing.T) {
	inZone(t, func(t *testing.T, h *house) {
		g := h.open("a")
		ask := askOf("a")
		ask.Rule.Policy = registry.Supersede
		older := registry.Ask{Holder: &g.holder, Rule: ask.Rule}
		for _, asked := range []registry.Ask{older, ask} {
			_, err := h.Registry.Admit(t.Context(), registry.Header, registry.Consent{}, []registry.Ask{asked}, nil)
			require.NoError(t, err)
		}
		<-g.done
		require.Equal(t, ask.Holder.Asked, g.response.Stream().Ended().Asked)
	})
}
