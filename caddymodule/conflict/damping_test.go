package conflict_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sse-guard/sse-guard/caddymodule/conflict"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// Besides the takeovers by pages that are opened, there is one per flap but the
// last, which is parked.
func TestPagesThatFlap_ComeToRest(t *testing.T) {
	for _, test := range []struct {
		pages     []string
		takeovers int
	}{
		{[]string{"a", "a"}, 4},
		{[]string{"a", "b"}, 4},
		{[]string{"a", "a", "a"}, 4}, // the third looks like the first that came back
		{[]string{"a", "a", "b"}, 5},
		{[]string{"a", "b", "c"}, 5},
		{[]string{"a", "b", "c", "d"}, 6},
	} {
		for _, retry := range []time.Duration{200 * time.Millisecond, time.Second, 5 * time.Second, 30 * time.Second} {
			for _, apart := range []time.Duration{retry / 4, retry / 2, retry + 1, 2 * time.Minute} {
				t.Run(fmt.Sprintf("%s/%s/%s", test.pages, retry, apart), func(t *testing.T) {
					dampingInBubble(t, func(t *testing.T, s *dampingSite) {
						for _, name := range test.pages {
							s.flap(name, retry)
							pass(apart)
						}
						s.requireRest(t)
						_, takeovers, parked := s.counts()
						require.Equal(t, len(test.pages)-1, parked)
						if len(test.pages) == 2 || apart < retry {
							require.Equal(t, test.takeovers, takeovers)
						}
					})
				})
			}
		}
	}
}

func TestPagesThatFlap_ComeToRestHoweverTheyRetry(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		limit := rapid.IntRange(1, 3).Draw(rt, "limit")
		flaps := rapid.IntRange(1, 6).Draw(rt, "flaps")
		type page struct {
			Client       string
			Start, Retry time.Duration
		}
		pages := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) page {
			return page{
				rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "client"),
				time.Duration(rapid.IntRange(0, 5000).Draw(t, "start")) * time.Millisecond,
				time.Duration(rapid.IntRange(200, 5000).Draw(t, "retry")) * time.Millisecond,
			}
		}), limit+1, limit+4).Draw(rt, "pages")
		var takeovers, parked, late int
		dampingInBubble(t, func(_ *testing.T, s *dampingSite) {
			s.limit, s.rule.Flaps = limit, flaps
			for _, p := range pages {
				s.pages.Go(func() {
					if s.sleep(p.Start) {
						s.flap(p.Client, p.Retry)
					}
				})
			}
			pass(time.Minute)
			before, _, _ := s.counts()
			pass(time.Hour)
			late, takeovers, parked = s.counts()
			late -= before
		})
		if most := len(pages) - limit + flaps - 1; takeovers > most || parked != len(pages)-limit || late > 0 {
			rt.Fatalf("%d takeovers, at most %d expected; %d parked; %d came after a minute", takeovers, most, parked, late)
		}
	})
}

// There are more of them than losses are known of a key.
func TestPagesThatFlap_ComeToRestHoweverManyThereAre(t *testing.T) {
	for _, pages := range []int{conflict.MaxLosses, 40, 200} {
		t.Run(fmt.Sprint(pages), func(t *testing.T) {
			dampingInBubble(t, func(t *testing.T, s *dampingSite) {
				for i := range pages {
					s.flap(fmt.Sprint(i), 2*time.Second)
					pass(10 * time.Millisecond)
				}
				s.requireRest(t)
				_, takeovers, parked := s.counts()
				require.Equal(t, pages-1, parked)
				require.Less(t, takeovers, 10*pages)
			})
		})
	}
}

// The streams between who lost the key and who holds it are forgotten first, as
// their clients are at rest.
func TestFlaps_AlsoWhereReloadsCameBetween(t *testing.T) {
	dampingInBubble(t, func(t *testing.T, s *dampingSite) {
		s.rule.Flaps = 1
		s.open("a")
		for range 10 * conflict.MaxLosses {
			s.open("b").gone.Store(true)
		}
		require.Nil(t, s.open("a"))
	})
}

func TestFlaps_AlsoWhereReloadsCameBefore(t *testing.T) {
	dampingInBubble(t, func(t *testing.T, s *dampingSite) {
		s.rule.Flaps = 1
		for range conflict.MaxLosses {
			s.open("b").gone.Store(true)
		}
		s.open("a")
		for range 3 {
			s.open("b").gone.Store(true)
		}
		require.Nil(t, s.open("a"))
	})
}

