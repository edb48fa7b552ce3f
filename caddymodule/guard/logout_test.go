package guard

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// loggingOut adds a logout at POST /logout that succeeds with 200.
func loggingOut(scope LogoutScope) func(*Config) {
	return func(g *Config) {
		g.Logouts = append(g.Logouts, Logout{
			Matches: func(r *http.Request) bool { return r.Method == http.MethodPost && r.URL.Path == "/logout" },
			Unlisted: func(r *http.Request) bool {
				return r.Method != http.MethodPost && r.URL.Path == "/logout"
			},
			Path:    "/logout",
			Success: func(status int) bool { return status == http.StatusOK },
			Scope:   scope,
			Deny:    30 * time.Second,
		})
	}
}

func at(path string) func(*client) { return func(c *client) { c.r.URL.Path = path } }

// logOut sends a logout that the backend answers with status.
func (s *site) logOut(status int, edits ...func(*client)) *client {
	stream := s.backend.answer
	s.backend.answer = answering(status, "application/json", "{}")
	defer func() { s.backend.answer = stream }()
	return s.open(append([]func(*client){method(http.MethodPost), at("/logout"), notAsking}, edits...)...)
}

func requireLoggedOut(t *testing.T, c *client) {
	t.Helper()
	require.True(t, c.ends())
	e := c.lastEvent(t)
	require.Equal(t, "LOGGED_OUT", e.Name)
	require.Equal(t, "logout", e.Data.Reason)
	require.NotEmpty(t, e.ID, "it must not come back by itself")
}

// many lets a user hold many streams of one key.
var many = all(keyedBy("shop"), limited(100))

func TestLogout_EndsThoseInItsScope(t *testing.T) {
	device := func(name string) func(*client) { return field("X-Client-Id", name) }
	type want struct{ phone, laptop, other, stranger bool } // ended
	for name, test := range map[string]struct {
		scope LogoutScope
		edits []func(*client)
		want  want
	}{
		"client":               {LogoutClient, []func(*client){token("sub=ann&n=1"), device("phone")}, want{phone: true}},
		"default, with one":    {LogoutDefault, []func(*client){token("sub=ann&n=1"), device("phone")}, want{phone: true}},
		"default, without":     {LogoutDefault, []func(*client){token("sub=ann&n=1")}, want{phone: true, laptop: true}},
		"token":                {LogoutToken, []func(*client){token("sub=ann&n=1"), device("phone")}, want{phone: true, laptop: true}},
		"user":                 {LogoutUser, []func(*client){token("sub=ann&n=1"), device("phone")}, want{phone: true, laptop: true, other: true}},
		"client, no id":        {LogoutClient, []func(*client){token("sub=ann&n=1")}, want{}},
		"a stranger's id":      {LogoutClient, []func(*client){token("sub=bob"), device("phone")}, want{}},
		"no token":             {LogoutToken, nil, want{}},
		"user, no good token":  {LogoutUser, []func(*client){token("bad=1&sub=ann")}, want{}},
		"user, unnamed":        {LogoutUser, []func(*client){token("n=1")}, want{}},
		"the user's new token": {LogoutClient, []func(*client){token("sub=ann&n=3"), device("phone")}, want{phone: true}},
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				phone := s.open(token("sub=ann&n=1"), device("phone"))
				laptop := s.open(token("sub=ann&n=1"), device("laptop"))
				other := s.open(token("sub=ann&n=2"), device("tablet"))
				stranger := s.open(token("sub=bob"), device("desktop"))
				out := s.logOut(http.StatusOK, test.edits...)
				status, _, body := out.got()
				require.Equal(t, http.StatusOK, status)
				require.Equal(t, "{}", body)
				require.Equal(t, test.want, want{phone.over(), laptop.over(), other.over(), stranger.over()})
				for _, c := range []*client{phone, laptop, other} {
					if c.over() {
						requireLoggedOut(t, c)
					}
				}
			}, all(verifying, many, loggingOut(test.scope)))
		})
	}
}

