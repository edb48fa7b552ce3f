package guard

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// visible are the lines that Caddy shows at its default level.
func (s *site) visible() []observer.LoggedEntry {
	return s.logs.Filter(func(e observer.LoggedEntry) bool { return e.Level >= zapcore.InfoLevel }).All()
}

// requireLine checks a line's place, level and fields, none more.
func requireLine(t *testing.T, line observer.LoggedEntry, logger string, level zapcore.Level, message string, fields map[string]any) {
	t.Helper()
	require.Equal(t, logger, line.LoggerName)
	require.Equal(t, level, line.Level)
	require.Equal(t, message, line.Message)
	require.Equal(t, fields, line.ContextMap())
}

func TestLog_Takeover(t *testing.T) {
	for name, configure := range map[string]func(*Config){"early": func(*Config) {}, "at the header": onlyAtHeader} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				older := s.open(token("ann"), from("192.0.2.1"))
				s.backend.say("more")
				s.pass(90 * time.Second)
				newer := s.open(token("ann"), from("198.51.100.2"))
				key := newer.published("sse_guard.key")

				lines := s.visible()
				require.Len(t, lines, 2, "no more: %v", lines)
				superseded, ended := lines[0], lines[1]
				if ended.LoggerName == "security" {
					superseded, ended = ended, superseded
				}
				requireLine(t, superseded, "security", zap.WarnLevel, "stream superseded", map[string]any{
					"zone": "default", "key": key, "holder_ip": "192.0.2.1", "newcomer_ip": "198.51.100.2",
				})
				relayed := hello + "data: more\n\n"
				requireLine(t, ended, "", zap.InfoLevel, "stream ended", map[string]any{
					"zone": "default", "key": key, "reason": "superseded", "event_sent": true,
					"age": 90 * time.Second, "events": uint64(2), "bytes": int64(len(relayed)), "client_ip": "192.0.2.1",
				})
				require.Contains(t, older.text(), relayed)
			}, configure)
		})
	}
}

func TestLog_Admission(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		c := s.open(token("ann"))
		require.Equal(t, 1, s.logs.Len())
		requireLine(t, s.logs.All()[0], "", zap.DebugLevel, "stream admitted", map[string]any{
			"zone": "default", "key": c.published("sse_guard.key"), "client_ip": "192.0.2.1",
		})
	})
}

func TestLog_Rejection(t *testing.T) {
	for name, configure := range map[string]func(*Config){
		"early":         rejecting,
		"at the header": all(rejecting, onlyAtHeader),
		"parked":        parking,
		"status":        withStatus,
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				s.open(token("ann"), from("192.0.2.1"))
				c := s.open(token("ann"), from("198.51.100.2"))
				lines := s.visible()
				require.Len(t, lines, 1, "no more: %v", lines)
				requireLine(t, lines[0], "security", zap.WarnLevel, "newcomer rejected", map[string]any{
					"zone": "default", "key": c.published("sse_guard.key"), "holder_ips": []any{"192.0.2.1"}, "newcomer_ip": "198.51.100.2", "attempts": int64(1),
				})
			}, configure)
		})
	}
}

func TestLog_RejectionNamesAFewHolders(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		for range 7 {
			s.open(token("ann"))
		}
		s.open(token("ann"))
		require.Len(t, s.visible()[0].ContextMap()["holder_ips"], registry.MostHolders)
	}, all(rejecting, limited(7)))
}

// The same tab that comes again is nobody's attack.
func TestLog_ReplacementIsNoSecurityMatter(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		tab := query("tab=1")
		s.open(token("ann"), tab)
		s.open(token("ann"), tab)
		lines := s.visible()
		require.Len(t, lines, 1)
		require.Equal(t, "stream ended", lines[0].Message)
		require.Equal(t, "replaced", lines[0].ContextMap()["reason"])
	}, tabbed(t))
}

// Nothing but this line tells the operator that a backend hangs: heartbeats hide it.
func TestLog_AStalledBackendIsVisible(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		s.open(token("ann"))
		s.pass(61 * time.Second)
		lines := s.visible()
		require.Len(t, lines, 1)
		require.Equal(t, "stream ended", lines[0].Message)
		require.Equal(t, "stalled", lines[0].ContextMap()["reason"])
	}, func(g *Config) { g.Stream.StallAfter = time.Minute })
}

