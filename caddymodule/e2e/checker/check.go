package checker

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Check returns where the history shows the promise broken.
//
// The rules together say that a key goes to who asked last: no stream beyond the limit
// lives for longer than its bound, and no stream ends as superseded unless enough others
// asked later.
func Check(h *History, p Promise) []Violation {
	c := &check{h: h, p: p, byKey: make(map[keyOf][]int)}
	c.faults = slices.SortedFunc(slices.Values(h.Faults), func(a, b Fault) int { return cmp.Compare(a.From, b.From) })
	for i := range h.Streams {
		s := &h.Streams[i]
		k := keyOf{s.Zone, s.Key}
		c.byKey[k] = append(c.byKey[k], i)
		c.latest = append(c.latest, c.latestOf(s))
		c.skew = append(c.skew, c.skewOf(s, c.latest[i]))
	}
	for _, rule := range rules {
		c.rule = rule.name
		rule.check(c)
	}
	return c.found
}

// rules has them in the order in which they are reported.
var rules = []struct {
	name  string
	check func(*check)
}{
	{RuleQuiet, (*check).quiet},
	{RuleSurplus, (*check).surplus},
	{RuleTaken, (*check).taken},
	{RuleSuperseded, (*check).superseded},
	{RuleCut, (*check).cut},
	{RuleLogout, (*check).loggedOut},
	{RuleOutlived, (*check).outlived},
	{RuleRefused, (*check).refused},
}

// Names of the rules.
const (
	RuleQuiet      = "after quiet a key has no more streams than its limit"
	RuleSurplus    = "no stream beyond the limit lives longer than its bound"
	RuleTaken      = "a stream whose place was taken ends within its bound"
	RuleSuperseded = "a stream is superseded only by who asked later"
	RuleCut        = "a stream breaks off only with its node, or its fence"
	RuleLogout     = "a stream is logged out only by a logout"
	RuleOutlived   = "no stream outlives, and none begins after, a logout of its token"
	RuleRefused    = "a newcomer is refused only for a cause"
)

type keyOf struct{ zone, key string }

type check struct {
	h      *History
	p      Promise
	faults []Fault
	byKey  map[keyOf][]int
	// latest is, by stream, when its node may have got the request at the latest, and
	// skew how exactly it knows when that was.
	latest []Time
	skew   []time.Duration
	rule   string
	found  []Violation
}

func (c *check) report(streams []int, format string, args ...any) {
	c.found = append(c.found, Violation{c.rule, streams, fmt.Sprintf(format, args...)})
}

func (c *check) zone(s *Stream) Zone { return c.h.Zones[s.Zone] }

// affects reports whether the fault was done to one of the nodes.
func (f *Fault) affects(nodes ...string) bool { return f.Node == "" || slices.Contains(nodes, f.Node) }

func (f *Fault) isDown() bool { return f.Kind == NodeKilled || f.Kind == NodeStopped }

// repairs is how long after a fault a surplus may live that comes from it.
func (c *check) repairs(f *Fault) time.Duration {
	if f.Kind == PubSubKilled || f.Kind == NodeFrozen {
		return c.p.Lease / 2
	}
	return c.p.Lease
}

// extend is until when what began then, and may last so long, lasts at the latest, since
// faults of those kinds were done to those nodes. Empty: all kinds.
func (c *check) extend(from Time, most time.Duration, kinds []Kind, nodes ...string) Time {
	d := from.after(most)
	for changed := true; changed; {
		changed = false
		for i := range c.faults {
			f := &c.faults[i]
			if len(kinds) > 0 && !slices.Contains(kinds, f.Kind) || !f.affects(nodes...) || f.From > d {
				continue
			}
			if end := f.To.after(c.repairs(f)); end > d {
				d, changed = end, true
			}
		}
	}
	return d.after(c.p.Slack)
}

// deadline is until when the nodes may not know of each other what happened then.
func (c *check) deadline(from Time, nodes ...string) Time {
	return c.extend(from, c.p.Lease/2, nil, nodes...)
}

// fencedBy is until when a stream may live under fence whose place was taken then. Whatever
// happens to Redis, a node ends its streams when its lease runs out, unless it cannot run.
func (c *check) fencedBy(from Time, nodes ...string) Time {
	return c.extend(from, c.p.Lease, []Kind{NodeFrozen, Stalled}, nodes...)
}

