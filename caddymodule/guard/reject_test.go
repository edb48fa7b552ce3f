package guard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

func TestRejected_GetsWhatOnRejectSays(t *testing.T) {
	for name, test := range map[string]struct {
		configure func(*Config)
		edit      func(*client)
		stream    bool
	}{
		"event":                     {rejecting, func(*client) {}, true},
		"event, at the header":      {all(rejecting, onlyAtHeader), func(*client) {}, true},
		"event, not asking":         {rejecting, notAsking, false},
		"park, not asking":          {parking, notAsking, false},
		"status":                    {withStatus, func(*client) {}, false},
		"status, at the header":     {all(withStatus, onlyAtHeader), func(*client) {}, false},
		"status, not asking":        {withStatus, notAsking, false},
		"event, refusing a weight":  {rejecting, func(c *client) { c.r.Header.Set("Accept", "text/event-stream;q=0") }, false},
		"event, among other ranges": {rejecting, func(c *client) { c.r.Header.Set("Accept", "text/html, text/event-stream;q=0.1") }, false},
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				holder := s.open(token("ann"))
				c := s.open(token("ann"), test.edit)
				if test.stream {
					requireRejectedEvent(t, c, "5000")
				} else {
					requireConflict(t, c, "5")
				}
				require.False(t, holder.over())
				require.Equal(t, 1, s.holders(0))
			}, test.configure)
		})
	}
}

// requireRejectedEvent is a stream that an EventSource comes back from.
func requireRejectedEvent(t *testing.T, c *client, retry string) {
	t.Helper()
	require.True(t, c.ends())
	require.NoError(t, c.err)
	status, h, body := c.got()
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, "text/event-stream", h.Get("Content-Type"))
	require.Equal(t, "no-store", h.Get("Cache-Control"))
	require.Equal(t, "no", h.Get("X-Accel-Buffering"))
	require.Empty(t, h.Get("Retry-After"))

	require.Equal(t, 1, strings.Count(body, "\n\n"), "one event: %q", body)
	e := c.lastEvent(t)
	require.Empty(t, e.ID, "it may come back")
	require.Equal(t, retry, e.Retry)
	require.Equal(t, "DUPLICATE_SESSION", e.Name)
	require.Equal(t, "DUPLICATE_SESSION", e.Data.Code)
	require.Equal(t, "rejected", e.Data.Reason)
	require.NotEmpty(t, e.Data.Message)
}

func requireConflict(t *testing.T, c *client, retryAfter string) {
	t.Helper()
	p := problemOf(t, c)
	require.Equal(t, http.StatusConflict, p.Status)
	require.Equal(t, "DUPLICATE_SESSION", p.Code)
	require.Equal(t, reason.Rejected, p.Reason)
	require.Equal(t, "DUPLICATE_SESSION", p.Error.Code)
	require.Equal(t, p.Title+". "+p.Detail, p.Error.Message)
	_, h, _ := c.got()
	require.Equal(t, retryAfter, h.Get("Retry-After"))
}

func TestRejected_IsToldWhenToComeBack(t *testing.T) {
	for retry, want := range map[time.Duration]struct{ milliseconds, seconds string }{
		5 * time.Second:         {"5000", "5"},
		1500 * time.Millisecond: {"1500", "2"}, // Retry-After has whole seconds
		time.Microsecond:        {"1", "1"},
		time.Minute:             {"60000", "60"},
	} {
		t.Run(retry.String(), func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				s.open(token("ann"))
				requireRejectedEvent(t, s.open(token("ann")), want.milliseconds)
				requireConflict(t, s.open(token("ann"), notAsking), want.seconds)
			}, all(rejecting, func(g *Config) { g.Retry = retry }))
		})
	}
}

