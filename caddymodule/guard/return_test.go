package guard

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/conflict"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/tombstone"
)

// whereDecided has a key that the request tells, decided early and at the header, and
// one that only the backend tells.
var whereDecided = map[string]func(*Config){
	"early":                  func(*Config) {},
	"at the header":          onlyAtHeader,
	"a key of the backend's": keyedBy("{resp.X-User}"),
}

func (s *site) named(user string) { s.backend.header = http.Header{"X-User": {user}} }

func requireStatus(t *testing.T, c *client, want int) {
	t.Helper()
	require.True(t, c.ends() || want == http.StatusOK)
	status, _, _ := c.got()
	require.Equal(t, want, status)
}

// requireHeld: the client is not answered yet.
func requireHeld(t *testing.T, c *client) {
	t.Helper()
	status, _, _ := c.got()
	require.Zero(t, status)
	require.False(t, c.over())
}

// Clients that keep the last id for ever are not shut out of what nobody holds.
func TestTombstone_OfAFreeKeyIsDropped(t *testing.T) {
	for name, configure := range whereDecided {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				s.named("ann")
				id := s.entombedClient(token("ann"))
				s.leaveAll()
				s.pass(registry.FreeLately)
				asked := s.backend.asked()
				c := s.open(token("ann"), field("Last-Event-ID", id), query("x="+id))
				require.Equal(t, hello, c.text())
				require.Equal(t, asked+1, s.backend.asked())
				require.Empty(t, s.backend.last().Header["Last-Event-Id"])
				require.Empty(t, s.backend.last().URL.RawQuery)
				requireStatus(t, s.open(token("ann"), field("Last-Event-ID", id)), http.StatusNoContent)
				require.Equal(t, 1, s.backend.say("more"), "and it is one that holds the key")
			}, configure)
		})
	}
}

// Else the client shows it for as long as the application sends no id.
func TestTombstone_OfAFreeKeyIsTakenAwayFromTheClient(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		id := s.entombedClient(token("ann"))
		s.leaveAll()
		s.pass(registry.FreeLately)
		s.backend.answer = answering(http.StatusOK, "text/event-stream", "data: a\n\n")
		require.Equal(t, "id:\ndata: a\n\n", s.open(token("ann"), field("Last-Event-ID", id)).text())
		require.Equal(t, "data: a\n\n", s.open(token("ann"), field("Last-Event-ID", "41")).text())
	})
}

func TestTombstone_CountsWhileTheRuleWouldRefuseOrEndSomebody(t *testing.T) {
	for name, test := range map[string]struct {
		configure func(*Config)
		want      int
	}{
		"supersede": {func(*Config) {}, http.StatusNoContent},
		"reject":    {rejecting, http.StatusNoContent},
		"with room": {limited(2), http.StatusOK},
		"no limit":  {limited(0), http.StatusOK},
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				id := s.entombedClient(token("ann"))
				s.pass(registry.FreeLately) // it was free for a moment
				test.configure(&s.guards[0].Config)
				requireStatus(t, s.open(token("ann"), field("Last-Event-ID", id)), test.want)
			})
		})
	}
}

// A second tab that opens and closes does not end the first for good, and one that is
// loaded again does not lose to it.
func TestTombstone_OfAKeyThatCameFreeLatelyIsHeldUp(t *testing.T) {
	for name, configure := range whereDecided {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				s.named("ann")
				back := func() (*client, int) {
					id := s.entombedClient(token("ann"))
					asked := s.backend.asked()
					s.leaveAll()
					s.pass(time.Second)
					c := s.open(token("ann"), field("Last-Event-ID", id))
					s.pass(2*time.Second - 1)
					requireHeld(t, c)
					return c, asked
				}
				c, asked := back()
				if name != "a key of the backend's" {
					require.Equal(t, asked, s.backend.asked())
				}
				s.pass(1)
				require.Equal(t, hello, c.text(), "nobody has taken it")
				require.Equal(t, asked+1, s.backend.asked())

				s.leaveAll()
				s.pass(time.Minute)
				c, _ = back()
				other := s.open(token("ann"))
				requireStatus(t, c, http.StatusNoContent)
				require.Equal(t, hello, other.text())
			}, configure)
		})
	}
}

