package conflict_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sse-guard/sse-guard/caddymodule/conflict"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// Pages of one browser share a token; where the key has none, they need not.
var somePages = [][]string{
	{"a", "a"}, {"a", "a", "a"}, {"a", "b"}, {"a", "a", "b"}, {"a", "b", "c"},
}

// They never show a tombstone.
func TestPagesThatFlap_ComeToRest(t *testing.T) {
	for _, pages := range somePages {
		for _, after := range []time.Duration{200 * time.Millisecond, time.Second, 3 * time.Second, 5 * time.Second} {
			for _, apart := range []time.Duration{after / 4, after / 2, after + 1} {
				t.Run(fmt.Sprintf("%s/%s/%s", pages, after, apart), func(t *testing.T) {
					dampingInBubble(t, func(t *testing.T, s *dampingSite) {
						for _, token := range pages {
							s.flap(token, after)
							pass(apart)
						}
						s.requireRest(t, 40*time.Second, len(pages))
					})
				})
			}
		}
	}
}

// They wait for the answer to their tombstone first: htmx for half a second more,
// others for one or two; a page in the background up to a second longer.
func TestPagesThatRebuild_ComeToRest(t *testing.T) {
	for _, pages := range somePages {
		for _, after := range []time.Duration{0, 500 * time.Millisecond, time.Second, 2 * time.Second} {
			for _, apart := range []time.Duration{after/4 + 1, after/2 + 2, told + after, 3 * time.Second} {
				t.Run(fmt.Sprintf("%s/%s/%s", pages, after, apart), func(t *testing.T) {
					dampingInBubble(t, func(t *testing.T, s *dampingSite) {
						for _, token := range pages {
							s.rebuild(token, after)
							pass(apart)
						}
						s.requireRest(t, 40*time.Second, len(pages))
					})
				})
			}
		}
	}
}

func TestPagesThatRebuild_TheRuleDecidesWhen(t *testing.T) {
	rests := func(rule conflict.Rule) (after time.Duration) {
		dampingInBubble(t, func(t *testing.T, s *dampingSite) {
			s.rule = rule
			s.rebuild("a", time.Second)
			pass(time.Second)
			s.rebuild("a", time.Second)
			s.requireRest(t, 5*time.Minute, 2)
			after = s.last.Sub(s.began)
		})
		return after
	}
	two, four, ten := rests(conflict.Rule{Count: 2, HalfLife: time.Minute}), rests(usual), rests(conflict.Rule{Count: 10, HalfLife: time.Minute})
	require.Less(t, two, four)
	require.Less(t, four, ten)
}

func TestPages_ComeToRestHoweverTheyReturn(t *testing.T) {
	type page struct {
		Token        string
		Start, After time.Duration
		Shows        bool
	}
	drawn := rapid.Custom(func(t *rapid.T) page {
		return page{
			rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "token"),
			time.Duration(rapid.IntRange(0, 5000).Draw(t, "start")) * time.Millisecond,
			time.Duration(rapid.IntRange(200, 4000).Draw(t, "after")) * time.Millisecond,
			rapid.Bool().Draw(t, "shows"),
		}
	})
	rapid.Check(t, func(rt *rapid.T) {
		limit := rapid.IntRange(1, 3).Draw(rt, "limit")
		count := rapid.IntRange(1, 6).Draw(rt, "count")
		pages := rapid.SliceOfN(drawn, limit+1, limit+4).Draw(rt, "pages")
		var parked, late int
		dampingInBubble(t, func(_ *testing.T, s *dampingSite) {
			s.limit, s.rule.Count = limit, count
			for _, p := range pages {
				s.pages.Go(func() {
					switch {
					case !s.sleep(p.Start):
					case p.Shows:
						s.rebuild(p.Token, p.After)
					default:
						s.flap(p.Token, p.After)
					}
				})
			}
			pass(3 * time.Minute)
			before, _, _ := s.counts()
			pass(time.Hour)
			late, _, parked = s.counts()
			late -= before
		})
		if parked != len(pages)-limit || late > 0 {
			rt.Fatalf("%d parked; %d came after three minutes", parked, late)
		}
	})
}

// There are more of them than losses are known of a key.
func TestPages_ComeToRestHoweverManyThereAre(t *testing.T) {
	for _, pages := range []int{20, conflict.MaxLosses, 2 * conflict.MaxLosses} {
		for _, token := range []string{"a", ""} { // all of one token, or each of another
			t.Run(fmt.Sprint(pages, token), func(t *testing.T) {
				dampingInBubble(t, func(t *testing.T, s *dampingSite) {
					for i := range pages {
						if token == "" {
							s.flap(fmt.Sprint(i), 2*time.Second)
						} else {
							s.flap(token, 2*time.Second)
						}
						pass(10 * time.Millisecond)
					}
					s.requireRest(t, 5*time.Minute, pages)
				})
			})
		}
	}
}