func TestLogout_ThatFailsChangesNothing(t *testing.T) {
	for name, test := range map[string]struct {
		status int
		edits  []func(*client)
	}{
		"refused":    {http.StatusForbidden, nil},
		"redirected": {http.StatusFound, nil},
		"broken":     {http.StatusBadGateway, nil},
		"a GET":      {http.StatusOK, []func(*client){method(http.MethodGet)}},
		"preflight":  {http.StatusOK, []func(*client){method(http.MethodOptions)}},
		"elsewhere":  {http.StatusOK, []func(*client){at("/login")}},
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				c := s.open(token("ann"))
				s.logOut(test.status, append(test.edits, token("ann"))...)
				require.False(t, c.over())
				s.open(token("ann"))
				require.Equal(t, "superseded", c.lastEvent(t).Data.Reason, "the token is as good as before")
			}, loggingOut(LogoutToken))
		})
	}
}

func TestLogout_TheTokenIsNotAcceptedAnyMore(t *testing.T) {
	for name, configure := range map[string]func(*Config){"verified": verifying, "opaque": func(*Config) {}} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				ended := s.open(token("sub=ann&n=1"))
				s.logOut(http.StatusOK, token("sub=ann&n=1"))
				require.Contains(t, challenge(t, s.open(token("sub=ann&n=1"))), "logged out")
				require.Contains(t, challenge(t, s.open(token("sub=ann&n=1"), notAsking)), "logged out")
				require.Equal(t, hello, s.open(token("sub=ann&n=2")).text(), "the next login is welcome at once")

				back := s.open(token("sub=ann&n=1"), field("Last-Event-ID", ended.lastEvent(t).ID))
				status, _, _ := back.got()
				require.Equal(t, http.StatusNoContent, status)
				again := s.open(token("sub=ann&n=3"), field("Last-Event-ID", ended.lastEvent(t).ID))
				require.Equal(t, hello, again.text(), "the tombstone is the old token's")
				s.leaveAll()

				s.pass(29 * time.Second)
				challenge(t, s.open(token("sub=ann&n=1")))
				status, _, _ = s.open(token("sub=ann&n=1"), field("Last-Event-ID", ended.lastEvent(t).ID)).got()
				require.Equal(t, http.StatusNoContent, status)
				s.pass(time.Second)
				require.Equal(t, hello, s.open(token("sub=ann&n=1")).text(), "the application may use it again")
				require.Equal(t, hello, s.open(token("sub=ann&n=1"), field("Last-Event-ID", ended.lastEvent(t).ID)).text())
			}, all(configure, many, loggingOut(LogoutToken)))
		})
	}
}

func TestLogout_OfAClientLeavesTheTokenToOthers(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		phone, laptop := field("X-Client-Id", "phone"), field("X-Client-Id", "laptop")
		s.open(token("ann"), phone)
		s.logOut(http.StatusOK, token("ann"), phone)
		challenge(t, s.open(token("ann"), phone))
		require.Equal(t, hello, s.open(token("ann"), laptop).text())
		require.Equal(t, hello, s.open(token("ben"), phone).text())
	}, all(many, loggingOut(LogoutDefault)))
}

func TestLogout_OfAUserDeniesWhatWasIssuedOrSeenBefore(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		old, now := after(-time.Minute), after(0)
		s.open(token("sub=ann&n=held"))
		seen := s.open(token("sub=ann&n=seen"))
		seen.leave()
		fresh := s.open(token("sub=ann&n=fresh&iat=" + now))
		fresh.leave()
		s.settle()
		s.logOut(http.StatusOK, token("sub=ann&n=asks"))

		for _, denied := range []string{"n=held", "n=seen", "n=asks", "n=unseen&iat=" + old, "n=fresh&iat=" + now} {
			require.Contains(t, challenge(t, s.open(token("sub=ann&"+denied))), "logged out", denied)
		}
		for _, good := range []string{"sub=ann&n=new", "sub=ann&n=new&iat=" + now, "sub=bob&iat=" + old} {
			require.Equal(t, hello, s.open(token(good)).text(), good)
		}
	}, all(verifying, many, loggingOut(LogoutUser)))
}

