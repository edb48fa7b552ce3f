package guard

import (
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// accepting is a request with that Accept.
func accepting(types string) func(*client) {
	return func(c *client) { c.r.Header.Set("Accept", types) }
}

// bothTypes is what MCP and GraphQL clients accept.
var bothTypes = accepting("application/json, text/event-stream")

func TestEarly_OnlyForWhoAcceptsNothingElse(t *testing.T) {
	for name, types := range map[string]string{
		"MCP":           "application/json, text/event-stream",
		"urql":          "application/graphql-response+json, application/json, text/event-stream, multipart/mixed",
		"all types":     "text/event-stream, */*;q=0.1",
		"all its types": "text/*, text/event-stream",
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				holder := s.open(token("ann"))
				s.backend.answer = answering(http.StatusOK, "application/json", "{}")
				require.Equal(t, "{}", s.open(token("ann"), accepting(types)).text())
				require.False(t, holder.over(), "its answer is no stream")

				s.backend.answer = nil
				newer := s.open(token("ann"), accepting(types), field("Accept-Encoding", "gzip"))
				require.Equal(t, "superseded", holder.lastEvent(t).Data.Reason, "its answer is one")
				require.Equal(t, hello, newer.text())
				require.Equal(t, "identity", s.backend.last().Header.Get("Accept-Encoding"))
			})
		})
	}
}

func TestRefused_WhoAcceptsOtherTypesGetsAStatus(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		holder := s.open(token("ann"))
		requireConflict(t, s.open(token("ann"), bothTypes), "5")
		require.Equal(t, 2, s.backend.asked(), "it might have got its JSON")
		require.False(t, holder.over())
	}, parking)
	atSite(t, func(t *testing.T, s *site) {
		p := problemOf(t, s.open(token("ann"), bothTypes))
		require.Equal(t, http.StatusServiceUnavailable, p.Status)
	}, breaking(&failing{early: true, header: true}))
}

// An LLM's answer is not paid for first. That ends nobody.
func TestRequireToken_IsDemandedOfWhoAcceptsOtherTypesToo(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		require.Equal(t, http.StatusUnauthorized, problemOf(t, s.open(bothTypes)).Status)
		require.Zero(t, s.backend.asked())
		require.Equal(t, hello, s.open(bothTypes, token("ann")).text())
	}, requiringToken)
	atSite(t, func(t *testing.T, s *site) {
		require.Equal(t, http.StatusUnauthorized, problemOf(t, s.open(bothTypes, token("sub=ann&exp=1"))).Status)
		require.Zero(t, s.backend.asked())
	}, verifying)
	atSite(t, func(t *testing.T, s *site) {
		s.backend.answer = answering(http.StatusOK, "application/json", "{}")
		require.Equal(t, "{}", s.open(bothTypes, token("sub=ann")).text(), "it needs no key set for that")
		require.Equal(t, "{}", s.open(bothTypes, token("sub=ann"), query("token=sub=bob")).text(), "nor one token only")
	}, func(g *Config) { g.Verifier = &plainVerifier{keyless: true} })
}

// A request that is not all there may never be: the backend would wait for it, and
// the older stream would have ended for nothing.
func TestEarlyTakeover_NotForARequestThatIsNotAllThere(t *testing.T) {
	for name, edit := range map[string]func(*client){
		"a body":                 func(c *client) { c.r.ContentLength = 5 },
		"a body without an end":  func(c *client) { c.r.ContentLength = -1 },
		"100-continue":           field("Expect", "100-continue"),
		"100-continue, the body": both(field("Expect", "100-Continue"), func(c *client) { c.r.ContentLength = 5 }),
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				holder := s.open(token("ann"))
				arrived := make(chan struct{})
				s.backend.answer = func(w http.ResponseWriter, r *http.Request) error {
					<-arrived
					return s.backend.stream(w, r)
				}
				newer := s.open(token("ann"), edit)
				require.False(t, holder.over())
				require.Equal(t, 1, s.holders(0))
				close(arrived)
				s.settle()
				require.Equal(t, "superseded", holder.lastEvent(t).Data.Reason)
				require.Equal(t, hello, newer.text())
			})
		})
	}
}

