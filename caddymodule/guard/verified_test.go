package guard

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/sse-guard/sse-guard/caddymodule/identity"
	"github.com/sse-guard/sse-guard/caddymodule/identity/verify"
	"github.com/sse-guard/sse-guard/caddymodule/internal/wheel"
	"github.com/sse-guard/sse-guard/caddymodule/zone"
)

// plainVerifier believes tokens that are written as a query string, such as
// "sub=ann&exp=1700000000", unless they say "bad" or are past their exp. It has
// no keys while keyless.
type plainVerifier struct {
	keyless bool
	// late: the keys come when somebody waits for them.
	late bool
}

func (p *plainVerifier) VerifyNow(token string) (*identity.Claims, error) {
	if p.keyless || p.late {
		return nil, identity.ErrNoKeys
	}
	values, err := url.ParseQuery(token)
	if err != nil || values.Has("bad") {
		return nil, &identity.InvalidTokenError{Why: "The token is bad"}
	}
	claims := make(map[string]any)
	for name := range values {
		claims[name] = values.Get(name)
		if _, err := strconv.ParseInt(values.Get(name), 10, 64); err == nil {
			claims[name] = json.Number(values.Get(name))
		}
	}
	c := identity.NewClaims(claims)
	if !c.Expires.IsZero() && !time.Now().Before(c.Expires) {
		return c, identity.ErrExpired
	}
	return c, nil
}

func (p *plainVerifier) Verify(_ context.Context, token string) (*identity.Claims, error) {
	p.late = false
	return p.VerifyNow(token)
}

func verifying(g *Config) { g.Verifier = new(plainVerifier) }

func unverified(g *Config) {
	g.Verifier, g.Unverified = new(plainVerifier), true
	g.KeyFromRequest = !strings.Contains(strings.Join(g.Key, ""), "claims")
}

// tabbed finds a tab's id in the query.
func tabbed(t *testing.T) func(*Config) {
	x, err := identity.NewExtractor(nil, []identity.ClientSource{{From: identity.Query, Name: "tab", Scope: identity.Tab}})
	require.NoError(t, err)
	return func(g *Config) { g.Identity = x }
}

// after is a moment from now as a token tells it.
func after(d time.Duration) string { return strconv.FormatInt(time.Now().Add(d).Unix(), 10) }

// challenge is what a refused client is told about its token.
func challenge(t *testing.T, c *client) string {
	t.Helper()
	p := problemOf(t, c)
	require.Equal(t, http.StatusUnauthorized, p.Status)
	_, h, _ := c.got()
	require.Empty(t, h.Get("Retry-After"), "it is permanent")
	return h.Get("WWW-Authenticate")
}

func TestVerified_StreamsNeedAGoodToken(t *testing.T) {
	for name, test := range map[string]struct{ token, challenge string }{
		"none":    {"", `Bearer realm="sse_guard"`},
		"bad":     {"bad=1", `Bearer realm="sse_guard", error="invalid_token", error_description="The token is bad"`},
		"expired": {"sub=ann&exp=1", `Bearer realm="sse_guard", error="invalid_token", error_description="The token has expired"`},
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				require.Equal(t, test.challenge, challenge(t, s.open(token(test.token))))
				require.Zero(t, s.backend.asked(), "nothing reaches the backend")

				c := s.open(token(test.token), notAsking)
				require.Equal(t, test.challenge, challenge(t, c))
				require.Equal(t, 1, s.backend.asked(), "only the answer proves to be a stream")

				s.backend.answer = answering(http.StatusOK, "application/json", "{}")
				for _, edit := range []func(*client){notAsking, both(notAsking, method(http.MethodPost))} {
					status, _, _ := s.open(token(test.token), edit).got()
					require.Equal(t, http.StatusOK, status, "a refresh call passes")
				}
			}, verifying)
		})
	}
}

func TestVerified_WithoutKeysTheRefusalIsTemporary(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		c := s.open(token("sub=ann"))
		status, _, body := c.got()
		require.Equal(t, http.StatusOK, status)
		require.Equal(t, "retry: 5000\n", body)
		require.True(t, c.ends())

		status, h, _ := s.open(token("sub=ann"), notAsking).got()
		require.Equal(t, http.StatusServiceUnavailable, status)
		require.Equal(t, "5", h.Get("Retry-After"))

		s.guards[0].Verifier.(*plainVerifier).keyless = false
		require.Equal(t, hello, s.open(token("sub=ann")).text())
	}, func(g *Config) { g.Verifier = &plainVerifier{keyless: true} })
}