func TestPagesThatFlap_ParkedOneTakesOverFromWhoGoes(t *testing.T) {
	dampingInBubble(t, func(t *testing.T, s *dampingSite) {
		s.flap("a", time.Second)
		pass(time.Second / 2)
		s.flap("b", time.Second)
		pass(20 * time.Second)
		_, takeovers, parked := s.counts()
		require.Equal(t, 1, parked)

		before := s.holder()
		s.leave(before) // its page is closed
		pass(2 * time.Second)
		require.NotEqual(t, before.name, s.holder().name)
		_, after, _ := s.counts()
		require.Equal(t, takeovers, after)
	})
}

// Who holds the key now took it from nobody.
func TestFlaps_NotWhereTheHolderTookAFreeKey(t *testing.T) {
	dampingInBubble(t, func(t *testing.T, s *dampingSite) {
		s.rule.Flaps = 1
		s.open("a")
		b := s.open("b")
		require.Nil(t, s.open("a"))
		s.leave(b)
		c := s.open("c")
		require.NotNil(t, c)
		require.NotNil(t, s.open("a"))
		require.Nil(t, s.open("c"))
	})
}

func TestFlaps_NotWhereTheKeyIsFree(t *testing.T) {
	dampingInBubble(t, func(t *testing.T, s *dampingSite) {
		s.rule.Flaps = 1
		s.open("a")
		s.leave(s.open("b"))
		require.NotNil(t, s.open("a"))
	})
}

func TestFlaps_AlsoWhereTheKeyWentOn(t *testing.T) {
	dampingInBubble(t, func(t *testing.T, s *dampingSite) {
		s.rule.Flaps = 1
		s.open("a")
		s.open("b")
		s.open("c")
		s.open("d")
		require.Nil(t, s.open("a"))
		require.Nil(t, s.open("b"))
		require.Nil(t, s.open("c"))
		require.NotNil(t, s.open("d"))
	})
}

func TestReloads_AreNeverParked(t *testing.T) {
	for _, told := range []int{-1, 0, 1, 5, 9} { // which reload is not seen to be one
		t.Run(fmt.Sprint(told), func(t *testing.T) {
			dampingInBubble(t, func(t *testing.T, s *dampingSite) {
				for i := range 11 {
					c := s.open("a")
					require.NotNil(t, c)
					pass(time.Second / 2)
					c.gone.Store(i != told)
				}
				_, takeovers, _ := s.counts()
				require.Equal(t, 10, takeovers)
			})
		})
	}
}

// That the client had gone may be found out after the newcomer came.
func TestReloads_AreNeverParkedThoughNoticedLate(t *testing.T) {
	dampingInBubble(t, func(t *testing.T, s *dampingSite) {
		for range 30 {
			c := s.open("a")
			require.NotNil(t, c)
			s.pages.Go(func() {
				if s.sleep(time.Second) {
					c.gone.Store(true)
				}
			})
			pass(time.Second / 2)
		}
	})
}

func TestTabsOpenedOneAfterTheOther_AreNeverParked(t *testing.T) {
	for _, every := range []time.Duration{1500 * time.Millisecond, 2 * time.Second, 3 * time.Second, 10 * time.Second} {
		for _, tombstoneAfter := range []time.Duration{0, 3 * time.Second, 5 * time.Second} {
			t.Run(fmt.Sprintf("%s/%s", every, tombstoneAfter), func(t *testing.T) {
				dampingInBubble(t, func(t *testing.T, s *dampingSite) {
					pass(700 * time.Millisecond) // tombstones know whole seconds only
					for range 20 {
						require.NotNil(t, s.behave("a", tombstoneAfter))
						pass(every)
					}
				})
			})
		}
	}
}

func TestTwoDevicesUsedInTurn_AreNeverParked(t *testing.T) {
	for _, every := range []time.Duration{6 * time.Second, 10 * time.Second, 20 * time.Second} {
		t.Run(every.String(), func(t *testing.T) {
			dampingInBubble(t, func(t *testing.T, s *dampingSite) {
				for i := range 50 {
					require.NotNil(t, s.behave(fmt.Sprint(i%2), 5*time.Second))
					pass(every)
				}
			})
		})
	}
}

