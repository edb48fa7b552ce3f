package redis

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/redis/rueidis"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// Find implements registry.Registry. Who holds a key, Redis knows; what else a selector
// names, each node finds among its own streams, this one first. So a selector without a
// key costs a question to each other node, unless this one has enough.
//
// A cursor is the node that the page ended in, and the cursor of that node.
func (r *Registry) Find(
	ctx context.Context, sel registry.Selector, cursor string, limit int,
) ([]*registry.Holder, string, error) {
	if limit < 1 {
		return nil, "", fmt.Errorf("finding streams: the limit is %d; ask for one at least", limit)
	}
	if sel.IsZero() {
		return nil, "", nil
	}
	if !sel.Key.IsZero() && r.link.isUp() {
		return r.findKey(ctx, sel, cursor, limit)
	}
	at, rest, err := parseCursor(cursor)
	if err != nil {
		return nil, "", fmt.Errorf("finding streams: %w", err)
	}
	var page []*registry.Holder
	if at == "" {
		own, next, err := r.findOwn(ctx, sel, rest, limit)
		switch {
		case err != nil:
			return nil, "", err
		case next != "":
			return own, "." + next, nil
		}
		page = own
	}
	for _, peer := range r.peers.after(at) {
		from := ""
		if peer.id == at {
			from = rest
		}
		if len(page) == limit {
			return page, hex.EncodeToString([]byte(peer.id)) + "." + from, nil
		}
		holders, next, err := peer.find(ctx, sel, from, limit-len(page))
		if err != nil {
			return nil, "", fmt.Errorf("finding streams on node %s: %w", peer.name(), err)
		}
		page = append(page, holders...)
		if next != "" {
			return page, hex.EncodeToString([]byte(peer.id)) + "." + next, nil
		}
	}
	return page, "", nil
}

// keptCursor begins a cursor of findOwn that is among the kept places.
const keptCursor = "kept "

// findOwn lists this node's own: those that the registry of this process knows, then the
// kept places.
func (r *Registry) findOwn(ctx context.Context, sel registry.Selector, cursor string, limit int) ([]*registry.Holder, string, error) {
	var page []*registry.Holder
	id, amongKept := strings.CutPrefix(cursor, keptCursor)
	if !amongKept {
		id = ""
		var err error
		if page, cursor, err = r.local.Find(ctx, sel, cursor, limit); err != nil {
			return nil, "", err
		}
		for i, h := range page {
			if p := r.streams.find(h.ID); p != nil {
				page[i] = p.holder
			}
		}
		if cursor != "" {
			return page, cursor, nil
		}
	}
	after, err := registry.ParseCursor(id)
	if err != nil {
		return nil, "", err
	}
	for _, p := range r.streams.keptFor(&sel, after) {
		if len(page) == limit {
			return page, keptCursor + after.String(), nil
		}
		page, after = append(page, p.holder), p.holder.ID
	}
	return page, "", nil
}

// parseCursor returns the node that an earlier page ended in, empty for this one, and
// that node's cursor.
func parseCursor(cursor string) (node, rest string, err error) {
	if cursor == "" {
		return "", "", nil
	}
	name, rest, found := strings.Cut(cursor, ".")
	id, err := hex.DecodeString(name)
	if !found || err != nil || len(id) != 0 && len(id) != nodeIDSize {
		return "", "", fmt.Errorf("%q is no cursor; give what the page before came with", cursor)
	}
	return string(id), rest, nil
}

// findKey lists those who hold a key, in the order of their IDs, so that who holds all
// the while is listed once.
func (r *Registry) findKey(
	ctx context.Context, sel registry.Selector, cursor string, limit int,
) ([]*registry.Holder, string, error) {
	_, rest, err := parseCursor(cursor)
	if err != nil {
		return nil, "", fmt.Errorf("finding streams: %w", err)
	}
	after, err := registry.ParseCursor(rest)
	if err != nil {
		return nil, "", fmt.Errorf("finding streams: %w", err)
	}
	_, holders, err := r.holdersOf(ctx, &sel)
	if err != nil {
		return nil, "", fmt.Errorf("finding streams: %w", err)
	}
	holders = slices.DeleteFunc(holders, func(h *registry.Holder) bool { return h.ID.Compare(after) <= 0 })
	slices.SortFunc(holders, func(a, b *registry.Holder) int { return a.ID.Compare(b.ID) })
	if len(holders) <= limit {
		return holders, "", nil
	}
	return holders[:limit], "." + holders[limit-1].ID.String(), nil
}

// holdersOf asks Redis for the holders of the selector's key that it names, the oldest
// first, then those for whom places are kept.
func (r *Registry) holdersOf(ctx context.Context, sel *registry.Selector) (refs []reference, holders []*registry.Holder, err error) {
	var a args
	a.add(string(sel.Key[:]))
	re, err := r.call(ctx, r.scripts.list, a, r.bucketOf(sel.Key))
	if err != nil {
		return nil, nil, err
	}
	defer re.finish()
	for _, m := range re.out {
		ref, err := readReference(m)
		if err != nil {
			return nil, nil, err
		}
		h, err := r.holder(sel.Key, ref)
		if err != nil {
			return nil, nil, err
		}
		if sel.Matches(h) {
			refs, holders = append(refs, ref), append(holders, h)
		}
	}
	return refs, holders, nil
}

