package guard

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

const elsewhere = "https://elsewhere.example"

// fetched is how a browser says what a page asks for, and in which mode.
func fetched(site, mode, dest string) func(*client) {
	return both(field("Sec-Fetch-Site", site), field("Sec-Fetch-Mode", mode), field("Sec-Fetch-Dest", dest))
}

// unreadable are requests that any page can have a browser send, and whose answers it
// cannot read.
var unreadable = map[string]func(*client){
	"fetch no-cors":            both(notAsking, fetched("cross-site", "no-cors", "empty")),
	"an image":                 both(notAsking, fetched("cross-site", "no-cors", "image")),
	"an image of another port": both(notAsking, fetched("same-site", "no-cors", "image")),
	"an image of the site":     both(notAsking, fetched("same-origin", "no-cors", "image")),
	"a link":                   both(notAsking, fetched("cross-site", "navigate", "document")),
	"a frame":                  both(notAsking, fetched("cross-site", "navigate", "iframe")),
	"prefetch":                 both(notAsking, field("Sec-Purpose", "prefetch"), fetched("same-origin", "cors", "empty")),
	"a preload":                both(notAsking, fetched("cross-site", "cors", "empty"), field("Origin", elsewhere)),
	"an EventSource":           both(fetched("cross-site", "cors", "empty"), field("Origin", elsewhere)),
	"one of another port":      both(fetched("same-site", "cors", "empty"), field("Origin", "http://example.com:81")),
	"one in a sandbox":         both(fetched("cross-site", "cors", "empty"), field("Origin", "null")),
	"one of an old browser":    field("Origin", elsewhere),
	"a WebSocket":              both(notAsking, both(field("Connection", "Upgrade"), field("Upgrade", "websocket"))),
	"one over HTTP/2":          both(notAsking, method(http.MethodConnect)),
}

// policies are what a key's holder is protected by.
var policies = map[string]func(*Config){
	"supersede":                func(*Config) {},
	"supersede, at the header": onlyAtHeader,
	"reject":                   rejecting,
	"reject, at the header":    all(rejecting, onlyAtHeader),
	"reject, parking":          parking,
}

// forEachUnreadable runs test for each kind of request and each policy.
func forEachUnreadable(t *testing.T, test func(t *testing.T, s *site, unread func(*client)), configure ...func(*Config)) {
	for name, unread := range unreadable {
		for policy, more := range policies {
			t.Run(name+"/"+policy, func(t *testing.T) {
				atSite(t, func(t *testing.T, s *site) { test(t, s, unread) }, all(append(configure, more)...))
			})
		}
	}
}

func TestYields_EndsNobody(t *testing.T) {
	forEachUnreadable(t, func(t *testing.T, s *site, unread func(*client)) {
		holder := s.open(token("ann"), query("tab=1"))
		for _, edit := range []func(*client){query("tab=1"), query("tab=2"), query("sse_guard=take"), query("")} {
			attempt := s.open(token("ann"), unread, edit)
			require.True(t, attempt.ends(), "it is refused, and takes no place among those who wait")
			require.NotEqual(t, hello, attempt.text())
			require.False(t, holder.over())
		}
		require.Equal(t, 1, s.holders(0))
	}, tabbed(t))
}

// Nobody is locked out by it: it has what is free until somebody asks who can read.
func TestYields_GivesWayToTheFirstWhoCanRead(t *testing.T) {
	forEachUnreadable(t, func(t *testing.T, s *site, unread func(*client)) {
		attempt := s.open(token("ann"), unread)
		require.Equal(t, hello, attempt.text())
		page := s.open(token("ann"))
		require.True(t, attempt.ends())
		require.Equal(t, "superseded", attempt.lastEvent(t).Data.Reason)
		require.Equal(t, hello, page.text())
		require.False(t, page.over())
		require.Equal(t, 1, s.holders(0))
	})
}

