package guard

import (
	"context"
	"encoding/json"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/registry/memory"
)

// byValue is a registry that is given, and gives, nothing but values, as one in
// another process would: every holder goes over in writing. All tests of this
// package use it.
type byValue struct{ *memory.Registry }

func written(h *registry.Holder) *registry.Holder {
	b, err := json.Marshal(h)
	if err != nil {
		panic(err)
	}
	read := new(registry.Holder)
	if err := json.Unmarshal(b, read); err != nil {
		panic(err)
	}
	return read
}

func allWritten(hs []*registry.Holder) []*registry.Holder {
	for i, h := range hs {
		hs[i] = written(h)
	}
	return hs
}

func victimsWritten(vs []registry.Victim) []registry.Victim {
	for i, v := range vs {
		vs[i].Holder = written(v.Holder)
	}
	return vs
}

func (r byValue) Admit(ctx context.Context, phase registry.Phase, consent registry.Consent, asks []registry.Ask, leaving []registry.StreamID) ([]registry.Admission, error) {
	sent := make([]registry.Ask, len(asks))
	for i, a := range asks {
		sent[i] = a
		sent[i].Holder = written(a.Holder)
	}
	admissions, err := r.Registry.Admit(ctx, phase, consent, sent, leaving)
	for i := range admissions {
		a := &admissions[i]
		a.Holders, a.Ends = allWritten(a.Holders), victimsWritten(a.Ends)
		if a.Place != nil {
			a.Place = placeByValue{a.Place}
		}
	}
	return admissions, err
}

func (r byValue) End(ctx context.Context, sel registry.Selector, e registry.Ending) (registry.Ended, error) {
	ended, err := r.Registry.End(ctx, sel, e)
	ended.Holders = allWritten(ended.Holders)
	return ended, err
}

func (r byValue) Find(ctx context.Context, sel registry.Selector, cursor string, limit int) ([]*registry.Holder, string, error) {
	holders, next, err := r.Registry.Find(ctx, sel, cursor, limit)
	return allWritten(holders), next, err
}

func (r byValue) Wait(ctx context.Context, ask registry.Ask) (registry.Waiter, error) {
	ask.Holder = written(ask.Holder)
	return r.Registry.Wait(ctx, ask)
}

type placeByValue struct{ registry.Place }

func (p placeByValue) Commit(ctx context.Context) ([]registry.Victim, error) {
	ended, err := p.Place.Commit(ctx)
	return victimsWritten(ended), err
}