// The backend of the newcomer that ended it has yet to answer.
func TestTombstone_OfAKeyThatIsAboutToBeTakenIsHeldUp(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		first := s.open(token("ann"))
		answer := make(chan struct{})
		s.backend.answer = func(w http.ResponseWriter, r *http.Request) error {
			<-answer
			return s.backend.stream(w, r)
		}
		second := s.open(token("ann"))
		s.pass(time.Second)
		c := s.open(token("ann"), field("Last-Event-ID", first.lastEvent(t).ID))
		requireHeld(t, c)
		close(answer)
		s.settle()
		requireStatus(t, c, http.StatusNoContent)
		require.Equal(t, hello, second.text())
		require.Equal(t, 2, s.backend.asked())
	})
}

func TestTombstone_HeldUpNoLongerThanItsClientOrTheServer(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		id := s.entombedClient(token("ann"))
		s.leaveAll()
		asked := s.backend.asked()
		leaves := s.open(token("ann"), field("Last-Event-ID", id))
		leaves.leave()
		s.settle()
		require.True(t, leaves.ends())

		stays := s.open(token("ann"), field("Last-Event-ID", id))
		s.guards[0].Zone.Drain(s.guards[0].Drain, s.guards[0].Logger)
		s.settle()
		require.Regexp(t, `^retry: \d+\n`, stays.text())
		require.Equal(t, asked, s.backend.asked())
	}, tended)
}

func TestTombstone_OfALogoutHoldsWhileTheTokenIsDenied(t *testing.T) {
	for name, edit := range map[string]func(*client){"asking": func(*client) {}, "not asking": notAsking} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				ann := token("sub=ann&exp=" + after(time.Hour))
				c := s.open(ann)
				s.logOut(http.StatusOK, ann)
				requireLoggedOut(t, c)
				e := c.lastEvent(t)
				require.Equal(t, "1000", e.Retry)
				asked := s.backend.asked()
				requireStatus(t, s.open(ann, edit, field("Last-Event-ID", e.ID)), http.StatusNoContent)
				require.Equal(t, asked, s.backend.asked())

				requireStatus(t, s.open(token("sub=ann"), edit, field("Last-Event-ID", e.ID)), http.StatusOK)
			}, all(verifying, loggingOut(LogoutToken)))
		})
	}
}

// Applications use tokens of their own again.
func TestTombstone_OfALogoutIsDroppedOnceTheTokenIsNotDenied(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		c := s.open(token("ann"))
		s.logOut(http.StatusOK, token("ann"))
		requireLoggedOut(t, c)
		id := c.lastEvent(t).ID
		requireStatus(t, s.open(token("ann"), field("Last-Event-ID", id)), http.StatusNoContent)
		s.guards[0].Zone.Registry = undenied{s.guards[0].Zone.Registry}
		requireStatus(t, s.open(token("ann"), field("Last-Event-ID", id)), http.StatusOK)
	}, loggingOut(LogoutToken))
}

// undenied is a registry whose denials are over.
type undenied struct{ registry.Registry }

func (undenied) Denied(*registry.Holder) bool { return false }

func (u undenied) Admit(_ context.Context, _ registry.Phase, _ registry.Consent, asks []registry.Ask, _ []registry.StreamID) ([]registry.Admission, error) {
	as := make([]registry.Admission, len(asks))
	for i := range as {
		as[i] = registry.Admission{Outcome: registry.Admitted, Place: placeOfNobody{}}
	}
	return as, nil
}

type placeOfNobody struct{}

