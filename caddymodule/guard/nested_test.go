package guard

import (
	"encoding/hex"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

const outer, inner = 0, 1

// perStore and perUser are the two guards of a site: so many streams in a
// store, so many of a user in it.
func perStore(configure ...func(*Config)) func(*Config) {
	return all(append(configure, keyedBy("{req.X-Store}"), func(g *Config) { g.Zone.Name = "stores" })...)
}

func perUser(configure ...func(*Config)) func(*Config) {
	return all(append(configure, keyedBy("{req.X-User}"), func(g *Config) { g.Zone.Name = "users" })...)
}

func limited(n int) func(*Config) { return func(g *Config) { g.Rule.Limit = n } }

func in(store, user string) func(*client) {
	return both(field("X-Store", store), field("X-User", user), token("token of "+user))
}

// requireUnchanged: the holder streams on, and both guards hold it only.
func requireUnchanged(t *testing.T, s *site, holder *client) {
	t.Helper()
	require.False(t, holder.over())
	require.Equal(t, 1, s.backend.say("more"))
	require.Equal(t, hello+"data: more\n\n", holder.text())
	require.Equal(t, 1, s.holders(outer))
	require.Equal(t, 1, s.holders(inner))
	require.Empty(t, s.logs.FilterMessage("stream ended").All())
	require.Empty(t, s.logs.FilterMessage("stream superseded").All())
}

func TestNested_InnerRefusesAndTheOuterHasChangedNothing(t *testing.T) {
	for name, guards := range map[string][]func(*Config){
		"early":                       {perStore(), perUser(rejecting)},
		"outer at the header":         {perStore(onlyAtHeader), perUser(rejecting)},
		"inner at the header":         {perStore(), perUser(rejecting, onlyAtHeader)},
		"both at the header":          {perStore(onlyAtHeader), perUser(rejecting, onlyAtHeader)},
		"inner with status":           {perStore(), perUser(withStatus, onlyAtHeader)},
		"both reject, outer has room": {perStore(rejecting, limited(2)), perUser(rejecting, onlyAtHeader)},
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				holder := s.open(in("books", "ann"))
				newcomer := s.open(in("books", "ann"))
				if status, _, _ := newcomer.got(); status == http.StatusOK {
					requireRejectedEvent(t, newcomer, "5000")
				} else {
					requireConflict(t, newcomer, "5")
				}
				requireUnchanged(t, s, holder)
				rejections := s.logs.FilterMessage("newcomer rejected").All()
				require.Len(t, rejections, 1)
				require.Equal(t, "users", rejections[0].ContextMap()["zone"])
			}, guards...)
		})
	}
}

func TestNested_OuterRefusesAndTheInnerHasChangedNothing(t *testing.T) {
	for name, guards := range map[string][]func(*Config){
		"early":               {perStore(rejecting), perUser()},
		"outer at the header": {perStore(rejecting, onlyAtHeader), perUser(onlyAtHeader)},
		"both at the header":  {perStore(rejecting, onlyAtHeader), perUser(onlyAtHeader)},
		"outer with status":   {perStore(withStatus, onlyAtHeader), perUser(onlyAtHeader)},
		"inner rejects too":   {perStore(rejecting, onlyAtHeader), perUser(rejecting, onlyAtHeader, limited(2))},
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				s.backend.header = http.Header{"Set-Cookie": {"session=1"}}
				holder := s.open(in("books", "ann"))
				newcomer := s.open(in("books", "ann"))
				status, h, body := newcomer.got()
				if status == http.StatusOK {
					requireRejectedEvent(t, newcomer, "5000")
				} else {
					requireConflict(t, newcomer, "5")
				}
				require.Empty(t, h.Get("Set-Cookie"))
				require.NotContains(t, body, "hello")
				requireUnchanged(t, s, holder)
				rejections := s.logs.FilterMessage("newcomer rejected").All()
				require.Len(t, rejections, 1)
				require.Equal(t, "stores", rejections[0].ContextMap()["zone"])
			}, guards...)
		})
	}
}

func TestNested_OuterRefusesAnotherUser(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		holder := s.open(in("books", "ann"))
		newcomer := s.open(in("books", "bob"))
		requireRejectedEvent(t, newcomer, "5000")
		requireUnchanged(t, s, holder)
	}, perStore(rejecting), perUser())
}

