package guard

import (
	"context"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

func named(name string) func(*client) { return field("X-Name", name) }

func TestEarlyTakeover_EndsTheOlderStreamBeforeTheBackendSeesTheNewer(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		older := s.open(token("ann"), named("older"))
		newer := s.open(token("ann"), named("newer"))
		require.Equal(t, []string{"older in", "older out", "newer in"}, s.backend.read())
		require.True(t, older.ends())
		require.Equal(t, hello, newer.text())
		require.Equal(t, 1, s.backend.say("more"))
		require.Equal(t, hello+"data: more\n\n", newer.text())
	})
}

func TestEarlyTakeover_TellsTheOlderOneWhy(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		older := s.open(token("ann"))
		now := time.Now().UTC()
		s.open(token("ann"))
		e := older.lastEvent(t)
		require.Equal(t, "DUPLICATED_CONNECTION", e.Name)
		require.NotEmpty(t, e.ID)
		require.Equal(t, "1000", e.Retry, "its tombstone is to be shown soon, whatever time the application had set")
		require.Equal(t, "DUPLICATED_CONNECTION", e.Data.Code)
		require.Equal(t, "superseded", e.Data.Reason)
		require.NotEmpty(t, e.Data.Message)
		require.Equal(t, now.Format(time.RFC3339), e.Data.Time)
		require.Equal(t, "7", e.Data.LastEventID, "so that the page can resume there")
	})
}

func TestEvents_AreRenamed(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		older := s.open(token("ann"))
		s.open(token("ann"))
		require.Equal(t, "KICKED", older.lastEvent(t).Name)
		require.Equal(t, "DUPLICATED_CONNECTION", older.lastEvent(t).Data.Code, "programs rely on the code")
	}, func(g *Config) { g.Names = map[reason.Reason]string{reason.Superseded: "KICKED"} })
}

// stubborn lets the backend keep the request named older until released,
// canceled or not.
func stubborn(s *site) (release func()) {
	held := make(chan struct{})
	s.backend.answer = func(w http.ResponseWriter, r *http.Request) error {
		err := s.backend.stream(w, r)
		if r.Header.Get("X-Name") == "older" {
			<-held
		}
		return err
	}
	return func() { close(held) }
}

func TestEarlyTakeover_WaitsUntilTheOlderRequestIsGone(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		release := stubborn(s)
		older := s.open(token("ann"), named("older"))
		newer := s.open(token("ann"), named("newer"))
		require.Equal(t, "superseded", older.lastEvent(t).Data.Reason, "the client is told at once")
		require.Equal(t, []string{"older in"}, s.backend.read())

		release()
		s.settle()
		require.Equal(t, []string{"older in", "older out", "newer in"}, s.backend.read())
		require.Equal(t, hello, newer.text())
	})
}

func TestEarlyTakeover_WaitsNoLongerThanEndTimeout(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		release := stubborn(s)
		defer release()
		s.open(token("ann"), named("older"))
		asked := time.Now()
		var forwarded time.Duration
		stubbornAnswer := s.backend.answer
		s.backend.answer = func(w http.ResponseWriter, r *http.Request) error {
			forwarded = time.Since(asked)
			return stubbornAnswer(w, r)
		}
		newer := s.open(token("ann"), named("newer"))
		s.pass(3 * time.Second)
		require.Equal(t, []string{"older in", "newer in"}, s.backend.read())
		require.Equal(t, 3*time.Second, forwarded)
		require.Equal(t, hello, newer.text())
	}, func(g *Config) { g.Stream.EndTimeout = 3 * time.Second })
}

func TestEarlyTakeover_WaitsNoLongerThanItsClient(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		release := stubborn(s)
		defer release()
		s.open(token("ann"), named("older"))
		newer := s.open(token("ann"), named("newer"))
		require.False(t, newer.over())
		newer.leave()
		s.settle()
		require.True(t, newer.ends())
	}, func(g *Config) { g.Stream.EndTimeout = time.Hour })
}

// A stranger's request ends a stream only once the backend has let it in.
func TestTakeover_OfAnotherTokenIsDecidedAtTheHeader(t *testing.T) {
	for name, configure := range map[string]func(*Config){
		"auto":     keyedBy("everyone"),
		"response": all(keyedBy("everyone"), onlyAtHeader),
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				holder := s.open(token("ann"))

				s.backend.answer = answering(http.StatusUnauthorized, "text/plain", "who are you?")
				stranger := s.open(token("mallory"))
				status, _, body := stranger.got()
				require.Equal(t, http.StatusUnauthorized, status)
				require.Equal(t, "who are you?", body)
				require.False(t, holder.over())

				letIn := make(chan struct{})
				s.backend.answer = func(w http.ResponseWriter, r *http.Request) error {
					<-letIn
					return s.backend.stream(w, r)
				}
				bob := s.open(token("bob"))
				require.False(t, holder.over(), "the backend has not answered yet")
				close(letIn)
				s.settle()
				require.True(t, holder.ends())
				require.Equal(t, hello, bob.text())
			}, configure)
		})
	}
}