func (placeOfNobody) Commit(context.Context) ([]registry.Victim, error) { return nil, nil }
func (placeOfNobody) Leave(registry.Keep)                               {}
func (placeOfNobody) Departed()                                         {}

// What is meant for guards is removed from all that handlers see, whatever the query
// calls it.
func TestForGuards_IsRemovedFromTheRequest(t *testing.T) {
	const id = tombstone.Prefix + "anything"
	for given, want := range map[string]string{
		"":                                       "",
		"sse_guard=take":                         "",
		"a=%zz&sse_guard=take&b":                 "a=%zz&b",
		"sse_guard=take&x=" + id:                 "",
		"sse_guard=other&sse_guard=take&take":    "sse_guard=other&take",
		"Last-Event-ID=" + id + "&a":             "a",
		"lastEventID=" + id + "&last_event_id=7": "last_event_id=7",
	} {
		t.Run(given, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				s.open(token("ann"), query(given), field("X-SSE-Guard", "take"), func(c *client) {
					c.r.RequestURI = c.r.URL.RequestURI()
					c.original = &url.URL{Path: "/events", RawQuery: given}
				})
				last := s.backend.last()
				require.Equal(t, want, last.URL.RawQuery)
				require.Equal(t, strings.TrimSuffix("/events?"+want, "?"), last.RequestURI)
				require.Equal(t, want, s.clients[0].original.RawQuery)
				require.Empty(t, last.Header["X-Sse-Guard"])
			})
		})
	}
	atSite(t, func(t *testing.T, s *site) {
		original := &url.URL{RawQuery: "sse_guard=take&a"}
		c := s.open(token("ann"), query("b"), func(c *client) {
			c.original, c.r.RequestURI = original, "/events?sse_guard=take&a"
		})
		require.Equal(t, hello, c.text())
		require.Equal(t, "a", original.RawQuery, "also after a rewrite")
		require.Equal(t, "/events?a", s.backend.last().RequestURI)
		require.Equal(t, "b", s.backend.last().URL.RawQuery)

		s.open(token("ann"), field("X-SSE-Guard", "other"))
		require.Equal(t, []string{"other"}, s.backend.last().Header["X-Sse-Guard"])
	})
}

// eventSource is a page's EventSource, and what the page does when it ends.
type eventSource struct {
	s *site
	// edits returns those of the page's n-th request.
	edits func(n int) []func(*client)
	// rebuilds is how long after its end, or after the answer to its tombstone, the
	// page builds a new one; negative: never.
	rebuilds time.Duration
	// shows says that it shows its tombstone first, a second after its end.
	shows bool

	now   *client
	sent  int
	takes int
	next  func() // what is done at due
	due   time.Time
}

func (p *eventSource) open() {
	p.now = p.s.open(append(p.edits(p.sent), token("ann"))...)
	p.sent++
	p.due = time.Time{}
	if strings.HasPrefix(p.now.text(), hello) {
		p.takes++
	}
}

func (p *eventSource) show() {
	id := p.now.lastEvent(p.s.t).ID
	p.due = time.Time{}
	if id == "" {
		p.open()
		return
	}
	requireStatus(p.s.t, p.s.open(append(p.edits(p.sent), token("ann"), field("Last-Event-ID", id))...), http.StatusNoContent)
	p.sent++
	if p.rebuilds >= 0 {
		p.due, p.next = time.Now().Add(p.rebuilds), p.open
	}
}

// live does what is to be done by now.
func (p *eventSource) live() {
	switch {
	case p.now == nil:
		p.open()
	case !p.due.IsZero():
		if !time.Now().Before(p.due) {
			p.next()
		}
	case !p.now.over():
	case p.shows:
		p.due, p.next = time.Now().Add(time.Second), p.show
	case p.rebuilds >= 0:
		p.due, p.next = time.Now().Add(p.rebuilds), p.open
	}
}