// An uptime probe asks for the header of a stream, and of none.
func TestHead_EndsNobody(t *testing.T) {
	for name, configure := range map[string]func(*Config){
		"by default":  func(*Config) {},
		"any method":  anyMethod,
		"verifying":   verifying,
		"with a key":  keyedBy("everyone"),
		"with a rule": rejecting,
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				holder := s.open(token("sub=ann"))
				s.backend.answer = answering(http.StatusOK, "text/event-stream", "")
				c := s.open(token("sub=ann"), method(http.MethodHead))
				status, h, _ := c.got()
				require.Equal(t, http.StatusOK, status)
				require.Equal(t, http.Header{"Content-Type": {"text/event-stream"}}, h)
				require.Equal(t, 2, s.backend.asked())
				require.False(t, holder.over())
			}, configure)
		})
	}
}

func TestStream_IsEverySuccessWithABody(t *testing.T) {
	for status, stream := range map[int]bool{
		http.StatusOK:                   true,
		http.StatusCreated:              true,
		http.StatusAccepted:             true,
		http.StatusNonAuthoritativeInfo: true,
		http.StatusPartialContent:       true,
		299:                             true,
		http.StatusNoContent:            false,
		http.StatusResetContent:         false,
		http.StatusMultipleChoices:      false,
		http.StatusNotModified:          false,
		http.StatusNotFound:             false,
		http.StatusInternalServerError:  false,
	} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				holder := s.open(token("ann"))
				s.backend.answer = func(w http.ResponseWriter, r *http.Request) error {
					w.Header().Set("Content-Type", "text/event-stream")
					w.WriteHeader(status)
					_, err := io.WriteString(w, hello)
					<-r.Context().Done()
					return err
				}
				got, _, _ := s.open(token("ann")).got()
				require.Equal(t, status, got)
				require.Equal(t, stream, holder.over())
			}, onlyAtHeader)
		})
	}
}

// Answers to OPTIONS, and to polls that find nothing, have the media type too, and no
// body.
func TestStream_WithoutABodyIsNone(t *testing.T) {
	for _, m := range []string{http.MethodGet, http.MethodOptions} {
		t.Run(m, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				holder := s.open(token("ann"))
				s.backend.header = http.Header{"Content-Length": {"0"}}
				s.backend.answer = answering(http.StatusOK, "text/event-stream", "")
				status, h, _ := s.open(token("ann"), method(m)).got()
				require.Equal(t, http.StatusOK, status)
				require.Equal(t, http.Header{"Content-Type": {"text/event-stream"}, "Content-Length": {"0"}}, h)
				require.False(t, holder.over())
			}, onlyAtHeader)
		})
	}
}

// Configurations of the methods that count.

func anyMethod(g *Config) { g.Methods = []string{"any"} }

func TestMethods_SayWhatCounts(t *testing.T) {
	for name, test := range map[string]struct {
		method    string
		configure func(*Config)
		counts    bool
	}{
		"a GET":                         {http.MethodGet, func(*Config) {}, true},
		"a POST":                        {http.MethodPost, func(*Config) {}, false},
		"a POST, with a key":            {http.MethodPost, keyedBy("{sse_guard.token}"), false},
		"a PUT":                         {http.MethodPut, func(*Config) {}, false},
		"a PATCH":                       {http.MethodPatch, func(*Config) {}, false},
		"a DELETE":                      {http.MethodDelete, func(*Config) {}, false},
		"a QUERY":                       {"QUERY", func(*Config) {}, true},
		"OPTIONS":                       {http.MethodOptions, func(*Config) {}, true},
		"a POST, any":                   {http.MethodPost, anyMethod, true},
		"a POST, by its name":           {http.MethodPost, func(g *Config) { g.Methods = []string{"GET", "post"} }, true},
		"a GET where only POSTs count":  {http.MethodGet, func(g *Config) { g.Methods = []string{"POST"} }, false},
		"a POST of somebody unverified": {http.MethodPost, verifying, false},
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				first, second := s.open(token("sub=ann"), method(test.method)), s.open(token("sub=ann"), method(test.method))
				require.Equal(t, test.counts, first.over())
				require.False(t, second.over())
				require.Equal(t, hello, second.text())
				if test.counts {
					require.Equal(t, 1, s.holders(0))
				} else {
					require.Zero(t, s.holders(0))
				}
			}, test.configure)
		})
	}
}