// Nothing tells such devices from pages that flap.
func TestTwoDevicesUsedInTurn_WithoutTombstonesTheFourthFlapIsParked(t *testing.T) {
	dampingInBubble(t, func(t *testing.T, s *dampingSite) {
		for i := range 5 {
			require.NotNil(t, s.open(fmt.Sprint(i%2)), i)
			pass(20 * time.Second)
		}
		require.Nil(t, s.open("1"))
		pass(39*time.Second - 1)
		require.Nil(t, s.open("1"))
		pass(1)
		require.Nil(t, s.open("1"))
		pass(time.Second) // a minute after it lost the key
		require.NotNil(t, s.open("1"))
	})
}

func TestTwoDevicesUsedInTurn_OnceAMinuteNobodyIsParked(t *testing.T) {
	dampingInBubble(t, func(t *testing.T, s *dampingSite) {
		for i := range 50 {
			require.NotNil(t, s.open(fmt.Sprint(i%2)))
			pass(time.Minute)
		}
	})
}

func TestFlaps_AreForgottenAfterTheWindow(t *testing.T) {
	dampingInBubble(t, func(t *testing.T, s *dampingSite) {
		s.rule = conflict.Rule{Flaps: 2, Window: 10 * time.Second}
		s.open("a")
		s.open("b")
		for i := range 10 {
			require.NotNil(t, s.open([]string{"a", "b"}[i%2]))
			pass(10 * time.Second)
		}
		pass(-1 + 10*time.Second)
		require.NotNil(t, s.open("a"))
		pass(10*time.Second - 1)
		require.Nil(t, s.open("b"))
	})
}

func TestFlaps_WindowLongerThanAMinute(t *testing.T) {
	dampingInBubble(t, func(t *testing.T, s *dampingSite) {
		s.rule = conflict.Rule{Flaps: 4, Window: 10 * time.Minute}
		for i := range 5 {
			require.NotNil(t, s.open(fmt.Sprint(i%2)), i)
			pass(time.Minute - 1)
		}
		require.Nil(t, s.open("1"))
	})
}

func TestFlaps_EachNewcomerIsJudgedByItsOwnRule(t *testing.T) {
	dampingInBubble(t, func(t *testing.T, s *dampingSite) {
		s.rule = conflict.Rule{}
		for i := range 20 {
			require.NotNil(t, s.open(fmt.Sprint(i%2)))
		}
		s.rule = conflict.Rule{Flaps: 2, Window: time.Second}
		require.NotNil(t, s.open("0"))
		s.rule.Flaps = 3
		require.NotNil(t, s.open("1"))
		require.Nil(t, s.open("0"))
		s.rule.Flaps = 5
		require.NotNil(t, s.open("0"))
	})
}

func TestFlaps_AskedAgainAboutOneNewcomerCountsOnce(t *testing.T) {
	dampingInBubble(t, func(t *testing.T, s *dampingSite) {
		s.open("a")
		s.open("a")
		s.open("b")
		asks := func(newcomer *registry.Holder) bool {
			return s.Flaps(newcomer, s.holds, conflict.Rule{Flaps: 2, Window: time.Minute})
		}
		first, second := newcomer(key, "a"), newcomer(key, "a")
		for range 5 { // early, and at the header
			require.False(t, asks(first))
		}
		require.True(t, asks(second))
		require.True(t, asks(first))
	})
}

func TestFlaps_OneLossAccountsForOneFlap(t *testing.T) {
	dampingInBubble(t, func(t *testing.T, s *dampingSite) {
		s.rule.Flaps = 2
		s.open("a")
		s.open("b")
		for range 10 {
			require.False(t, s.Flaps(newcomer(key, "a"), s.holds, s.rule))
		}
	})
}

// Some clients answer the 204 by asking again, for ever.
func TestRests_ATombstoneShownForEverExcusesNoFlapping(t *testing.T) {
	for _, retry := range []time.Duration{time.Second, 3 * time.Second} {
		t.Run(retry.String(), func(t *testing.T) {
			dampingInBubble(t, func(t *testing.T, s *dampingSite) {
				s.behave("a", 0)
				s.flap("a", retry)
				pass(time.Second / 4)
				made := tombstone()
				s.pages.Go(func() {
					for s.sleep(time.Second / 3) {
						s.Rests(key, id("a"), made)
					}
				})
				pass(retry / 4)
				s.flap("a", retry)
				s.requireRest(t)
				_, _, parked := s.counts()
				require.Equal(t, 1, parked)
			})
		})
	}
}

