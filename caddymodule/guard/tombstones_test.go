package guard

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/tombstone"
)

// entombedClient is what a client with this token carries away when another
// one of the same token comes.
func (s *site) entombedClient(edits ...func(*client)) string {
	s.t.Helper()
	older := s.open(edits...)
	s.open(edits...)
	require.True(s.t, older.over())
	id := older.lastEvent(s.t).ID
	require.True(s.t, tombstone.Has(id), older.text())
	return id
}

func TestTombstone_IsAnsweredWith204(t *testing.T) {
	for name, present := range map[string]func(id string) func(*client){
		"in the header":                func(id string) func(*client) { return field("Last-Event-ID", id) },
		"in the query":                 func(id string) func(*client) { return query("a=b&lastEventId=" + id) },
		"in the query, escaped":        func(id string) func(*client) { return query("%6castEventId=" + strings.ReplaceAll(id, "-", "%2d")) },
		"beside a forged one":          func(id string) func(*client) { return query("lastEventId=" + id + "&lastEventId=" + forge(id)) },
		"behind an application's id":   func(id string) func(*client) { return both(field("Last-Event-ID", "41"), field("Last-Event-ID", id)) },
		"though the request is no ask": func(id string) func(*client) { return both(notAsking, field("Last-Event-ID", id)) },
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				id := s.entombedClient(token("ann"))
				asked := s.backend.asked()
				c := s.open(token("ann"), present(id))
				require.True(t, c.ends())
				require.NoError(t, c.err)
				status, h, body := c.got()
				require.Equal(t, http.StatusNoContent, status)
				require.Equal(t, "no-store", h.Get("Cache-Control"))
				require.Empty(t, body)
				require.Equal(t, asked, s.backend.asked(), "the backend is left alone")
				require.Equal(t, 1, s.backend.say("more"), "the holder streams on")
			})
		})
	}
}

func both(edits ...func(*client)) func(*client) {
	return func(c *client) {
		for _, edit := range edits {
			edit(c)
		}
	}
}

// forge changes the MAC.
func forge(id string) string {
	last := byte('A')
	if id[len(id)-6] == last {
		last = 'B'
	}
	return id[:len(id)-6] + string(last) + id[len(id)-5:]
}

func TestTombstone_ThatDoesNotCountIsANewClient(t *testing.T) {
	signed := func(s *site, secret, zone string, subject registry.ID, at time.Time) string {
		signer, err := tombstone.NewSigner([]byte(secret))
		require.NoError(t, err)
		id, err := signer.Sign(tombstone.Key, zone, subject, "superseded", at)
		require.NoError(t, err)
		return id
	}
	for name, carried := range map[string]func(s *site, valid string, key registry.ID) string{
		"forged":           func(_ *site, valid string, _ registry.ID) string { return forge(valid) },
		"truncated":        func(_ *site, valid string, _ registry.ID) string { return valid[:len(valid)-1] },
		"a prefix only":    func(*site, string, registry.ID) string { return tombstone.Prefix },
		"with more behind": func(_ *site, valid string, _ registry.ID) string { return valid + "A" },
		"of another secret": func(s *site, _ string, key registry.ID) string {
			return signed(s, "another secret, as long", "default", key, time.Now())
		},
		"of another zone": func(s *site, _ string, key registry.ID) string {
			return signed(s, secretOfSite, "other", key, time.Now())
		},
		"of another key": func(s *site, _ string, _ registry.ID) string { return s.entombedClient(token("bob")) },
		"of yesterday": func(s *site, _ string, key registry.ID) string {
			return signed(s, secretOfSite, "default", key, time.Now().Add(-25*time.Hour))
		},
		"of another purpose": func(s *site, _ string, key registry.ID) string {
			signer, err := tombstone.NewSigner([]byte(secretOfSite))
			require.NoError(t, err)
			id, err := signer.Sign(tombstone.Token, "default", key, "superseded", time.Now())
			require.NoError(t, err)
			return id
		},
	} {
		for place, present := range map[string]func(id string) func(*client){
			"header": func(id string) func(*client) { return field("Last-Event-ID", id) },
			"query":  func(id string) func(*client) { return query("lastEventId=" + url.QueryEscape(id)) },
		} {
			t.Run(name+"/"+place, func(t *testing.T) {
				atSite(t, func(t *testing.T, s *site) {
					valid := s.entombedClient(token("ann"))
					g := s.guards[0]
					q := newRequest(g, s.open(token("ann")).r, &aroundRequest{c: &client{}, path: "/events"}, true, nil)
					id := carried(s, valid, q.holder.Key)

					c := s.open(token("ann"), present(id))
					status, _, body := c.got()
					require.Equal(t, http.StatusOK, status)
					require.Equal(t, hello, body)
					last := s.backend.last()
					require.NotContains(t, last.Header, "Last-Event-Id")
					require.Empty(t, last.URL.RawQuery)
				})
			})
		}
	}
}