func TestTakeoverResponse_EndsNothingForANewcomerThatFails(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		holder := s.open(token("ann"))
		s.backend.answer = answering(http.StatusBadGateway, "text/plain", "down")
		require.Equal(t, "down", s.open(token("ann")).text())
		require.False(t, holder.over())
		s.backend.answer = nil
		s.open(token("ann"))
		require.True(t, holder.ends())
	}, onlyAtHeader)
}

func TestTakeoverResponse_DecidesAtTheHeaderOnly(t *testing.T) {
	t.Run("supersede", func(t *testing.T) {
		atSite(t, func(t *testing.T, s *site) {
			older := s.open(token("ann"), named("older"))
			s.open(token("ann"), named("newer"))
			require.Equal(t, []string{"older in", "newer in"}, s.backend.read()[:2])
			require.Equal(t, "superseded", older.lastEvent(t).Data.Reason)
		}, onlyAtHeader)
	})
	t.Run("reject", func(t *testing.T) {
		atSite(t, func(t *testing.T, s *site) {
			holder := s.open(token("ann"))
			newcomer := s.open(token("ann"))
			require.Equal(t, 2, s.backend.asked())
			require.Equal(t, "rejected", newcomer.lastEvent(t).Data.Reason)
			require.NotContains(t, newcomer.text(), "hello")
			require.False(t, holder.over())
		}, all(rejecting, onlyAtHeader))
	})
}

func TestEarlyReject_LeavesTheBackendAlone(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		holder := s.open(token("ann"))
		newcomer := s.open(token("ann"))
		require.Equal(t, 1, s.backend.asked())
		require.True(t, newcomer.ends())
		require.Equal(t, "rejected", newcomer.lastEvent(t).Data.Reason)
		s.backend.say("more")
		require.Equal(t, hello+"data: more\n\n", holder.text(), "the holder notices nothing")

		holder.leave()
		s.settle()
		require.Equal(t, hello, s.open(token("ann")).text(), "the key is free")
	}, rejecting)
}

// The backend has never authorised this token for the key.
func TestEarlyReject_OfAnotherTokenAsksTheBackend(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		s.open(token("ann"))
		stranger := s.open(token("mallory"))
		require.Equal(t, 2, s.backend.asked())
		require.Equal(t, "rejected", stranger.lastEvent(t).Data.Reason)

		s.backend.answer = answering(http.StatusUnauthorized, "text/plain", "who are you?")
		require.Equal(t, "who are you?", s.open(token("mallory")).text(), "it learns nothing of the holder")
	}, all(keyedBy("everyone"), rejecting))
}

func TestEarly_NotWithoutAToken(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		s.open()
		require.Equal(t, "rejected", s.open().lastEvent(t).Data.Reason)
		require.Equal(t, 2, s.backend.asked(), "no backend has authorised nobody")
	}, all(keyedBy("everyone"), rejecting))
}

func TestEarly_NotForRequestsThatDoNotAsk(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		holder := s.open(token("ann"))
		s.backend.answer = answering(http.StatusOK, "text/html", "a page")
		require.Equal(t, "a page", s.open(token("ann"), notAsking).text())
		require.False(t, holder.over())
	})
}

func TestTab_ReplacesItsOwnStreamAlways(t *testing.T) {
	for name, policy := range map[string]func(*Config){"supersede": func(*Config) {}, "reject": rejecting} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				older := s.open(token("ann"), query("tab=1"), named("older"))
				newer := s.open(token("ann"), query("tab=1"), named("newer"))
				require.Equal(t, "replaced", older.lastEvent(t).Data.Reason)
				require.Empty(t, older.lastEvent(t).ID, "a page that the browser restores is not dead")
				require.Empty(t, older.lastEvent(t).Retry)
				require.False(t, newer.over())
				require.Equal(t, []string{"older in", "older out", "newer in"}, s.backend.read())
			}, all(policy, tabbed(t)))
		})
	}
}

func TestDevice_UnderRejectIsANewcomerLikeAnyOther(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		holder := s.open(token("ann"), field("X-Client-Id", "laptop"))
		newcomer := s.open(token("ann"), field("X-Client-Id", "laptop"))
		require.False(t, holder.over())
		require.Equal(t, "rejected", newcomer.lastEvent(t).Data.Reason)
	}, rejecting)
}

func TestLimit_EndsTheOldest(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		var streams []*client
		for range 5 {
			streams = append(streams, s.open(token("ann")))
		}
		for i, c := range streams {
			require.Equal(t, i < 3, c.over(), i)
		}
		require.Equal(t, 2, s.holders(0))
	}, func(g *Config) { g.Rule.Limit = 2 })
}