// "log out here, be free there at once"
func TestLogout_AnswersWhenTheStreamsAreGone(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		s.open(token("ann"), field("X-Name", "stream"))
		s.logOut(http.StatusOK, token("ann"), field("X-Name", "logout"))
		require.Equal(t, []string{"stream in", "logout in", "stream out", "logout out"}, s.backend.read())
	}, loggingOut(LogoutToken))
}

func TestLogout_WaitsNoLongerThanEndTimeout(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		s.backend.answer = func(w http.ResponseWriter, _ *http.Request) error {
			w.Header().Set("Content-Type", "text/event-stream")
			w.WriteHeader(http.StatusOK)
			<-time.After(time.Minute) // deaf to its context
			return nil
		}
		s.open(token("ann"))
		s.backend.answer = answering(http.StatusOK, "application/json", "{}")
		out := s.send(method(http.MethodPost), at("/logout"), notAsking, token("ann"))
		s.pass(900 * time.Millisecond)
		require.False(t, out.over())
		s.pass(200 * time.Millisecond)
		require.True(t, out.ends())
		s.pass(time.Minute)
	}, loggingOut(LogoutToken))
}

// The backend authorised the newcomer's request, then logged its user out, and
// then answered the newcomer.
func TestLogout_ANewcomerInFlightDoesNotSlipThrough(t *testing.T) {
	for name, configure := range map[string]func(*Config){
		"verified": all(verifying, loggingOut(LogoutToken)),
		"user":     all(verifying, loggingOut(LogoutUser)),
		"opaque":   loggingOut(LogoutToken),
		"client":   loggingOut(LogoutClient),
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				answer := make(chan struct{})
				s.backend.answer = func(w http.ResponseWriter, r *http.Request) error {
					<-answer
					return s.backend.stream(w, r)
				}
				c := s.open(token("sub=ann"), field("X-Client-Id", "phone"))
				s.logOut(http.StatusOK, token("sub=ann"), field("X-Client-Id", "phone"))
				close(answer)
				s.settle()
				require.Contains(t, challenge(t, c), "logged out")
				require.Zero(t, s.holders(0))
			}, configure)
		})
	}
}

// deniedMeanwhile has the newcomer's token denied just before it is admitted.
type deniedMeanwhile struct {
	registry.Registry
	armed bool
}

func (d *deniedMeanwhile) Admit(ctx context.Context, phase registry.Phase, consent registry.Consent, asks []registry.Ask, leaving []registry.StreamID) ([]registry.Admission, error) {
	if d.armed {
		denial := registry.Denial{Token: asks[0].Holder.Token, Until: time.Now().Add(time.Hour)}
		if err := d.Deny(ctx, denial); err != nil {
			return nil, err
		}
	}
	return d.Registry.Admit(ctx, phase, consent, asks, leaving)
}

func TestLogout_WhileTheNewcomerIsAdmittedRefusesIt(t *testing.T) {
	reg := new(deniedMeanwhile)
	atSite(t, func(t *testing.T, s *site) {
		older := s.open(token("ann"))
		reg.armed = true
		require.Contains(t, challenge(t, s.open(token("ann"))), "logged out")
		require.False(t, older.over(), "the newcomer has ended nobody")
	}, all(onlyAtHeader, func(g *Config) { reg.Registry, g.Zone.Registry = g.Zone.Registry, reg }))
}

// counting counts the denials that it is given.
type counting struct {
	registry.Registry
	denials int
	missing bool // nodes
}

func (c *counting) Away() error   { return nil }
func (c *counting) Missing() bool { return c.missing }

func (c *counting) Deny(ctx context.Context, ds ...registry.Denial) error {
	c.denials += len(ds)
	return c.Registry.Deny(ctx, ds...)
}

// The page refreshed its token: its stream was opened with another one than
// logs out now.
func TestLogout_EndsAStreamThatTheTokenRenewed(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		c := s.open(token("sub=ann&n=1&exp=" + after(10*time.Second)))
		refreshed := token("sub=ann&n=2&exp=" + after(time.Hour))
		s.logOut(http.StatusForbidden, refreshed) // any request does
		s.pass(time.Minute)
		require.False(t, c.over())
		s.logOut(http.StatusOK, refreshed)
		requireLoggedOut(t, c)
	}, all(verifying, loggingOut(LogoutToken), func(g *Config) { g.OnExpiry = ExpiryRenew }))
}

