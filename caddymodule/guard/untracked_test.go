package guard

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/sse-guard/sse-guard/caddymodule/event"
)

// ofUntracked are the lines about streams that pass untracked.
func (s *site) ofUntracked() []observer.LoggedEntry {
	return s.logs.FilterMessageSnippet("passes untracked").All()
}

func optional(g *Config) { g.Verifier, g.Optional = new(plainVerifier), true }

// I14: no stream passes untracked without a line that says why.
func TestUntracked_EachCauseIsALineWithWhatToDo(t *testing.T) {
	for name, test := range map[string]struct {
		guards  []func(*Config)
		edit    func(*client)
		cause   event.UntrackedCause
		level   zapcore.Level
		message string // a part of it
	}{
		"no token":                {edit: func(*client) {}, cause: event.UntrackedToken, level: zap.WarnLevel, message: "option token"},
		"no token for the key":    {[]func(*Config){keyedBy("{sse_guard.token}")}, func(*client) {}, event.UntrackedToken, zap.WarnLevel, "require_token"},
		"no token, none needed":   {[]func(*Config){optional}, func(*client) {}, event.UntrackedAnonymous, zap.InfoLevel, "jwt optional"},
		"an empty part":           {[]func(*Config){keyedBy("x", "{req.X-User}")}, token("ann"), event.UntrackedKey, zap.WarnLevel, "{req.X-User}"},
		"an empty response field": {[]func(*Config){keyedBy("{resp.X-User}")}, token("ann"), event.UntrackedKey, zap.WarnLevel, "{resp.X-User}"},
		"no client id":            {[]func(*Config){keyedBy("{sse_guard.client}")}, token("ann"), event.UntrackedKey, zap.WarnLevel, "{sse_guard.client}"},
		"its method":              {edit: method(http.MethodPost), cause: event.UntrackedMethod, level: zap.InfoLevel, message: "method"},
		"its method, with a key":  {[]func(*Config){keyedBy("x")}, method(http.MethodPost), event.UntrackedMethod, zap.WarnLevel, "methods any"},
		"no stream was asked for": {edit: notAsking, cause: event.UntrackedToken, level: zap.WarnLevel, message: "option token"},
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				for range 2 {
					require.Equal(t, hello, s.open(test.edit).text())
				}
				lines := s.ofUntracked()
				require.Len(t, lines, 2, "one for each stream: %v", lines)
				require.Equal(t, test.level, lines[0].Level)
				require.Equal(t, zap.DebugLevel, lines[1].Level, "once an hour above debug")
				for _, line := range lines {
					require.Contains(t, line.Message, test.message)
					require.Equal(t, string(test.cause), line.ContextMap()["cause"])
					require.Equal(t, "default", line.ContextMap()["zone"])
				}
				s.leaveAll()
				s.pass(time.Hour)
				s.open(test.edit)
				require.Equal(t, test.level, s.ofUntracked()[2].Level)
			}, test.guards...)
		})
	}
}

// Each part that is empty is a cause of its own.
func TestUntracked_EachPartIsNamed(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		s.open(token("ann"))
		s.open(token("ann"), field("A", "1"))
		lines := s.ofUntracked()
		require.Len(t, lines, 2)
		for i, part := range []string{"{req.A}", "{req.B}"} {
			require.Equal(t, zap.WarnLevel, lines[i].Level)
			require.Equal(t, part, lines[i].ContextMap()["part"])
		}
	}, keyedBy("{req.A}", "{req.B}"))
}

// Of two guards with one key, the inner one counts nothing.
func TestUntracked_TwoGuardsOfOneKey(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		s.guards[1].Zone = s.guards[0].Zone
		s.open(token("ann"))
		lines := s.ofUntracked()
		require.Len(t, lines, 1)
		require.Equal(t, zap.WarnLevel, lines[0].Level)
		require.Equal(t, string(event.UntrackedCovered), lines[0].ContextMap()["cause"])
		require.Equal(t, 1, s.holders(0))
	}, func(*Config) {}, func(*Config) {})
}

// A stream that is tracked, or is none, is not told of.
func TestUntracked_NothingElseIsTold(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		s.open(token("ann"))
		s.backend.answer = answering(http.StatusOK, "text/html", "<p>")
		s.open()
		s.backend.answer = answering(http.StatusInternalServerError, "text/event-stream", "data: no\n\n")
		s.open()
		require.Empty(t, s.ofUntracked())
	})
}

