package guard

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// slowly has the backend answer the request named slow only once it is released.
func slowly(s *site) (release func()) {
	waits := make(chan struct{})
	s.backend.answer = func(w http.ResponseWriter, r *http.Request) error {
		if r.Header.Get("X-Name") == "slow" {
			<-waits
		}
		return s.backend.stream(w, r)
	}
	return func() { close(waits); s.settle() }
}

// The key goes to who asked last, not to whom the backend answered last.
func TestAsked_ALateAnswerDoesNotTakeTheKeyFromANewerRequest(t *testing.T) {
	for name, guards := range map[string][]func(*Config){
		"early":         {perUser()},
		"at the header": {perUser(onlyAtHeader)},
		"two guards":    {perStore(limited(9)), perUser()},
		"the outer one": {perUser(), perStore(limited(9))},
		"one of two":    {perStore(limited(1)), perUser(limited(9))},
		"with status":   {perUser(func(g *Config) { g.OnReject = RejectStatus })},
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				release := slowly(s)
				slow := s.open(in("books", "ann"), named("slow"))
				s.pass(time.Millisecond)
				newer := s.open(in("books", "ann"), named("newer"))
				require.Equal(t, hello, newer.text())
				release()
				require.True(t, slow.ends())
				require.NoError(t, slow.err)
				require.False(t, slow.cut, "a clean end")
				status, h, body := slow.got()
				require.Equal(t, http.StatusOK, status)
				require.Equal(t, "text/event-stream", h.Get("Content-Type"))
				require.NotContains(t, body, "hello")
				e := slow.lastEvent(t)
				require.Equal(t, "superseded", e.Data.Reason)
				require.Equal(t, "DUPLICATED_CONNECTION", e.Name)
				require.Equal(t, "1000", e.Retry)
				require.Contains(t, s.backend.read(), "slow out", "its upstream request is ended")
				require.False(t, newer.over())
				require.Equal(t, 1, s.backend.say("more"))

				status, _, _ = s.open(in("books", "ann"), field("Last-Event-ID", e.ID)).got()
				require.Equal(t, http.StatusNoContent, status, "it is to stay away")
				require.Equal(t, 1, s.logs.FilterMessage("stream superseded").Len())
			}, guards...)
		})
	}
}

func TestAsked_WhoDidNotAskForAStreamIsToldByAStatus(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		release := slowly(s)
		slow := s.open(token("ann"), named("slow"), notAsking)
		s.pass(time.Millisecond)
		newer := s.open(token("ann"))
		release()
		p := problemOf(t, slow)
		require.Equal(t, http.StatusConflict, p.Status)
		require.EqualValues(t, "superseded", p.Reason)
		_, h, _ := slow.got()
		require.Empty(t, h.Get("Retry-After"), "it is final")
		require.False(t, newer.over())
	})
}

func TestAsked_UnderRejectTheKeyIsWhoseWasAdmittedFirst(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		release := slowly(s)
		slow := s.open(token("ann"), named("slow"))
		s.pass(time.Millisecond)
		newer := s.open(token("ann"))
		require.Equal(t, hello, newer.text())
		release()
		requireRejectedEvent(t, slow, "5000")
		require.False(t, newer.over())
	}, rejecting)
}

func TestAsked_ATabsLateAnswerDoesNotReplaceItsNewerStream(t *testing.T) {
	for name, policy := range map[string]registry.Policy{"supersede": registry.Supersede, "reject": registry.Reject} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				release := slowly(s)
				slow := s.open(token("ann"), query("tab=1"), named("slow"))
				s.pass(time.Millisecond)
				newer := s.open(token("ann"), query("tab=1"))
				release()
				require.True(t, slow.ends())
				require.NotContains(t, slow.text(), "hello")
				require.False(t, newer.over())
			}, tabbed(t), func(g *Config) { g.Rule.Policy, g.Rule.Limit = policy, 3 })
		})
	}
}

// The backend is asked again where it refuses: the newcomer has been asking all the
// while.
func TestAsked_ARepeatedTryKeepsItsTime(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		s.open(token("ann"))
		refusals := 2
		s.backend.answer = func(w http.ResponseWriter, r *http.Request) error {
			if r.Header.Get("X-Name") == "tries" && refusals > 0 {
				refusals--
				w.WriteHeader(http.StatusConflict)
				return nil
			}
			return s.backend.stream(w, r)
		}
		tries := s.open(token("ann"), named("tries"))
		require.False(t, tries.over())
		s.pass(time.Millisecond)
		newer := s.open(token("ann"), named("newer"))
		require.Equal(t, hello, newer.text())
		s.pass(time.Second)
		require.Zero(t, refusals)
		require.True(t, tries.ends())
		require.Equal(t, "superseded", tries.lastEvent(t).Data.Reason)
		require.False(t, newer.over())
	})
}

// A request that waits for departures, or whose client was held up, asked when it came.
func TestAsked_IsWhenTheOutermostGuardSawTheRequest(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		c := s.open(in("books", "ann"))
		require.Equal(t, hello, c.text())
		var asked []time.Time
		for _, g := range s.guards {
			held, _, err := g.Zone.Registry.Find(t.Context(), registry.Selector{All: true}, "", 9)
			require.NoError(t, err)
			require.Len(t, held, 1)
			asked = append(asked, held[0].Asked)
		}
		require.False(t, asked[outer].IsZero())
		require.Equal(t, asked[outer], asked[inner])
	}, perStore(), perUser())
}
