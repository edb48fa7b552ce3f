package redis

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// modulus is that of the digest, as in scripts/bucket.lua.
const modulus = 1 << 52

// A bucket may have any number of entries. These bound how many of them one call looks at,
// or is told: Redis serves nobody else while a script runs. See also MOST_SCANNED in
// scripts/scan.lua.
const (
	mostCompared = 200
	mostTold     = 32
)

// sums are what two sets of entries are told apart by.
type sums struct {
	count  int64
	digest uint64
}

func (s *sums) add(t ticket, state entryState) {
	s.count++
	s.digest = (s.digest + uint64(t)*8 + uint64(state)) % modulus
}

// plus returns the sums of two sets that have nothing in common.
func (s sums) plus(other sums) sums {
	return sums{s.count + other.count, (s.digest + other.digest) % modulus}
}

// readSums reads a count and a digest, as the scripts spell them.
func readSums(out []rueidis.RedisMessage) (s sums, err error) {
	if len(out) < 2 {
		return s, fmt.Errorf("a script answered with %d values, not count and digest", len(out))
	}
	count, err := out[0].AsInt64()
	if err != nil {
		return s, fmt.Errorf("reading a count: %w", err)
	}
	digest, err := out[1].AsUint64()
	if err != nil {
		return s, fmt.Errorf("reading a digest: %w", err)
	}
	return sums{count, digest}, nil
}

// sum adds up what Redis should have of the bucket. mu is held.
func (b *bucket) sum() (s sums) {
	for _, p := range b.places {
		if p.known != none {
			s.add(p.ticket, p.known)
		}
	}
	for _, w := range b.waiters {
		if w.known {
			s.add(w.ticket, waiting)
		}
	}
	return s
}

// mostUnsure is how many comparisons may fail to count, since something changed
// meanwhile, until all entries are compared whatever happens. It is such that what was
// missed is found within half of the lease, however busy the bucket is.
const mostUnsure = renewals / 2

// mostTries is how often a renewal of a bucket that is suspected to differ is tried until
// nothing changes meanwhile.
const mostTries = 3

// renew renews the node's lease in the bucket, and reports whether its entries are to be
// compared: Redis does not have what it should have, or that is suspected and cannot be
// told. It may sweep out what dead nodes have left.
func (b *bucket) renew(suspect, sweep bool) (differs bool, err error) {
	var a args
	a.flag(sweep)
	for tries := 1; ; tries++ {
		b.mu.Lock()
		quiet, version := len(b.calls) == 0 && len(b.queue) == 0, b.version
		ours := b.sum()
		b.mu.Unlock()
		re, err := b.r.call(context.Background(), b.r.scripts.renew, a, b)
		if err != nil {
			return false, err
		}
		theirs, err := readSums(re.out)
		if err != nil || len(re.out) != 3 {
			re.finish()
			return false, fmt.Errorf("renewing a lease: %d values, not 3: %w", len(re.out), err)
		}
		more, _ := re.out[2].AsInt64()
		same := theirs == ours
		b.mu.Lock()
		quiet = quiet && len(b.calls) == 1 && b.version == version && len(b.queue) == 0
		switch {
		case same:
			b.unsure = 0
		case !quiet:
			b.unsure++
		}
		again := suspect && !same && !quiet && tries < mostTries
		differs = differs || !same && (quiet || suspect && !again) || b.unsure >= mostUnsure
		b.mu.Unlock()
		re.finish()
		if more == 0 && (differs || !again) {
			return differs, nil
		}
	}
}

// named is an entry as the scripts find it.
type named struct {
	key    registry.ID
	ticket ticket
}

func (n named) append(a *args) {
	a.add(string(n.key[:]))
	a.ticket(n.ticket)
}

