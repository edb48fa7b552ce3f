package guard

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap/zapcore"

	"github.com/sse-guard/sse-guard/caddymodule/reason"
)

// finishing has all responses finished, as come_back clean does.
func finishing(g *Config) { g.Stream.FinishAll = true }

// Each way to end a stream, and whether its client is to come back.
func TestEnds_AreCutWhereTheClientIsToComeBack(t *testing.T) {
	for name, test := range map[string]struct {
		configure func(*Config)
		end       func(*site) *client
		cut       bool
		last      string // of the body, a regular expression
	}{
		"superseded": {func(*Config) {}, func(s *site) *client {
			c := s.open(token("ann"))
			s.open(token("ann"))
			return c
		}, false, `"reason":"superseded".*\n\n$`},
		"rejected early": {rejecting, func(s *site) *client {
			s.open(token("ann"))
			return s.open(token("ann"))
		}, true, `retry: 5000\nevent: DUPLICATE_SESSION\ndata: .*\n\n$`},
		"rejected at the header": {all(rejecting, onlyAtHeader), func(s *site) *client {
			s.open(token("ann"))
			return s.open(token("ann"))
		}, true, `retry: 5000\nevent: DUPLICATE_SESSION\ndata: .*\n\n$`},
		"rejected with a status": {withStatus, func(s *site) *client {
			s.open(token("ann"))
			return s.open(token("ann"))
		}, false, `"reason":"rejected","error":\{.*\}\}\n$`},
		"parked, and the key is free": {parking, func(s *site) *client {
			holder := s.open(token("ann"))
			c := s.open(token("ann"))
			holder.leave()
			s.settle()
			return c
		}, true, `\n\nretry: 500\n$`},
		"shutdown": {tended, func(s *site) *client {
			c := s.open(token("ann"))
			go s.guards[0].Zone.Drain(s.guards[0].Drain, s.guards[0].Logger)
			s.pass(10 * time.Second)
			return c
		}, true, `\n\nretry: \d+\n$`},
		"shutdown while parked": {all(tended, parking), func(s *site) *client {
			s.open(token("ann"))
			c := s.open(token("ann"))
			go s.guards[0].Zone.Drain(s.guards[0].Drain, s.guards[0].Logger)
			s.pass(10 * time.Second)
			return c
		}, true, `\n\nretry: \d+\n$`},
		"refused while Caddy shuts down": {tended, func(s *site) *client {
			s.guards[0].Zone.Drain(s.guards[0].Drain, s.guards[0].Logger)
			return s.open(token("ann"))
		}, true, `^retry: \d+\n$`},
		"max_age": {func(g *Config) { g.Stream.MaxAge = time.Minute }, func(s *site) *client {
			c := s.open(token("ann"))
			s.pass(2 * time.Minute)
			return c
		}, true, `\n\nretry: \d+\n$`},
		"stalled": {func(g *Config) { g.Stream.StallAfter, g.Stream.Heartbeat = time.Minute, 15*time.Second }, func(s *site) *client {
			c := s.open(token("ann"))
			s.pass(61 * time.Second)
			return c
		}, true, `\n:\nretry: \d+\n$`},
	} {
		t.Run(name, func(t *testing.T) {
			for _, finish := range []bool{false, true} {
				configure := test.configure
				if finish {
					configure = all(test.configure, finishing)
				}
				atSite(t, func(t *testing.T, s *site) {
					c := test.end(s)
					require.True(t, c.ends())
					require.NoError(t, c.err)
					require.Equal(t, test.cut && !finish, c.cut)
					require.Regexp(t, test.last, c.text())
					s.leaveAll()
				}, configure)
			}
		})
	}
}