// bound is until when streams of a zone that are too many may live together on those
// nodes from then on.
func (c *check) bound(zone string, from Time, nodes []string) Time {
	z := c.h.Zones[zone]
	switch {
	case z.Rejects && z.OnError == Fence:
		// Nobody is let in while a holder lives, unless Redis has lost it, or its node hung.
		return c.extend(from, 0, []Kind{NodeFrozen, Stalled, RedisFailedOver}, nodes...)
	case z.Rejects:
		return c.extend(from, 0, nil, nodes...) // the same, unless a node is on its own
	case z.OnError == Fence:
		return min(c.deadline(from, nodes...), c.fencedBy(from, nodes...))
	default:
		return c.deadline(from, nodes...)
	}
}

func (s *Stream) livesAt(t Time) bool { return s.Outcome == Admitted && s.Answered <= t && s.Ended > t }

func (c *check) quiet() {
	for _, at := range c.h.Quiet {
		for k, all := range c.byKey {
			var live []int
			for _, i := range all {
				if c.h.Streams[i].livesAt(at) {
					live = append(live, i)
				}
			}
			if limit := c.h.Zones[k.zone].Limit; len(live) > limit {
				c.report(live, "at %s %d streams have key %s of zone %s, whose limit is %d", at, len(live), k.key, k.zone, limit)
			}
		}
	}
}

// surplus looks for limit+1 streams of a key that lived together for too long.
func (c *check) surplus() {
	for k, all := range c.byKey {
		limit := c.h.Zones[k.zone].Limit
		for _, i := range all {
			s := &c.h.Streams[i]
			if s.Outcome != Admitted {
				continue
			}
			from := s.Answered
			least := from.after(c.p.Slack) // no bound is less
			var others []int
			for _, j := range all {
				o := &c.h.Streams[j]
				if j != i && o.livesAt(from) && (o.Answered < from || j < i) && c.lived(o) > least {
					others = append(others, j)
				}
			}
			if c.lived(s) <= least || len(others) < limit {
				continue
			}
			eachSubset(others, limit, func(subset []int) (more bool) {
				together := c.lived(s)
				nodes := []string{s.Node}
				for _, j := range subset {
					together = min(together, c.lived(&c.h.Streams[j]))
					nodes = append(nodes, c.h.Streams[j].Node)
				}
				d := c.bound(k.zone, from, nodes)
				if together <= d {
					return true
				}
				c.report(append([]int{i}, subset...), "%d streams have key %s of zone %s, whose limit is %d, from %s to %s: until %s at most",
					limit+1, k.key, k.zone, limit, from, together, d)
				return false
			})
		}
	}
}

// taken looks for streams whose place newcomers took, and that lived on, whether or not
// those newcomers did. Where the registry may have forgotten meanwhile who took the
// place, that is no fault.
func (c *check) taken() {
	for k, all := range c.byKey {
		zone := c.h.Zones[k.zone]
		if zone.Rejects {
			continue
		}
		for _, i := range all {
			s := &c.h.Streams[i]
			if s.Outcome != Admitted {
				continue
			}
			for _, j := range all {
				o := &c.h.Streams[j]
				if j == i || o.Outcome != Admitted || !c.isLater(j, i) || o.Answered.after(c.p.Lease/2) >= c.lived(s) || !c.full(all, i, j, zone.Limit) {
					continue
				}
				if d := c.takenBy(s, o); c.lived(s) > d {
					c.report([]int{i, j}, "its place was taken at %s; it lived until %s, later than %s", o.Answered, c.lived(s), d)
					break
				}
			}
		}
	}
}

// isLater reports whether o has certainly asked later than s.
func (c *check) isLater(o, s int) bool {
	return c.h.Streams[o].Asked > c.latest[s].after(c.skew[o]+c.skew[s])
}

