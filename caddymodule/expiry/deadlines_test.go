package expiry_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/expiry"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

var none registry.ID

func TestDeadlines_EndStreamsInTheirOrder(t *testing.T) {
	inBubble(t, func(t *testing.T, s *site) {
		a, b, c, d := stream("a"), stream("b"), stream("c"), stream("d")
		s.Add(c, none, s.in(time.Hour))
		s.Add(a, none, s.in(time.Second))
		s.Add(d, none, s.in(365*24*time.Hour))
		s.Add(b, none, s.in(7*time.Second))
		require.Equal(t, 4, s.Len())

		s.pass(time.Second - 1)
		s.requireEnded(t)
		s.pass(1)
		s.requireEnded(t, a)
		s.pass(6*time.Second - 1)
		s.requireEnded(t)
		s.pass(1)
		s.requireEnded(t, b)
		s.pass(time.Hour)
		s.requireEnded(t, c)
		require.Equal(t, 1, s.Len())
	})
}

func TestDeadlines_EqualOnesEndTogether(t *testing.T) {
	inBubble(t, func(t *testing.T, s *site) {
		at := s.in(time.Minute)
		var want []*registry.Stream
		for i := range 20 {
			want = append(want, stream(fmt.Sprint(i)))
			s.Add(want[i], none, at)
		}
		later := stream("later")
		s.Add(later, none, at.Add(1))
		s.pass(time.Minute)
		require.Len(t, s.batches, 1)
		require.ElementsMatch(t, want, s.ended())
		s.pass(1)
		s.requireEnded(t, later)
		require.Zero(t, s.Len())
	})
}

func TestDeadlines_NewUsesTheWallClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan []*registry.Stream, 1)
		d := expiry.New(func(batch []*registry.Stream) { ended <- batch })
		defer d.Close()
		begin, a := time.Now(), stream("a")
		d.Add(a, none, time.Unix(begin.Unix()+90, 0)) // as a token tells it
		require.Equal(t, []*registry.Stream{a}, <-ended)
		require.Equal(t, 90*time.Second, time.Since(begin))
	})
}

func TestAdd_PastDeadlineEndsAtOnceButNotWithinAdd(t *testing.T) {
	inBubble(t, func(t *testing.T, s *site) {
		a, b := stream("a"), stream("b")
		s.Add(stream("later"), none, s.in(time.Hour))
		s.pass(time.Second)

		begin := time.Now()
		s.mu.Lock() // end cannot return, so Add cannot have waited for it
		s.Add(a, none, s.in(-time.Hour))
		s.Add(b, none, s.now())
		s.mu.Unlock()
		s.requireEnded(t, a, b)
		require.Zero(t, time.Since(begin))
	})
}

func TestAdd_EarlierThanTheEarliestWakesSooner(t *testing.T) {
	inBubble(t, func(t *testing.T, s *site) {
		a, b, c := stream("a"), stream("b"), stream("c")
		s.Add(c, none, s.in(4*time.Second))
		s.Add(b, none, s.in(3*time.Second))
		s.pass(time.Second)
		s.Add(a, none, s.in(time.Second))
		s.pass(time.Second)
		s.requireEnded(t, a)
		s.pass(time.Second)
		s.requireEnded(t, b)
		s.pass(time.Second)
		s.requireEnded(t, c)
	})
}

// Each newcomer is the earliest, and none of them may put the others off.
func TestAdd_AgainAndAgainDelaysNobody(t *testing.T) {
	inBubble(t, func(t *testing.T, s *site) {
		a := stream("a")
		s.Add(a, none, s.in(20*time.Minute))
		s.jump(time.Hour)
		for range 4 {
			s.pass(time.Second)
			s.Add(stream("earlier"), none, s.in(time.Hour)).Stop()
		}
		s.pass(time.Second)
		s.requireEnded(t, a)
	})
}

func TestAdd_WithoutDeadlineIsNotKnown(t *testing.T) {
	inBubble(t, func(t *testing.T, s *site) {
		e := s.Add(stream("a"), id("session"), time.Time{})
		require.Nil(t, e)
		require.Zero(t, s.Len())
		require.False(t, s.Armed())
		e.Stop()
		require.Zero(t, s.Renew(id("session"), id("token"), s.in(time.Hour)))
	})
}

func TestAdd_WhileABatchEnds(t *testing.T) {
	inBubble(t, func(t *testing.T, s *site) {
		b := stream("b")
		s.meanwhile(func() {
			s.meanwhile(nil)
			s.Add(b, none, s.in(-1))
		})
		a := stream("a")
		s.Add(a, none, s.in(time.Second))
		s.pass(time.Second)
		s.requireEnded(t, a, b)
		require.False(t, s.Armed())
	})
}

