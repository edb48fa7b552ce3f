package checker

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// promise has a lease of 4 s: what is lost is found within 2 s, and slack is 1 s.
var promise = Promise{Lease: 4 * time.Second, Slack: time.Second, Skew: 50 * time.Millisecond}

func at(seconds float64) Time { return Time(seconds * float64(time.Second)) }

// stream is one of zone one, key k, on node a, that was admitted 10 ms after it asked and
// lives, unless the changes say otherwise.
func stream(asked float64, changes ...func(*Stream)) Stream {
	s := Stream{
		Zone: "one", Key: "k", Node: "a", Token: "t", Asked: at(asked), Answered: at(asked + 0.01),
		Outcome: Admitted, Status: 200, Ended: Never,
	}
	for _, change := range changes {
		change(&s)
	}
	return s
}

func ended(when float64, e Ending) func(*Stream) {
	return func(s *Stream) { s.Ended, s.Ending = at(when), e }
}

func on(node string) func(*Stream)      { return func(s *Stream) { s.Node = node } }
func in(zone string) func(*Stream)      { return func(s *Stream) { s.Zone = zone } }
func by(client string) func(*Stream)    { return func(s *Stream) { s.Client = client } }
func having(token string) func(*Stream) { return func(s *Stream) { s.Token = token } }
func answered(when float64, o Outcome) func(*Stream) {
	return func(s *Stream) { s.Answered, s.Outcome = at(when), o }
}

func fault(k Kind, node string, from, to float64) Fault {
	return Fault{Kind: k, Node: node, From: at(from), To: at(to)}
}

func logout(node string, when float64) Logout {
	return Logout{Zone: "one", Token: "t", Node: node, Asked: at(when), Answered: at(when + 0.01), Done: true}
}

// history has zones one, two, reject, fence, deny and strict, and ends after 100 s.
func history(streams ...Stream) History {
	return History{
		Zones: map[string]Zone{
			"one":    {Limit: 1, OnError: Allow, Deny: 20 * time.Second},
			"two":    {Limit: 2, OnError: Allow},
			"reject": {Limit: 1, Rejects: true, OnError: Allow, Reserve: time.Second},
			"fence":  {Limit: 1, OnError: Fence},
			"deny":   {Limit: 1, OnError: Deny},
			"strict": {Limit: 1, Rejects: true, OnError: Fence},
		},
		Streams: streams,
		Until:   at(100),
	}
}

func (c testCase) with(faults ...Fault) testCase { c.h.Faults = faults; return c }
func (c testCase) after(ls ...Logout) testCase   { c.h.Logouts = ls; return c }
func (c testCase) quiet(when float64) testCase   { c.h.Quiet = []Time{at(when)}; return c }
func (c testCase) until(when float64) testCase   { c.h.Until = at(when); return c }

type testCase struct {
	name string
	// rule is the one that must fire, for the first of the streams; empty: none.
	rule string
	h    History
}

func good(name string, streams ...Stream) testCase { return testCase{name, "", history(streams...)} }

func bad(rule, name string, streams ...Stream) testCase {
	return testCase{name, rule, history(streams...)}
}