func TestYields_KeepsNoPlaceAndTakesNone(t *testing.T) {
	keeping := func(g *Config) { g.Reserve = 10 * time.Second }
	for _, unread := range unreadable {
		atSite(t, func(t *testing.T, s *site) {
			s.open(token("ann"), unread).leave()
			s.settle()
			require.Zero(t, s.holders(0))
			page := s.open(token("ann"))
			page.leave()
			s.settle()
			require.True(t, s.open(token("ann"), unread).ends())
			require.Equal(t, hello, s.open(token("ann")).text(), "the page is back")
		}, all(rejecting, keeping))
	}
}

func TestYields_OnlyWhoseAnswerNobodyReads(t *testing.T) {
	ofApp := func(site string) func(*client) {
		return both(fetched(site, "cors", "empty"), field("Origin", appOrigin))
	}
	cookie := field("Cookie", "access_token=ann")
	lets := func(origin, credentials string) func(*site) {
		return func(s *site) {
			s.backend.header = http.Header{allowOrigin: {origin}}
			if credentials != "" {
				s.backend.header.Set(allowCredentials, credentials)
			}
		}
	}
	named := func(g *Config) { g.AllowOrigin.Named = []string{appOrigin} }
	for name, test := range map[string]struct {
		edit      func(*client)
		backend   func(*site)
		configure func(*Config)
		yields    bool
	}{
		"the site's own page":        {edit: fetched("same-origin", "cors", "empty")},
		"its own, behind a proxy":    {edit: both(fetched("same-origin", "cors", "empty"), field("Origin", appOrigin))},
		"no browser":                 {edit: func(*client) {}},
		"Java's client":              {edit: both(field("Connection", "Upgrade, HTTP2-Settings"), field("Upgrade", "h2c"))},
		"an app":                     {edit: field("Origin", "capacitor://localhost")},
		"let by the backend":         {edit: ofApp("cross-site"), backend: lets(appOrigin, "")},
		"let with everybody":         {edit: ofApp("cross-site"), backend: lets("*", "")},
		"let by the guard's option":  {edit: ofApp("cross-site"), configure: named},
		"let with any":               {edit: ofApp("same-site"), configure: func(g *Config) { g.AllowOrigin.Any = true }},
		"with cookies, let":          {edit: both(ofApp("cross-site"), cookie), backend: lets(appOrigin, "true")},
		"with cookies, to everybody": {edit: both(ofApp("cross-site"), cookie), backend: lets("*", "true"), yields: true},
		"with cookies, without":      {edit: both(ofApp("cross-site"), cookie), backend: lets(appOrigin, ""), yields: true},
		"another is let":             {edit: ofApp("cross-site"), backend: lets(elsewhere, ""), yields: true},
		"another is named":           {edit: both(fetched("cross-site", "cors", "empty"), field("Origin", elsewhere)), configure: named, yields: true},
		"an image, any":              {edit: fetched("cross-site", "no-cors", "image"), configure: func(g *Config) { g.AllowOrigin.Any = true }, yields: true},
	} {
		for takeover, when := range map[string]func(*Config){"early": func(*Config) {}, "at the header": onlyAtHeader} {
			t.Run(name+"/"+takeover, func(t *testing.T) {
				configure := all(when, func(g *Config) {
					if test.configure != nil {
						test.configure(g)
					}
				})
				atSite(t, func(t *testing.T, s *site) {
					if test.backend != nil {
						test.backend(s)
					}
					for range 3 { // what the backend says is not known at first
						holder := s.open(token("ann"))
						s.open(token("ann"), test.edit)
						require.Equal(t, !test.yields, holder.ends())
						s.leaveAll()
					}
				}, configure)
			})
		}
	}
}