func TestRests_OfNothingKnownChangesNothing(t *testing.T) {
	dampingInBubble(t, func(t *testing.T, s *dampingSite) {
		s.rule.Flaps = 1
		s.Rests(key, id("a"), time.Now())
		s.open("a")
		s.open("b")
		s.Rests(id("other"), id("a"), time.Now())
		s.Rests(key, id("b"), time.Now())
		s.Rests(key, id("a"), time.Now().Add(-10*time.Second))
		s.Rests(key, id("a"), time.Now().Add(10*time.Second))
		require.Nil(t, s.open("a"))
		s.Rests(key, id("a"), time.Time{})
		require.NotNil(t, s.open("a"))
	})
}

func TestDamping_ConcurrentUse(t *testing.T) {
	d := conflict.NewLimitedDamping(10)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			name, held := fmt.Sprint(g%3), registry.StreamID{}
			for i := range 500 {
				h := newcomer(id(fmt.Sprint(i%20)), name)
				d.Flaps(h, func(s registry.StreamID) bool { return s == held }, usual)
				d.Lost(lost(newcomer(h.Key, name), h, func() bool { return i%7 == 0 }))
				d.Rests(h.Key, h.Fingerprint, tombstone())
				held = h.ID
			}
		})
	}
	wg.Wait()
	require.Equal(t, 10, d.Keys())
}

func TestFlaps_ABurstOfNewTabsIsNoFlapping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := conflict.NewDamping()
		rule := conflict.Rule{Flaps: 4, Window: 2 * time.Minute, Settle: 4 * time.Second}
		var holder *registry.Holder
		holds := func(s registry.StreamID) bool { return holder != nil && s == holder.ID }
		open := func() (parked bool) {
			h := newcomer(key, "a")
			if d.Flaps(h, holds, rule) {
				return true
			}
			if holder != nil {
				d.Lost(lost(holder, h, nil))
			}
			holder = h
			return false
		}
		for range 100 {
			require.False(t, open())
			<-time.After(10 * time.Millisecond)
		}
		<-time.After(4 * time.Second)
		require.True(t, open(), "nobody has come to rest")
	})
}

// What is given from outside is called with no lock held: it may use the Damping.
func TestDamping_AsksWithoutALock(t *testing.T) {
	d := conflict.NewDamping()
	asked := map[string]int{}
	gone := func() bool {
		asked["gone"]++
		d.Rests(id("other"), id("a"), time.Time{})
		d.Lost(lost(newcomer(id("other"), "a"), newcomer(id("other"), "b"), nil))
		return false
	}
	holds := func(registry.StreamID) bool {
		asked["holds"]++
		d.Flaps(newcomer(id("other"), "a"), func(registry.StreamID) bool { return true }, usual)
		return true
	}
	first, second := newcomer(key, "a"), newcomer(key, "b")
	d.Lost(lost(first, second, gone))
	require.True(t, d.Flaps(newcomer(key, "a"), holds, conflict.Rule{Flaps: 1, Window: time.Minute}))
	d.Rests(key, id("b"), time.Time{})
	d.Lost(lost(second, first, nil))
	require.Equal(t, map[string]int{"gone": 3, "holds": 1}, asked)
}

// A client that had gone is put to rest also where it says so only once.
func TestDamping_GoneIsAskedUntilItSaysSo(t *testing.T) {
	d, rule := conflict.NewDamping(), conflict.Rule{Flaps: 1, Window: time.Minute}
	says, asked := false, 0
	gone := func() bool {
		asked++
		return says
	}
	by := newcomer(key, "b")
	d.Lost(lost(newcomer(key, "a"), by, gone))
	holds := func(s registry.StreamID) bool { return s == by.ID }
	require.True(t, d.Flaps(newcomer(key, "a"), holds, rule))
	says = true
	require.False(t, d.Flaps(newcomer(key, "a"), holds, rule))
	require.False(t, d.Flaps(newcomer(key, "a"), holds, rule))
	require.Equal(t, 2, asked)
}

// As long as no client of the newcomer's fingerprint lost the key, nobody is asked.
func TestFlaps_AsksNobodyAboutANewcomerOfAnotherClient(t *testing.T) {
	d := conflict.NewDamping()
	d.Lost(lost(newcomer(key, "a"), newcomer(key, "b"), func() bool {
		t.Error("asked whether the client had gone")
		return false
	}))
	require.False(t, d.Flaps(newcomer(key, "c"), func(registry.StreamID) bool {
		t.Error("asked who holds the key")
		return true
	}, usual))
}