// full reports whether, with the newcomer, as many streams that asked later than s had the
// key as may, while it asked and when it was admitted, and Redis knew.
func (c *check) full(all []int, s, newcomer, limit int) bool {
	n, o := 1, &c.h.Streams[newcomer]
	for _, j := range all {
		other := &c.h.Streams[j]
		if j == s || j == newcomer || !other.livesAt(o.Asked) || !other.livesAt(o.Answered) || !c.isLater(j, s) {
			continue
		}
		replaces := other.Client != "" && other.Client == o.Client
		if !replaces && !c.troubled(other.Asked.after(-c.p.Lease), o.Answered, other.Node) {
			n++
		}
	}
	return n >= limit
}

// takenBy is until when s may live whose place o took.
func (c *check) takenBy(s, o *Stream) Time {
	d, fences := c.deadline(o.Answered, s.Node, o.Node), c.zone(s).OnError == Fence
	if fences {
		d = c.fencedBy(o.Answered, s.Node, o.Node)
	}
	for i := range c.faults {
		f := &c.faults[i]
		if !f.affects(s.Node, o.Node) || f.From > d || f.To.after(c.p.Lease+c.p.Slack) < o.Asked {
			continue
		}
		// Under fence a node that is cut off throughout ends its streams all the same.
		cutOff := fences && f.Kind == RedisCut && f.Node == s.Node && o.Node != s.Node && f.From <= o.Asked && f.To >= d
		if f.Kind != Stalled && !cutOff {
			return Never
		}
	}
	return d
}

// lived is until when the stream is known to have lived.
func (c *check) lived(s *Stream) Time { return min(s.Ended, c.h.Until) }

// eachSubset calls f for the subsets of that size, while it wants more.
func eachSubset(all []int, size int, f func([]int) bool) {
	var walk func(chosen []int, from int) bool
	walk = func(chosen []int, from int) bool {
		if len(chosen) == size {
			return f(chosen)
		}
		for i := from; i < len(all); i++ {
			if !walk(append(slices.Clone(chosen), all[i]), i+1) {
				return false
			}
		}
		return true
	}
	walk(nil, 0)
}

// latestOf is when a node may have got the request at the latest: a node that is frozen
// reads afterwards what clients sent that have given up.
func (c *check) latestOf(s *Stream) Time {
	t := s.Answered
	if s.Outcome != GivenUp && s.Outcome != Failed {
		return t
	}
	for i := range c.faults {
		if f := &c.faults[i]; (f.Kind == NodeFrozen || f.Kind == Stalled) && f.affects(s.Node) && f.From <= t && f.To > t {
			t = f.To
		}
	}
	return t.after(c.p.Slack)
}

// skewOf is how exactly the node's idea is of when s asked. One that was started while
// Redis was slow has a bad one.
func (c *check) skewOf(s *Stream, latest Time) time.Duration {
	skew := c.p.Skew
	for i := range c.faults {
		down := &c.faults[i]
		if !down.isDown() || down.Node != s.Node || down.To > latest.after(c.p.Slack) {
			continue
		}
		for j := range c.faults {
			slow := &c.faults[j]
			if slow.Kind == RedisSlow && slow.affects(s.Node) && slow.From < down.To.after(c.p.Lease) && slow.To > down.From {
				skew = max(skew, c.p.Skew+slow.Delay/2)
			}
		}
	}
	return skew
}

// mayBeLater reports whether o may have asked later than s.
func (c *check) mayBeLater(o, s int) bool {
	return c.latest[o].after(c.skew[o]+c.skew[s]) >= c.h.Streams[s].Asked
}

func (c *check) superseded() {
	for k, all := range c.byKey {
		zone := c.h.Zones[k.zone]
		for _, i := range all {
			s := &c.h.Streams[i]
			if s.Outcome != Admitted || s.Ending != Superseded && s.Ending != Replaced {
				continue
			}
			later := 0
			for _, j := range all {
				o := &c.h.Streams[j]
				if j == i || o.Asked > s.Ended || !c.mayBeLater(j, i) || s.Ending == Replaced && o.Client != s.Client {
					continue
				}
				if !c.endsNobody(o) {
					later++
				}
			}
			need := zone.Limit
			if s.Ending == Replaced {
				need = 1
			}
			switch {
			case later < need:
				c.report([]int{i}, "it asked at %s and was %s at %s, and %d others can have asked later, not %d",
					s.Asked, s.Ending, s.Ended, later, need)
			case zone.Rejects && !c.troubled(s.Asked.after(-2*c.p.Lease), s.Ended):
				c.report([]int{i}, "it was %s at %s: holders of zone %s are protected, and there was no trouble", s.Ending, s.Ended, k.zone)
			}
		}
	}
}