// Who flapped before comes to rest sooner.
func TestPagesThatRebuild_AreRememberedOnceTheyWereParked(t *testing.T) {
	dampingInBubble(t, func(t *testing.T, s *dampingSite) {
		for range 2 {
			s.rebuild("a", time.Second)
			pass(time.Second)
		}
		pass(58 * time.Second)
		_, takeovers, parked := s.counts()
		require.Equal(t, 1, parked)
		s.rebuild("a", time.Second) // a third one is opened
		pass(30 * time.Second)
		_, again, parked := s.counts()
		require.Equal(t, 2, parked)
		require.Equal(t, takeovers+1, again)
	})
}

func TestParkedPage_TakesOverFromWhoGoes(t *testing.T) {
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
		require.NotEqual(t, before.token, s.holder().token)
		_, after, _ := s.counts()
		require.Equal(t, takeovers, after)
	})
}

// Tabs show their tombstone a second after their end, as they are told. Clients that
// go by a time of their own show it later.
func TestTwelveTabsOpenedOneAfterTheOther_AreNeverParked(t *testing.T) {
	for _, every := range []time.Duration{300 * time.Millisecond, time.Second, 2 * time.Second, 3 * time.Second, 5 * time.Second, 7 * time.Second, 10*time.Second - 1} {
		for _, shows := range []time.Duration{0, told, 2900 * time.Millisecond} {
			t.Run(fmt.Sprintf("%s/%s", every, shows), func(t *testing.T) {
				dampingInBubble(t, func(t *testing.T, s *dampingSite) {
					pass(700 * time.Millisecond) // tombstones know whole seconds only
					for range 12 {
						require.NotNil(t, s.behave("a", shows))
						pass(every)
					}
				})
			})
		}
	}
}

// Firefox, told nothing, returns after five seconds.
func TestTwelveTabsOpenedOneAfterTheOther_AreNeverParkedInFirefoxTiming(t *testing.T) {
	dampingInBubble(t, func(t *testing.T, s *dampingSite) {
		for range 12 {
			require.NotNil(t, s.behave("a", 5*time.Second))
			pass(time.Second)
		}
	})
}

// If nobody takes the key over for ten seconds, all tabs have proved to be at rest.
func TestTabsOpenedInBursts_AreNeverParked(t *testing.T) {
	for _, every := range []time.Duration{time.Second, 3 * time.Second} {
		t.Run(every.String(), func(t *testing.T) {
			dampingInBubble(t, func(t *testing.T, s *dampingSite) {
				for range 20 {
					for range 12 {
						require.NotNil(t, s.behave("a", told))
						pass(every)
					}
					pass(11 * time.Second)
				}
			})
		})
	}
}

func TestTabsOpenedEveryTenSeconds_AreNeverParked(t *testing.T) {
	dampingInBubble(t, func(t *testing.T, s *dampingSite) {
		for range 100 {
			require.NotNil(t, s.behave("a", told))
			pass(10 * time.Second)
		}
	})
}

func TestRestoredBrowser_IsNeverParked(t *testing.T) {
	for _, takes := range []time.Duration{0, time.Second, 5 * time.Second, 20 * time.Second} {
		t.Run(takes.String(), func(t *testing.T) {
			dampingInBubble(t, func(t *testing.T, s *dampingSite) {
				for range 100 {
					require.NotNil(t, s.behave("a", told))
					pass(takes / 100)
				}
				pass(time.Minute)
				require.NotNil(t, s.behave("a", told))
			})
		})
	}
}