func TestTombstone_CountsForADay(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		id := s.entombedClient(token("ann"))
		s.leaveAll()
		s.pass(tombstone.MaxAge - time.Minute)
		holder := s.open(token("ann"))
		status, _, _ := s.open(token("ann"), field("Last-Event-ID", id)).got()
		require.Equal(t, http.StatusNoContent, status)
		holder.leave()
		s.pass(2 * time.Minute)
		s.open(token("ann"))
		status, _, _ = s.open(token("ann"), field("Last-Event-ID", id)).got()
		require.Equal(t, http.StatusOK, status)
	})
}

// No backend ever sees one, whatever the request is.
func TestTombstone_IsTakenOutOfEveryRequest(t *testing.T) {
	const id = tombstone.Prefix + "anything"
	for name, edit := range map[string]func(*client){
		"a stream":       func(*client) {},
		"not asking":     notAsking,
		"HEAD":           method(http.MethodHead),
		"OPTIONS":        method(http.MethodOptions),
		"POST":           method(http.MethodPost),
		"an upgrade":     both(field("Connection", "Upgrade"), field("Upgrade", "websocket")),
		"without token":  func(c *client) { c.r.Header.Del("Authorization") },
		"two tokens out": query("token=ann"),
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				s.backend.answer = func(w http.ResponseWriter, _ *http.Request) error {
					w.WriteHeader(http.StatusOK)
					return nil
				}
				c := s.open(token("ann"), edit, field("Last-Event-ID", id), func(c *client) {
					c.r.URL.RawQuery = strings.Trim(c.r.URL.RawQuery+"&lastEventId="+id, "&")
				})
				require.True(t, c.ends())
				last := s.backend.last()
				require.NotContains(t, last.Header, "Last-Event-Id")
				require.NotContains(t, last.URL.RawQuery, tombstone.Prefix)
				require.NotContains(t, c.r.Header, "Last-Event-Id", "deleted in place: handlers may hold the map")
			})
		})
	}
}

func TestTombstone_LeavesTheRestOfTheQueryAsItWasSpelled(t *testing.T) {
	const id = tombstone.Prefix + "anything"
	for given, want := range map[string]string{
		"":                                         "",
		"a=%41&b=+;c&&d":                           "a=%41&b=+;c&&d",
		"a=%41&lastEventId=" + id + "&b=+;c&&d":    "a=%41&b=+;c&&d",
		"lastEventId=" + id:                        "",
		"lastEventId=" + id + "&":                  "",
		"a=%zz&lastEventId=" + id:                  "a=%zz",
		"lastEventId=41":                           "lastEventId=41",
		"lastEventId=41&lastEventId=" + id:         "lastEventId=41",
		"lastEventId=" + id + "&lastEventId=" + id: "",
		"x=" + id:                                  "",
		"Last-Event-ID=" + id + "&a":               "a",
		"last_event_id=" + id + "&lastEventID=" + id + "&a": "a",
		"last%5fevent_id=sse%2dguard.1.anything&a":          "a",
		id:                  id,
		"x=a" + id:          "x=a" + id,
		"lastEventId=%zz&a": "lastEventId=%zz&a",
	} {
		t.Run(given, func(t *testing.T) {
			r := &http.Request{URL: &url.URL{RawQuery: given}, RequestURI: "/events?" + given}
			original := &url.URL{RawQuery: given}
			r = takeTombstones(r, original)
			require.Equal(t, want, r.URL.RawQuery)
			require.Equal(t, want, original.RawQuery)
			require.Equal(t, strings.TrimSuffix("/events?"+want, "?"), strings.TrimSuffix(r.RequestURI, "?"))
		})
	}
}

