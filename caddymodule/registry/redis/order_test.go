package redis_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/registry/redis"
	"github.com/sse-guard/sse-guard/caddymodule/registry/registrytest"
)

func (s site) reserve(t testing.TB, h *registry.Holder, rule registry.Rule) registry.Place {
	a := s.ask(t, registry.Reserve, h, rule)
	require.Equal(t, registry.Admitted, a.Outcome, "%s is refused", h.Addr)
	return a.Place
}

// A comparison may find that Redis has made a place a held one before the node has heard
// so. What the node knows then must not undo it.
func TestCommit_IsNotUndoneByAComparison(t *testing.T) {
	server := harness.StartRedis(t)
	tab := func(name string) *registry.Holder { return registrytest.Tab(name, "T") }
	for _, rule := range []registry.Rule{one, rejectOne} {
		s := openSite(t, options(t, server.Addr))
		a, b := s.reserve(t, tab("a"), rule), s.reserve(t, tab("b"), rule)
		_, err := s.CommitComparedMeanwhile(t.Context(), b)
		require.NoError(t, err)
		victims, err := a.Commit(t.Context())
		require.NoError(t, err)
		require.Len(t, victims, 1, "b is not held any more")
		require.Equal(t, []string{"a"}, s.holders(t))
	}
}

// It may also find who was ended, and tell Redis that the stream's upstream is gone, before
// the node has read whom its newcomer has ended.
func TestAdmit_KnowsWhoWasEndedAfterAComparison(t *testing.T) {
	s := openSite(t, options(t, harness.StartRedis(t).Addr))
	older := anon("older")
	s.hold(t, older, one).Departed()
	s.Settle()
	a, err := s.AskComparedMeanwhile(t.Context(), registry.Ask{Holder: anon("newer"), Rule: one})
	require.NoError(t, err)
	require.Len(t, a.Ends, 1)
	require.Same(t, older, a.Ends[0].Holder)
	require.Len(t, s.node.Endings(older.ID), 1)
	require.Equal(t, []string{"newer"}, s.holders(t))
}

// Nor may it end a stream that Redis has just refused: it never held the key.
func TestCommit_ThatIsOutaskedIsNotEndedByAComparison(t *testing.T) {
	s := openSite(t, options(t, harness.StartRedis(t).Addr))
	late := anon("late")
	p := s.reserve(t, late, one)
	s.hold(t, anon("newer"), one)
	_, err := s.CommitComparedMeanwhile(t.Context(), p)
	require.ErrorIs(t, err, registry.ErrOutasked)
	require.Empty(t, s.node.Endings(late.ID))
	require.Equal(t, []string{"newer"}, s.holders(t))
}

// Two calls of one node may overtake each other: a stream leaves before it is registered
// again.
func TestRegister_OfAStreamThatHasLeftLeavesNoGhost(t *testing.T) {
	server := harness.StartRedis(t)
	s := openSite(t, options(t, server.Addr))
	h := anon("a")
	p := s.hold(t, h, one)
	server.Do(t, "DEL", s.EntriesKey(int(h.Key[0])%64)) // and the node does not notice yet
	require.NoError(t, s.RegisterLate(t.Context(), p, func() { leaveAndDepart(p) }))
	require.Zero(t, s.Places())
	s.hold(t, anon("n"), rejectOne)
}

// Streams that asked at the same time, or that do not say when, stay in the order in which
// they were admitted when Redis has lost them and is told again.
func TestLoss_KeepsTheOrderOfStreamsThatAskedAtOnce(t *testing.T) {
	server := harness.StartRedis(t)
	for name, at := range map[string]time.Time{"SomeTime": time.Now(), "NoTime": {}} {
		t.Run(name, func(t *testing.T) {
			const many = 8
			o := options(t, server.Addr)
			s := openSite(t, o)
			stream := func(name string) *registry.Holder {
				h := registrytest.Anon(name)
				h.Asked = at
				return h
			}
			for i := range many {
				s.hold(t, stream(fmt.Sprint(i)), registrytest.Track)
			}
			s.hold(t, yielding("y"), registrytest.Track)
			server.Do(t, "FLUSHALL")
			require.Empty(t, s.holders(t), "and the node sees that all is lost")
			require.Eventually(t, func() bool {
				hs, _, err := s.Find(t.Context(), registry.Selector{Key: registrytest.ID("key")}, "", many+1)
				return err == nil && len(hs) == many+1
			}, soon, aWhile)
			got := s.ask(t, registry.Header, stream("n"), one)
			require.Equal(t, registry.Admitted, got.Outcome)
			ended := ""
			for _, v := range got.Ends {
				ended += v.Holder.Addr
			}
			require.Equal(t, "y01234567", ended, "the oldest first")
		})
	}
}