func TestLogout_RegistryErrorLetsTheAnswerPass(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		out := s.logOut(http.StatusOK, token("ann"))
		status, _, body := out.got()
		require.Equal(t, http.StatusOK, status)
		require.Equal(t, "{}", body)
		require.Equal(t, 1, s.logs.FilterMessageSnippet("a logout may have left streams open").Len())
	}, all(loggingOut(LogoutToken), func(g *Config) { g.Zone.Registry = deafRegistry{g.Zone.Registry} }))
}

// deafRegistry ends nobody.
type deafRegistry struct{ registry.Registry }

func (deafRegistry) End(context.Context, registry.Selector, registry.Ending) (registry.Ended, error) {
	return registry.Ended{}, errUnreachable
}

func TestLogout_OneLineSaysWhatItDid(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		s.open(token("sub=ann&n=1"))
		s.open(token("sub=ann&n=2"))
		s.logOut(http.StatusOK, token("sub=ann&n=1"), from("192.0.2.9"))
		lines := s.logs.FilterMessage("logout").All()
		require.Len(t, lines, 1)
		fields := lines[0].ContextMap()
		require.Equal(t, map[string]any{
			"zone": "default", "sub": "ann", "scope": "user", "streams": int64(2), "client_ip": "192.0.2.9",
		}, fields)
	}, all(verifying, many, loggingOut(LogoutUser)))
}

// A parked newcomer holds nothing, but its user is gone all the same.
func TestLogout_SendsAParkedNewcomerAway(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		s.open(token("sub=bob"))
		parked := s.open(token("sub=ann"))
		require.False(t, parked.over())
		s.logOut(http.StatusOK, token("sub=ann"))
		s.pass(parkHeartbeat)
		require.True(t, parked.ends(), "to ask again, and hear that it is logged out")
		challenge(t, s.open(token("sub=ann")))
	}, all(verifying, parking, keyedBy("shop"), loggingOut(LogoutToken)))
}

func TestExpiry_SendsAParkedNewcomerAway(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		s.open(token("sub=bob"))
		parked := s.open(token("sub=ann&exp=" + after(10*time.Second)))
		require.False(t, parked.over())
		s.pass(parkHeartbeat)
		require.True(t, parked.ends())
	}, all(verifying, parking, keyedBy("shop")))
}

// The page has refreshed its token while its stream was being opened.
func TestLogout_OfAClientFindsItsOlderTokenInFlight(t *testing.T) {
	phone := field("X-Client-Id", "phone")
	atSite(t, func(t *testing.T, s *site) {
		answer := make(chan struct{})
		s.backend.answer = func(w http.ResponseWriter, r *http.Request) error {
			<-answer
			return s.backend.stream(w, r)
		}
		c := s.open(token("sub=ann&n=1"), phone)
		s.logOut(http.StatusOK, token("sub=ann&n=2"), phone)
		close(answer)
		s.settle()
		require.Contains(t, challenge(t, c), "logged out")
	}, all(verifying, many, loggingOut(LogoutClient)))
}

func TestLogout_OfAUserWithoutANameIsOneOfTheToken(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		c := s.open(token("role=x"))
		s.logOut(http.StatusOK, token("role=x"))
		requireLoggedOut(t, c)
		challenge(t, s.open(token("role=x")))
		require.Equal(t, 1, s.logs.FilterMessageSnippet("a logout names no user").Len())
	}, all(verifying, loggingOut(LogoutUser)))
}

// Only the stream's claims tell how long a token is good that nobody verified.
func TestLogout_DeniesAnUnverifiedTokenUntilItsEnd(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		month := token("sub=ann&exp=" + after(30*24*time.Hour))
		requireEnded := s.open(month)
		s.logOut(http.StatusOK, month)
		requireLoggedOut(t, requireEnded)
		s.pass(48 * time.Hour)
		require.Contains(t, challenge(t, s.open(month)), "logged out")
	}, all(unverified, loggingOut(LogoutToken)))
}