func TestAdd_WhileABatchEndsWaitsForItsEnd(t *testing.T) {
	inBubble(t, func(t *testing.T, s *site) {
		a, b, c, d := stream("a"), stream("b"), stream("c"), stream("d")
		release := make(chan struct{})
		s.meanwhile(func() { <-release })
		s.Add(a, none, s.in(time.Second))
		s.pass(time.Second)
		s.Add(b, none, s.in(-1))
		s.Fire()
		s.pass(time.Second)
		s.Add(c, none, s.in(time.Second))
		s.Add(d, none, s.in(time.Hour))
		s.pass(time.Minute)
		s.requireEnded(t, a)
		close(release)
		s.requireEnded(t, b, c)
		s.pass(time.Hour)
		s.requireEnded(t, d)
	})
}

func TestStop_InAnyState(t *testing.T) {
	tests := []struct {
		name  string
		state func(*site, *expiry.Entry)
		ends  bool
	}{
		{"Waiting", func(*site, *expiry.Entry) {}, false},
		{"Stopped", func(_ *site, e *expiry.Entry) { e.Stop() }, false},
		{"Ended", func(s *site, _ *expiry.Entry) { s.pass(time.Minute) }, true},
		{"Renewed", func(s *site, _ *expiry.Entry) { s.Renew(id("session"), id("new"), s.in(time.Hour)) }, false},
		{"WithoutDeadline", func(s *site, _ *expiry.Entry) { s.Renew(id("session"), id("new"), time.Time{}) }, false},
		{"Due", func(s *site, _ *expiry.Entry) { s.jump(time.Hour) }, false},
		{"Closed", func(s *site, _ *expiry.Entry) { s.Close() }, false},
	}
	for _, test := range tests {
		for _, session := range []registry.ID{none, id("session")} {
			t.Run(fmt.Sprintf("%s/Session=%t", test.name, !session.IsZero()), func(t *testing.T) {
				inBubble(t, func(t *testing.T, s *site) {
					e := s.Add(stream("a"), session, s.in(time.Minute))
					require.NotNil(t, e)
					test.state(s, e)
					for range 3 {
						e.Stop()
						require.Zero(t, s.Len())
						require.Zero(t, s.Sessions())
						require.False(t, s.Armed(), "nothing is left to wake for")
					}
					s.pass(2 * time.Hour)
					require.Equal(t, test.ends, len(s.ended()) == 1)
				})
			})
		}
	}
}

func TestStop_OfNil(t *testing.T) {
	var e *expiry.Entry
	e.Stop()
}

func TestStop_WhileTheStreamsBatchEnds(t *testing.T) {
	inBubble(t, func(t *testing.T, s *site) {
		a := stream("a")
		e := s.Add(a, id("session"), s.in(time.Second))
		s.meanwhile(func() {
			require.Zero(t, s.Renew(id("session"), id("new"), s.in(time.Hour)), "it cannot be saved any more")
			e.Stop()
		})
		s.pass(time.Second)
		s.requireEnded(t, a)
		require.Zero(t, s.Len())
	})
}

func TestStop_LeavesTheOthers(t *testing.T) {
	for stopped := range 3 {
		t.Run(fmt.Sprint(stopped), func(t *testing.T) {
			inBubble(t, func(t *testing.T, s *site) {
				var streams []*registry.Stream
				var entries []*expiry.Entry
				for i := range 3 {
					streams = append(streams, stream(fmt.Sprint(i)))
					entries = append(entries, s.Add(streams[i], id("session"), s.in(time.Duration(i+1)*time.Second)))
				}
				entries[stopped].Stop()
				require.Equal(t, 2, s.Renew(id("session"), id("new"), s.in(time.Hour)))
				left := append(append([]*registry.Stream{}, streams[:stopped]...), streams[stopped+1:]...)
				require.Equal(t, left, s.RenewedBy(id("session"), id("new")))
				s.pass(time.Hour)
				require.ElementsMatch(t, left, s.ended())
			})
		})
	}
}

func TestRenew_MovesToLaterOnly(t *testing.T) {
	inBubble(t, func(t *testing.T, s *site) {
		session := id("session")
		a, b, other, loner := stream("a"), stream("b"), stream("other"), stream("loner")
		s.Add(a, session, s.in(10*time.Second))
		s.Add(b, session, s.in(30*time.Second))
		s.Add(other, id("another"), s.in(10*time.Second))
		s.Add(loner, none, s.in(11*time.Second))

		require.Zero(t, s.Renew(session, id("earlier"), s.in(5*time.Second)))
		require.Zero(t, s.Renew(session, id("same"), s.in(10*time.Second)))
		require.Zero(t, s.Renew(id("unknown"), id("new"), s.in(time.Hour)))
		require.Zero(t, s.Renew(none, id("new"), s.in(time.Hour)))
		require.Zero(t, s.Renew(none, id("new"), time.Time{}))
		require.Equal(t, 1, s.Renew(session, id("new"), s.in(20*time.Second)))

		s.pass(10 * time.Second)
		s.requireEnded(t, other)
		s.pass(time.Second)
		s.requireEnded(t, loner)
		s.pass(9 * time.Second)
		s.requireEnded(t, a)
		s.pass(10 * time.Second)
		s.requireEnded(t, b)
	})
}