func yielding(name string) *registry.Holder {
	h := anon(name)
	h.Yields = true
	return h
}

// openDeafAndOther opens a node whose messages are lost, and another. Nothing is compared but
// by the test.
func openDeafAndOther(t *testing.T) (deaf, other site) {
	server := harness.StartRedis(t)
	o := options(t, server.Addr)
	o.Lease = time.Hour
	return openDeafSite(t, server, o), openSite(t, o)
}

// requireAgrees requires that Redis has what the node should have there.
func (s site) requireAgrees(t *testing.T) {
	t.Helper()
	differing, err := s.Differing()
	require.NoError(t, err)
	require.Zero(t, differing)
}

// A node whose messages are lost learns by the next comparison that a stream was ended,
// also if its upstream was gone before, and does not take the stream for lost.
func TestMessages_OfAStreamThatHadDepartedAreFound(t *testing.T) {
	a, b := openDeafAndOther(t)
	held, keeps := anon("held"), anon("keeps")
	p, k := a.hold(t, held, registrytest.Track), a.hold(t, keeps, registrytest.Track)
	p.Departed()
	k.Leave(registry.Keep{For: time.Hour})
	k.Departed()
	a.Settle()
	e := registry.Ending{Reason: reason.Logout, By: "192.0.2.1", Message: "We close at six."}
	_, err := b.End(t.Context(), registry.Selector{Key: held.Key}, e)
	require.NoError(t, err)
	require.Empty(t, a.node.Ended())
	require.NoError(t, a.Compare())
	a.Settle()
	require.Equal(t, []registry.Ending{e}, a.node.Endings(held.ID))
	require.Empty(t, b.holders(t))
	p.Leave(registry.Keep{})
	a.Settle()
	require.Zero(t, a.Places())
	require.Zero(t, a.Known())
}

// The answer to a call under way may tell the waiter that Redis has no more: it is not
// enlisted again meanwhile, or another would be told of its place. If the call was about
// something else, the next comparison finds what was lost.
func TestWait_IsNotBegunAnewWhileItMayBeOver(t *testing.T) {
	a, b := openDeafAndOther(t)
	p := b.hold(t, anon("held"), rejectOne)
	first, second := a.wait(t, "first"), a.wait(t, "second")
	p.Leave(registry.Keep{}) // Redis tells the first, which does not hear it
	b.Settle()
	require.NoError(t, a.CompareBusy(first))
	a.Settle()
	require.False(t, isClosed(first.Free()))
	require.False(t, isClosed(second.Free()))
	require.NoError(t, a.Compare())
	a.Settle()
	require.True(t, isClosed(first.Free()), "it is found to be missing, and told at once")
	require.False(t, isClosed(second.Free()), "that is not its turn")
}

// wait has a newcomer wait for a place of rejectOne, once the site's connection is there.
func (s site) wait(t *testing.T, name string) (w registry.Waiter) {
	t.Helper()
	require.Eventually(t, func() bool {
		var err error
		w, err = s.Wait(t.Context(), registry.Ask{Holder: anon(name), Rule: rejectOne})
		return err == nil
	}, soon, aWhile)
	return w
}

// A waiter may be registered again before it hears that it was told. If the place is taken
// by then, Redis has it among those who wait: it is taken out once it hears.
func TestWait_ThatIsToldLateLeavesNoGhost(t *testing.T) {
	a, b := openDeafAndOther(t)
	p := b.hold(t, anon("held"), rejectOne)
	w := a.wait(t, "w")
	p.Leave(registry.Keep{}) // Redis tells the waiter, which does not hear it
	b.Settle()
	b.hold(t, anon("newcomer"), rejectOne)
	require.NoError(t, a.Compare())
	a.Settle()
	require.False(t, isClosed(w.Free()))
	require.EqualValues(t, 1, a.Known(), "it waits again")
	a.TellLate(w)
	a.Settle()
	require.True(t, isClosed(w.Free()))
	a.requireAgrees(t)
}