// compare asks Redis what it has of each of this node's entries in the bucket, some at a
// time, and mends what differs, on either side. Only where Redis has others of this node
// too is the bucket scanned for them, since that goes through what all nodes have. While
// other calls are under way it is not sure whether it has: then that is left to a later
// comparison, if this one is not to be thorough.
func (b *bucket) compare(thorough bool) error {
	b.mu.Lock()
	thorough = thorough || b.unsure >= mostUnsure
	quiet, version := len(b.calls) == 0 && len(b.queue) == 0, b.version
	var listed []named
	for t, p := range b.places {
		listed = append(listed, named{p.holder.Key, t})
	}
	for t, w := range b.waiters {
		listed = append(listed, named{w.holder.Key, t})
	}
	// Those of calls under way Redis may or may not have by now.
	listed = slices.DeleteFunc(listed, func(n named) bool { _, underWay := b.pending[n.ticket]; return underWay })
	b.mu.Unlock()
	// What Redis has lost it hears of in the order in which it was.
	slices.SortFunc(listed, func(a, b named) int { return cmp.Compare(a.ticket, b.ticket) })
	var found, all sums
	for first := true; first || len(listed) > 0; first = false {
		part := listed[:min(len(listed), mostCompared)]
		listed = listed[len(part):]
		there, theirs, alone, err := b.compareSome(part, version)
		if err != nil {
			return fmt.Errorf("comparing entries: %w", err)
		}
		found, all = found.plus(there), theirs
		quiet = quiet && alone
		version++
	}
	b.mu.Lock()
	if found != all && !quiet && !thorough {
		b.unsure++
		b.mu.Unlock()
		return nil
	}
	b.unsure = 0
	b.mu.Unlock()
	if found == all && !thorough {
		return nil
	}
	return b.scan()
}

// compareSome compares those entries, and returns the sums of those that Redis has, and of
// all that it has of this node, and whether there was no other call since that version.
func (b *bucket) compareSome(part []named, version uint64) (there, all sums, alone bool, err error) {
	var a args
	a.num(int64(len(part)))
	for _, n := range part {
		n.append(&a)
	}
	re, err := b.r.call(context.Background(), b.r.scripts.sync, a, b)
	if err != nil {
		return there, all, false, err
	}
	defer re.finish()
	b.mu.Lock()
	only := len(b.calls) == 1
	alone = only && b.version == version
	b.mu.Unlock()
	if len(re.out) != 5 {
		return there, all, alone, fmt.Errorf("%d parts, not 5", len(re.out))
	}
	there, err = readSums(re.out)
	if err != nil {
		return there, all, alone, err
	}
	if all, err = readSums(re.out[2:]); err != nil {
		return there, all, alone, err
	}
	states, err := re.out[4].ToArray()
	if err != nil || len(states) != len(part) {
		return there, all, alone, fmt.Errorf("%d states, not %d: %w", len(states), len(part), err)
	}
	re.hear() // a waiter that is told by this very answer is not missing
	for i, n := range part {
		fields, err := states[i].ToArray()
		if err != nil || len(fields) != 1 && len(fields) != 1+endingWords {
			return there, all, alone, fmt.Errorf("%d fields, not 1 or %d: %w", len(fields), 1+endingWords, err)
		}
		state, _ := fields[0].AsInt64()
		words := make([]string, len(fields)-1)
		for j := range words {
			words[j], _ = fields[1+j].ToString()
		}
		b.found(n.ticket, entryState(state), b.r.ending(words), only)
	}
	return there, all, alone, nil
}

// scan looks through the bucket for entries of this node that it knows nothing of, and has
// them taken out. If there are none, what Redis counts is wrong, and is set right.
func (b *bucket) scan() error {
	seen := make(map[ticket]bool)
	var read, found sums
	var unknown []named
	steady := true
	for cursor := "0"; cursor != ""; {
		page, err := b.scanPage(b.r.call, cursor, unknown, nil)
		if err != nil {
			return err
		}
		if cursor == "0" {
			read = page.all
		}
		unknown = nil
		b.mu.Lock()
		for i, n := range page.entries {
			if seen[n.ticket] { // a scan may come by twice
				continue
			}
			seen[n.ticket] = true
			found.add(n.ticket, page.states[i])
			if !b.knows(n.ticket) {
				unknown = append(unknown, n)
			}
		}
		b.mu.Unlock()
		steady = steady && len(unknown) == 0 && page.all == read
		if cursor = page.next; cursor == "0" {
			cursor = ""
		}
	}
	if steady && found != read {
		_, err := b.scanPage(b.r.call, "", nil, []sums{read, found})
		return err
	}
	if len(unknown) > 0 {
		_, err := b.scanPage(b.r.call, "", unknown, nil)
		return err
	}
	return nil
}

// knows reports whether this node has, or may have by now, an entry of that ticket. mu is
// held.
func (b *bucket) knows(t ticket) bool {
	_, underWay := b.pending[t]
	return underWay || b.places[t] != nil || b.waiters[t] != nil
}

// page is a part of what Redis has of this node in a bucket.
type page struct {
	all     sums
	next    string
	entries []named
	states  []entryState
}