func TestCheck(t *testing.T) {
	for _, c := range []testCase{
		good("nothing happened"),
		good("one stream lives", stream(1)),
		good("the newer one supersedes the older one", stream(1, ended(2.01, Superseded)), stream(2, on("b"))),
		good("each key has a stream", stream(1), stream(2, in("two"))),
		good("a limit of two has two", stream(1, in("two")), stream(2, in("two"))),
		good("the oldest of three makes room",
			stream(1, in("two"), ended(3.01, Superseded)), stream(2, in("two")), stream(3, in("two"))),
		good("the client's own stream makes room",
			stream(1, in("two")), stream(2, in("two"), by("c"), ended(3.01, Replaced)), stream(3, in("two"), by("c"))),

		// After quiet.
		bad(RuleQuiet, "two are left after quiet", stream(98, on("b")), stream(99)).quiet(99.5),
		good("one is left after quiet", stream(98, ended(99, Superseded)), stream(99, on("b"))).quiet(99.5),
		bad(RuleQuiet, "three are left of two", stream(97, in("two")), stream(98, in("two")), stream(99, in("two"))).quiet(99.5),

		// Surplus.
		bad(RuleSurplus, "a lost message is not repaired", stream(2, on("b")), stream(1)),
		bad(RuleSurplus, "a lost message is repaired too late", stream(2, on("b")), stream(1, ended(5.1, Superseded))),
		good("a lost message is repaired", stream(1, ended(4.9, Superseded)), stream(2, on("b"))),
		bad(RuleSurplus, "nobody knows whether a client leaves in time", stream(2), stream(1, ended(5.1, Left))),
		good("the history ends before the bound does", stream(1), stream(99, on("b"))).until(100),
		bad(RuleSurplus, "three live with a limit of two", stream(3, in("two")), stream(1, in("two")), stream(2, in("two"))),
		good("both asked at one time, and one ends", stream(1, answered(2, Admitted)), stream(1.5, answered(1.6, Admitted), ended(2, Superseded))),
		bad(RuleSurplus, "both asked at one time, and both live", stream(1, answered(2, Admitted)), stream(1.5, answered(1.6, Admitted))),
		good("nobody hears while Redis is cut off", stream(1, ended(13.9, Superseded)), stream(2, on("b"))).
			with(fault(RedisCut, "a", 1.5, 9)),
		bad(RuleSurplus, "a lease after Redis is back is enough", stream(2, on("b")), stream(1, ended(14.1, Superseded))).
			with(fault(RedisCut, "a", 1.5, 9)),
		bad(RuleSurplus, "another node's trouble is no excuse", stream(2, on("b")), stream(1, ended(13, Superseded))).
			with(fault(RedisCut, "c", 1.5, 9)),
		good("Redis was back just before", stream(1, ended(5.9, Superseded)), stream(2, on("b"))).with(fault(RedisCut, "a", 0.1, 1)),
		bad(RuleSurplus, "a killed connection that listens is made anew", stream(2, on("b")), stream(1, ended(5.2, Superseded))).
			with(fault(PubSubKilled, "", 2.05, 2.1)),
		good("a frozen node ends its streams when it wakes", stream(1, ended(11.9, Superseded)), stream(2, on("b"))).
			with(fault(NodeFrozen, "a", 1.5, 9)),
		bad(RuleSurplus, "a frozen node does not end its streams", stream(2, on("b")), stream(1, ended(12.1, Superseded))).
			with(fault(NodeFrozen, "a", 1.5, 9)),
		good("trouble follows trouble", stream(1, ended(23.9, Superseded)), stream(2, on("b"))).
			with(fault(RedisFlushed, "", 12, 19), fault(RedisCut, "a", 1.5, 9)),
		good("the machine did not run", stream(1, ended(8.9, Superseded)), stream(2, on("b"))).with(fault(Stalled, "", 2.5, 4)),

		// Fence.
		good("a fenced node ends its streams with its lease", stream(1, in("fence"), ended(6.9, Cut)), stream(2, in("fence"), on("b"))).
			with(fault(RedisCut, "a", 1.5, 60)),
		bad(RuleSurplus, "a node is not fenced", stream(2, in("fence"), on("b")), stream(1, in("fence"), ended(7.1, Cut))).
			with(fault(RedisCut, "a", 1.5, 60)),
		good("under deny they live on", stream(1, in("deny"), ended(63, Superseded)), stream(2, in("deny"), on("b"))).
			with(fault(RedisCut, "a", 1.5, 60)),
		good("a frozen node cannot be fenced", stream(1, in("fence"), ended(61, Cut)), stream(2, in("fence"), on("b"))).
			with(fault(NodeFrozen, "a", 1.5, 60)),

		// Under reject nobody is let in while a holder lives.
		bad(RuleSurplus, "two are let in", stream(2, in("reject"), ended(3.1, Left)), stream(1, in("reject"), ended(9, Left))),
		good("the client hears late of the end", stream(2, in("reject")), stream(1, in("reject"), ended(2.9, Left))),
		good("two are let in where nodes are on their own", stream(2, in("reject"), on("b")), stream(1, in("reject"), ended(12, Superseded))).
			with(fault(RedisCut, "a", 0, 10)),
		bad(RuleSurplus, "a node lives on whose lease has run out", stream(2, in("strict"), on("b")), stream(1, in("strict"), ended(3.1, Cut))).
			with(fault(RedisCut, "a", 0, 10)),
		good("it hung", stream(2, in("strict"), on("b")), stream(1, in("strict"), ended(12.9, Superseded))).
			with(fault(NodeFrozen, "a", 0, 10)),

		// Taken.
		bad(RuleTaken, "who took the place has left", stream(1), stream(2, on("b"), ended(3, Left))),
		good("it ended in time", stream(1, ended(4.9, Superseded)), stream(2, on("b"), ended(3, Left))),
		bad(RuleTaken, "one after the other took the place", stream(1),
			stream(2, on("b"), ended(4.01, Superseded)), stream(4, on("b"), ended(6.01, Superseded)), stream(6, on("b"), ended(8, Left))),
		good("nobody took it for sure", stream(1, answered(2.5, Admitted)), stream(2, on("b"), ended(3, Left))),
		good("Redis has forgotten it", stream(1), stream(2, on("b"), ended(3, Left))).with(fault(RedisFlushed, "", 2.5, 2.6)),
		good("its node's lease had run out", stream(1), stream(8, on("b"), ended(9, Left))).with(fault(RedisCut, "a", 2, 10)),
		good("the client's own made room", stream(1, in("two")),
			stream(2, in("two"), by("c"), ended(3.01, Replaced)), stream(3, in("two"), by("c"), ended(3.5, Left))),
		good("nobody knows of one of them", stream(1, in("two")),
			stream(2, in("two"), on("c"), ended(3.5, Left)), stream(3, in("two"), ended(3.5, Left))).with(fault(RedisCut, "c", 1.5, 9)),
		bad(RuleTaken, "of two, the oldest makes room", stream(1, in("two")),
			stream(2, in("two"), by("c"), ended(3.5, Left)), stream(3, in("two"), by("d"), ended(3.5, Left))),
		bad(RuleTaken, "a node is not fenced, and who took the place has left",
			stream(1, in("fence"), ended(8, Left)), stream(2, in("fence"), on("b"), ended(3, Left))).with(fault(RedisCut, "a", 1.5, 60)),
		good("it is fenced in time", stream(1, in("fence"), ended(6.9, Cut)), stream(2, in("fence"), on("b"), ended(3, Left))).
			with(fault(RedisCut, "a", 1.5, 60)),

		// Superseded.
		bad(RuleSuperseded, "the older one wins", stream(2, ended(3, Superseded)), stream(1)),
		bad(RuleSuperseded, "nobody else is there", stream(1, ended(3, Superseded))),
		bad(RuleSuperseded, "it ended before the other one asked", stream(1, ended(1.9, Superseded)), stream(2)),
		bad(RuleSuperseded, "one newer stream is not enough with a limit of two",
			stream(1, in("two"), ended(2.01, Superseded)), stream(2, in("two"))),
		bad(RuleSuperseded, "another client replaces it", stream(1, by("c"), ended(2.01, Replaced)), stream(2, by("d"))),
		bad(RuleSuperseded, "who was denied ends nobody",
			stream(1, having("u"), ended(12.01, Superseded)), stream(12, answered(12.1, Denied))).after(logout("a", 5)),
		good("who is denied while it asks may have ended others",
			stream(1, having("u"), ended(12.01, Superseded)), stream(12, answered(12.1, Denied))).after(logout("a", 12.05)),
		good("who gave up may have asked", stream(1, ended(2.5, Superseded)), stream(2, answered(2.02, GivenUp))),
		good("a frozen node asks for who gave up before", stream(5, ended(9.1, Superseded)), stream(1, on("b"), answered(4, GivenUp))).
			with(fault(NodeFrozen, "b", 0.5, 9)),
		bad(RuleSuperseded, "a node that runs does not", stream(9, ended(9.1, Superseded)), stream(1, on("b"), answered(4, GivenUp))),
		good("nodes agree but for the skew", stream(1.1, ended(1.2, Superseded)), stream(1, on("b"))),
		bad(RuleSuperseded, "and no more", stream(1.2, ended(1.3, Superseded)), stream(1, on("b"))),
		good("a node that was started while Redis was slow has a bad idea of the time",
			stream(20.2, ended(20.3, Superseded)), stream(20, on("b"))).
			with(fault(NodeKilled, "b", 10, 12), Fault{RedisSlow, "b", at(11), at(15), 500 * time.Millisecond}),
		bad(RuleSuperseded, "a holder is protected", stream(20, in("reject"), ended(30, Superseded)), stream(30, in("reject"))),
		good("a surplus of two partitions ends, its oldest first",
			stream(20, in("reject"), ended(31, Superseded)), stream(22, in("reject"), on("b"))).with(fault(RedisCut, "b", 21, 30)),

		// Broken off, or finished.
		bad(RuleCut, "it broke off", stream(1, ended(5, Cut))),
		bad(RuleCut, "it was finished", stream(1, ended(5, Clean))),
		bad(RuleCut, "nobody knows this reason", stream(1, ended(5, "bored"))),
		good("its node was killed", stream(1, ended(5, Cut))).with(fault(NodeKilled, "a", 4.9, 9)),
		good("its node was stopped", stream(1, ended(5, Cut))).with(fault(NodeStopped, "a", 4.9, 9)),
		bad(RuleCut, "another node was killed", stream(1, ended(5, Cut))).with(fault(NodeKilled, "b", 4.9, 9)),
		good("it was fenced", stream(1, in("fence"), ended(9, Cut))).with(fault(RedisCut, "a", 5.5, 20)),
		bad(RuleCut, "it was fenced too early", stream(1, in("fence"), ended(7, Cut))).with(fault(RedisCut, "a", 5.5, 20)),
		bad(RuleCut, "it was fenced long after", stream(1, in("fence"), ended(30, Cut))).with(fault(RedisCut, "a", 5.5, 20)),
		good("its connection was killed again and again", stream(1, in("fence"), ended(9, Cut))).
			with(fault(PubSubKilled, "", 6, 6.1), fault(PubSubKilled, "", 7, 7.4)),
		bad(RuleCut, "its connection was killed once", stream(1, in("fence"), ended(9, Cut))).with(fault(PubSubKilled, "", 7, 7.2)),
		good("the machine did not let its node run", stream(1, in("fence"), ended(7, Cut))).
			with(fault(Stalled, "a", 3, 3.3), fault(Stalled, "", 4, 4.3)),
		bad(RuleCut, "the machine ran well enough", stream(1, in("fence"), ended(7, Cut))).
			with(fault(Stalled, "a", 3, 3.3), fault(Stalled, "b", 4, 4.3)),
		bad(RuleCut, "nobody is fenced under allow", stream(1, ended(9, Cut))).with(fault(RedisCut, "a", 5.5, 20)),

		// Logged out.
		good("it was logged out", stream(1, ended(5.1, LoggedOut))).after(logout("b", 5)),
		bad(RuleLogout, "nobody logged out", stream(1, ended(5.1, LoggedOut))),
		bad(RuleLogout, "another token was logged out", stream(1, having("u"), ended(5.1, LoggedOut))).after(logout("a", 5)),
		bad(RuleLogout, "it was denied before", stream(1, answered(1.1, Denied))).after(logout("a", 5)),
		bad(RuleOutlived, "it lives on", stream(1)).after(logout("b", 5)),
		bad(RuleOutlived, "it lives for too long", stream(1, ended(8.1, LoggedOut))).after(logout("b", 5)),
		good("it lives until Redis is back", stream(1, ended(14, LoggedOut))).after(logout("b", 5)).with(fault(RedisCut, "a", 4, 10)),
		good("the logout failed", stream(1)).after(Logout{Zone: "one", Token: "t", Node: "b", Asked: at(5), Answered: at(5.1)}),
		good("who logged it out was killed", stream(1)).after(logout("b", 5)).with(fault(NodeKilled, "b", 5.02, 9)),
		bad(RuleOutlived, "it comes back while it is denied", stream(10, ended(11, Left))).after(logout("b", 5)),
		good("it comes back when it is not denied any more", stream(30, ended(31, Left))).after(logout("b", 5)),

		// Refused.
		good("another has the key", stream(2, in("reject"), answered(2.1, Rejected)), stream(1, in("reject"))),
		bad(RuleRefused, "nobody has the key", stream(2, in("reject"), answered(2.1, Rejected))),
		bad(RuleRefused, "one has it, and two may", stream(2, in("two"), answered(2.1, Entombed)), stream(1, in("two"))),
		bad(RuleRefused, "who had it has left long ago",
			stream(9, in("reject"), answered(9.1, Rejected)), stream(1, in("reject"), ended(6, Left))),
		good("its place is kept", stream(7, in("reject"), answered(7.1, Rejected)), stream(1, in("reject"), ended(6, Left))),
		good("its node died, and the lease runs", stream(9, in("reject"), answered(9.1, Rejected)), stream(1, in("reject"), on("b"), ended(6, Cut))).
			with(fault(NodeKilled, "b", 6, 6.1)),
		bad(RuleRefused, "its node died, and the lease has run out",
			stream(13, in("reject"), answered(13.1, Rejected)), stream(1, in("reject"), on("b"), ended(6, Cut))).
			with(fault(NodeKilled, "b", 6, 6.1)),
		bad(RuleRefused, "the newest wins, and is not rejected", stream(2, answered(2.1, Rejected)), stream(1)),
		bad(RuleRefused, "refused without a cause", stream(20, in("deny"), answered(20.1, Unavailable))),
		good("Redis is away", stream(20, in("deny"), answered(20.1, Unavailable))).with(fault(RedisCut, "a", 19, 21)),
		bad(RuleRefused, "allow lets all in", stream(20, answered(20.1, Unavailable))).with(fault(RedisCut, "a", 19, 21)),
		good("its node is about to stop", stream(20, answered(20.1, Unavailable))).with(fault(NodeStopped, "a", 20.05, 21)),
		good("under reject, after Redis has lost its data", stream(20, in("reject"), answered(20.1, Unavailable))).
			with(fault(RedisFlushed, "", 17, 17.1)),
		bad(RuleRefused, "no answer, and the node is up", stream(1, answered(1.1, Failed))),
		good("no answer, and the node is down", stream(1, answered(1.1, Failed))).with(fault(NodeKilled, "a", 0.5, 3)),
		bad(RuleRefused, "an answer that nobody knows", stream(1, answered(1.1, Odd))),
	} {
		t.Run(c.name, func(t *testing.T) {
			violations := Check(&c.h, promise)
			if c.rule == "" {
				require.Empty(t, violations)
				return
			}
			require.NotEmpty(t, violations, "nothing is found")
			var rules []string
			for _, v := range violations {
				rules = append(rules, v.Rule)
			}
			require.Contains(t, rules, c.rule)
			require.Contains(t, violations[0].Streams, 0, "%v", violations)
		})
	}
}