func TestTwoDevicesUsedInTurn_AreNeverParked(t *testing.T) {
	for name, test := range map[string]struct {
		shows time.Duration
		moves []time.Duration // one after the other, again and again
	}{
		"four times a minute":                       {told, []time.Duration{15 * time.Second}},
		"four times a minute, without tombstones":   {-1, []time.Duration{15 * time.Second}},
		"to and fro twice a minute":                 {told, []time.Duration{5 * time.Second, 25 * time.Second}},
		"to and fro twice a minute, no tombstones":  {-1, []time.Duration{5 * time.Second, 25 * time.Second}},
		"twice to and fro in a minute":              {told, []time.Duration{3 * time.Second, 3 * time.Second, 3 * time.Second, 51 * time.Second}},
		"every ten seconds":                         {-1, []time.Duration{10 * time.Second}},
		"three times in a row, without a tombstone": {-1, []time.Duration{4 * time.Second, 4 * time.Second, 4 * time.Second, 5 * time.Minute}},
	} {
		t.Run(name, func(t *testing.T) {
			dampingInBubble(t, func(t *testing.T, s *dampingSite) {
				for i := range 100 {
					token := fmt.Sprint(i % 2)
					if test.shows < 0 {
						require.NotNil(t, s.open(token), i)
					} else {
						require.NotNil(t, s.behave(token, test.shows), i)
					}
					pass(test.moves[i%len(test.moves)])
				}
			})
		})
	}
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

// What remains: nothing tells these from pages that rebuild.
func TestWhatRemains(t *testing.T) {
	for name, test := range map[string]struct {
		every, shows time.Duration
		tabs         int // that are not parked
	}{
		"tabs opened for longer than 20 seconds":   {2 * time.Second, told, 14},
		"tabs that close when they are told":       {time.Second, -1, 7},
		"devices that move each within 10 seconds": {8 * time.Second, told, 13},
	} {
		t.Run(name, func(t *testing.T) {
			dampingInBubble(t, func(t *testing.T, s *dampingSite) {
				for i := range test.tabs {
					if test.shows < 0 {
						require.NotNil(t, s.open("a"), i)
					} else {
						require.NotNil(t, s.behave("a", test.shows), i)
					}
					pass(test.every)
				}
				require.Nil(t, s.open("a"))
			})
		})
	}
}

// flapUntilParked has streams of one token take the key from each other once a second
// until one is parked.
func (s *dampingSite) flapUntilParked(t *testing.T) {
	for opened := 0; s.open("a") != nil; opened++ {
		require.Less(t, opened, 100)
		pass(time.Second)
	}
}

func TestTakeBack_CountsAfterThreeSecondsUnlessItsTombstoneIsShown(t *testing.T) {
	dampingInBubble(t, func(t *testing.T, s *dampingSite) {
		s.rule.Count = 2
		s.open("a")
		s.open("a") // the first loss
		s.open("a") // it is taken back
		again, made := newcomer(key, "a"), tombstone()
		pass(3*time.Second - 1)
		require.False(t, s.Flaps(again, false, s.holds, s.rule))
		pass(1)
		require.True(t, s.Flaps(again, false, s.holds, s.rule), "two count by now")
		s.show("a", made)
		require.False(t, s.Flaps(again, false, s.holds, s.rule), "it was shown, late")
	})
}

func TestTakeBack_OnlyWithinTenSecondsOfItsLoss(t *testing.T) {
	dampingInBubble(t, func(t *testing.T, s *dampingSite) {
		s.flapUntilParked(t)
		require.Nil(t, s.open("a"))
		pass(10*time.Second - 1 - time.Second)
		require.Nil(t, s.open("a"))
		pass(1)
		require.NotNil(t, s.open("a"))
	})
}

func TestCount_HalvesWithEachHalfLife(t *testing.T) {
	for name, test := range map[string]struct {
		halfLife, after time.Duration
		parked          bool
	}{
		"within the first":  {time.Minute, 40 * time.Second, true},
		"within the second": {time.Minute, 80 * time.Second, false},
		"of a longer one":   {10 * time.Minute, 80 * time.Second, true},
		"of a shorter one":  {20 * time.Second, 40 * time.Second, false},
	} {
		t.Run(name, func(t *testing.T) {
			dampingInBubble(t, func(t *testing.T, s *dampingSite) {
				s.rule = conflict.Rule{Count: 4, HalfLife: test.halfLife}
				s.flapUntilParked(t)
				pass(test.after)
				require.NotNil(t, s.open("a"), "its loss is too long ago")
				require.Equal(t, test.parked, s.open("a") == nil)
			})
		})
	}
}

// Client ids and User-Agents change with each newcomer of this package's tests.
func TestTakeBack_IsKnownByTokenOrSubject(t *testing.T) {
	for name, test := range map[string]struct {
		change func(h *registry.Holder, i int)
		parked bool
	}{
		"one token":    {func(*registry.Holder, int) {}, true},
		"no token":     {func(h *registry.Holder, _ int) { h.Token = registry.ID{} }, true},
		"other tokens": {func(h *registry.Holder, i int) { h.Token = id(fmt.Sprint(i)) }, false},
		"other tokens of one subject": {func(h *registry.Holder, i int) {
			h.Token, h.Subject = id(fmt.Sprint(i)), id("ann")
		}, true},
		"a subject that is known late": {func(h *registry.Holder, i int) {
			if i%2 == 0 {
				h.Subject = id("ann")
			}
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			dampingInBubble(t, func(t *testing.T, s *dampingSite) {
				parked := false
				for i := range 20 {
					h := newcomer(key, "a")
					test.change(h, i)
					s.mu.Lock()
					parked = parked || s.ask(h, "a", false) == nil
					s.mu.Unlock()
					pass(time.Second)
				}
				require.Equal(t, test.parked, parked)
			})
		})
	}
}

// one parks from the first take-back on that counts.
var one = conflict.Rule{Count: 1, HalfLife: time.Minute}

// flapped returns a site whose next take-back of anybody is parked.
func flapped(t *testing.T, s *dampingSite) {
	s.rule = one
	for range 3 {
		s.open("x")
	}
	pass(3 * time.Second)
	require.Nil(t, s.open("x"))
}

// Who holds the key now took it from nobody.
func TestTakeBack_NotWhereTheHolderTookAFreeKey(t *testing.T) {
	dampingInBubble(t, func(t *testing.T, s *dampingSite) {
		flapped(t, s)
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

func TestTakeBack_AlsoWhereTheKeyWentOn(t *testing.T) {
	dampingInBubble(t, func(t *testing.T, s *dampingSite) {
		flapped(t, s)
		for _, token := range []string{"a", "b", "c", "d"} {
			require.NotNil(t, s.open(token))
		}
		require.Nil(t, s.open("a"))
		require.Nil(t, s.open("b"))
		require.Nil(t, s.open("c"))
		require.NotNil(t, s.open("d"))
	})
}

// The streams between who lost the key and who holds it are forgotten first, as
// their clients had gone.
func TestTakeBack_AlsoWhereReloadsCameBetween(t *testing.T) {
	dampingInBubble(t, func(t *testing.T, s *dampingSite) {
		flapped(t, s)
		s.open("a")
		for range 10 * conflict.MaxLosses {
			s.open("b").gone.Store(true)
		}
		require.Nil(t, s.open("a"))
	})
}

func TestFlaps_EachNewcomerIsJudgedByItsOwnRule(t *testing.T) {
	dampingInBubble(t, func(t *testing.T, s *dampingSite) {
		s.rule = conflict.Rule{}
		for range 20 {
			require.NotNil(t, s.open("a"))
			pass(time.Second)
		}
		s.rule = one
		require.Nil(t, s.open("a"))
		s.rule.Count = 3
		require.NotNil(t, s.open("a"))
	})
}

func TestFlaps_AskedAgainAboutOneNewcomerCountsOnce(t *testing.T) {
	dampingInBubble(t, func(t *testing.T, s *dampingSite) {
		for range 3 {
			s.open("a")
		}
		asks := func(h *registry.Holder) bool {
			return s.Flaps(h, false, s.holds, conflict.Rule{Count: 2, HalfLife: time.Minute})
		}
		first, second := newcomer(key, "a"), newcomer(key, "a")
		for range 5 { // early, and at the header
			require.False(t, asks(first))
		}
		pass(3 * time.Second)
		require.True(t, asks(second))
		require.True(t, asks(first))
	})
}

func TestFlaps_OneLossAccountsForOneTakeBack(t *testing.T) {
	dampingInBubble(t, func(t *testing.T, s *dampingSite) {
		s.rule.Count = 2
		s.open("a")
		s.open("b")
		for range 10 {
			require.False(t, s.Flaps(newcomer(key, "a"), false, s.holds, s.rule))
			pass(500 * time.Millisecond)
		}
	})
}

// A person who asks for the stream gets it; a page that keeps saying so does not.
func TestTake_ThreeTimesAMinute(t *testing.T) {
	dampingInBubble(t, func(t *testing.T, s *dampingSite) {
		s.flapUntilParked(t)
		for range conflict.MaxTakes {
			require.Nil(t, s.open("a"))
			require.NotNil(t, s.take("a"))
			pass(3 * time.Second)
		}
		require.Nil(t, s.take("a"))
		h := newcomer(key, "a")
		pass(52 * time.Second) // the first is a minute ago
		require.NotNil(t, s.open("b"))
		require.NotNil(t, s.open("b"))
		h.Token = id("b")
		for range 5 { // early, and at the header
			require.False(t, s.Flaps(h, true, s.holds, one))
		}
	})
}

func TestTake_IsNoTakeBack(t *testing.T) {
	dampingInBubble(t, func(t *testing.T, s *dampingSite) {
		s.rule.Count = 2
		s.open("a")
		for range conflict.MaxTakes {
			require.NotNil(t, s.take("a"))
			pass(time.Second)
		}
		pass(3 * time.Second)
		require.NotNil(t, s.open("a"), "it is the first")
		require.Nil(t, s.open("a"))
	})
}

// Some clients answer the 204 by asking again, for ever.
func TestShown_ATombstoneShownForEverExcusesNoFlapping(t *testing.T) {
	for _, after := range []time.Duration{time.Second, 3 * time.Second} {
		t.Run(after.String(), func(t *testing.T) {
			dampingInBubble(t, func(t *testing.T, s *dampingSite) {
				s.behave("a", 0)
				s.flap("a", after)
				pass(time.Second / 4)
				made := tombstone()
				s.pages.Go(func() {
					for s.sleep(time.Second / 3) {
						s.show("a", made)
					}
				})
				pass(after / 4)
				s.flap("a", after)
				s.requireRest(t, 40*time.Second, 2)
			})
		})
	}
}

func TestShown_OfNothingKnownChangesNothing(t *testing.T) {
	dampingInBubble(t, func(t *testing.T, s *dampingSite) {
		s.rule = one
		s.show("a", time.Now())
		s.open("a")
		s.open("b")
		require.NotNil(t, s.open("a"))
		s.Shown(newcomer(id("other"), "a"), time.Now())
		s.show("b", time.Now().Add(-10*time.Second))
		s.show("a", time.Now().Add(-10*time.Second))
		s.show("a", time.Now().Add(10*time.Second))
		pass(3 * time.Second)
		require.Nil(t, s.open("b"))
		s.show("a", time.Time{})
		require.Nil(t, s.open("b"))
		s.show("b", time.Time{})
		require.NotNil(t, s.open("b"))
	})
}

func TestDamping_ConcurrentUse(t *testing.T) {
	d := conflict.NewLimitedDamping(10)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			token, held := fmt.Sprint(g%3), registry.StreamID{}
			for i := range 500 {
				h := newcomer(id(fmt.Sprint(i%20)), token)
				d.Flaps(h, i%5 == 0, func(s registry.StreamID) bool { return s == held }, usual)
				d.Lost(lost(newcomer(h.Key, token), h, func() bool { return i%7 == 0 }))
				d.Shown(h, tombstone())
				held = h.ID
			}
		})
	}
	wg.Wait()
	require.Equal(t, 10, d.Keys())
}

// What is given from outside is called with no lock held: it may use the Damping.
func TestDamping_AsksWithoutALock(t *testing.T) {
	d := conflict.NewDamping()
	asked := map[string]int{}
	other := newcomer(id("other"), "a")
	gone := func() bool {
		asked["gone"]++
		d.Shown(other, time.Time{})
		d.Lost(lost(other, newcomer(id("other"), "b"), nil))
		return false
	}
	holds := func(registry.StreamID) bool {
		asked["holds"]++
		d.Flaps(newcomer(id("other"), "a"), false, func(registry.StreamID) bool { return true }, usual)
		return true
	}
	first, second := newcomer(key, "a"), newcomer(key, "b")
	d.Lost(lost(first, second, gone))
	require.False(t, d.Flaps(newcomer(key, "a"), false, holds, one))
	d.Shown(second, time.Time{})
	require.Equal(t, map[string]int{"gone": 2, "holds": 1}, asked)
}

// A client that had gone is known to have also where it says so only once.
func TestDamping_GoneIsAskedUntilItSaysSo(t *testing.T) {
	dampingInBubble(t, func(t *testing.T, s *dampingSite) {
		says, asked := false, 0
		gone := func() bool {
			asked++
			return says
		}
		by := newcomer(key, "b")
		s.Lost(lost(newcomer(key, "a"), by, gone))
		holds := func(s registry.StreamID) bool { return s == by.ID }
		h := newcomer(key, "a")
		require.False(t, s.Flaps(h, false, holds, one))
		pass(3 * time.Second)
		require.True(t, s.Flaps(h, false, holds, one))
		says = true
		require.False(t, s.Flaps(h, false, holds, one))
		require.False(t, s.Flaps(h, false, holds, one))
		require.Equal(t, 3, asked)
	})
}

// As long as no client of the newcomer's token lost the key, nobody is asked.
func TestFlaps_AsksNobodyAboutANewcomerOfAnotherClient(t *testing.T) {
	d := conflict.NewDamping()
	d.Lost(lost(newcomer(key, "a"), newcomer(key, "b"), func() bool {
		t.Error("asked whether the client had gone")
		return false
	}))
	require.False(t, d.Flaps(newcomer(key, "c"), false, func(registry.StreamID) bool {
		t.Error("asked who holds the key")
		return true
	}, usual))
}