func TestRefusedAtHeader_TakesBackWhatTheBackendSet(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		s.onEntry = http.Header{
			"Server":          {"Caddy"},
			"Vary":            {"Accept-Encoding"},
			"X-On-Entry":      {"kept"},
			"X-Was-Replaced":  {"before"},
			"X-Was-Dropped":   {"before"},
			"X-Of-Both-Sides": {"entry"},
		}
		s.backend.answer = func(w http.ResponseWriter, r *http.Request) error {
			h := w.Header()
			h.Set("Set-Cookie", "session=1")
			h.Set("Etag", `"1"`)
			h.Set("Content-Length", "1000")
			h.Set("Content-Encoding", "identity")
			h.Set("Last-Modified", "today")
			h.Set("X-Backend", "app")
			h.Set("X-Was-Replaced", "after")
			h.Del("X-Was-Dropped")
			h.Add("X-Of-Both-Sides", "backend")
			h.Add("Vary", "Origin")
			h.Set("Access-Control-Allow-Origin", "https://app.example")
			h.Set("Access-Control-Allow-Credentials", "true")
			h.Set("Access-Control-Expose-Headers", "X-Any")
			return s.backend.stream(w, r)
		}
		s.open(token("ann"))
		kept := http.Header{
			"Server":                           {"Caddy"},
			"X-On-Entry":                       {"kept"},
			"X-Was-Replaced":                   {"before"},
			"X-Was-Dropped":                    {"before"},
			"X-Of-Both-Sides":                  {"entry"},
			"Vary":                             {"Accept-Encoding", "Origin"},
			"Access-Control-Allow-Origin":      {"https://app.example"},
			"Access-Control-Allow-Credentials": {"true"},
			"Access-Control-Expose-Headers":    {"X-Any"},
		}

		c := s.open(token("ann"))
		requireRejectedEvent(t, c, "5000")
		_, h, _ := c.got()
		want := kept.Clone()
		want.Set("Content-Type", "text/event-stream")
		want.Set("Cache-Control", "no-store")
		want.Set("X-Accel-Buffering", "no")
		require.Equal(t, want, h)

		c = s.open(token("ann"), notAsking)
		requireConflict(t, c, "5")
		_, h, _ = c.got()
		want = kept.Clone()
		want.Set("Content-Type", "application/problem+json")
		want.Set("Cache-Control", "no-store")
		want.Set("Retry-After", "5")
		require.Equal(t, want, h)
	}, all(rejecting, onlyAtHeader))
}

// The page of another origin sees an answer only with the fields that the
// backend allows it with. Early there is no answer of the backend's, but there was
// one before.
func TestEarlyReject_OfAPageOfAnotherOriginCanBeReadByIt(t *testing.T) {
	const app = "https://app.example"
	allowing := func(s *site) {
		s.backend.header = http.Header{
			"Access-Control-Allow-Origin": {app},
			"Vary":                        {"Origin"},
			"Set-Cookie":                  {"session=1"},
		}
	}
	for name, test := range map[string]struct {
		holder, newcomer string
		backendAsked     bool
		allowed          string
	}{
		"the holder's origin":           {app, app, false, app},
		"another than the holder's":     {app, "https://other.example", true, app},
		"the holder had none":           {"", app, true, app},
		"the site's own origin":         {app, "http://example.com", false, ""},
		"the site's own, in upper case": {app, "http://EXAMPLE.com", false, ""},
		"no page at all":                {app, "", false, ""},
		"a sandboxed page":              {app, "null", true, app},
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				allowing(s)
				of := func(origin string) func(*client) {
					if origin == "" {
						return func(*client) {}
					}
					return field("Origin", origin)
				}
				holder := s.open(token("ann"), of(test.holder))
				c := s.open(token("ann"), of(test.newcomer))
				requireRejectedEvent(t, c, "5000")
				_, h, _ := c.got()
				require.Equal(t, test.backendAsked, s.backend.asked() == 2)
				require.Equal(t, test.allowed, h.Get("Access-Control-Allow-Origin"))
				require.Empty(t, h.Get("Set-Cookie"))
				require.False(t, holder.over())
			}, rejecting)
		})
	}
}

// The holder's fields are lent to many responses, which others write to.
func TestEarlyReject_SharesNoHeaderBetweenResponses(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		s.backend.answer = func(w http.ResponseWriter, r *http.Request) error {
			for _, name := range []string{"Origin", "Accept", "Cookie"} {
				w.Header().Add("Vary", name) // leaves room for a fourth
			}
			w.Header().Set("Access-Control-Allow-Origin", "*")
			return s.backend.stream(w, r)
		}
		origin := field("Origin", "https://app.example")
		s.open(token("ann"), origin)
		first, second := s.open(token("ann"), origin), s.open(token("ann"), origin)
		require.Equal(t, 1, s.backend.asked())
		first.Header().Add("Vary", "First")
		second.Header().Add("Vary", "Second")
		require.Equal(t, []string{"Origin", "Accept", "Cookie", "First"}, first.Header()["Vary"])
		require.Equal(t, []string{"Origin", "Accept", "Cookie", "Second"}, second.Header()["Vary"])
	}, rejecting)
}