func TestLogout_DeniesTheTokenOfAKeptPlace(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		phone := field("X-Client-Id", "phone")
		first, second := token("sub=ann&n=1"), token("sub=ann&n=2")
		s.open(first, phone).leave()
		s.settle()
		require.Equal(t, 1, s.holders(0), "its place is kept")
		s.logOut(http.StatusOK, second, phone)
		require.Zero(t, s.holders(0))
		require.Contains(t, challenge(t, s.open(first, phone)), "logged out")
	}, all(verifying, rejecting, keyedBy("shop"), loggingOut(LogoutClient), func(g *Config) { g.Reserve = 3 * time.Second }))
}

// Although the stream itself does not expire.
func TestLogout_DeniesUntilTheTokensEndWhereStreamsAreKept(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		phone := field("X-Client-Id", "phone")
		first, second := token("sub=ann&n=1&exp="+after(72*time.Hour)), token("sub=ann&n=2&exp="+after(72*time.Hour))
		c := s.open(first, phone)
		s.logOut(http.StatusOK, second, phone)
		requireLoggedOut(t, c)
		s.leaveAll()
		s.pass(71 * time.Hour)
		require.Contains(t, challenge(t, s.open(first, phone)), "logged out")
	}, all(verifying, many, loggingOut(LogoutClient), func(g *Config) { g.OnExpiry = ExpiryKeep }))
}

// Whoever has found an old token is not its user.
func TestLogout_WithADeadTokenLogsNobodyElseOut(t *testing.T) {
	for _, scope := range []LogoutScope{LogoutDefault, LogoutClient, LogoutUser, LogoutToken} {
		t.Run("expired/"+string(scope), func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				expiring := token("sub=ann&n=1&exp=" + after(time.Minute))
				own := s.open(expiring, field("X-Client-Id", "phone"))
				others := s.open(token("sub=ann&n=2"), field("X-Client-Id", "phone"))
				s.pass(2 * time.Minute)
				s.logOut(http.StatusOK, expiring, field("X-Client-Id", "phone"))
				requireLoggedOut(t, own) // it is kept although its token has expired
				require.False(t, others.over())
				require.Equal(t, hello, s.open(token("sub=ann&n=3")).text())
			}, all(verifying, many, loggingOut(scope), func(g *Config) { g.OnExpiry = ExpiryKeep }))
		})
		t.Run("logged out/"+string(scope), func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				s.open(token("sub=ann&n=1"), field("X-Client-Id", "phone"))
				s.logOut(http.StatusOK, token("sub=ann&n=1"), field("X-Client-Id", "phone"))
				again := s.open(token("sub=ann&n=2"), field("X-Client-Id", "phone"))
				s.logOut(http.StatusOK, token("sub=ann&n=1"), field("X-Client-Id", "phone"))
				require.False(t, again.over())
				require.Equal(t, 1, s.logs.FilterMessageSnippet("its token is logged out already").Len())
			}, all(verifying, many, loggingOut(scope)))
		})
	}
}

// fetch("/logout"); location = "/": the browser cancels its request.
func TestLogout_OfAClientThatLeavesEarlyCounts(t *testing.T) {
	for name, guards := range map[string][]func(*Config){
		"one guard":         {all(many, loggingOut(LogoutToken))},
		"behind another":    {keyedBy("other"), all(many, loggingOut(LogoutToken))},
		"in front of it":    {all(many, loggingOut(LogoutToken)), keyedBy("other")},
		"of another's too":  {all(many, loggingOut(LogoutToken)), all(many, loggingOut(LogoutToken))},
		"of verified users": {all(verifying, many, loggingOut(LogoutUser))},
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				stream := s.open(token("sub=ann"))
				canceled := false
				s.backend.answer = func(w http.ResponseWriter, r *http.Request) error {
					select {
					case <-r.Context().Done():
						canceled = true
					case <-time.After(29 * time.Second):
						w.WriteHeader(http.StatusOK)
					}
					return nil
				}
				out := s.open(method(http.MethodPost), at("/logout"), notAsking, token("sub=ann"))
				out.leave()
				s.settle()
				require.False(t, canceled)
				require.False(t, stream.over())
				s.pass(29 * time.Second)
				require.False(t, canceled)
				requireLoggedOut(t, stream)
			}, guards...)
		})
	}
}