// All waiters that Redis has lost are registered again by one comparison, although it begins
// to register the first of them before it has come to the last.
func TestWait_OfManyThatAreLost(t *testing.T) {
	server := harness.StartRedis(t)
	o := options(t, server.Addr)
	o.Lease = time.Hour // nothing is compared but by the test
	a, b := openSite(t, o), openSite(t, o)
	const keys = 20
	var waiters []registry.Waiter
	for i := range keys {
		at := func(name string) *registry.Holder {
			h := anon(name)
			h.Key = redis.KeyInBucket(i)
			return h
		}
		b.hold(t, at("held"), rejectOne)
		for range registry.MostWaiters {
			w, err := a.Wait(t.Context(), registry.Ask{Holder: at("w"), Rule: rejectOne})
			require.NoError(t, err)
			waiters = append(waiters, w)
		}
	}
	entries := a.EntriesKey(0)
	server.Do(t, "DEL", entries, strings.TrimSuffix(entries, "e")+"n")
	require.NoError(t, b.Compare())
	b.Settle()
	require.NoError(t, a.Compare())
	a.Settle()
	a.requireAgrees(t)
	for _, w := range waiters {
		require.False(t, isClosed(w.Free()))
	}
}

// inAnHour has the clock that ages are counted by jump ahead by an hour: nodes that know
// what time it was seem to have stood still for that long.
func inAnHour(t testing.TB, server *harness.Redis, o redis.Options) {
	server.Do(t, "HSET", epochKey(o), "ahead", fmt.Sprint(time.Hour.Microseconds()))
}

func epochKey(o redis.Options) string { return "{" + o.Prefix + "/zone/zone}g" }

// askedAgo returns a stream that has asked so long ago.
func askedAgo(name string, ago time.Duration) *registry.Holder {
	h := registrytest.Anon(name)
	h.Asked = time.Now().Add(-ago)
	return h
}

// A machine may be paused, and its clock stand, while others go on.
func TestAsked_BeforeTheNodeWasPaused(t *testing.T) {
	server := harness.StartRedis(t)
	o := options(t, server.Addr)
	o.Lease = time.Hour
	c := newCable(t, server)
	a := openSite(t, by(o, c))
	older := askedAgo("older", 0)
	a.hold(t, older, one)
	c.cut()
	require.Eventually(t, func() bool {
		_, err := a.Admit(t.Context(), registry.Early, registry.Consent{}, []registry.Ask{{Holder: anon("n"), Rule: one}}, nil)
		return err != nil && a.Away() != nil
	}, soon, aWhile)
	inAnHour(t, server, o)
	entries := a.EntriesKeyOf(older.Key)
	server.Do(t, "DEL", entries, strings.TrimSuffix(entries, "e")+"n")
	b := openSite(t, o)
	b.hold(t, askedAgo("newer", 30*time.Minute), one)
	c.mend(t)
	require.Equal(t, reason.Superseded, a.requireEnded(t, older, soon).Reason, "it is registered as one that asked after the pause")
	require.Empty(t, b.node.Ended())
	require.Equal(t, []string{"newer"}, b.holders(t))
}

// Redis' clock may be set back, or that of a master that takes over be behind.
func TestAsked_AfterTheClockOfRedisWasSetBack(t *testing.T) {
	server := harness.StartRedis(t)
	o := options(t, server.Addr)
	inAnHour(t, server, o)
	a := openSite(t, o)
	older := askedAgo("older", 0)
	a.hold(t, older, one)
	server.Do(t, "HDEL", epochKey(o), "ahead")
	a.Renew()
	b := openSite(t, o)
	b.hold(t, askedAgo("newer", 0), one)
	require.Equal(t, reason.Superseded, a.requireEnded(t, older, soon).Reason)
	require.Equal(t, []string{"newer"}, a.holders(t))
	newest := askedAgo("newest", 0)
	a.hold(t, newest, one)
	require.Equal(t, []string{"newest"}, b.holders(t))
}