func TestVerified_WaitsForKeysOnlyWhereAStreamIsAskedForOrComes(t *testing.T) {
	late := func(s *site) bool { return s.guards[0].Verifier.(*plainVerifier).late }
	atSite(t, func(t *testing.T, s *site) {
		s.backend.answer = answering(http.StatusOK, "application/json", "{}")
		s.open(token("sub=ann"), notAsking)
		s.open(token("sub=ann"), method(http.MethodPost), notAsking)
		s.open(token("sub=ann"), method(http.MethodPost), bothTypes)
		require.True(t, late(s), "nobody waited")

		s.backend.answer = nil
		require.Equal(t, hello, s.open(token("sub=ann"), notAsking).text())
		require.False(t, late(s))
		require.Equal(t, 1, s.holders(0))
	}, func(g *Config) { g.Verifier = &plainVerifier{late: true} })
}

func TestOptional_StreamsWithoutATokenHoldNothing(t *testing.T) {
	optional := func(g *Config) { g.Verifier, g.Optional = new(plainVerifier), true }
	atSite(t, func(t *testing.T, s *site) {
		first, second := s.open(), s.open()
		require.Zero(t, s.holders(0))
		require.Equal(t, hello, first.text())
		require.Equal(t, hello, second.text())
		challenge(t, s.open(token("bad=1")))
		s.open(token("sub=ann"))
		require.Equal(t, 1, s.holders(0))
	}, all(optional, keyedBy("shop")))
}

func TestClaims_AreAKey(t *testing.T) {
	byUser := keyedBy("{sse_guard.claims.sub}")
	for name, configure := range map[string]func(*Config){"verified": all(byUser, verifying), "unverified": all(byUser, unverified)} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				older := s.open(token("sub=ann&n=1"))
				bob := s.open(token("sub=bob"))
				newer := s.open(token("sub=ann&n=2"), notAsking)
				require.Equal(t, "superseded", older.lastEvent(t).Data.Reason)
				require.False(t, bob.over())
				require.False(t, newer.over())
				require.Equal(t, "ann", newer.published("sse_guard.claims.sub"))
			}, configure)
		})
	}
}

// Two issuers may name different people alike: in a key, sub counts only within iss.
func TestClaims_ASubOfAnotherIssuerIsAnotherUser(t *testing.T) {
	users := keyedBy("{sse_guard.claims.sub}")
	for name, configure := range map[string][]func(*Config){
		"verified":               {all(users, verifying)},
		"unverified":             {all(users, unverified)},
		"in a text":              {all(keyedBy("user {sse_guard.claims.sub} of the shop"), verifying)},
		"of a guard further out": {all(keyedBy("{req.X-Name}"), verifying), keyedBy("{sse_guard.claims.sub}")},
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				ofA := s.open(token("iss=A&sub=1&n=1"), field("X-Name", "a"))
				ofB := s.open(token("iss=B&sub=1"), field("X-Name", "b"))
				nobodys := s.open(token("sub=1"), field("X-Name", "c"))
				require.False(t, ofA.over())
				require.Equal(t, "1", ofA.published("sse_guard.claims.sub"), "handlers see what the token says")
				again := s.open(token("iss=A&sub=1&n=2"), field("X-Name", "d"))
				require.True(t, ofA.ends())
				require.Equal(t, "superseded", ofA.lastEvent(t).Data.Reason)
				for _, c := range []*client{ofB, nobodys, again} {
					require.False(t, c.over())
				}
			}, configure...)
		})
	}
}

func TestClaims_OfNoGoodTokenAreNeverShown(t *testing.T) {
	show := func(t *testing.T, configure func(*Config), edits ...func(*client)) string {
		var shown string
		atSite(t, func(_ *testing.T, s *site) {
			s.backend.answer = answering(http.StatusOK, "text/html", "page")
			c := s.open(edits...)
			shown = c.published("sse_guard.claims.sub")
		}, configure)
		return shown
	}
	require.Equal(t, "ann", show(t, verifying, token("sub=ann"), notAsking))
	require.Equal(t, "ann", show(t, verifying, token("sub=ann"), method(http.MethodPost)))
	require.Empty(t, show(t, verifying, token("sub=ann&exp=1"), notAsking), "expired")
	require.Empty(t, show(t, verifying, token("sub=ann&bad=1"), notAsking))
	require.Empty(t, show(t, unverified, token("sub=ann")), "nobody has verified it")
}

func TestClients_AreThoseOfTheVerifiedUser(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		first := s.open(token("sub=ann&n=1"), query("tab=1"))
		s.open(token("sub=bob"), query("tab=1"))
		require.False(t, first.over(), "another user's tab of that name")
		s.open(token("sub=ann&n=2"), query("tab=1"))
		require.Equal(t, "replaced", first.lastEvent(t).Data.Reason)
	}, all(verifying, keyedBy("shop"), limited(5), tabbed(t)))
}