// A single MCP client has one GET stream and sends POSTs beside it.
func TestMethods_APostLeavesTheGetStreamOfItsClientAlone(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		listening := s.open(token("ann"))
		call := s.open(token("ann"), method(http.MethodPost), bothTypes)
		require.Equal(t, hello, call.text())
		require.False(t, listening.over())
	}, keyedBy("{sse_guard.token}"))
}

// What a guard does not count is in its lists all the same.
func TestMethods_AStreamLeftOutIsUntracked(t *testing.T) {
	for name, test := range map[string]struct {
		configure func(*Config)
		level     zapcore.Level
	}{
		"by default":                 {func(*Config) {}, zap.InfoLevel},
		"with a key":                 {keyedBy("{sse_guard.token}"), zap.WarnLevel},
		"with a key and its methods": {all(keyedBy("{sse_guard.token}"), func(g *Config) { g.Methods = []string{"GET"} }), zap.InfoLevel},
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				post := both(token("ann"), method(http.MethodPost), field("Accept-Encoding", "gzip"))
				first := s.open(post)
				s.open(post)
				require.Equal(t, "gzip", s.backend.last().Header.Get("Accept-Encoding"), "nothing is written into it")
				rows, _, _ := s.guards[0].Zone.Streams.List(t.Context(), registry.Filter{Selector: registry.Selector{All: true}}, "", 9)
				require.Len(t, rows, 2)
				require.Equal(t, registry.StateUntracked, rows[0].State)

				lines := s.logs.FilterField(zap.String("cause", "method")).All()
				require.Len(t, lines, 2)
				require.Equal(t, zap.DebugLevel, lines[1].Level)
				require.Equal(t, test.level, lines[0].Level)
				require.Equal(t, http.MethodPost, lines[0].ContextMap()["method"])
				first.leave()
				s.settle()
				rows, _, _ = s.guards[0].Zone.Streams.List(t.Context(), registry.Filter{Selector: registry.Selector{All: true}}, "", 9)
				require.Len(t, rows, 1)
			}, test.configure)
		})
	}
}

// A guard that counts a POST does so behind, and in front of, one that does not.
func TestMethods_AreEachGuardsOwn(t *testing.T) {
	counting := all(keyedBy("counting"), anyMethod)
	for name, guards := range map[string][]func(*Config){
		"outside": {counting, func(*Config) {}},
		"inside":  {func(*Config) {}, counting},
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				older, newer := s.open(token("ann"), method(http.MethodPost)), s.open(token("ann"), method(http.MethodPost))
				require.True(t, older.ends())
				require.Equal(t, hello, newer.text())
			}, guards...)
		})
	}
}

// What does not count is verified all the same: nobody gets a stream without the
// token that is required, by another method either.
func TestMethods_AStreamLeftOutNeedsItsTokenToo(t *testing.T) {
	for name, test := range map[string]struct {
		configure func(*Config)
		token     func(*client)
	}{
		"none":    {requiringToken, func(*client) {}},
		"two":     {requiringToken, both(token("ann"), query("token=bob"))},
		"expired": {verifying, token("sub=ann&exp=1")},
		"bad":     {verifying, token("bad=1")},
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				c := s.open(test.token, method(http.MethodPost), notAsking)
				status, _, body := c.got()
				require.Contains(t, []int{http.StatusUnauthorized, http.StatusBadRequest}, status)
				require.NotContains(t, body, "hello")
				require.Equal(t, hello, s.open(token("sub=ann"), method(http.MethodPost), notAsking).text())
			}, test.configure)
		})
	}
}
