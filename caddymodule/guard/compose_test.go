package guard

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/identity"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// composition is one way in which two guards of a request, one that counts the streams
// of a store and one that counts those of a user, may stand.
type composition struct {
	userInside bool // else the store's guard is
	oneZone    bool
	store      seatRule
	user       seatRule
	takeovers  [2]Takeover // of the outer and the inner guard
	variant    string
	newcomer   seat
	scope      identity.Scope // of client ids
	holders    []seat
	forgetful  bool // the process has started anew, and nothing is known of its guards
}

// seatRule is the rule of one guard.
type seatRule struct {
	policy registry.Policy
	limit  int
}

// seat is one stream: whose, with which of the user's tokens, and from which client.
type seat struct {
	user, token, client string
}

// Variants of a composition.
const (
	asked        = "keys of the request"
	answered     = "the store is known from the answer"
	missing      = "the store is missing, and that is refused"
	missingLater = "the store is missing in the answer, and that is refused"
	crossOrigin  = "a page of another origin"
)

func (c *composition) String() string {
	inner := "store"
	if c.userInside {
		inner = "user"
	}
	return fmt.Sprintf("%s inside, one zone %t, store %v, user %v, takeovers %v, %s, clients %q, %v asks, %v hold, forgetful %t",
		inner, c.oneZone, c.store, c.user, c.takeovers, c.variant, c.scope, c.newcomer, c.holders, c.forgetful)
}

// The oracle: what may become of the newcomer, by trying all ways.

// room is what is asked of one guard: that these holders, some of whom are to go, are
// few enough.
type room struct {
	rule    seatRule
	holders []int // indices of those that hold the newcomer's key there
}

func (c *composition) rooms() []room {
	store, user := room{rule: c.store}, room{rule: c.user}
	for i, h := range c.holders {
		store.holders = append(store.holders, i)
		if h.user == c.newcomer.user {
			user.holders = append(user.holders, i)
		}
	}
	return []room{store, user}
}

// replaced tells whether the newcomer is of the same tab as a holder.
func (c *composition) replaced(holder int) bool {
	h := c.holders[holder]
	return c.scope == identity.Tab && h.client != "" && h.client == c.newcomer.client && h.user == c.newcomer.user
}

// isRefused tells whether one of the guards refuses the newcomer.
func (c *composition) isRefused() bool {
	if c.variant == missing || c.variant == missingLater {
		return true
	}
	return slices.ContainsFunc(c.rooms(), func(r room) bool {
		others := slices.DeleteFunc(slices.Clone(r.holders), c.replaced)
		return r.rule.policy == registry.Reject && len(others) >= r.rule.limit
	})
}

// suffices tells whether the newcomer fits everywhere once those have gone.
func (c *composition) suffices(gone []int) bool {
	for _, r := range c.rooms() {
		left := slices.DeleteFunc(slices.Clone(r.holders), func(i int) bool { return slices.Contains(gone, i) })
		if len(left)+1 > r.rule.limit || slices.ContainsFunc(left, c.replaced) {
			return false
		}
	}
	return true
}

// isRight tells whether those had to go, and all of them.
func (c *composition) isRight(gone []int) bool {
	if !c.suffices(gone) {
		return false
	}
	for i := range gone {
		if c.suffices(slices.Delete(slices.Clone(gone), i, i+1)) {
			return false // that one could have stayed
		}
	}
	return true
}

// The guards themselves.

func (c *composition) guards(t *testing.T) []func(*Config) {
	sources := []identity.ClientSource{{From: identity.Query, Name: "id", Scope: c.scope}}
	if c.scope == "" {
		sources[0].Scope = identity.Device
	}
	extractor, err := identity.NewExtractor(nil, sources)
	require.NoError(t, err)
	storeKey := "{req.X-Store}"
	if c.variant == answered || c.variant == missingLater {
		storeKey = "{resp.X-Store}"
	}
	deny := c.variant == missing || c.variant == missingLater
	ruled := func(r seatRule) func(*Config) {
		return func(g *Config) { g.Identity, g.Rule.Policy, g.Rule.Limit = extractor, r.policy, r.limit }
	}
	store := all(keyedBy(storeKey), verifying, ruled(c.store), func(g *Config) { g.DenyMissing = deny })
	user := all(keyedBy("{sse_guard.claims.sub}"), verifying, ruled(c.user))
	guards := []func(*Config){store, user}
	if !c.userInside {
		slices.Reverse(guards)
	}
	for i := range guards {
		guards[i] = all(guards[i], func(g *Config) { g.Takeover = c.takeovers[i] })
	}
	return guards
}

