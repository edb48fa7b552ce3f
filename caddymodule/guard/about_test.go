package guard

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/sse-guard/sse-guard/caddymodule/event"
	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// rows lists the streams of the first guard.
func (s *site) rows() []registry.Row {
	rows, _, err := s.guards[0].Zone.Streams.List(s.t.Context(), registry.Filter{Selector: registry.Selector{All: true}}, "", 99)
	require.NoError(s.t, err)
	return rows
}

func labelled(labels ...Label) func(*Config) { return func(g *Config) { g.Labels = labels } }

func TestAbout_IsWhatTheRequestAndItsAnswerTell(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		s.named("from the backend")
		s.open(token("sub=ann&n=1"), field("X-Room", " one "), func(c *client) { c.r.URL.Path = "/a;token=secret/b;x" })
		rows := s.rows()
		require.Len(t, rows, 1)
		require.Equal(t, registry.About{
			Sub: "ann", Protocol: "HTTP/1.1", Path: "/a/b",
			Labels: registry.Labels{Names: []string{"none", "room", "user"}, Values: []string{"", "one", "from the backend"}},
		}, rows[0].About)
	}, all(verifying, labelled(Label{"none", "{req.X-None}"}, Label{"room", "{req.X-Room}"}, Label{"user", "{resp.X-User}"})))
}

func TestAbout_NamesNobodyWhoIsNotVerified(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		s.open(token("sub=ann"))
		require.Empty(t, s.rows()[0].About.Sub)
	}, all(verifying, func(g *Config) { g.Unverified = true }))
}

func TestAbout_OfThoseThatHoldNothing(t *testing.T) {
	room := labelled(Label{"room", "{req.X-Room}"})
	atSite(t, func(t *testing.T, s *site) {
		s.open(field("X-Room", "one"))
		require.Equal(t, registry.StateUntracked, s.rows()[0].State)
		require.Equal(t, "one", s.rows()[0].About.Labels.Value("room"))
	}, room)
	atSite(t, func(t *testing.T, s *site) {
		s.open(token("a"), field("X-Room", "one"))
		s.open(token("a"), field("X-Room", "two"))
		parked := registry.Filter{State: registry.StateParked, Labels: map[string]string{"room": "two"}}
		rows, _, err := s.guards[0].Zone.Streams.List(t.Context(), parked, "", 9)
		require.NoError(t, err)
		require.Len(t, rows, 1)
		require.WithinDuration(t, time.Now(), rows[0].Opened(), time.Second)
	}, all(parking, room))
}

// labelsOf are the labels that observers were told, with what they were told of.
type labelsOf []string

func (l *labelsOf) Observe(e event.Event) {
	note := func(what string, who event.Who) {
		*l = append(*l, what+" "+who.Labels.Value("room")+who.Labels.Value("user"))
	}
	switch e := e.(type) {
	case event.Admitted:
		note("admitted", e.Stream)
	case event.Ended:
		note("ended", e.Stream)
	case event.Rejected:
		note("rejected", e.Newcomer)
	case event.Damped:
		note("damped", e.Newcomer)
	}
}

// What the backend's answer would tell is not known of who is refused early.
func TestLabels_AreToldOfWhoOpensEndsAndIsRefused(t *testing.T) {
	for name, test := range map[string]struct {
		configure func(*Config)
		want      labelsOf
	}{
		"early":         {func(*Config) {}, labelsOf{"admitted one, ann", "rejected two", "ended one, ann"}},
		"at the header": {onlyAtHeader, labelsOf{"admitted one, ann", "rejected two, ann", "ended one, ann"}},
	} {
		t.Run(name, func(t *testing.T) {
			var told labelsOf
			atSite(t, func(t *testing.T, s *site) {
				s.named(", ann")
				c := s.open(token("a"), field("X-Room", "one"))
				s.open(token("a"), field("X-Room", "two"))
				c.leave()
				s.settle()
				require.Equal(t, test.want, told)
			}, all(rejecting, test.configure, labelled(Label{"room", "{req.X-Room}"}, Label{"user", "{resp.X-User}"}), func(g *Config) {
				g.Observers = event.Observers{&told}
			}))
		})
	}
}

// Whoever may look at lists is not to see tokens.
func TestLabel_IsNoToken(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		s.open(token("a-very-secret-token"), field("X-Room", "room of a-very-secret-token"))
		s.open(token("1"), field("X-Room", "1"))
		s.open(token("2"), field("X-Room", "room 2"))
		var rooms []string
		for _, row := range s.rows() {
			rooms = append(rooms, row.About.Labels.Value("room"))
		}
		require.ElementsMatch(t, []string{"", "", "room 2"}, rooms)
		require.Len(t, s.logs.FilterMessageSnippet("holds the request's token").All(), 1)
	}, labelled(Label{"room", "{req.X-Room}"}))
}

// A stream that is revoked ends for good, as far as its EventSource is concerned; a page
// that is loaded again is welcome, unless its token is denied.
func TestRevoked_StaysAwayUnlessItAsksAnew(t *testing.T) {
	revoke := func(t *testing.T, s *site) (id string) {
		c := s.open(token("a"))
		s.guards[0].Zone.Streams.End(s.rows()[0].Holder.ID, registry.Ending{Reason: reason.Revoked, Message: "Call us"})
		require.True(t, c.ends())
		e := c.lastEvent(t)
		require.Equal(t, "REVOKED", e.Name)
		require.Equal(t, "Call us", e.Data.Message)
		require.Equal(t, "1000", e.Retry)
		return e.ID
	}
	atSite(t, func(t *testing.T, s *site) {
		id := revoke(t, s)
		requireStatus(t, s.open(token("a"), field("Last-Event-ID", id)), http.StatusNoContent)
		requireStatus(t, s.open(token("b"), field("Last-Event-ID", id)), http.StatusOK)
		requireStatus(t, s.open(token("a")), http.StatusOK)
		requireStatus(t, s.open(token("a"), field("Last-Event-ID", id)), http.StatusNoContent)
		s.pass(revokedFor)
		requireStatus(t, s.open(token("a"), field("Last-Event-ID", id)), http.StatusOK)
	})
	atSite(t, func(t *testing.T, s *site) {
		id := revoke(t, s)
		s.pass(revokedFor)
		c := s.open(token("a"))
		require.NoError(t, s.guards[0].Zone.Registry.Deny(t.Context(), registry.Denial{
			Token: s.rows()[0].Holder.Token, Until: time.Now().Add(time.Hour),
		}))
		c.leave()
		s.settle()
		requireStatus(t, s.open(token("a"), field("Last-Event-ID", id)), http.StatusNoContent)
		requireStatus(t, s.open(token("a")), http.StatusUnauthorized)
	})
}

// Without a token there is nobody whom the tombstone would name.
func TestRevoked_WithoutATokenLeavesNoTombstone(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		c := s.open(field("X-User", "ann"))
		s.guards[0].Zone.Streams.End(s.rows()[0].Holder.ID, registry.Ending{Reason: reason.Revoked})
		require.True(t, c.ends())
		require.Equal(t, "REVOKED", c.lastEvent(t).Name)
		require.Empty(t, c.lastEvent(t).ID)
		require.Empty(t, c.lastEvent(t).Retry)
		require.Empty(t, s.logs.FilterLevelExact(zap.ErrorLevel).All(), "and nothing is wrong with that")
	}, keyedBy("{req.X-User}"))
}