func TestTombstone_LeavesTheApplicationsIDs(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		s.open(token("ann"), field("Last-Event-ID", "41"), query("lastEventId=42"))
		last := s.backend.last()
		require.Equal(t, "41", last.Header.Get("Last-Event-ID"))
		require.Equal(t, "lastEventId=42", last.URL.RawQuery)
	})
}

// Where only the backend knows the key, it has to be asked, and its stream is
// thrown away.
func TestTombstone_IsJudgedAtTheHeaderWhereTheKeyIsKnownThere(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		s.backend.header = http.Header{"X-User": {"ann"}, "Set-Cookie": {"session=1"}}
		id := s.entombedClient(token("ann"))
		asked := s.backend.asked()

		c := s.open(token("ann"), field("Last-Event-ID", id), query("a=b&lastEventId="+id))
		require.True(t, c.ends())
		status, h, body := c.got()
		require.Equal(t, http.StatusNoContent, status)
		require.Empty(t, body)
		require.Empty(t, h.Get("Set-Cookie"))
		require.Equal(t, "no-store", h.Get("Cache-Control"))
		require.Equal(t, asked+1, s.backend.asked())
		require.Equal(t, "a=b", s.backend.last().URL.RawQuery)
		require.Error(t, s.backend.last().Context().Err(), "its upstream request is canceled")
		require.Equal(t, 1, s.backend.say("more"), "the holder streams on")

		s.backend.header.Set("X-User", "bob")
		status, _, _ = s.open(token("ann"), field("Last-Event-ID", id)).got()
		require.Equal(t, http.StatusOK, status, "another key is another matter")
	}, keyedBy("{resp.X-User}"))
}

func TestTombstone_WithoutASignerEveryClientIsNew(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		id := s.entombedClient(token("ann"))
		s.guards[0].Signer = func(context.Context) (*tombstone.Signer, error) { return nil, errors.New("no storage") }
		c := s.open(token("ann"), field("Last-Event-ID", id))
		require.Equal(t, hello, c.text())
		require.NotEmpty(t, s.logs.FilterMessageSnippet("tombstones cannot be verified").All())

		newest := s.open(token("ann"))
		require.Equal(t, hello, newest.text())
		require.True(t, c.ends())
		require.Empty(t, c.lastEvent(t).ID, "it is ended all the same")
		require.Equal(t, "superseded", c.lastEvent(t).Data.Reason)
		require.NotEmpty(t, s.logs.FilterMessageSnippet("no tombstone for an ended stream").All())
	})
}

func TestTombstone_IsNotLogged(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		id := s.entombedClient(token("ann-secret"))
		s.open(token("ann-secret"), field("Last-Event-ID", id))
		s.open(token("ann-secret"), field("Last-Event-ID", forge(id)))
		var lines bytes.Buffer
		for _, line := range s.logs.All() {
			lines.WriteString(line.Message)
			for name, value := range line.ContextMap() {
				lines.WriteString(name)
				if text, ok := value.(string); ok {
					lines.WriteString(text)
				}
			}
		}
		require.NotContains(t, lines.String(), id[len(tombstone.Prefix):])
		require.NotContains(t, lines.String(), "ann-secret")
	})
}