func TestLogout_OfAClientThatLeavesIsNotWaitedForForEver(t *testing.T) {
	for name, ends := range map[string]func(s *site){
		"30 s":         func(s *site) { s.pass(30 * time.Second) },
		"the shutdown": func(s *site) { go s.guards[0].Zone.Drain(s.guards[0].Drain, s.guards[0].Logger); s.settle() },
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				s.backend.answer = func(_ http.ResponseWriter, r *http.Request) error {
					<-r.Context().Done()
					return r.Context().Err()
				}
				out := s.open(method(http.MethodPost), at("/logout"), notAsking, token("ann"))
				out.leave()
				s.pass(29 * time.Second)
				require.False(t, out.over())
				ends(s)
				require.True(t, out.over())
				require.ErrorIs(t, out.err, context.Canceled)
			}, all(many, loggingOut(LogoutToken)))
		})
	}
}

// An EventSource cannot send the client id in a header as the page that logs out does.
func TestLogout_ByDefaultIsOneOfTheTokenWhereNoStreamHasTheClientID(t *testing.T) {
	id := field("X-Client-Id", "phone")
	for name, configure := range map[string]func(*Config){"opaque": many, "verified": all(verifying, many)} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				stream, laptop := s.open(token("sub=ann")), s.open(token("sub=ann"), field("X-Client-Id", "laptop"))
				s.logOut(http.StatusOK, token("sub=ann"), id)
				requireLoggedOut(t, stream)
				requireLoggedOut(t, laptop)
			}, all(configure, loggingOut(LogoutDefault)))
			atSite(t, func(t *testing.T, s *site) {
				stream, phone := s.open(token("sub=ann")), s.open(token("sub=ann"), id)
				s.logOut(http.StatusOK, token("sub=ann"), id)
				requireLoggedOut(t, phone)
				require.False(t, stream.over())
			}, all(configure, loggingOut(LogoutDefault)))
		})
	}
}

func TestLogout_ThatEndsNothingSaysWhy(t *testing.T) {
	for why, test := range map[string]struct {
		scope LogoutScope
		edits func(*client)
	}{
		"it carries no token":             {LogoutToken, func(*client) {}},
		"it carries two different tokens": {LogoutToken, both(token("a"), query("token=b"))},
		"it carries no client id":         {LogoutClient, token("ann")},
		"no stream is held by its client": {LogoutClient, both(token("ann"), field("X-Client-Id", "phone"))},
		"no stream is held by its token":  {LogoutDefault, both(token("ann"), field("X-Client-Id", "phone"))},
		"its token is logged out already": {LogoutToken, token("gone")},
	} {
		t.Run(why, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				s.open(token("gone"))
				s.logOut(http.StatusOK, token("gone"), field("X-Client-Id", "phone"))
				s.open(token("bob"))
				before := s.logs.FilterMessageSnippet("a logout ended no stream").Len()
				s.logOut(http.StatusOK, test.edits)
				lines := s.logs.FilterMessageSnippet("a logout ended no stream").All()[before:]
				require.Len(t, lines, 1)
				require.Contains(t, lines[0].Message, why)
			}, all(many, loggingOut(LogoutToken), func(g *Config) { g.Logouts[0].Scope = test.scope }))
		})
	}
}

func TestLogout_ByAMethodThatDoesNotCountIsTold(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		told := func() int { return s.logs.FilterMessageSnippet("add: logout GET /logout").Len() }
		stream := s.open(token("ann"))
		get := both(token("ann"), method(http.MethodGet))
		s.logOut(http.StatusForbidden, get)
		s.logOut(http.StatusOK, method(http.MethodGet))
		s.logOut(http.StatusOK, get, method(http.MethodOptions))
		require.Zero(t, told())
		for range 3 {
			s.logOut(http.StatusOK, get)
		}
		require.Equal(t, 1, told())
		require.False(t, stream.over())
		s.leaveAll()
		s.pass(time.Hour)
		s.logOut(http.StatusOK, get)
		require.Equal(t, 2, told())
	}, loggingOut(LogoutToken))
}