// endsNobody reports whether the answer to o says that it has ended nobody. A denied one
// may have, if its token was logged out while it was asked.
func (c *check) endsNobody(o *Stream) bool {
	switch o.Outcome {
	case Rejected, Entombed:
		return true
	case Denied:
		return slices.ContainsFunc(c.h.Logouts, func(l Logout) bool {
			return l.Zone == o.Zone && l.Token == o.Token && l.Done && c.deadline(l.Answered, l.Node, o.Node) < o.Asked
		})
	default:
		return false
	}
}

// troubled reports whether there was a fault between the two.
func (c *check) troubled(from, to Time, nodes ...string) bool {
	return slices.ContainsFunc(c.faults, func(f Fault) bool {
		return (len(nodes) == 0 || f.affects(nodes...)) && f.From <= to && f.To.after(c.p.Slack) >= from
	})
}

func (c *check) cut() {
	for i := range c.h.Streams {
		s := &c.h.Streams[i]
		switch {
		case s.Outcome != Admitted:
		case s.Ending == Clean:
			c.report([]int{i}, "it was finished at %s, and nobody said why", s.Ended)
		case s.Ending == Cut && !c.wentDown(s.Node, s.Ended, s.Ended) && !c.mayBeFenced(s):
			c.report([]int{i}, "it broke off at %s", s.Ended)
		case !slices.Contains([]Ending{Lives, Left, Superseded, Replaced, LoggedOut, Cut}, s.Ending):
			c.report([]int{i}, "it ended as %q at %s", s.Ending, s.Ended)
		}
	}
}

// wentDown reports whether the node was killed or stopped between the two.
func (c *check) wentDown(node string, from, to Time) bool {
	return slices.ContainsFunc(c.faults, func(f Fault) bool {
		return f.isDown() && f.Node == node && f.From <= to.after(c.p.Slack) && f.To.after(c.p.Slack) >= from
	})
}

// mayBeFenced reports whether the stream's node may have been without Redis for so long,
// when it broke off, that its lease ran out: a fence goes off nine tenths of it after the
// last renewal. That was up to a quarter of the lease before the trouble. After it a call
// that was lost is given up, in up to another quarter, and Redis is tried again up to an
// eighth later, which takes a while, part of the slack.
func (c *check) mayBeFenced(s *Stream) bool {
	if c.zone(s).OnError != Fence {
		return false
	}
	began := s.Ended.after(-c.p.Lease - c.p.Slack)
	var stalled time.Duration
	var without [][2]Time // from when until when
	for i := range c.faults {
		f := &c.faults[i]
		if !f.affects(s.Node) {
			continue
		}
		switch f.Kind {
		case RedisCut, RedisSlow, RedisRestarted, RedisFailedOver, NodeFrozen, PubSubKilled: // who listens has no other connection
			without = append(without, [2]Time{max(f.From, began), min(f.To.after(c.p.Lease*3/8), s.Ended)})
		case Stalled:
			stalled += max(0, time.Duration(min(f.To, s.Ended)-max(f.From, began)))
		}
	}
	// A machine that was seen not to run did not at other times either.
	return covered(without)+stalled >= c.p.Lease*9/10-c.p.Lease/4-c.p.Slack/2 || stalled >= c.p.Lease/8
}

// covered is how long at least one of the times was.
func covered(times [][2]Time) (all time.Duration) {
	slices.SortFunc(times, func(a, b [2]Time) int { return cmp.Compare(a[0], b[0]) })
	var until Time
	for _, t := range times {
		from := max(t[0], until)
		all += time.Duration(max(0, t[1]-from))
		until = max(until, t[1])
	}
	return all
}