func TestNested_EachEndsWhatIsTooMuchForIt(t *testing.T) {
	for name, guards := range map[string][]func(*Config){
		"early":         {perStore(limited(3)), perUser()},
		"at the header": {perStore(limited(3), onlyAtHeader), perUser(onlyAtHeader)},
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				ann := s.open(in("books", "ann"))
				bob := s.open(in("books", "bob"))
				annAgain := s.open(in("books", "ann"))
				require.True(t, ann.ends(), "by the user's guard")
				require.Equal(t, "superseded", ann.lastEvent(t).Data.Reason)
				require.False(t, bob.over())
				require.Equal(t, 2, s.holders(outer), "ann's older place there is given back")
				require.Equal(t, 2, s.holders(inner))

				eve, joe := s.open(in("books", "eve")), s.open(in("books", "joe"))
				require.True(t, bob.ends(), "by the store's guard")
				for _, c := range []*client{annAgain, eve, joe} {
					require.False(t, c.over())
				}
				require.Equal(t, 3, s.holders(outer))
				require.Equal(t, 3, s.holders(inner), "bob's place there is given back")

				ended := s.logs.FilterMessage("stream ended").All()
				require.Len(t, ended, 2, "one line per stream")
				require.Equal(t, "users", ended[0].ContextMap()["zone"])
				require.Equal(t, "stores", ended[1].ContextMap()["zone"])
				for _, c := range []*client{ann, bob} {
					require.Equal(t, 1, strings.Count(c.text(), "event: DUPLICATED_CONNECTION\n"), c.text())
				}
			}, guards...)
		})
	}
}

// A stream that is too much for both guards is ended by both.
func TestNested_BothEndOneStream(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		id := s.entombedClient(in("books", "ann"))
		require.Equal(t, 1, s.holders(outer))
		require.Equal(t, 1, s.holders(inner))
		for _, zone := range []string{"stores", "users"} {
			lines := s.logs.FilterMessage("stream ended").FilterField(zap.String("zone", zone)).Len()
			require.LessOrEqual(t, lines, 1, zone)
		}
		status, _, _ := s.open(in("books", "ann"), field("Last-Event-ID", id)).got()
		require.Equal(t, http.StatusNoContent, status, "whose ever tombstone it was")
	}, perStore(onlyAtHeader), perUser(onlyAtHeader))
}

// What the inner guard writes as an answer is not the backend's stream.
func TestNested_InnersRefusalIsNoStreamToTheOuter(t *testing.T) {
	for name, configure := range map[string]func(*Config){"event": rejecting, "park": parking} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				holder := s.open(in("books", "ann"))
				s.open(in("books", "ann"))
				require.Equal(t, 1, s.holders(outer))
				holder.leave()
				s.settle()
				require.Zero(t, s.holders(outer))
			}, perStore(limited(1)), perUser(configure))
		})
	}
}

func TestNested_ParkedInsideIsLetIn(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		holder := s.open(in("books", "ann"))
		parked := s.open(in("books", "ann"))
		require.False(t, parked.over())
		s.pass(parkHeartbeat)
		require.True(t, strings.HasSuffix(parked.text(), "\n\n:\n"), "heartbeats get through: %q", parked.text())
		holder.leave()
		s.settle()
		require.True(t, parked.ends())
		require.Equal(t, "500", parked.lastEvent(t).Retry)

		waiting := s.open(in("books", "ann"))
		require.Equal(t, hello, waiting.text())
		gone := s.open(in("books", "ann"))
		gone.leave()
		s.settle()
		require.True(t, gone.ends(), "a parked client that leaves is noticed through the outer guard")
	}, perStore(), perUser(parking))
}

func TestNested_TombstoneReachesTheGuardItIsFor(t *testing.T) {
	for name, guards := range map[string][]func(*Config){
		"of the inner":                {perStore(limited(9)), perUser()},
		"of the inner, at the header": {perStore(limited(9)), perUser(onlyAtHeader, func(g *Config) { g.KeyFromRequest = false })},
		"of the outer":                {perStore(), perUser(limited(9))},
		"of the outer, at the header": {perStore(onlyAtHeader, func(g *Config) { g.KeyFromRequest = false }), perUser(limited(9))},
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				id := s.entombedClient(in("books", "ann"))
				for _, present := range []func(*client){field("Last-Event-ID", id), query("lastEventId=" + id)} {
					c := s.open(in("books", "ann"), present)
					status, _, body := c.got()
					require.Equal(t, http.StatusNoContent, status)
					require.Empty(t, body)
					last := s.backend.last()
					require.NotContains(t, last.Header, "Last-Event-Id")
					require.Empty(t, last.URL.RawQuery)
				}
				require.Equal(t, 1, s.backend.say("more"))
				require.Equal(t, 1, s.holders(outer))
				require.Equal(t, 1, s.holders(inner))
			}, guards...)
		})
	}
}