// A response that the inner guard cuts is cut, and one that the outer guard has ended
// is not.
func TestEnds_OfNestedGuards(t *testing.T) {
	rotated := func(g *Config) { g.Stream.MaxAge = time.Minute }
	for name, configure := range map[string][]func(*Config){
		"the inner guard's": {perStore(limited(1)), all(perUser(), rotated)},
		"the outer guard's": {all(perStore(limited(1)), rotated), perUser()},
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				c := s.open(in("books", "ann"))
				s.pass(2 * time.Minute)
				require.True(t, c.ends())
				require.True(t, c.cut)
				require.Regexp(t, `\n\nretry: \d+\n$`, c.text())
				require.Zero(t, s.holders(0))
				require.Zero(t, s.holders(1))
				require.Zero(t, s.logs.FilterMessage("stream ended").FilterLevelExact(zapcore.ErrorLevel).Len())
			}, configure...)
		})
	}
}

// SDKs of language models raise an error where the data says so. Others see a
// TypeError, or an answer that looks finished.
func TestNotice_DataIsAnErrorToo(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		older := s.open(token("ann"))
		s.open(token("ann"))
		var data map[string]any
		for line := range strings.Lines(older.text()) {
			if text, ok := strings.CutPrefix(line, "data: {"); ok {
				require.NoError(t, json.Unmarshal([]byte("{"+text), &data))
			}
		}
		message := reason.Superseded.Meaning().Message
		require.NotEmpty(t, data["time"])
		delete(data, "time")
		require.Equal(t, map[string]any{
			"type":        "error",
			"code":        "DUPLICATED_CONNECTION",
			"reason":      "superseded",
			"message":     message,
			"lastEventId": "7",
			"error":       map[string]any{"type": "sse_guard", "code": "DUPLICATED_CONNECTION", "message": message},
		}, data)
	})
}

func TestMessage_IsTheGuardsOwn(t *testing.T) {
	said := func(texts map[reason.Reason]string) func(*Config) {
		return func(g *Config) { g.Messages = texts }
	}
	korean := said(map[reason.Reason]string{
		reason.Superseded: "{req.X-Name}님, 다른 곳에서 접속했습니다.",
		reason.Rejected:   "{req.X-Name}님은 이미 접속 중입니다. \"확인\"",
		reason.Logout:     "{sse_guard.token}",
	})
	atSite(t, func(t *testing.T, s *site) {
		older := s.open(token("ann"), field("X-Name", "앤"))
		other := s.open(token("bob"), field("X-Name", "밥"))
		s.open(token("ann"))
		s.open(token("bob"))
		require.Equal(t, "앤님, 다른 곳에서 접속했습니다.", older.lastEvent(t).Data.Message)
		require.Equal(t, "밥님, 다른 곳에서 접속했습니다.", other.lastEvent(t).Data.Message)
	}, korean)
	for name, configure := range map[string]func(*Config){
		"early": rejecting, "at the header": all(rejecting, onlyAtHeader), "parked": parking,
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				s.open(token("ann"))
				refused := s.open(token("ann"), field("X-Name", "앤"))
				require.Equal(t, "앤님은 이미 접속 중입니다. \"확인\"", refused.lastEvent(t).Data.Message)
				require.Contains(t, refused.text(), `\"확인\""}}`, "also in the error")
			}, all(configure, korean))
		})
	}
	atSite(t, func(t *testing.T, s *site) {
		older := s.open(token("ann"))
		s.open(token("ann"))
		require.Equal(t, reason.Superseded.Meaning().Message, older.lastEvent(t).Data.Message, "nothing is left of it")
	}, said(map[reason.Reason]string{reason.Superseded: " {req.X-Name}"}))
}

// The handlers behind the guard may change what placeholders stand for.
func TestMessage_IsThatOfTheOpeningStream(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		s.backend.answer = func(w http.ResponseWriter, r *http.Request) error {
			w.Header().Set("X-Lang", "ko")
			return s.backend.stream(w, r)
		}
		older := s.open(token("ann"))
		older.header.Set("X-Lang", "changed")
		s.open(token("ann"))
		require.Equal(t, "in ko", older.lastEvent(t).Data.Message)
	}, func(g *Config) { g.Messages = map[reason.Reason]string{reason.Superseded: "in {resp.X-Lang}"} })
}