// A backend that answers every logout with success must not let anybody fill the
// list, or push others off it.
func TestLogout_RemembersNoStrangersToken(t *testing.T) {
	reg := new(counting)
	atSite(t, func(t *testing.T, s *site) {
		answer := make(chan struct{})
		s.backend.answer = func(http.ResponseWriter, *http.Request) error {
			<-answer
			return nil
		}
		asking := s.open(token("made up"))
		s.backend.answer = nil
		s.logOut(http.StatusOK, token("made up"))
		s.logOut(http.StatusOK, token("made up, too"))
		s.logOut(http.StatusOK, token("made up, too"), method(http.MethodGet))
		require.Zero(t, reg.denials, "anybody can ask for a stream")
		close(answer)
		s.settle()
		require.True(t, asking.over())

		s.open(token("ann"))
		s.logOut(http.StatusOK, token("ann"))
		require.Equal(t, 2, reg.denials, "before its stream is ended, and with it")
		s.open(token("bob")).leave()
		s.settle()
		s.pass(5*time.Minute - 1)
		s.logOut(http.StatusOK, token("bob"))
		require.Equal(t, 3, reg.denials, "it held one lately")
		s.open(token("eve")).leave()
		s.pass(5 * time.Minute)
		s.logOut(http.StatusOK, token("eve"))
		require.Equal(t, 3, reg.denials)
		reg.missing = true
		s.logOut(http.StatusOK, token("eve"))
		require.Equal(t, 4, reg.denials, "a node that is cut off may have a stream of it")
	}, all(many, func(g *Config) {
		loggingOut(LogoutDefault)(g)
		g.Logouts[0].Matches = func(r *http.Request) bool { return r.URL.Path == "/logout" }
		reg.Registry, g.Zone.Registry = g.Zone.Registry, reg
	}))
}

func TestLogout_AFullListIsToldOnceAMinute(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		told := func() int { return s.logs.FilterMessageSnippet("too many logged-out tokens").Len() }
		logOuts := func() {
			for _, user := range []string{"a", "b", "c"} {
				s.open(token(user))
				s.logOut(http.StatusOK, token(user))
			}
		}
		logOuts()
		require.Equal(t, 1, told())
		s.leaveAll()
		s.pass(time.Minute)
		logOuts()
		require.Equal(t, 2, told())
	}, all(many, loggingOut(LogoutToken), func(g *Config) { g.Zone.Registry = fullOfDenials{g.Zone.Registry} }))
}

// fullOfDenials has had to forget denials, each time.
type fullOfDenials struct{ registry.Registry }

func (f fullOfDenials) Deny(ctx context.Context, ds ...registry.Denial) error {
	return errors.Join(f.Registry.Deny(ctx, ds...), registry.ErrManyDenials)
}

// A logout asks each request that may yet become a stream, so what has been answered with
// something else is none of these: WebSockets stay for hours.
func TestLogout_DoesNotAskWhoIsAnsweredWithNoStream(t *testing.T) {
	for name, status := range map[string]int{"a WebSocket": http.StatusSwitchingProtocols, "a download": http.StatusOK} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				answer := make(chan struct{})
				s.backend.answer = func(w http.ResponseWriter, r *http.Request) error {
					<-answer
					w.Header().Set("Content-Type", "application/octet-stream")
					w.WriteHeader(status)
					<-r.Context().Done()
					return nil
				}
				s.open(notAsking, token("ann"))
				arrivals := &s.guards[0].Zone.Arrivals
				require.Equal(t, 1, arrivals.LogOut(registry.ID{}, registry.ID{}))
				close(answer)
				s.settle()
				require.Zero(t, arrivals.LogOut(registry.ID{}, registry.ID{}))
			})
		})
	}
}