func TestNested_PlaceholdersAreTheInnermostOnes(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		c := s.open(in("books", "ann"))
		require.Equal(t, s.heldKey(inner), c.published("sse_guard.key"))
		require.NotEqual(t, s.heldKey(outer), s.heldKey(inner))
	}, perStore(), perUser())
	atSite(t, func(t *testing.T, s *site) {
		c := s.open(in("books", "ann"))
		require.Equal(t, s.heldKey(outer), c.published("sse_guard.key"), "a guard that does not govern shows nothing")
	}, perStore())
}

// heldKey is the short hash of the key in the admission's line of the i-th
// guard.
func (s *site) heldKey(i int) string {
	lines := s.logs.FilterMessage("stream admitted").FilterField(zap.String("zone", s.guards[i].Zone.Name)).All()
	require.Len(s.t, lines, 1)
	return lines[0].ContextMap()["key"].(string)
}

// withBetween takes a request through the two guards, with a handler between them.
func (s *site) withBetween(c *client, between func(w http.ResponseWriter, r *http.Request, inner Next) error) error {
	env := func(r *http.Request) Env { return &aroundRequest{c, r, r.URL.Path, nil} }
	return s.guards[outer].Serve(c, c.r, func(w http.ResponseWriter, r *http.Request) error {
		return between(w, r, func(w http.ResponseWriter, r *http.Request) error {
			return s.guards[inner].Serve(w, r, func(w http.ResponseWriter, _ *http.Request) error {
				w.Header().Set("Content-Type", "text/event-stream")
				_, err := io.WriteString(w, hello)
				return err
			}, env(r))
		})
	}, env(c.r))
}

// plain is a writer that makes plain text of everything.
type plain struct{ http.ResponseWriter }

func (p plain) WriteHeader(status int) {
	p.Header().Set("Content-Type", "text/plain")
	p.ResponseWriter.WriteHeader(status)
}

func TestNested_WhatIsNoStreamFurtherOutEndsNobodyThere(t *testing.T) {
	for name, oneZone := range map[string]bool{"one zone": true, "two zones": false} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				if oneZone {
					s.guards[inner].Zone = s.guards[outer].Zone
				}
				older := s.open(in("books", "ann"))
				newer := &client{r: s.backend.last().Clone(t.Context()), header: http.Header{}}
				newer.r.Header.Set("X-User", "bob")
				require.NoError(t, s.withBetween(newer, func(w http.ResponseWriter, r *http.Request, inner Next) error {
					return inner(plain{w}, r)
				}))
				s.settle()
				require.Equal(t, "text/plain", newer.sent.Get("Content-Type"))
				require.Equal(t, hello, newer.text())
				require.False(t, older.over())
				require.Equal(t, 1, s.backend.say("more"), "it streams on")
			}, perStore(onlyAtHeader), perUser(onlyAtHeader))
		})
	}
}

// lost keeps everything from those further out.
type lost struct {
	http.ResponseWriter
	header http.Header
}

func (l lost) Header() http.Header         { return l.header }
func (l lost) WriteHeader(int)             {}
func (l lost) Write(p []byte) (int, error) { return len(p), nil }

// Whoever answers between may hold the header back, and then answer otherwise.
func TestNested_AHeaderThatIsHeldBackEndsNobodyFurtherOut(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		older := s.open(in("books", "ann"))
		newer := &client{r: s.backend.last().Clone(t.Context()), header: http.Header{}}
		newer.r.Header.Set("X-User", "bob")
		require.NoError(t, s.withBetween(newer, func(w http.ResponseWriter, r *http.Request, inner Next) error {
			err := inner(lost{w, http.Header{}}, r)
			w.Header().Set("Content-Type", "text/plain")
			w.WriteHeader(http.StatusBadGateway)
			return err
		}))
		s.settle()
		require.Equal(t, "text/plain", newer.sent.Get("Content-Type"))
		require.False(t, older.over())
	}, perStore(onlyAtHeader), perUser(onlyAtHeader))
}