func (c *composition) request(h seat) func(*client) {
	edits := []func(*client){token("sub=" + h.user + "&n=" + h.token), field("X-Store", "books"), field("X-Name", h.user)}
	if h.client != "" {
		edits = append(edits, query("id="+h.client))
	}
	return both(edits[0], func(cl *client) {
		for _, edit := range edits[1:] {
			edit(cl)
		}
	})
}

// play lets the newcomer ask, and checks what became of it.
func (c *composition) play(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		for _, g := range s.guards {
			g.Zone.Registry = g.Zone.Registry.(byValue).Registry // which is quicker
			if c.oneZone {
				g.Zone = s.guards[outer].Zone
			}
		}
		s.backend.answer = func(w http.ResponseWriter, r *http.Request) error {
			if store := r.Header.Get("X-Store"); store != "" {
				w.Header().Set("X-Store", store)
			}
			if origin := r.Header.Get("Origin"); origin != "" {
				w.Header().Set(allowOrigin, origin) // or its streams would yield
			}
			return s.backend.stream(w, r)
		}
		var holders []*client
		for _, h := range c.holders {
			holders = append(holders, s.open(c.request(h)))
		}
		for _, h := range holders {
			require.Equal(t, hello, h.text(), "%s: the scene", c)
		}
		if c.forgetful {
			for _, g := range s.guards {
				g.Zone.Nesting = newZone(t, "unused").Nesting
			}
		}
		edits := []func(*client){c.request(c.newcomer)}
		switch c.variant {
		case missing, missingLater:
			edits = append(edits, func(cl *client) { cl.r.Header.Del("X-Store") })
		case crossOrigin:
			edits = append(edits, field("Origin", "https://elsewhere.example"))
		}
		newcomer := s.open(edits...)
		var gone []int
		for i, h := range holders {
			if h.ends() {
				gone = append(gone, i)
				require.Equal(t, 1, strings.Count(h.text(), "event: DUPLICATED_CONNECTION"), "%s: told once: %s", c, h.text())
			}
		}
		if c.isRefused() {
			require.NotContains(t, newcomer.text(), hello, c)
			require.Empty(t, gone, "%s: refused, and others ended for it", c)
		} else {
			require.Equal(t, hello, newcomer.text(), c)
			require.False(t, newcomer.over(), c)
			require.True(t, c.isRight(gone), "%s: %v went", c, gone)
		}
		c.requireWithinLimits(t, s)
		s.leaveAll()
	}, c.guards(t)...)
}

func (c *composition) requireWithinLimits(t *testing.T, s *site) {
	for i, g := range s.guards {
		held := make(map[registry.ID]int)
		all, _, err := g.Zone.Registry.Find(context.Background(), registry.Selector{All: true}, "", 100)
		require.NoError(t, err)
		for _, h := range all {
			if h.ID == h.ID.Nth(i) {
				held[h.Key]++
			}
		}
		for _, n := range held {
			require.LessOrEqual(t, n, g.Rule.Limit, "%s: %v", c, held)
		}
	}
}

// compositions calls f with all of them.
func compositions(f func(*composition)) {
	var rules [][2]seatRule // of the store's and the user's guard
	for _, store := range []registry.Policy{registry.Supersede, registry.Reject} {
		for _, user := range []registry.Policy{registry.Supersede, registry.Reject} {
			rules = append(rules, [2]seatRule{{store, 1}, {user, 1}}, [2]seatRule{{store, 2}, {user, 1}})
		}
	}
	takeovers := [][2]Takeover{
		{TakeoverAuto, TakeoverAuto}, {TakeoverRequest, TakeoverRequest},
		{TakeoverAuto, TakeoverResponse}, {TakeoverResponse, TakeoverAuto},
	}
	scenes := [][]seat{
		{{user: "ann", token: "1"}},
		{{user: "bob", token: "1"}, {user: "ann", token: "1"}},
		{{user: "ann", token: "1"}, {user: "bob", token: "1"}},
	}
	for _, rule := range rules {
		for _, takeover := range takeovers {
			for _, scene := range scenes {
				if len(scene) > rule[0].limit {
					continue
				}
				for _, scope := range []identity.Scope{"", identity.Device, identity.Tab} {
					holders := slices.Clone(scene)
					newcomers := []seat{{user: "ann", token: "1"}, {user: "ann", token: "2"}, {user: "eve", token: "1"}}
					variants := []string{asked, answered, crossOrigin, missing, missingLater}
					if scope != "" { // which makes no difference to eve, nor where all are refused
						newcomers, variants = newcomers[:2], variants[:3]
						for i := range holders {
							holders[i].client = "C" + holders[i].user
						}
						for i := range newcomers {
							newcomers[i].client = "C" + newcomers[i].user
						}
					}
					for _, newcomer := range newcomers {
						for _, variant := range variants {
							for bits := range 8 {
								if bits&4 > 0 && variant != asked {
									continue
								}
								f(&composition{
									userInside: bits&1 > 0, oneZone: bits&2 > 0, forgetful: bits&4 > 0,
									store: rule[0], user: rule[1], takeovers: takeover, variant: variant,
									newcomer: newcomer, scope: scope, holders: holders,
								})
							}
						}
					}
				}
			}
		}
	}
}

