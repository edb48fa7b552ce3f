package memory

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// Find lists holders that the selector names, in the order of their IDs; kept places
// are listed too. A cursor is the ID of the last that was listed, so who holds all
// the while is listed once. Its error is nil, unless the cursor is not one of its
// own, or the limit is not positive.
//
// A page costs what it lists, or manyHolders if that is more. A selector of nothing
// but a Session costs what all holders do.
func (r *Registry) Find(
	_ context.Context, sel registry.Selector, cursor string, limit int,
) ([]*registry.Holder, string, error) {
	if limit < 1 {
		return nil, "", fmt.Errorf("finding streams: the limit is %d; ask for one at least", limit)
	}
	after, err := registry.ParseCursor(cursor)
	if err != nil {
		return nil, "", fmt.Errorf("finding streams: %w", err)
	}
	if sel.IsZero() {
		return nil, "", nil
	}
	page := r.page(&sel, after, limit)
	cursor = ""
	if len(page) > limit {
		page = page[:limit]
		cursor = page[limit-1].holder.ID.String()
	}
	holders := make([]*registry.Holder, len(page))
	for i, e := range page {
		holders[i] = e.holder
	}
	return holders, cursor, nil
}

// manyHolders is how many holders with one ID are looked through for a page. With
// more, most holders there are have that ID, so the page is found among all.
const manyHolders = 4096

// page returns, in order, the holders that sel names and that come after the given
// one; more than limit, if there are so many.
func (r *Registry) page(sel *registry.Selector, after registry.StreamID, limit int) []*entry {
	es, indexed := r.named(sel, manyHolders)
	if !indexed || len(es) == manyHolders {
		return r.ids.after(after, sel, limit+1)
	}
	es = slices.DeleteFunc(es, func(e *entry) bool { return !comesAfter(e, after) || !sel.Matches(e.holder) })
	slices.SortFunc(es, inOrder)
	return es
}

// named returns holders and kept places, most of them at most, among which are all
// that sel names, if there is an index for it. They come oldest first, the holders
// of a key before its kept places.
func (r *Registry) named(sel *registry.Selector, most int) (es []*entry, indexed bool) {
	switch {
	case !sel.ID.IsZero():
		if e := r.ids.find(sel.ID); e != nil {
			es = []*entry{e}
		}
	case !sel.Client.IsZero():
		es = r.clients.under(sel.Client, most)
	case !sel.Token.IsZero():
		es = r.tokens.under(sel.Token, most)
	case !sel.Subject.IsZero():
		es = r.subjects.under(sel.Subject, most)
	case !sel.Key.IsZero():
		es = r.shard(sel.Key).under(sel.Key, most)
	default:
		return nil, false
	}
	return es, true
}

// under returns who holds key.
func (sh *shard) under(key registry.ID, most int) []*entry {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sl := sh.slots[key]
	if sl == nil {
		return nil
	}
	return first(most, first(most, nil, viaKey, sl.held), viaKey, sl.kept)
}

// End ends every holder that the selector names, and returns them, oldest first. It
// gives up the kept places that it names. It does not end reserved places, nor
// streams that are admitted while it runs: those that are denied before do not get
// that far. Its error is always nil.
//
// It costs what it ends, but for a selector of nothing but a Session, which costs
// what all holders do.
func (r *Registry) End(_ context.Context, sel registry.Selector, e registry.Ending) (registry.Ended, error) {
	if sel.IsZero() {
		return registry.Ended{}, nil
	}
	es, indexed := r.named(&sel, math.MaxInt)
	if !indexed {
		es = r.ids.after(registry.StreamID{}, &sel, math.MaxInt)
		slices.SortStableFunc(es, func(a, b *entry) int { return a.holder.Since.Compare(b.holder.Since) })
	}
	if len(es) == 0 {
		return registry.Ended{}, nil
	}
	var ended registry.Ended
	var streams []registry.StreamID
	d := newDeparture()
	for _, e := range es {
		if !sel.Matches(e.holder) {
			continue
		}
		was := e.end(d)
		if was == held || was == kept {
			ended.Holders = append(ended.Holders, e.holder)
		}
		if was == held {
			streams = append(streams, e.holder.ID)
		}
	}
	ended.Departed = d.all()
	slices.SortStableFunc(ended.Holders, func(a, b *registry.Holder) int { return a.Asked.Compare(b.Asked) })
	for _, id := range streams {
		r.node.End(id, e)
	}
	return ended, nil
}

// end takes the place away if it is held or kept, and has d wait for the stream if
// it was held. It returns the state before. The entry was found under another lock,
// so it is looked at again under its key's own.
func (e *entry) end(d *departure) (was state) {
	sh := e.shard()
	sh.mu.Lock()
	defer sh.mu.Unlock()
	was = e.state
	switch was {
	case held:
		sh.drop(e)
		d.add(e)
	case kept:
		sh.drop(e)
	}
	return was
}