// A guard that does not count the request verifies it before those further inside
// end anybody for it.
func TestNested_AnOuterGuardThatDoesNotCountRefusesBeforeAnybodyEnds(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		post := both(method(http.MethodPost), notAsking)
		older := s.open(in("books", "ann"), post)
		status, _, body := s.open(in("books", "ann"), post, func(c *client) { c.r.Header.Del("Authorization") }).got()
		require.Equal(t, http.StatusUnauthorized, status, body)
		require.False(t, older.over())
		require.Equal(t, 1, s.holders(inner))
		require.Equal(t, hello, s.open(in("books", "ann"), post).text())
		require.True(t, older.ends())
	}, requiringToken, perUser(anyMethod, onlyAtHeader))
}

func TestNested_WhoeverAnswersBetweenTwoGuardsHasAnswered(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		s.open(in("books", "ann"))
		newer := &client{r: s.backend.last().Clone(t.Context()), header: http.Header{}}
		newer.r.Header.Set("X-User", "bob")
		require.NoError(t, s.withBetween(newer, func(w http.ResponseWriter, r *http.Request, inner Next) error {
			err := inner(w, r)
			w.Header().Set("Content-Type", "text/plain")
			_, _ = io.WriteString(w, "something else")
			return err
		}))
		require.Equal(t, "something else", newer.text())
	}, perStore(rejecting, onlyAtHeader), perUser(onlyAtHeader))
}

// A user's own older stream goes, which makes the room in the store: it is told once,
// and nobody else's ends, also not the oldest one in the store.
func TestNested_AStreamThatBothWouldEndIsToldOnce(t *testing.T) {
	for name, test := range map[string]struct{ oneZone, bobFirst bool }{
		"one zone":                     {true, false},
		"one zone, another is oldest":  {true, true},
		"two zones":                    {false, false},
		"two zones, another is oldest": {false, true},
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				if test.oneZone {
					s.guards[inner].Zone = s.guards[outer].Zone
				}
				var ann, bob *client
				if test.bobFirst {
					bob = s.open(in("books", "bob"))
				}
				ann = s.open(in("books", "ann"))
				if !test.bobFirst {
					bob = s.open(in("books", "bob"))
				}
				s.open(in("books", "ann"))
				require.True(t, ann.ends())
				require.Equal(t, 1, strings.Count(ann.text(), "event: DUPLICATED_CONNECTION"), ann.text())
				require.False(t, bob.over(), "nobody is ended for room that is made anyway")
				require.Len(t, s.logs.FilterMessage("stream ended").All(), 1)
				require.Len(t, s.logs.FilterMessage("stream superseded").All(), 1, "one guard has ended it")
			}, perStore(onlyAtHeader, limited(2)), perUser(onlyAtHeader))
		})
	}
}

// meanwhile is a writer to which something happens before the header goes out.
type meanwhile struct {
	*client
	do func()
}

func (m meanwhile) WriteHeader(status int) {
	m.do()
	m.client.WriteHeader(status)
}

// The innermost guard's place is committed first: one that it has lost by then ends
// nobody further out.
func TestNested_APlaceThatIsLostInsideEndsNobodyFurtherOut(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		older := s.open(in("books", "ann"))
		newer := &client{r: s.backend.last().Clone(t.Context()), header: http.Header{}}
		newer.r.Header.Set("X-User", "bob")
		newer.r.Header.Set("Authorization", "Bearer token of bob")
		w := meanwhile{newer, func() { // the user logs out
			hash, err := hex.DecodeString(newer.published("sse_guard.token"))
			require.NoError(t, err)
			denial := registry.Denial{Token: registry.ID(hash), Until: time.Now().Add(time.Hour)}
			require.NoError(t, s.guards[inner].Zone.Registry.Deny(t.Context(), denial))
		}}
		env := func(r *http.Request) Env { return &aroundRequest{newer, r, r.URL.Path, nil} }
		_ = s.guards[outer].Serve(w, newer.r, func(w http.ResponseWriter, r *http.Request) error {
			return s.guards[inner].Serve(w, r, s.backend.serve, env(r))
		}, env(newer.r))
		s.settle()
		require.False(t, older.over())
		require.Equal(t, 1, s.holders(outer))
	}, perStore(onlyAtHeader), perUser(onlyAtHeader))
}