func TestRenew_ToNeverKeepsTheStreamKnown(t *testing.T) {
	inBubble(t, func(t *testing.T, s *site) {
		session := id("session")
		a, b := stream("a"), stream("b")
		e := s.Add(a, session, s.in(time.Second))
		s.Add(b, none, s.in(time.Minute))
		require.Equal(t, 1, s.Renew(session, id("eternal"), time.Time{}))
		require.Zero(t, s.Renew(session, id("again"), time.Time{}))
		require.Zero(t, s.Renew(session, id("mortal"), s.in(time.Hour)), "no time is later than never")
		require.Equal(t, []*registry.Stream{a}, s.RenewedBy(session, id("eternal")))

		s.pass(time.Minute)
		s.requireEnded(t, b)
		require.Equal(t, 1, s.Len())
		require.False(t, s.Armed())
		s.pass(time.Hour)
		s.requireEnded(t)
		e.Stop()
		require.Empty(t, s.RenewedBy(session, id("eternal")))
	})
}

func TestRenew_ToAPastTimeEndsAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, s *site) {
		a := stream("a")
		s.Add(a, id("session"), s.in(time.Minute))
		s.jump(time.Hour) // the timer has not noticed yet
		require.Equal(t, 1, s.Renew(id("session"), id("new"), s.in(-time.Minute)))
		s.requireEnded(t, a)
	})
}

func TestRenewedBy_MovesFromOneTokenToTheNext(t *testing.T) {
	inBubble(t, func(t *testing.T, s *site) {
		session := id("session")
		a, b, c := stream("a"), stream("b"), stream("c")
		s.Add(a, session, s.in(10*time.Second))
		s.Add(b, session, s.in(25*time.Second))
		require.Empty(t, s.RenewedBy(session, none), "those that nobody renewed")

		require.Equal(t, 1, s.Renew(session, id("T2"), s.in(20*time.Second)))
		require.Equal(t, []*registry.Stream{a}, s.RenewedBy(session, id("T2")))

		require.Equal(t, 2, s.Renew(session, id("T3"), s.in(30*time.Second)))
		require.Empty(t, s.RenewedBy(session, id("T2")))
		require.Equal(t, []*registry.Stream{a, b}, s.RenewedBy(session, id("T3")))

		require.Zero(t, s.Renew(session, id("T2"), s.in(20*time.Second)), "an old token comes late")
		s.Add(c, session, s.in(30*time.Second)) // opened with T3 itself
		require.Equal(t, []*registry.Stream{a, b}, s.RenewedBy(session, id("T3")))
		require.Empty(t, s.RenewedBy(id("another"), id("T3")))
		require.Empty(t, s.RenewedBy(none, id("T3")))

		s.pass(30 * time.Second)
		require.ElementsMatch(t, []*registry.Stream{a, b, c}, s.ended())
		require.Empty(t, s.RenewedBy(session, id("T3")))
		require.Zero(t, s.Sessions())
	})
}

func TestClose_NothingEndsAfterwards(t *testing.T) {
	inBubble(t, func(t *testing.T, s *site) {
		e := s.Add(stream("a"), none, s.in(time.Second))
		s.Add(stream("b"), id("session"), s.in(-time.Second))
		s.Close()
		s.ended() // the sweep of b may have begun
		require.Nil(t, s.Add(stream("c"), none, s.in(-time.Second)))
		s.Renew(id("session"), id("new"), s.in(-time.Millisecond))
		e.Stop()
		s.Close()
		s.pass(time.Hour)
		s.requireEnded(t)
	})
}

func TestClose_WaitsForTheRunningCallAndStartsNoOther(t *testing.T) {
	inBubble(t, func(t *testing.T, s *site) {
		release := make(chan struct{})
		s.meanwhile(func() { <-release })
		for range 2 * expiry.MaxBatch {
			s.Add(stream("a"), none, s.in(time.Second))
		}
		s.pass(time.Second) // the first batch does not return

		closed := make(chan struct{}, 2)
		for range cap(closed) {
			go func() {
				s.Close()
				closed <- struct{}{}
			}()
		}
		synctest.Wait()
		require.Empty(t, closed)
		close(release)
		synctest.Wait()
		require.Len(t, closed, cap(closed))
		require.Len(t, s.ended(), expiry.MaxBatch)
		require.Equal(t, expiry.MaxBatch, s.Len())
	})
}