func (c *check) loggedOut() {
	for i := range c.h.Streams {
		s := &c.h.Streams[i]
		if s.Outcome == Admitted && s.Ending == LoggedOut && !c.wasLoggedOut(s, s.Ended) {
			c.report([]int{i}, "it was logged out at %s, and nobody logged its token out", s.Ended)
		}
		if s.Outcome == Denied && !c.wasLoggedOut(s, s.Answered) {
			c.report([]int{i}, "it was denied at %s, and nobody logged its token out", s.Answered)
		}
	}
}

func (c *check) wasLoggedOut(s *Stream, by Time) bool {
	return slices.ContainsFunc(c.h.Logouts, func(l Logout) bool {
		return l.Zone == s.Zone && l.Token == s.Token && l.Asked <= by
	})
}

func (c *check) outlived() {
	for i := range c.h.Logouts {
		l := &c.h.Logouts[i]
		if !l.Done {
			continue
		}
		for j := range c.h.Streams {
			s := &c.h.Streams[j]
			if s.Zone != l.Zone || s.Token != l.Token || s.Outcome != Admitted {
				continue
			}
			d := c.deadline(l.Answered, l.Node, s.Node)
			switch {
			case s.Answered < l.Asked && c.lived(s) > d:
				if !c.wentDown(l.Node, l.Asked, d) { // it has taken its denial with it
					c.report([]int{j}, "its token was logged out at %s; it lived until %s, later than %s", l.Answered, c.lived(s), d)
				}
			case s.Asked > d && s.Answered < l.Asked.after(c.h.Zones[s.Zone].Deny):
				if !c.wentDown(l.Node, l.Asked, s.Asked) {
					c.report([]int{j}, "its token was logged out at %s; it asked at %s, and was admitted", l.Answered, s.Asked)
				}
			}
		}
	}
}

func (c *check) refused() {
	for i := range c.h.Streams {
		s := &c.h.Streams[i]
		zone := c.zone(s)
		switch s.Outcome {
		case Rejected, Entombed:
			if s.Outcome == Rejected && !zone.Rejects {
				c.report([]int{i}, "it was rejected at %s: zone %s has its newest streams win", s.Answered, s.Zone)
				continue
			}
			if n := c.holding(s, i); n < zone.Limit {
				c.report([]int{i}, "it was %s at %s, and %d others can have held its key, not %d", s.Outcome, s.Answered, n, zone.Limit)
			}
		case Unavailable:
			if c.wentDown(s.Node, s.Asked, s.Answered) {
				continue // it was about to
			}
			if zone.OnError == Allow && !zone.Rejects {
				c.report([]int{i}, "it was refused at %s: on_error allow lets all newcomers in", s.Answered)
			} else if !c.troubled(s.Asked.after(-2*c.p.Lease-c.p.Slack), s.Answered, s.Node) {
				c.report([]int{i}, "it was refused at %s, and there was no trouble", s.Answered)
			}
		case Failed:
			if !c.wentDown(s.Node, s.Asked, s.Answered) {
				c.report([]int{i}, "it had no answer by %s, and its node was up", s.Answered)
			}
		case Odd:
			c.report([]int{i}, "it was answered %d at %s", s.Status, s.Answered)
		}
	}
}

// holding counts who else can have held the key of s while it asked.
func (c *check) holding(s *Stream, self int) (n int) {
	for _, i := range c.byKey[keyOf{s.Zone, s.Key}] {
		o := &c.h.Streams[i]
		if i == self || o.Asked > s.Answered {
			continue
		}
		switch o.Outcome {
		case Rejected, Entombed, Denied:
			continue
		}
		if c.heldUntil(i) >= s.Asked {
			n++
		}
	}
	return n
}

// heldUntil is until when o can have held its key: until its node, and Redis, have
// heard that it has left, and its place is not kept any more.
func (c *check) heldUntil(i int) Time {
	o := &c.h.Streams[i]
	t := o.Ended
	if o.Outcome != Admitted {
		t = c.latest[i]
	}
	t = t.after(c.zone(o).Reserve + c.p.Slack)
	for changed := true; changed; {
		changed = false
		for i := range c.faults {
			f := &c.faults[i]
			if end := f.To.after(c.p.Lease + c.zone(o).Reserve + c.p.Slack); f.affects(o.Node) && f.To >= o.Asked && f.From <= t && end > t {
				t, changed = end, true
			}
		}
	}
	return t
}