func TestParked_WaitsAndIsLetIn(t *testing.T) {
	for name, configure := range map[string]func(*Config){"early": parking, "at the header": all(parking, onlyAtHeader)} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				holder := s.open(token("ann"))
				parked := s.open(token("ann"))
				require.False(t, parked.over())
				status, h, notice := parked.got()
				require.Equal(t, http.StatusOK, status)
				require.Equal(t, "text/event-stream", h.Get("Content-Type"))
				e := parked.lastEvent(t)
				require.Equal(t, "DUPLICATE_SESSION", e.Name)
				require.Equal(t, "rejected", e.Data.Reason)
				require.Empty(t, e.ID)
				require.Empty(t, e.Retry, "it is to wait, not to come back")
				require.Equal(t, 1, s.backend.say("more"), "it has no upstream")
				require.Equal(t, 1, s.holders(0))

				s.pass(parkHeartbeat)
				require.Equal(t, notice+":\n", parked.text())
				s.pass(parkHeartbeat)
				require.Equal(t, notice+":\n:\n", parked.text())

				holder.leave()
				s.settle()
				require.True(t, parked.ends())
				require.Equal(t, "500", parked.lastEvent(t).Retry, "it may come at once")
				require.Equal(t, hello, s.open(token("ann")).text())
			}, configure)
		})
	}
}

func TestParked_OneIsToldPerPlace(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		holder := s.open(token("ann"))
		first, second := s.open(token("ann")), s.open(token("ann"))
		holder.leave()
		s.settle()
		require.True(t, first.ends(), "the longest waiting")
		require.False(t, second.over())

		s.pass(parkHeartbeat)
		require.True(t, second.ends(), "the first one never came back")
	}, parking)
}

func TestParked_NoMoreThanAFew(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		s.open(token("ann"))
		var parked []*client
		for range registry.MostWaiters {
			parked = append(parked, s.open(token("ann")))
		}
		requireRejectedEvent(t, s.open(token("ann")), "5000")
		for _, c := range parked {
			require.False(t, c.over())
		}
		parked[0].leave()
		s.settle()
		require.True(t, parked[0].ends())
		require.False(t, s.open(token("ann")).over(), "one left, one may wait")
	}, parking)
}

// failing is a registry that cannot be reached for what is set.
type failing struct {
	registry.Registry
	// early and header are the phases in which it fails, takeover an early one in
	// which somebody holds the key.
	early, header, takeover bool
	// with is the error; nil: errNoRegistry.
	with error
}

// breaking has a guard use broken in front of its registry.
func breaking(broken *failing) func(*Config) {
	return func(g *Config) { broken.Registry, g.Zone.Registry = g.Zone.Registry, broken }
}

var errNoRegistry = errors.New("dial tcp 10.0.0.1:6379: connection refused")

func (f *failing) Admit(ctx context.Context, phase registry.Phase, consent registry.Consent, asks []registry.Ask, leaving []registry.StreamID) ([]registry.Admission, error) {
	held, _, err := f.Find(ctx, registry.Selector{Key: asks[0].Holder.Key}, "", 1)
	switch {
	case err != nil:
		return nil, err
	case f.early && phase == registry.Early,
		f.header && phase != registry.Early,
		f.takeover && len(held) > 0:
		return nil, cmp.Or(f.with, errNoRegistry)
	}
	return f.Registry.Admit(ctx, phase, consent, asks, leaving)
}

func TestRegistryError_IsATemporaryRefusal(t *testing.T) {
	for name, test := range map[string]struct {
		registry  failing
		configure func(*Config)
		asked     int
	}{
		"early":                {failing{early: true, header: true}, func(*Config) {}, 0},
		"at the header":        {failing{header: true}, func(*Config) {}, 1},
		"response":             {failing{early: true, header: true}, onlyAtHeader, 1},
		"evicting":             {failing{takeover: true}, func(*Config) {}, 0},
		"where others park":    {failing{early: true, header: true}, parking, 0},
		"where others reject":  {failing{early: true, header: true}, rejecting, 0},
		"with another's event": {failing{early: true, header: true}, func(g *Config) { g.Names = map[reason.Reason]string{reason.Rejected: "BUSY"} }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			broken := &test.registry
			atSite(t, func(t *testing.T, s *site) {
				if broken.takeover {
					s.open(token("ann"))
				}
				before := s.backend.asked()
				c := s.open(token("ann"))
				require.True(t, c.ends())
				require.NoError(t, c.err)
				status, h, body := c.got()
				require.Equal(t, http.StatusOK, status)
				require.Equal(t, "text/event-stream", h.Get("Content-Type"))
				require.Equal(t, "retry: 5000\n", body)
				require.Equal(t, before+test.asked, s.backend.asked())

				lines := s.logs.FilterLevelExact(zap.ErrorLevel).All()
				require.Len(t, lines, 1)
				require.Contains(t, lines[0].ContextMap()["error"], "connection refused")
				require.NotContains(t, body, "10.0.0.1")
			}, all(test.configure, breaking(broken)))
		})
	}
}