// End implements registry.Registry. The streams of a key Redis takes out; what else a
// selector names, each node ends itself. The error says that some may not have been
// reached; those named were ended all the same.
func (r *Registry) End(ctx context.Context, sel registry.Selector, e registry.Ending) (registry.Ended, error) {
	if sel.IsZero() {
		return registry.Ended{}, nil
	}
	set := &endedSet{d: newDeparture()}
	var err error
	if !sel.Key.IsZero() && r.link.isUp() {
		if err = r.endKey(ctx, &sel, e, set); err == nil {
			return set.ended(), nil
		}
	}
	r.endOwn(ctx, sel, e, set)
	err = errors.Join(err, r.peers.end(ctx, sel, e, set))
	return set.ended(), err
}

// endedSet is who was ended so far.
type endedSet struct {
	holders []*registry.Holder
	d       *departure
}

func (s *endedSet) ended() registry.Ended {
	return registry.Ended{Holders: s.holders, Departed: s.d.all()}
}

// endKey ends streams of one key, of whatever node.
func (r *Registry) endKey(ctx context.Context, sel *registry.Selector, e registry.Ending, set *endedSet) error {
	refs, _, err := r.holdersOf(ctx, sel)
	if err != nil || len(refs) == 0 {
		return err
	}
	a := args{string(sel.Key[:])}
	r.spellEnding(&a, e)
	a.num(int64(len(refs)))
	for _, ref := range refs {
		a.add(ref.node)
		a.ticket(ref.ticket)
	}
	re, err := r.call(ctx, r.scripts.finish, a, r.bucketOf(sel.Key))
	if err != nil {
		return err
	}
	defer re.finish()
	for _, m := range re.out {
		ref, err := readReference(m)
		if err != nil {
			return err
		}
		h, err := r.holder(sel.Key, ref)
		if err != nil {
			return err
		}
		set.holders = append(set.holders, h)
		if ref.last == "1" {
			r.awaitEntry(ref, set.d)
		}
	}
	return nil
}

// endOwn ends this node's streams that the selector names, the oldest first.
func (r *Registry) endOwn(ctx context.Context, sel registry.Selector, e registry.Ending, set *endedSet) {
	places := r.own(ctx, sel)
	for _, p := range places {
		switch p.end(e, true) {
		case held:
			set.holders = append(set.holders, p.holder)
			p.await(set.d)
		case kept:
			set.holders = append(set.holders, p.holder)
		}
	}
}

// own returns this node's places, held or kept, that the selector names: those held
// first, the oldest first.
func (r *Registry) own(ctx context.Context, sel registry.Selector) []*place {
	type aged struct {
		*place
		kept  bool
		order uint64
	}
	var found []aged
	for cursor := ""; ; {
		page, next, err := r.findOwn(ctx, sel, cursor, 1000)
		if err != nil {
			break // there is no such error for a cursor of its own
		}
		for _, h := range page {
			if p := r.streams.find(h.ID); p != nil {
				p.b.mu.Lock()
				found = append(found, aged{p, p.state == kept, p.order})
				p.b.mu.Unlock()
			}
		}
		if cursor = next; cursor == "" {
			break
		}
	}
	slices.SortFunc(found, func(a, b aged) int {
		if a.kept != b.kept {
			if a.kept {
				return 1
			}
			return -1
		}
		return cmp.Or(a.holder.Asked.Compare(b.holder.Asked), cmp.Compare(a.order, b.order))
	})
	places := make([]*place, len(found))
	for i := range found {
		places[i] = found[i].place
	}
	return places
}

// mostAsked is of how many of this node's streams it is asked how long their clients
// have been silent.
const mostAsked = 64

// suspects returns at most registry.MostSuspects of the holders named: this node's own
// whose clients have been silent for longest, as it knows, then the oldest.
func (r *Registry) suspects(m rueidis.RedisMessage) (chosen []registry.StreamID, err error) {
	list, err := m.ToArray()
	if err != nil {
		return nil, fmt.Errorf("reading who may be dead: %w", err)
	}
	var all []registry.StreamID
	var own []registry.StreamID
	for i := range list {
		pair, err := list[i].AsStrSlice()
		if err != nil || len(pair) != 2 || len(pair[1]) != len(registry.StreamID{}) {
			return nil, fmt.Errorf("reading who may be dead: %w", errors.Join(err, errHolder))
		}
		id := registry.StreamID([]byte(pair[1]))
		all = append(all, id)
		if pair[0] == r.id {
			own = append(own, id)
		}
	}
	return registry.ChooseSuspects(r.ctx, r.node, own[:min(len(own), mostAsked)], all), nil
}