// A deferred header directive sets its fields when the guard has decided. What went out
// once is known from then on, under either policy; another origin's page still yields.
func TestYields_NotWhereHandlersFurtherOutLetThePageRead(t *testing.T) {
	deferring := func(c *client) {
		c.deferred = http.Header{allowOrigin: {appOrigin}, allowCredentials: {"true"}}
	}
	page := both(both(fetched("same-site", "cors", "empty"), field("Origin", appOrigin)), both(field("Cookie", "access_token=ann"), deferring))
	other := both(both(fetched("same-site", "cors", "empty"), field("Origin", elsewhere)), both(field("Cookie", "access_token=ann"), deferring))
	for policy, configure := range policies {
		t.Run(policy, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				s.open(page)
				s.leaveAll()
				first := s.open(page)
				require.True(t, s.open(other).ends(), "another's")
				require.False(t, first.over())
				second := s.open(page)
				if s.guards[0].Rule.Policy == registry.Reject {
					require.False(t, first.ends())
				} else {
					require.True(t, first.ends())
					require.False(t, second.over())
				}
				require.Empty(t, s.logs.FilterMessageSnippet("allow_origin").FilterField(zap.String("origin", appOrigin)).FilterLevelExact(zap.WarnLevel).All())
				s.leaveAll()

				s.open(page, func(c *client) { c.deferred = nil })
				s.leaveAll()
				holder := s.open(token("ann"))
				require.True(t, s.open(page).ends(), "no longer")
				require.False(t, holder.over())
			}, configure)
		})
	}
}

// A page that is refused learns of it when it asks again.
func TestYields_NotAgainWhereTheRefusalCouldBeRead(t *testing.T) {
	page := both(both(fetched("same-site", "cors", "empty"), field("Origin", appOrigin)), func(c *client) {
		c.deferred = http.Header{allowOrigin: {appOrigin}}
	})
	atSite(t, func(t *testing.T, s *site) {
		holder := s.open(token("ann"))
		require.True(t, s.open(token("ann"), page).ends())
		require.False(t, holder.over())
		s.open(token("ann"), page)
		require.True(t, holder.ends())
	})
}

// It may turn out that nobody can read what a page asked for, so nobody is ended for
// it before that is known.
func TestYields_NobodyIsEndedBeforeItIsKnownWhoReads(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		holder := s.open(token("ann"))
		s.backend.answer = answering(http.StatusOK, "text/plain", "")
		s.open(token("ann"), fetched("cross-site", "cors", "empty"), field("Origin", appOrigin))
		require.False(t, holder.over())

		allowing(s)
		s.open(token("ann"), fetched("cross-site", "cors", "empty"), field("Origin", appOrigin))
		require.False(t, holder.over(), "known from now on")
		s.open(token("ann"), fetched("cross-site", "cors", "empty"), field("Origin", appOrigin))
		require.True(t, holder.ends(), "early: the backend answers with no stream")
	})
}

func TestYields_InAllGuards(t *testing.T) {
	for name, unread := range unreadable {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				holder := s.open(in("shop", "ann"))
				s.open(in("shop", "ann"), unread)
				s.open(in("shop", "bob"), unread)
				require.False(t, holder.over())
				holder.leave()
				s.settle()
				attempt := s.open(in("shop", "ann"), unread)
				require.Equal(t, hello, attempt.text())
				page := s.open(in("shop", "ann"))
				require.True(t, attempt.ends())
				require.False(t, page.over())
				require.Equal(t, 1, s.holders(outer))
				require.Equal(t, 1, s.holders(inner))
			}, perStore(), perUser(rejecting))
		})
	}
}

// A page that is refused since the guard does not see who lets it read is told of in
// the log, once an hour.
func TestYields_APageOfAnotherOriginIsTold(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		told := func() int { return s.logs.FilterMessageSnippet("allow_origin").Len() }
		s.open(token("ann"), unreadable["an image"])
		require.Zero(t, told(), "that is no page's stream")
		for range 3 {
			s.open(token("ann"), unreadable["an EventSource"])
		}
		require.Equal(t, 1, told())
		fields := s.logs.FilterMessageSnippet("allow_origin").All()[0].ContextMap()
		require.Equal(t, "cors", fields["cause"])
		require.Equal(t, elsewhere, fields["origin"])
		s.leaveAll()
		s.pass(time.Hour)
		s.open(token("ann"), unreadable["an EventSource"])
		require.Equal(t, 2, told())
	})
}

// What any site can cause is not held against the user's own pages.
func TestYields_IsNoLossForFlapDamping(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		for range 12 {
			s.open(token("ann"), unreadable["an image"])
			first, second := s.open(token("ann")), s.open(token("ann"))
			require.True(t, first.ends())
			require.Equal(t, hello, second.text(), "it is not parked")
			first.leave()
			second.leave()
			s.pass(time.Second)
		}
	}, damping)
}