func TestLog_NothingElseIsVisible(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		closed := s.open(token("ann"))
		closed.leave()
		s.settle()
		require.True(t, closed.ends())

		s.backend.answer = func(w http.ResponseWriter, _ *http.Request) error {
			w.Header().Set("Content-Type", "text/event-stream")
			_, err := w.Write([]byte(hello))
			return err
		}
		require.True(t, s.open(token("ann")).ends(), "the backend ended it")

		s.backend.answer = func(_ http.ResponseWriter, r *http.Request) error {
			<-r.Context().Done()
			return r.Context().Err()
		}
		early := s.open(token("ann"))
		early.leave()
		s.settle()
		require.True(t, early.ends(), "the client left before the header")

		s.backend.answer = answering(http.StatusUnauthorized, "text/plain", "no")
		s.open(token("ann"))
		s.backend.answer = nil

		s.open(field("Last-Event-ID", "sse-guard.1.forged"), token("bob"))
		require.Empty(t, s.visible())
	})
}

func TestLog_TombstoneIsADebugMatter(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		id := s.entombedClient(token("ann"))
		before := len(s.visible())
		s.open(token("ann"), field("Last-Event-ID", id))
		require.Len(t, s.visible(), before)
		require.Len(t, s.logs.FilterMessage("ended client came back").All(), 1)
	})
}

// A stream whose event could not be sent is told apart.
func TestLog_SaysWhetherTheEventWasSent(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		s.backend.header = http.Header{"Content-Encoding": {"gzip"}}
		older := s.open(token("ann"))
		s.open(token("ann"))
		require.True(t, older.ends())
		require.Equal(t, hello, older.text(), "nothing can be put between its events")

		ended := s.logs.FilterMessage("stream ended").All()
		require.Len(t, ended, 1)
		require.Equal(t, false, ended[0].ContextMap()["event_sent"])
		require.Equal(t, int64(len(hello)), ended[0].ContextMap()["bytes"])
		require.Equal(t, uint64(0), ended[0].ContextMap()["events"])

		warnings := s.logs.FilterMessageSnippet("compresses event streams").All()
		require.Len(t, warnings, 1, "once, not for each stream")
		require.Equal(t, zap.WarnLevel, warnings[0].Level)
		require.Equal(t, "gzip", warnings[0].ContextMap()["content_encoding"])
	})
}

// compressing is a handler further out that compresses.
type compressing struct{ *client }

func (c compressing) WriteHeader(status int) {
	c.Header().Set("Content-Encoding", "gzip")
	c.client.WriteHeader(status)
}

// An encode handler around the guard compresses the guard's events too.
func TestLog_BlamesNoUpstreamForWhatIsCompressedFurtherOut(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		s.backend.answer = answering(http.StatusOK, "text/event-stream", hello)
		c := &client{r: requestOf("ann"), header: http.Header{}}
		require.NoError(t, s.guards[0].Serve(compressing{c}, c.r, s.backend.serve, &aroundRequest{c: c, r: c.r}))
		require.Equal(t, "gzip", c.sent.Get("Content-Encoding"))
		require.Empty(t, s.logs.FilterMessageSnippet("compresses event streams").All())
	})
}

// Some clients come back at once, whatever they are told.
func TestLog_ParkedNewcomersAreToldOnceAMinute(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		told := func() []observer.LoggedEntry { return s.logs.FilterMessageSnippet("newcomer parked").All() }
		s.fought()
		require.Len(t, told(), 1)
		s.pass(6 * time.Second)
		for range 5 {
			s.send(token("ann"))
			s.settle()
		}
		require.Len(t, told(), 1)
		s.pass(time.Minute)
		require.Len(t, told(), 2)
		require.Equal(t, "security", told()[1].LoggerName)
		require.EqualValues(t, 5, told()[1].ContextMap()["attempts"])
	}, all(tended, damping))
}
