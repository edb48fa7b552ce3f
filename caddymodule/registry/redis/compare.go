package redis

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// modulus is that of the digest, as in scripts/bucket.lua.
const modulus = 1 << 52

// sum counts what Redis should have of the bucket, and adds it up. mu is held.
func (b *bucket) sum() (count int64, digest uint64) {
	add := func(t ticket, s entryState) {
		count++
		digest = (digest + uint64(t)*8 + uint64(s)) % modulus
	}
	for _, p := range b.places {
		if p.known != none {
			add(p.ticket, p.known)
		}
	}
	for _, w := range b.waiters {
		if w.known {
			add(w.ticket, waiting)
		}
	}
	return count, digest
}

// mostUnsure is how many comparisons may fail to count, since something changed
// meanwhile, until all entries are compared whatever happens. It is such that what was
// missed is found within half of the lease, however busy the bucket is.
const mostUnsure = renewals / 2

// renew renews the node's lease in the bucket. Where Redis does not have what it
// should have, or that is suspected, all entries are compared.
func (b *bucket) renew(suspect bool) error {
	for {
		b.mu.Lock()
		quiet, version := len(b.calls) == 0 && len(b.queue) == 0, b.version
		count, digest := b.sum()
		b.mu.Unlock()
		re, err := b.r.call(context.Background(), b.r.scripts.renew, nil, b)
		if err != nil {
			return err
		}
		if len(re.out) != 3 {
			re.finish()
			return fmt.Errorf("renewing a lease: %d values, not 3", len(re.out))
		}
		theirs, _ := re.out[0].AsInt64()
		spelled, _ := re.out[1].ToString()
		more, _ := re.out[2].AsInt64()
		same := theirs == count && spelled == strconv.FormatUint(digest, 10)
		b.mu.Lock()
		quiet = quiet && len(b.calls) == 1 && b.version == version && len(b.queue) == 0
		switch {
		case same:
			b.unsure = 0
		case !quiet:
			b.unsure++
		}
		differs := !same && quiet || b.unsure >= mostUnsure || suspect && !same
		b.mu.Unlock()
		re.finish()
		if differs {
			if err := b.compare(); err != nil {
				return err
			}
		}
		if more == 0 {
			return nil
		}
	}
}

// compare asks Redis what it has of each of this node's entries in the bucket, and
// mends what differs, on either side.
func (b *bucket) compare() error {
	var a args
	b.mu.Lock()
	b.unsure = 0
	before := b.r.newestTicket()
	var listed []ticket
	underWay := make(map[ticket]bool, len(b.pending))
	for t := range b.pending {
		listed = append(listed, t)
		underWay[t] = true
	}
	for t, p := range b.places {
		if p.state == left && p.departed {
			p.known = none
			p.tidy()
		} else if !underWay[t] {
			listed = append(listed, t)
		}
	}
	for t := range b.waiters {
		if !underWay[t] {
			listed = append(listed, t)
		}
	}
	b.mu.Unlock()
	slices.Sort(listed) // what Redis has lost it hears of in the order in which it was
	a.ticket(before)
	a.num(int64(len(listed)))
	for _, t := range listed {
		a.ticket(t)
	}
	re, err := b.r.call(context.Background(), b.r.scripts.sync, a, b)
	if err != nil {
		return err
	}
	defer re.finish()
	if len(re.out) != len(listed) {
		return fmt.Errorf("comparing entries: %d answers, not %d", len(re.out), len(listed))
	}
	for i, t := range listed {
		fields, err := re.out[i].ToArray()
		if err != nil || len(fields) != 1 && len(fields) != 1+endingWords {
			return fmt.Errorf("comparing entries: %d fields, not 1 or %d: %w", len(fields), 1+endingWords, err)
		}
		state, _ := fields[0].AsInt64()
		words := make([]string, len(fields)-1)
		for j := range words {
			words[j], _ = fields[1+j].ToString()
		}
		if !underWay[t] {
			b.found(t, entryState(state), b.r.ending(words))
		}
	}
	return nil
}

// found mends the difference between what the node has of an entry and what Redis had a
// moment ago. A place that is being committed is left alone: what is found may be what the
// commit has made of it, which this node does not know yet.
func (b *bucket) found(t ticket, state entryState, e registry.Ending) {
	b.mu.Lock()
	p, w := b.places[t], b.waiters[t]
	if p == nil {
		// It is lost, unless the answer to a call under way tells it. If that is so, the
		// next comparison finds it gone.
		if w != nil && state != waiting && len(b.calls) == 1 {
			b.enqueue(op{kind: opRegister, waiter: w})
		}
		b.mu.Unlock()
		return
	}
	if p.committing {
		b.mu.Unlock()
		return
	}
	p.known = state
	over := false
	switch {
	case p.state == left && state == none:
		p.tidy()
	case p.state == left:
		if state != left {
			b.enqueue(op{kind: opLeave, place: p})
		}
		if p.departed {
			b.enqueue(op{kind: opDeparted, place: p})
		}
	case state == left:
		over = true
		if p.departed {
			b.enqueue(op{kind: opDeparted, place: p})
		}
	case state != p.state:
		b.enqueue(op{kind: opRegister, place: p})
	}
	b.mu.Unlock()
	if over {
		p.end(e, false)
	}
}

// registerAll has Redis hear of all places that it does not know as they are, since they
// were made, or given back, while it was away and too late for the comparison.
func (b *bucket) registerAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range slices.Sorted(maps.Keys(b.places)) {
		p := b.places[t]
		_, underWay := b.pending[t]
		switch {
		case underWay || p.known == p.state:
		case p.state != left:
			b.enqueue(op{kind: opRegister, place: p})
		case p.known != none:
			b.enqueue(op{kind: opLeave, place: p})
			if p.departed {
				b.enqueue(op{kind: opDeparted, place: p})
			}
		}
	}
	b.kick()
}

// giveAllBack takes all that this node has out of the bucket, when no other call can be
// made any more.
func (b *bucket) giveAllBack() error {
	b.mu.Lock()
	before := b.r.newestTicket()
	b.mu.Unlock()
	var a args
	a.ticket(before)
	a.num(0)
	re, keys, said := b.r.begin([]*bucket{b})
	err := re.run(context.Background(), b.r.link.client(), b.r.scripts.sync, keys, append(said, a...))
	if err == nil {
		re.finish()
	}
	return err
}

// all lists the places of the bucket.
func (b *bucket) all() []*place {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make([]*place, 0, len(b.places))
	for _, p := range b.places {
		all = append(all, p)
	}
	return all
}