// I7: names are told, values never, nor what may be a value.
func TestUntracked_TellsNamesOnly(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		s.open(
			field("Cookie", "theme=SECRET; JSESSIONID=SECRET; connect.sid=s%3ASECRET; SECRETalone; SECRETbase64=="),
			field("Authorization", "Basic SECRET"), field("Authorization", "SECRETtoken"),
			field("X-Api-Key", "SECRET"), field("X-Other", "SECRET"),
			func(c *client) {
				c.r.URL = &url.URL{Path: "/events;jsessionid=SECRET/SECRET", RawQuery: "session_token=SECRET&topic=SECRET&SECRETtoken&SECRETsid=="}
			},
		)
		line := s.ofUntracked()[0]
		require.Equal(t, []any{
			"cookie JSESSIONID", "cookie connect.sid", "header X-Api-Key", "path jsessionid", "query session_token", "cookie theme",
		}, line.ContextMap()["found"])
		require.Equal(t, []any{"Basic", "another"}, line.ContextMap()["authorization_schemes"])
		require.Equal(t, []any{
			"header Authorization", "query token", "query access_token", "cookie access_token",
		}, line.ContextMap()["looked_in"])
		for _, field := range line.Context {
			require.NotContains(t, field.String, "SECRET")
			if texts, ok := line.ContextMap()[field.Key].([]any); ok {
				for _, text := range texts {
					require.NotContains(t, text, "SECRET")
				}
			}
		}
	})
}

func TestUntracked_NamesAreFewAndShort(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		many := make([]string, 100)
		for i := range many {
			many[i] = strings.Repeat("s", i+1) + "id=1"
		}
		s.open(field("Cookie", strings.Join(many, "; ")))
		found := s.ofUntracked()[0].ContextMap()["found"].([]any)
		require.Len(t, found, 8)
		for _, name := range found {
			require.LessOrEqual(t, len(name.(string)), 80)
		}
	})
}

func TestTwoTokens_AreToldOnceAMinuteWithTheirPlaces(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		two := both(token("SECRETann"), field("Cookie", "access_token=SECRETbob"))
		lines := func() []observer.LoggedEntry { return s.logs.FilterMessageSnippet("two different tokens").All() }
		for range 3 {
			require.Equal(t, http.StatusBadRequest, problemOf(t, s.open(two)).Status)
		}
		require.Len(t, lines(), 1)
		line := lines()[0]
		require.Equal(t, zap.WarnLevel, line.Level)
		require.Contains(t, line.Message, "write token header Authorization, or token cookie access_token")
		require.Equal(t, []any{"header Authorization", "cookie access_token"}, line.ContextMap()["sources"])
		require.NotContains(t, line.Message, "SECRET")

		s.pass(time.Minute)
		s.open(query("token=a&token=b"))
		require.Len(t, lines(), 2)
		require.Contains(t, lines()[1].Message, "one place holds both")
		require.Equal(t, []any{"query token", "query token"}, lines()[1].ContextMap()["sources"])
	})
}

func TestMissingKey_IsNamed(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		problem := problemOf(t, s.open(token("ann")))
		require.Equal(t, http.StatusForbidden, problem.Status)
		require.Contains(t, problem.Detail, "{req.X-User}")
	}, all(keyedBy("x", "{req.X-User}"), denyingMissing))
	atSite(t, func(t *testing.T, s *site) {
		require.Contains(t, problemOf(t, s.open()).Detail, "no token")
	}, denyingMissing)
}

// What a handler behind the guard misspells it gets nothing for, and somebody is told.
func TestPlaceholder_ThatIsUnknownIsToldOnceAnHour(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		c := s.open(token("ann"))
		for range 2 {
			require.Empty(t, c.published("sse_guard.claim.sub"))
			require.NotEmpty(t, c.published("sse_guard.token"))
		}
		lines := s.logs.FilterMessageSnippet("placeholder").All()
		require.Len(t, lines, 1)
		require.Equal(t, zap.WarnLevel, lines[0].Level)
		require.Equal(t, "{sse_guard.claim.sub}", lines[0].ContextMap()["placeholder"])
	})
}