func TestTakeoverRequest_EndsAnotherTokenOfTheUserFirst(t *testing.T) {
	request := func(g *Config) { g.Takeover = TakeoverRequest }
	for name, test := range map[string]struct {
		configure func(*Config)
		newcomer  string
		diary     []string
	}{
		"another token":         {all(verifying, request, keyedBy("{sse_guard.claims.sub}")), "sub=ann&n=2", []string{"older in", "older out", "newer in"}},
		"auto waits":            {all(verifying, keyedBy("{sse_guard.claims.sub}")), "sub=ann&n=2", []string{"older in", "newer in", "older out"}},
		"another user":          {all(verifying, request, keyedBy("shop")), "sub=bob", []string{"older in", "newer in", "older out"}},
		"the same token":        {all(verifying, keyedBy("shop")), "sub=ann&n=1", []string{"older in", "older out", "newer in"}},
		"response always waits": {all(verifying, onlyAtHeader, keyedBy("shop")), "sub=ann&n=1", []string{"older in", "newer in", "older out"}},
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				s.open(token("sub=ann&n=1"), field("X-Name", "older"))
				s.open(token(test.newcomer), field("X-Name", "newer"))
				require.Equal(t, test.diary, s.backend.read())
			}, test.configure)
		})
	}
}

// A refused newcomer overwrites the holder's emitter in many a backend.
func TestVerified_RejectsEarlyWhoeverHolds(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		s.open(token("sub=ann"))
		c := s.open(token("sub=bob"))
		require.Equal(t, "rejected", c.lastEvent(t).Data.Reason)
		require.Equal(t, 1, s.backend.asked())
		challenge(t, s.open(token("bad=1")))
	}, all(verifying, rejecting, keyedBy("shop")))
}

func TestExpiry_EndsTheStreamWithItsToken(t *testing.T) {
	for name, test := range map[string]struct {
		onExpiry OnExpiry
		leeway   time.Duration
		end      time.Duration // of a token of 10 s; 0: none
	}{
		"renew":  {ExpiryRenew, 0, 10 * time.Second},
		"end":    {ExpiryEnd, 0, 10 * time.Second},
		"leeway": {ExpiryRenew, 3 * time.Second, 13 * time.Second},
		"keep":   {ExpiryKeep, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				c := s.open(token("sub=ann&exp=" + after(10*time.Second)))
				if test.end == 0 {
					s.pass(time.Hour)
					require.False(t, c.over())
					return
				}
				s.pass(test.end - time.Second)
				require.False(t, c.over())
				s.pass(time.Second + wheel.Precision)
				require.True(t, c.ends())
				e := c.lastEvent(t)
				require.Equal(t, "TOKEN_EXPIRED", e.Name)
				require.Equal(t, "expired", e.Data.Reason)
				require.Empty(t, e.ID, "it may come back with a fresh token")
				require.Zero(t, s.holders(0))
				require.Zero(t, s.guards[0].Zone.Sessions.Len())
			}, all(verifying, func(g *Config) { g.OnExpiry, g.Leeway = test.onExpiry, test.leeway }))
		})
	}
}

func TestExpiry_ALaterTokenOfTheSessionMovesTheEnd(t *testing.T) {
	const opened = "sub=ann&sid=1&exp="
	for name, test := range map[string]struct {
		later string
		exp   time.Duration
		moved bool
		edit  func(*client)
	}{
		"a refresh":       {"sub=ann&sid=1&exp=", time.Hour, true, notAsking},
		"by a POST":       {"sub=ann&sid=1&exp=", time.Hour, true, method(http.MethodPost)},
		"another session": {"sub=ann&sid=2&exp=", time.Hour, false, notAsking},
		"another user":    {"sub=bob&sid=1&exp=", time.Hour, false, notAsking},
		"no session":      {"sub=ann&exp=", time.Hour, false, notAsking},
		"a bad one":       {"bad=1&sub=ann&sid=1&exp=", time.Hour, false, notAsking},
		"an earlier end":  {"sub=ann&sid=1&exp=", 5 * time.Second, false, notAsking},
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				c := s.open(token(opened + after(10*time.Second)))
				s.backend.answer = answering(http.StatusOK, "application/json", "{}")
				s.open(token(test.later+after(test.exp)), test.edit)
				s.pass(10*time.Second + wheel.Precision)
				require.Equal(t, !test.moved, c.over())
				s.pass(time.Hour)
				require.True(t, c.ends())
			}, all(verifying, func(g *Config) { g.OnExpiry = ExpiryRenew }))
		})
	}
}