// Guards of one request decide as one, early and at the header: the newcomer gets its
// stream, and only those end who have to, or it is refused, and nobody ends.
func TestCompose_GuardsOfOneRequestDecideAsOne(t *testing.T) {
	n := 0
	compositions(func(c *composition) {
		if n++; n%everyNth == 0 {
			c.play(t)
		}
	})
	t.Logf("every %d. of %d compositions", everyNth, n)
}

// Both guards decide early: what a user's own newcomer ends is gone before the backend
// sees the newcomer.
func TestCompose_TheInnermostEndsEarlyForAll(t *testing.T) {
	early, late := []string{"older in", "older out", "newer in"}, []string{"older in", "newer in", "older out"}
	of := func(name string) func(*client) { return both(in("books", "ann"), named(name)) }
	for name, test := range map[string]struct {
		prepare func(*site)
		want    []string
		guards  []func(*Config)
	}{
		"one zone":  {func(s *site) { s.guards[inner].Zone = s.guards[outer].Zone }, early, []func(*Config){perStore(), perUser()}},
		"two zones": {func(*site) {}, early, []func(*Config){perStore(), perUser()}},
		"the inner one is covered": {
			func(s *site) { s.guards[inner].Zone = s.guards[outer].Zone }, early, []func(*Config){perUser(), perUser(rejecting)},
		},
		"the outer one cannot":  {func(*site) {}, late, []func(*Config){perStore(onlyAtHeader), perUser()}},
		"the inner one cannot":  {func(*site) {}, late, []func(*Config){perStore(), perUser(onlyAtHeader)}},
		"it verifies the token": {func(*site) {}, early, []func(*Config){all(verifying, anyMethod, perStore()), perUser()}},
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				test.prepare(s)
				older := s.open(of("older"))
				require.Equal(t, hello, s.open(of("newer")).text())
				require.True(t, older.ends())
				require.Equal(t, test.want, s.backend.read())
			}, test.guards...)
		})
	}
}

// A guard learns that another stands behind it, and keeps that over reloads.
func TestCompose_WhoIsInnermostIsLearned(t *testing.T) {
	of := func(name string) func(*client) { return both(in("books", "ann"), named(name)) }
	atSite(t, func(t *testing.T, s *site) {
		s.open(of("1"))
		unknown := newZone(t, "unused").Nesting
		for _, g := range s.guards {
			g.Zone.Nesting = unknown
		}
		s.open(of("2"))
		for i, g := range s.guards {
			s.guards[i] = New(g.Config) // a reload
		}
		s.open(of("3"))
		require.Equal(t, []string{"1 in", "2 in", "1 out", "2 out", "3 in"}, s.backend.read(),
			"the first after a start is decided at the header")
	}, perStore(), perUser())
}

// The inner guard governs some paths only.
func TestCompose_AGuardBehindWhichAnotherStandsOnOtherPathsEndsEarly(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		path := func(p string) func(*client) { return func(c *client) { c.r.URL.Path = p } }
		s.open(in("books", "ann"), path("/nested"))
		s.guards = s.guards[:1]
		for _, name := range []string{"1", "2", "3"} {
			s.open(in("toys", "bob"), path("/alone"), named(name))
		}
		require.Equal(t, []string{"1 in", "1 out", "2 in", "2 out", "3 in"}, s.backend.read(), "it is known to be alone there")
	}, perStore(), perUser())
}

// A guard further inside that counts nothing, but wants a token, may refuse too.
func TestCompose_AnInnerGuardThatOnlyVerifiesHasASay(t *testing.T) {
	post := method(http.MethodPost)
	atSite(t, func(t *testing.T, s *site) {
		holder := s.open(in("books", "ann"), post)
		again := s.open(in("books", "ann"), post) // the token is not one that the inner guard takes
		require.NotContains(t, again.text(), hello)
		require.False(t, holder.over())
	}, perStore(anyMethod), all(func(g *Config) { g.Verifier = &fickleVerifier{} }, keyedBy("{req.X-User}")))
}

// fickleVerifier accepts the first token only.
type fickleVerifier struct{ asked bool }

func (f *fickleVerifier) VerifyNow(string) (*identity.Claims, error) {
	if f.asked {
		return nil, &identity.InvalidTokenError{Why: "The token is bad"}
	}
	f.asked = true
	return identity.NewClaims(map[string]any{"sub": "ann"}), nil
}

func (f *fickleVerifier) Verify(_ context.Context, token string) (*identity.Claims, error) {
	return f.VerifyNow(token)
}