// A registry that is away says so itself: its log has no line for each newcomer.
func TestRegistryError_OfOneThatIsAwayIsNoLineOfTheNewcomers(t *testing.T) {
	away := &failing{early: true, header: true, with: fmt.Errorf("admitting a stream: %w", registry.ErrAway)}
	atSite(t, func(t *testing.T, s *site) {
		for _, edit := range []func(*client){func(*client) {}, notAsking} {
			require.True(t, s.open(token("ann"), edit).ends())
		}
		require.Empty(t, s.logs.FilterLevelExact(zap.ErrorLevel).All())
		require.NotEmpty(t, s.logs.FilterMessage("asking the registry").All(), "it can be looked for")
	}, breaking(away))
}

func TestRegistryError_IsAStatusForOthers(t *testing.T) {
	for name, test := range map[string]struct {
		configure func(*Config)
		edit      func(*client)
	}{
		"not asking":       {func(*Config) {}, notAsking},
		"on_reject status": {withStatus, func(*client) {}},
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				c := s.open(token("ann"), test.edit)
				p := problemOf(t, c)
				require.Equal(t, http.StatusServiceUnavailable, p.Status)
				require.Empty(t, p.Code)
				_, h, body := c.got()
				require.Equal(t, "5", h.Get("Retry-After"))
				require.NotContains(t, body, "10.0.0.1")
			}, all(test.configure, breaking(&failing{early: true, header: true})))
		})
	}
}

// Only a stream that wants a key needs the registry.
func TestRegistryError_LeavesTheRestAlone(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		require.Equal(t, hello, s.open().text(), "untracked")
		s.backend.answer = answering(http.StatusOK, "application/json", "{}")
		require.Equal(t, "{}", s.open(token("ann"), notAsking).text())
	}, breaking(&failing{early: true, header: true}))
}

func TestPass_WhatIsNoStream(t *testing.T) {
	for name, test := range map[string]struct {
		status      int
		contentType string
		edit        func(*client)
	}{
		"a page":                       {http.StatusOK, "text/html", notAsking},
		"a page for one who asks":      {http.StatusOK, "text/html", func(*client) {}},
		"no media type":                {http.StatusOK, "", func(*client) {}},
		"a redirect":                   {http.StatusFound, "text/event-stream", func(*client) {}},
		"unauthorized":                 {http.StatusUnauthorized, "text/event-stream", func(*client) {}},
		"an error":                     {http.StatusInternalServerError, "text/plain", func(*client) {}},
		"204 of the application's own": {http.StatusNoContent, "text/event-stream", func(*client) {}},
		"almost the media type":        {http.StatusOK, "text/event-streams", func(*client) {}},
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				s.backend.header = http.Header{"Set-Cookie": {"session=1"}, "Content-Length": {"4"}}
				s.backend.answer = answering(test.status, test.contentType, "body")
				c := s.open(token("ann"), test.edit)
				require.NoError(t, c.err)
				status, h, body := c.got()
				require.Equal(t, test.status, status)
				require.Equal(t, http.Header{"Set-Cookie": {"session=1"}, "Content-Length": {"4"}, "Content-Type": {test.contentType}}, h)
				require.Equal(t, "body", body)
				require.Zero(t, s.holders(0))
				require.Empty(t, s.logs.All())
			})
		})
	}
}

func TestPass_TheHandlersError(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		errBackend := errors.New("no upstream")
		s.backend.answer = func(http.ResponseWriter, *http.Request) error { return errBackend }
		require.ErrorIs(t, s.open(token("ann")).err, errBackend)
		require.Zero(t, s.holders(0))
	})
}

func TestStream_IsRecognisedWhateverItsMediaTypesSpelling(t *testing.T) {
	for _, contentType := range []string{"text/event-stream", "Text/Event-Stream", "text/event-stream; charset=utf-8", " text/event-stream ;x"} {
		atSite(t, func(t *testing.T, s *site) {
			s.backend.answer = func(w http.ResponseWriter, r *http.Request) error {
				w.Header().Set("Content-Type", contentType)
				_, _ = io.WriteString(w, hello)
				<-r.Context().Done()
				return nil
			}
			s.open(token("ann"))
			require.Equal(t, 1, s.holders(0), contentType)
		})
	}
}

// In a compressed stream no event can be told from another.
func TestStream_AsksTheBackendForNoCompression(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		s.open(token("ann"), field("Accept-Encoding", "gzip, br"))
		require.Equal(t, []string{"identity"}, s.backend.last().Header["Accept-Encoding"])
		s.open(token("ann"))
		require.Equal(t, []string{"identity"}, s.backend.last().Header["Accept-Encoding"])
		s.open(token("ann"), notAsking, field("Accept-Encoding", "gzip"))
		require.Equal(t, []string{"gzip"}, s.backend.last().Header["Accept-Encoding"])
		s.open(token("ann"), method(http.MethodPost), field("Accept-Encoding", "gzip"))
		require.Equal(t, []string{"gzip"}, s.backend.last().Header["Accept-Encoding"], "not governed")
	})
}
