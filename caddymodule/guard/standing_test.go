package guard

import (
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// standing is what the placeholders of c say of how it stands.
func standing(c *client) (state, reason string) {
	return c.published("sse_guard.state"), c.published("sse_guard.reason")
}

func TestStanding_OfAStreamIsKnownWhenItIsOver(t *testing.T) {
	for name, test := range map[string]struct {
		configure     func(*Config)
		edits         []func(*client)
		end           func(*site, *client)
		state, reason string
	}{
		"superseded": {nil, nil, func(s *site, _ *client) { s.open(token("ann")) }, "live", "superseded"},
		"left":       {nil, nil, func(_ *site, c *client) { c.leave() }, "live", "left"},
		"max age":    {func(g *Config) { g.Stream.MaxAge = time.Minute }, nil, func(s *site, _ *client) { s.pass(2 * time.Minute) }, "live", "max_age"},
		"untracked":  {nil, []func(*client){method(http.MethodPost)}, func(_ *site, c *client) { c.leave() }, "untracked", "left"},
	} {
		t.Run(name, func(t *testing.T) {
			if test.configure == nil {
				test.configure = func(*Config) {}
			}
			atSite(t, func(t *testing.T, s *site) {
				c := s.open(append(test.edits, token("ann"))...)
				state, reason := standing(c)
				require.Equal(t, test.state, state)
				require.Empty(t, reason, "it goes on")
				id := c.published("sse_guard.stream")
				require.Len(t, id, 32)
				test.end(s, c)
				<-c.done
				state, reason = standing(c)
				require.Equal(t, test.state, state)
				require.Equal(t, test.reason, reason)
				require.Equal(t, id, c.published("sse_guard.stream"))
			}, test.configure)
		})
	}
}

func TestStanding_OfAStreamThatTheBackendFinishes(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		s.backend.answer = answering(http.StatusOK, "text/event-stream", hello)
		c := s.open(token("ann"))
		<-c.done
		state, reason := standing(c)
		require.Equal(t, "live", state)
		require.Equal(t, "finished", reason)
	})
}

func TestStanding_OfWhoIsRefused(t *testing.T) {
	for name, test := range map[string]struct {
		configure     func(*Config)
		edits         []func(*client)
		state, reason string
	}{
		"early":         {rejecting, []func(*client){token("ann")}, "refused", "rejected"},
		"at the header": {all(rejecting, onlyAtHeader), []func(*client){token("ann")}, "refused", "rejected"},
		"parked":        {parking, []func(*client){token("ann")}, "parked", "parked"},
		"no token":      {requiringToken, nil, "refused", "unauthorized"},
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				if test.edits != nil {
					s.open(token("ann"))
				}
				c := s.open(test.edits...)
				s.pass(time.Second)
				state, reason := standing(c)
				require.Equal(t, test.state, state)
				require.Equal(t, test.reason, reason)
				require.Equal(t, test.state == "parked", c.published("sse_guard.stream") != "")
			}, test.configure)
		})
	}
}

// The inner one knows no more than that its client is gone, or that nothing came.
func TestStanding_OfSeveralGuardsIsThatOfTheOneThatDecided(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		older := s.open(in("books", "ann"))
		s.open(in("books", "bob"))
		<-older.done
		state, reason := standing(older)
		require.Equal(t, "live", state)
		require.Equal(t, "superseded", reason)
	}, perStore(limited(1)), perUser())
	atSite(t, func(t *testing.T, s *site) {
		s.open(in("books", "ann"))
		c := s.open(in("books", "bob"))
		s.pass(time.Second)
		state, reason := standing(c)
		require.Equal(t, "refused", state)
		require.Equal(t, "rejected", reason)
	}, all(perStore(limited(1)), rejecting), perUser())
}

func TestStanding_OfWhatIsNoStreamIsEmpty(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		s.backend.answer = func(w http.ResponseWriter, _ *http.Request) error {
			_, err := io.WriteString(w, "{}")
			return err
		}
		c := s.open(token("ann"))
		<-c.done
		state, reason := standing(c)
		require.Empty(t, state+reason+c.published("sse_guard.stream"))
	})
}