// browse has the pages live for that time.
func (s *site) browse(d time.Duration, pages ...*eventSource) {
	for end := time.Now().Add(d); time.Now().Before(end); s.pass(100 * time.Millisecond) {
		for _, p := range pages {
			p.live()
		}
	}
}

func damping(g *Config) { g.Flap = conflict.Rule{Count: 4, HalfLife: time.Minute} }

// Whatever pages do to tell themselves apart, those that build a new EventSource come
// to rest within 40 seconds.
func TestFlap_PagesThatRebuildComeToRest(t *testing.T) {
	same := func(int) []func(*client) { return nil }
	for name, test := range map[string]struct {
		edits     func(n int) []func(*client)
		configure func(*Config)
		pages     int
	}{
		"two pages":           {same, func(*Config) {}, 2},
		"three pages":         {same, func(*Config) {}, 3},
		"at the header":       {same, onlyAtHeader, 2},
		"of one device":       {func(int) []func(*client) { return []func(*client){field("X-Client-Id", "a")} }, func(*Config) {}, 2},
		"other client ids":    {func(n int) []func(*client) { return []func(*client){field("X-Client-Id", fmt.Sprint(n))} }, func(*Config) {}, 2},
		"other User-Agents":   {func(n int) []func(*client) { return []func(*client){field("User-Agent", fmt.Sprint(n))} }, func(*Config) {}, 2},
		"other addresses":     {func(n int) []func(*client) { return []func(*client){from(fmt.Sprint("192.0.2.", n))} }, func(*Config) {}, 2},
		"a tab that is twice": {func(int) []func(*client) { return []func(*client){query("tab=1")} }, tabbed(t), 2},
	} {
		for _, shows := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, tombstones %t", name, shows), func(t *testing.T) {
				atSite(t, func(t *testing.T, s *site) {
					var pages []*eventSource
					takes := func() (n int) {
						for _, p := range pages {
							n += p.takes
						}
						return n
					}
					for range test.pages {
						pages = append(pages, &eventSource{s: s, edits: test.edits, rebuilds: time.Second, shows: shows})
						s.browse(time.Second, pages...)
					}
					s.browse(40*time.Second, pages...)
					rested, asked := takes(), s.backend.asked()
					s.browse(time.Minute, pages...)
					require.Equal(t, rested, takes())
					require.Equal(t, asked, s.backend.asked())
					require.Equal(t, 1, s.holders(0))
					waiting := 0
					for _, p := range pages {
						require.False(t, p.now.over())
						if strings.Contains(p.now.text(), `"reason":"parked"`) {
							waiting++
						}
					}
					require.Equal(t, test.pages-1, waiting)
				}, all(tended, damping, test.configure))
			})
		}
	}
}

func TestFlap_TabsAreNotParked(t *testing.T) {
	for name, test := range map[string]struct {
		tabs   int
		within time.Duration
	}{
		"twelve, one a second": {12, 12 * time.Second},
		"a hundred, restored":  {100, 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				var tabs []*eventSource
				for range test.tabs {
					tabs = append(tabs, &eventSource{s: s, edits: func(int) []func(*client) { return nil }, rebuilds: -1, shows: true})
					s.browse(test.within/time.Duration(test.tabs), tabs...)
				}
				s.browse(3*time.Second, tabs...)
				for _, tab := range tabs {
					require.Equal(t, 1, tab.takes)
				}
			}, all(tended, damping))
		})
	}
}

// fought has streams take the key from each other until one is parked, which leaves,
// and returns who holds it.
func (s *site) fought() (holder *client) {
	s.t.Helper()
	for range 20 {
		c := s.open(token("ann"))
		if !strings.HasPrefix(c.text(), hello) {
			c.leave()
			s.settle()
			return holder
		}
		holder = c
		s.pass(time.Second)
	}
	require.FailNow(s.t, "nobody is damped")
	return nil
}