func TestLimitZero_OnlyTracks(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		for range 5 {
			s.open(token("ann"))
		}
		require.Equal(t, 5, s.holders(0))
		require.Equal(t, 5, s.backend.say("more"))
	}, func(g *Config) { g.Rule.Limit = 0 })
}

func TestReject_AdmitsOneOfThirtyAtOnce(t *testing.T) {
	const newcomers = 30
	for name, test := range map[string]struct {
		configure func(*Config)
		token     func(i int) string
	}{
		"one token":             {func(*Config) {}, func(int) string { return "ann" }},
		"one token, at header":  {onlyAtHeader, func(int) string { return "ann" }},
		"many tokens":           {keyedBy("everyone"), func(i int) string { return "token" + string(rune('A'+i)) }},
		"key from the response": {keyedBy("{resp.X-User}"), func(int) string { return "ann" }},
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				s.backend.header = http.Header{"X-User": {"ann"}}
				letIn := make(chan struct{})
				s.backend.answer = func(w http.ResponseWriter, r *http.Request) error {
					<-letIn
					return s.backend.stream(w, r)
				}
				clients := make([]*client, newcomers)
				for i := range clients {
					clients[i] = s.send(token(test.token(i)))
				}
				s.settle() // all are with the backend
				require.Equal(t, newcomers, s.backend.asked())
				close(letIn)
				s.pass(time.Second) // the others are cut

				admitted := slices.DeleteFunc(slices.Clone(clients), (*client).over)
				require.Len(t, admitted, 1)
				require.Equal(t, hello, admitted[0].text())
				require.Equal(t, 1, s.holders(0))
				for _, c := range clients {
					if c.over() {
						require.Equal(t, "rejected", c.lastEvent(t).Data.Reason)
						require.NotContains(t, c.text(), "hello")
					}
				}
				require.Equal(t, 1, s.backend.say("more"))
			}, all(rejecting, test.configure))
		})
	}
}

func TestSupersede_LeavesOneOfThirtyAtOnce(t *testing.T) {
	for name, configure := range map[string]func(*Config){"early": func(*Config) {}, "at the header": onlyAtHeader} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				clients := make([]*client, 30)
				for i := range clients {
					clients[i] = s.send(token("ann"))
				}
				s.settle()
				left := slices.DeleteFunc(slices.Clone(clients), (*client).over)
				require.Len(t, left, 1)
				require.Equal(t, 1, s.holders(0))
				for _, c := range clients {
					if c.over() {
						require.Equal(t, "superseded", c.lastEvent(t).Data.Reason)
					}
				}
			}, configure)
		})
	}
}

// A backend that does not hear of a client that has left answers all the same.
func TestLeftBeforeTheHeader_EndsNobody(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		older := s.open(token("ann"))
		s.backend.answer = func(w http.ResponseWriter, r *http.Request) error {
			<-r.Context().Done()
			w.Header().Set("Content-Type", "text/event-stream")
			_, err := io.WriteString(w, hello)
			return err
		}
		newer := s.open(token("ann"))
		newer.leave()
		s.settle()
		require.True(t, newer.ends())
		require.False(t, older.over(), older.text())
		require.Equal(t, 1, s.holders(0))
	}, onlyAtHeader)
}

func TestEarlyReject_OfACrossOriginPageAmongManyHolders(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		s.backend.header = http.Header{"Access-Control-Allow-Origin": {"*"}}
		for range 5 {
			s.open(token("ann"))
		}
		page := field("Origin", "https://app.example")
		s.open(token("ann"), page)
		require.Contains(t, s.open(token("ann"), page).text(), "DUPLICATE_SESSION")
		require.Equal(t, 6, s.backend.asked(), "a newcomer that is to be rejected does not reach the backend")
	}, all(rejecting, keyedBy("shop"), limited(6)))
}

// departing is a registry whose holder leaves while it answers that the key is full.
type departing struct {
	registry.Registry
	leave func()
}

func (d departing) Admit(ctx context.Context, phase registry.Phase, consent registry.Consent, asks []registry.Ask, leaving []registry.StreamID) ([]registry.Admission, error) {
	answers, err := d.Registry.Admit(ctx, phase, consent, asks, leaving)
	if err == nil && answers[0].Outcome == registry.Rejected {
		d.leave()
	}
	return answers, err
}

func TestReject_ASuspectThatLeftMeanwhileMakesRoom(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		g := s.guards[0]
		older := s.open(token("ann"))
		g.Zone.Registry = departing{g.Zone.Registry, func() {
			older.leave()
			<-older.done
		}}
		require.Equal(t, hello, s.open(token("ann")).text())
	}, all(rejecting, func(g *Config) { g.Probe = time.Second }))
}