func TestExpiry_EndMeansEnd(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		c := s.open(token("sub=ann&exp=" + after(10*time.Second)))
		s.backend.answer = answering(http.StatusOK, "application/json", "{}")
		s.open(token("sub=ann&exp="+after(time.Hour)), notAsking)
		s.pass(10*time.Second + wheel.Precision)
		require.True(t, c.ends())
	}, all(verifying, func(g *Config) { g.OnExpiry = ExpiryEnd }))
}

func TestExpiry_OfATokenThatExpiredWhileTheBackendThought(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		s.backend.answer = func(w http.ResponseWriter, r *http.Request) error {
			<-time.After(20 * time.Second)
			return s.backend.stream(w, r)
		}
		c := s.open(token("sub=ann&exp=" + after(10*time.Second)))
		s.pass(21 * time.Second)
		require.True(t, c.ends())
		require.Equal(t, "TOKEN_EXPIRED", c.lastEvent(t).Name)
	}, verifying)
}

func TestHolds(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		g := s.guards[0]
		holds := func(edits ...func(*client)) bool {
			c := &client{}
			c.r, _ = http.NewRequest(http.MethodPost, "http://example.com/game/answer", nil)
			for _, edit := range edits {
				edit(c)
			}
			held, err := g.Holds(c.r)
			require.NoError(t, err)
			return held
		}
		old := s.open(token("sub=ann&n=1"), query("tab=1"))
		require.True(t, holds(token("sub=ann&n=1"), query("tab=1")))
		require.True(t, holds(token("sub=ann&n=2"), query("tab=1")), "a refreshed token of the same user")
		require.True(t, holds(token("sub=ann&n=1")), "without a client id the token decides")
		require.False(t, holds(token("sub=ann&n=1"), query("tab=2")))
		require.False(t, holds(token("sub=bob"), query("tab=1")))
		require.False(t, holds(token("bad=1"), query("tab=1")))
		require.False(t, holds())

		s.open(token("sub=ann&n=1"), query("tab=2"))
		require.True(t, old.ends())
		require.False(t, holds(token("sub=ann&n=1"), query("tab=1")))
		require.True(t, holds(token("sub=ann&n=1"), query("tab=2")))
	}, all(verifying, keyedBy("{sse_guard.claims.sub}"), tabbed(t)))
}

func TestLog_SecurityLinesNameTheVerifiedUser(t *testing.T) {
	for name, test := range map[string]struct {
		configure func(*Config)
		message   string
		sub       any
	}{
		"superseded": {verifying, "stream superseded", "ann"},
		"rejected":   {all(verifying, rejecting), "newcomer rejected", "ann"},
		"unverified": {unverified, "stream superseded", nil},
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				s.open(token("sub=ann"))
				s.open(token("sub=ann"))
				line := s.logs.FilterMessage(test.message).All()[0]
				require.Equal(t, test.sub, line.ContextMap()["sub"])
			}, test.configure)
		})
	}
}

func TestLog_RepeatedAttemptsAreOneLineAMinute(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		s.open(token("ann"))
		for range 50 {
			s.open(token("ann"))
		}
		lines := func() []any {
			var attempts []any
			for _, line := range s.logs.FilterMessage("newcomer rejected").All() {
				attempts = append(attempts, line.ContextMap()["attempts"])
			}
			return attempts
		}
		require.Equal(t, []any{int64(1)}, lines())
		s.pass(time.Minute)
		require.Equal(t, []any{int64(1), int64(49)}, lines())
	}, rejecting)
}

func TestLog_AKeyTakenOverFromManyAddressesIsASharedAccount(t *testing.T) {
	sharing := func(g *Config) { g.Sharing = Sharing{Addrs: 3, Window: 10 * time.Minute} }
	atSite(t, func(t *testing.T, s *site) {
		addrs := []string{"192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5"}
		for _, addr := range addrs {
			s.open(token("ann"), from(addr))
			s.pass(time.Second)
		}
		lines := s.logs.FilterMessage("shared account?").All()
		require.Len(t, lines, 1)
		require.Equal(t, zap.WarnLevel, lines[0].Level)
		require.Len(t, lines[0].ContextMap()["newcomer_ips"], 3)
	}, sharing)
}