// scanPage takes entries out, and sets wrong sums right, and then reads the page at the
// cursor, if there is one.
func (b *bucket) scanPage(call caller, cursor string, out []named, right []sums) (pg page, err error) {
	var a args
	a.num(int64(len(out)))
	for _, n := range out {
		n.append(&a)
	}
	a.flag(right != nil)
	for _, s := range right {
		a.num(s.count)
		a.add(strconv.FormatUint(s.digest, 10))
	}
	a.add(cursor)
	re, err := call(context.Background(), b.r.scripts.scan, a, b)
	if err != nil {
		return pg, err
	}
	defer re.finish()
	if len(re.out) != 4 {
		return pg, fmt.Errorf("scanning a bucket: %d parts, not 4", len(re.out))
	}
	if pg.all, err = readSums(re.out); err != nil {
		return pg, err
	}
	if pg.next, err = re.out[2].ToString(); err != nil {
		return pg, fmt.Errorf("scanning a bucket: %w", err)
	}
	found, err := re.out[3].ToArray()
	if err != nil {
		return pg, fmt.Errorf("scanning a bucket: %w", err)
	}
	for i := range found {
		fields, err := found[i].ToArray()
		if err != nil || len(fields) != 3 {
			return pg, fmt.Errorf("scanning a bucket: %d fields, not 3: %w", len(fields), err)
		}
		key, _ := fields[0].ToString()
		ns, err := numbers(fields[1:], 2)
		if err != nil || len(key) != len(registry.ID{}) {
			return pg, fmt.Errorf("scanning a bucket: an entry of a key of %d bytes: %w", len(key), err)
		}
		pg.entries = append(pg.entries, named{registry.ID([]byte(key)), ticket(ns[0])})
		pg.states = append(pg.states, entryState(ns[1]))
	}
	return pg, nil
}

// found mends the difference between what the node has of an entry and what Redis had a
// moment ago, when there was only this call, or there were others. A place that is being
// committed is left alone: what is found may be what the commit has made of it, which this
// node does not know yet.
func (b *bucket) found(t ticket, state entryState, e registry.Ending, only bool) {
	b.mu.Lock()
	p, w := b.places[t], b.waiters[t]
	if p == nil {
		// It is lost, unless the answer to a call under way tells it. If that is so, the
		// next comparison finds it gone.
		switch {
		case w == nil:
		case state == waiting:
			w.known = true
		case only:
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
	over := state == left && p.state != left
	switch {
	case over && p.departed:
		b.enqueue(op{kind: opDeparted, place: p})
	case over:
	case p.state == left && state == none:
		p.tidy()
	default:
		b.enqueue(p.owed()...)
	}
	b.mu.Unlock()
	if over {
		p.end(e, false)
	}
}

// owed is what Redis is to be told of the place as it stands. The bucket is locked.
func (p *place) owed() (ops []op) {
	switch {
	case p.state != left && p.known != p.state:
		ops = append(ops, op{kind: opRegister, place: p})
	case p.state == left && p.known != none:
		if p.known != left {
			ops = append(ops, op{kind: opLeave, place: p})
		}
		if p.departed {
			ops = append(ops, op{kind: opDeparted, place: p})
		}
	}
	return ops
}

// registerAll is bucket.registerAll of all buckets.
func (r *Registry) registerAll() {
	for i := range r.buckets {
		r.buckets[i].registerAll()
	}
}

// registerAll has Redis hear of all places that it does not know as they are, since they
// were made, or given back, while it was away and too late for the comparison.
func (b *bucket) registerAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	type told struct {
		kind  opKind
		place *place
	}
	queued := make(map[told]bool)
	for i := range b.queue {
		queued[told{b.queue[i].kind, b.queue[i].place}] = true
	}
	for _, t := range slices.Sorted(maps.Keys(b.places)) {
		if _, underWay := b.pending[t]; underWay {
			continue
		}
		for _, o := range b.places[t].owed() {
			if !queued[told{o.kind, o.place}] {
				b.queue = append(b.queue, o)
			}
		}
	}
	b.kick()
}

// giveAllBack takes all that this node has out of the bucket, as far as that goes within
// the timeout, when no other call can be made any more.
func (b *bucket) giveAllBack() error {
	b.mu.Lock()
	// The calls below tell what is queued, and would register again what they take out.
	b.queue = slices.DeleteFunc(b.queue, func(o op) bool { return o.kind != opCancel })
	b.mu.Unlock()
	until := time.Now().Add(b.r.options.Timeout)
	var out []named
	for cursor := "0"; ; {
		page, err := b.scanPage(b.r.callLast, cursor, out, nil)
		if err != nil || page.all.count == 0 || cursor == "" || time.Now().After(until) {
			return err
		}
		out = page.entries
		if cursor = page.next; cursor == "0" {
			cursor = "" // it remains to take the last ones out
		}
	}
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