func TestTake_IsNotDampedThreeTimesAMinute(t *testing.T) {
	for name, wish := range map[string]func(*client){
		"by the query":  query("sse_guard=take"),
		"by the header": field("X-SSE-Guard", "take"),
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				holder := s.fought()
				for range conflict.MaxTakes {
					c := s.open(token("ann"), wish)
					require.Equal(t, hello, c.text())
					require.True(t, holder.ends())
					holder = c
				}
				s.pass(5 * time.Second)
				require.Contains(t, s.open(token("ann"), wish).text(), `"reason":"parked"`)
				require.False(t, holder.over())
			}, all(tended, damping))
		})
	}
}

func TestTake_LosesToATombstone(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		id := s.entombedClient(token("ann"))
		requireStatus(t, s.open(token("ann"), query("sse_guard=take"), field("Last-Event-ID", id)), http.StatusNoContent)
	}, damping)
}

func TestTake_ChangesNothingUnderReject(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		holder := s.open(token("ann"))
		require.Equal(t, "rejected", s.open(token("ann"), query("sse_guard=take")).lastEvent(t).Data.Reason)
		require.False(t, holder.over())
	}, all(damping, rejecting))
}

// Some clients ask again at once, whatever they are told.
func TestParked_WhoIsBackTooEarlyIsHeldUp(t *testing.T) {
	for name, test := range map[string]struct {
		configure func(*Config)
		park      func(*site) (holder *client) // and its newcomer leaves
	}{
		"flapping": {damping, (*site).fought},
		"rejected": {parking, func(s *site) *client {
			holder := s.open(token("ann"))
			s.open(token("ann")).leave()
			s.settle()
			return holder
		}},
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				holder := test.park(s)
				again := s.open(token("ann"))
				s.pass(5*time.Second - 1)
				requireHeld(t, again)
				s.pass(1)
				require.Contains(t, again.text(), "event: ")
				require.False(t, again.over(), "it is parked")
				require.False(t, holder.over())
			}, all(tended, test.configure))
		})
	}
}

func TestParked_IsHeldUpForTenSecondsAtMost(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		s.open(token("ann"))
		s.open(token("ann")).leave()
		s.settle()
		again := s.open(token("ann"))
		s.pass(10*time.Second - 1)
		requireHeld(t, again)
		s.pass(1)
		require.Contains(t, again.text(), "event: ")
	}, all(tended, parking, func(g *Config) { g.Retry = time.Minute }))
}

func TestParked_WhoIsHeldUpHasTheKeyWhenItIsFree(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		holder := s.open(token("ann"))
		s.open(token("ann")).leave()
		s.settle()
		again := s.open(token("ann"))
		s.pass(time.Second)
		requireHeld(t, again)
		holder.leave()
		s.settle()
		require.True(t, again.ends())
		require.Contains(t, again.text(), "retry: 500\n")
	}, all(tended, parking))
}

func TestParked_WhoIsHeldUpAndLeavesKeepsNoPlaceInTheQueue(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		s.open(token("ann"))
		s.open(token("ann")).leave()
		s.settle()
		for range 2 * registry.MostWaiters {
			again := s.open(token("ann"))
			requireHeld(t, again)
			again.leave()
			s.settle()
			require.True(t, again.ends())
		}
		s.pass(10 * time.Second)
		require.False(t, s.open(token("ann")).over(), "there is room to wait")
	}, all(tended, parking))
}

// Its client was told when to come back, in an answer of one event.
func TestParked_WhoFindsNoRoomToWaitAndIsBackTooEarlyIsHeldUp(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		s.open(token("ann"))
		for range registry.MostWaiters {
			require.False(t, s.open(token("ann")).over())
		}
		require.Equal(t, "rejected", s.open(token("ann")).lastEvent(t).Data.Reason)
		for range 3 {
			again := s.open(token("ann"))
			s.pass(5*time.Second - 1)
			requireHeld(t, again)
			s.pass(1)
			require.Equal(t, "rejected", again.lastEvent(t).Data.Reason)
		}
	}, all(tended, parking))
}