// A backend's decoder accepts spellings of a signature that the guard does not
// read: without claims they would hold nothing.
func TestUnverified_AnotherSpellingIsNoWayAroundTheKey(t *testing.T) {
	claims := jwt.MapClaims{"sub": "ann", "exp": time.Now().Add(time.Hour).Unix()}
	text, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte("key"))
	require.NoError(t, err)
	atSite(t, func(t *testing.T, s *site) {
		s.open(token(text))
		require.Equal(t, 1, s.holders(0))
		challenge(t, s.open(token(text+"=")))
		require.Equal(t, 1, s.backend.say("more"), "one stream lives")
	}, all(keyedBy("{sse_guard.claims.sub}"), unverified, func(g *Config) { g.Verifier = verify.Unverified{} }))
}

func TestUnverified_AnExpiredTokenIsRefusedAtTheHeader(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		challenge(t, s.open(token("sub=ann&exp=1")))
	}, all(keyedBy("{sse_guard.claims.sub}"), unverified))
	atSite(t, func(t *testing.T, s *site) {
		require.Equal(t, hello, s.open(token("sub=ann&exp=1")).text())
	}, all(keyedBy("{sse_guard.claims.sub}"), unverified, func(g *Config) { g.OnExpiry = ExpiryKeep }))
}

// A reload may leave a zone without guards, and its streams running.
func TestExpiry_GoesOnInAZoneThatIsClosed(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		c := s.open(token("sub=ann&exp=" + after(10*time.Second)))
		require.NoError(t, s.guards[0].Zone.Close())
		s.pass(10*time.Second + wheel.Precision)
		require.Equal(t, "TOKEN_EXPIRED", c.lastEvent(t).Name)
	}, verifying)
}

// Two guards of one zone and key are one, so what the inner one has verified
// counts for the outer one, which holds the key.
func TestNested_TheOuterGuardAdoptsWhatTheInnerHasVerified(t *testing.T) {
	var shared *zone.Zone
	atSite(t, func(t *testing.T, s *site) {
		c := s.open(token("sub=ann&exp=" + after(10*time.Second)))
		s.pass(10*time.Second + wheel.Precision)
		require.Equal(t, "TOKEN_EXPIRED", c.lastEvent(t).Name)
		c = s.open(token("sub=ann&n=1"))
		s.logOut(http.StatusOK, token("sub=ann&n=2"))
		requireLoggedOut(t, c)
	}, func(g *Config) { shared = g.Zone }, all(verifying, loggingOut(LogoutUser), func(g *Config) { g.Zone = shared }))
}

func TestNested_ClaimsOfAnOuterGuardAreShownBehindAnInnerOne(t *testing.T) {
	inner := func(g *Config) { g.Zone.Name = "inner" }
	atSite(t, func(t *testing.T, s *site) {
		require.Equal(t, "ann", s.open(token("sub=ann")).published("sse_guard.claims.sub"))
		s.backend.answer = answering(http.StatusOK, "application/json", "{}")
		c := s.open(token("sub=ann"), method(http.MethodPost))
		require.Equal(t, "ann", c.published("sse_guard.claims.sub"))
	}, verifying, all(inner, loggingOut(LogoutToken)))
}

func TestClaims_OfALoggedOutTokenAreNotShown(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		s.open(token("sub=ann"))
		s.logOut(http.StatusOK, token("sub=ann"))
		s.backend.answer = answering(http.StatusOK, "application/json", "{}")
		c := s.open(token("sub=ann"), notAsking)
		require.Empty(t, c.published("sse_guard.claims.sub"))
		require.Nil(t, s.guards[0].Claims(c.r))
	}, all(verifying, loggingOut(LogoutToken)))
}

// The keys may come between the request and its answer.
func TestClaims_AKeyIsComputedAgainOnceTheTokenIsVerified(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		late := s.guards[0].Verifier.(*plainVerifier)
		late.late = true
		ann := s.open(token("sub=ann"), notAsking)
		late.late = true
		bob := s.open(token("sub=bob"), notAsking)
		require.False(t, ann.over(), "bob has another key")
		s.open(token("sub=bob&n=2"))
		require.True(t, bob.ends())
		require.False(t, ann.over())
	}, all(verifying, keyedBy("user-{sse_guard.claims.sub}")))
}

// What CORS hides from a page is final for it; so the refusal waits for the
// upstream's answer.
func TestTemporaryRefusal_OfACrossOriginPageKeepsItsCORSFields(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		s.backend.header = http.Header{"Access-Control-Allow-Origin": {"https://page.example"}}
		c := s.open(token("sub=ann"), field("Origin", "https://page.example"))
		status, h, body := c.got()
		require.Equal(t, http.StatusOK, status)
		require.Equal(t, "https://page.example", h.Get("Access-Control-Allow-Origin"))
		require.Equal(t, "retry: 5000\n", body)
	}, func(g *Config) { g.Verifier = &plainVerifier{keyless: true} })
}
