package guard

import (
	"encoding/json"
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// problemOf reads the problem document that c got.
func problemOf(t *testing.T, c *client) (p problem) {
	t.Helper()
	require.True(t, c.ends())
	require.NoError(t, c.err)
	status, h, body := c.got()
	require.Equal(t, "application/problem+json", h.Get("Content-Type"))
	require.Equal(t, "no-store", h.Get("Cache-Control"))
	require.NoError(t, json.Unmarshal([]byte(body), &p), body)
	require.Equal(t, status, p.Status)
	require.NotEmpty(t, p.Title)
	require.NotEmpty(t, p.Detail)
	return p
}

func requiringToken(g *Config) { g.RequireToken = true }
func denyingMissing(g *Config) { g.DenyMissing = true }

// answering lets the backend answer with something else than a stream.
func answering(status int, contentType, body string) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, err := io.WriteString(w, body)
		return err
	}
}

func TestRequireToken_AsksForOneWhereAStreamIsAskedFor(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		c := s.open()
		p := problemOf(t, c)
		require.Equal(t, http.StatusUnauthorized, p.Status)
		_, h, _ := c.got()
		require.Equal(t, `Bearer realm="sse_guard"`, h.Get("WWW-Authenticate"))
		require.Empty(t, h.Get("Retry-After"), "it is permanent")
		require.Zero(t, s.backend.asked())

		require.Equal(t, hello, s.open(token("ann")).text())
	}, requiringToken)
}

// A login page, a refresh call or a preflight must get through.
func TestRequireToken_LeavesOtherRequestsAlone(t *testing.T) {
	for name, edit := range map[string]func(*client){
		"a page":     notAsking,
		"a POST":     both(notAsking, method(http.MethodPost)),
		"HEAD":       both(notAsking, method(http.MethodHead)),
		"OPTIONS":    both(notAsking, method(http.MethodOptions)),
		"an upgrade": both(notAsking, field("Connection", "Upgrade"), field("Upgrade", "websocket")),
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				s.backend.answer = answering(http.StatusOK, "text/html", "login")
				c := s.open(edit)
				status, h, body := c.got()
				require.Equal(t, http.StatusOK, status)
				require.Equal(t, "login", body)
				require.Empty(t, h.Get("WWW-Authenticate"))
			}, requiringToken, denyingMissing)
		})
	}
}

// methodsOfAll are those that a backend may answer with a stream, whatever they mean.
var methodsOfAll = []string{
	"GET", "get", "POST", "post", "PUT", "PATCH", "DELETE", "OPTIONS", "options", "TRACE", "CONNECT", "QUERY", "SUBSCRIBE", "head",
}

// Lists of methods say what counts, not what is verified.
func TestVerification_IsAskedWhateverTheMethod(t *testing.T) {
	lists := map[string]func(*Config){
		"by default":    func(*Config) {},
		"any method":    anyMethod,
		"a list":        func(g *Config) { g.Methods = []string{"POST"} },
		"an odd list":   func(g *Config) { g.Methods = []string{"oPtIoNs"} },
		"another guard": nil,
	}
	demands := map[string]func(*Config){"a token": requiringToken, "a good token": verifying}
	for list, methods := range lists {
		for demand, configure := range demands {
			guards := []func(*Config){all(configure, methodsOr(methods))}
			if methods == nil { // inside one that demands nothing
				guards = []func(*Config){keyedBy("outer"), configure}
			}
			for _, m := range methodsOfAll {
				t.Run(list+"/"+demand+"/"+m, func(t *testing.T) {
					atSite(t, func(t *testing.T, s *site) {
						for _, accepts := range []func(*client){func(*client) {}, bothTypes} {
							c := s.open(method(m), accepts, token("bad=1"), dropToken(demand == "a token"))
							require.Equal(t, http.StatusUnauthorized, problemOf(t, c).Status)
							require.Zero(t, s.backend.asked(), "it is not paid for first")
						}
						for _, status := range []int{200, 201, 202, 203, 206, 226} {
							s.backend.answer = func(w http.ResponseWriter, _ *http.Request) error {
								w.Header().Set("Content-Type", "text/event-stream")
								w.WriteHeader(status)
								_, err := io.WriteString(w, hello)
								return err
							}
							c := s.open(method(m), notAsking, token("bad=1"), dropToken(demand == "a token"))
							require.Equal(t, http.StatusUnauthorized, problemOf(t, c).Status, status)
							require.Equal(t, hello, s.open(method(m), token("sub=ann")).text())
						}
					}, guards...)
				})
			}
		}
	}
}

func methodsOr(configure func(*Config)) func(*Config) {
	if configure == nil {
		return func(*Config) {}
	}
	return configure
}

// dropToken takes the token out again.
func dropToken(drop bool) func(*client) {
	return func(c *client) {
		if drop {
			c.r.Header.Del("Authorization")
		}
	}
}

// The backend may do for a HEAD all that it does for a stream.
func TestHead_ThatNamesAStreamNeedsItsToken(t *testing.T) {
	for name, configure := range map[string]func(*Config){"a token": requiringToken, "a good token": verifying} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				s.backend.answer = answering(http.StatusOK, "text/event-stream", "")
				status, h, _ := s.open(method(http.MethodHead), bothTypes).got()
				require.Equal(t, http.StatusUnauthorized, status)
				require.NotEmpty(t, h.Get("WWW-Authenticate"))
				require.Zero(t, s.backend.asked())
				status, _, _ = s.open(method(http.MethodHead), token("sub=ann")).got()
				require.Equal(t, http.StatusOK, status)
				status, _, _ = s.open(method(http.MethodHead), notAsking).got()
				require.Equal(t, http.StatusOK, status, "a probe")
			}, configure)
		})
	}
}

// Who accepts nothing but a stream is not forwarded with two tokens, or while nobody
// can verify its token, either.
func TestVerification_OfAMethodThatDoesNotCountIsWholeWhereOnlyAStreamIsAccepted(t *testing.T) {
	posting := method(http.MethodPost)
	atSite(t, func(t *testing.T, s *site) {
		two := both(token("sub=ann"), query("token=sub=bob"))
		require.Equal(t, http.StatusBadRequest, problemOf(t, s.open(posting, two)).Status)
		require.Zero(t, s.backend.asked())
		s.backend.answer = answering(http.StatusOK, "application/json", "{}")
		require.Equal(t, "{}", s.open(posting, two, bothTypes).text(), "one of them may be for that")
	}, requiringToken)
	atSite(t, func(t *testing.T, s *site) {
		require.Equal(t, http.StatusServiceUnavailable, problemOf(t, s.open(posting, token("sub=ann"))).Status)
		require.Zero(t, s.backend.asked())
	}, func(g *Config) { g.Verifier = &plainVerifier{keyless: true} })
	atSite(t, func(t *testing.T, s *site) {
		require.Equal(t, hello, s.open(posting, token("sub=ann")).text(), "it waits for the keys")
	}, func(g *Config) { g.Verifier = &plainVerifier{late: true} })
}

// Servers may ignore a wish to upgrade and answer with a stream.
func TestRequireToken_IsNotEvadedByAWishToUpgrade(t *testing.T) {
	upgrading := both(field("Connection", "Upgrade"), field("Upgrade", "websocket"))
	atSite(t, func(t *testing.T, s *site) {
		require.Equal(t, http.StatusUnauthorized, problemOf(t, s.open(upgrading)).Status)
		require.Equal(t, http.StatusUnauthorized, problemOf(t, s.open(upgrading, notAsking)).Status)
	}, requiringToken)
}

func TestRequireToken_RefusesAStreamThatNobodyAskedForAtTheHeader(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		s.backend.header = http.Header{"Set-Cookie": {"session=1"}}
		c := s.open(notAsking)
		require.Equal(t, http.StatusUnauthorized, problemOf(t, c).Status)
		_, h, _ := c.got()
		require.NotEmpty(t, h.Get("WWW-Authenticate"))
		require.Empty(t, h.Get("Set-Cookie"))
		require.Equal(t, 1, s.backend.asked())
		require.Error(t, s.backend.last().Context().Err())
		require.Zero(t, s.holders(0))
	}, requiringToken)
}

func TestTwoTokens_AreABadRequest(t *testing.T) {
	two := both(token("ann"), query("token=bob"))

	t.Run("early, where a stream is asked for", func(t *testing.T) {
		atSite(t, func(t *testing.T, s *site) {
			c := s.open(two)
			p := problemOf(t, c)
			require.Equal(t, http.StatusBadRequest, p.Status)
			require.Contains(t, p.Detail, "RFC 6750")
			_, _, body := c.got()
			require.NotContains(t, body, "ann")
			require.NotContains(t, body, "bob")
			require.Zero(t, s.backend.asked())
		})
	})
	t.Run("also with a key of something else", func(t *testing.T) {
		atSite(t, func(t *testing.T, s *site) {
			require.Equal(t, http.StatusBadRequest, problemOf(t, s.open(two)).Status)
		}, keyedBy("everyone"))
	})
	t.Run("at the header, for other requests", func(t *testing.T) {
		atSite(t, func(t *testing.T, s *site) {
			require.Equal(t, http.StatusBadRequest, problemOf(t, s.open(two, notAsking)).Status)
			require.Equal(t, 1, s.backend.asked())
		})
	})
	t.Run("not where the answer is no stream", func(t *testing.T) {
		atSite(t, func(t *testing.T, s *site) {
			s.backend.answer = answering(http.StatusOK, "application/json", "{}")
			require.Equal(t, "{}", s.open(two, notAsking).text())
		})
	})
	t.Run("not if they are one", func(t *testing.T) {
		atSite(t, func(t *testing.T, s *site) {
			require.Equal(t, hello, s.open(token("ann"), query("token=ann&access_token=ann")).text())
		})
	})
}

func TestMissingKey_PassesUntracked(t *testing.T) {
	for name, key := range map[string]func(*Config){
		"default key":              func(*Config) {},
		"part of the request":      keyedBy("{req.X-User}"),
		"part of the response":     keyedBy("{resp.X-User}"),
		"one of two parts":         keyedBy("{req.X-User}", "orders"),
		"client id without one":    keyedBy("{sse_guard.client}"),
		"under reject":             rejecting,
		"under reject, at header":  all(rejecting, onlyAtHeader),
		"with a retry when opened": func(g *Config) { g.Stream.OpenRetry = g.Retry },
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				first, second := s.open(), s.open()
				require.Equal(t, 2, s.backend.say("more"))
				for _, c := range []*client{first, second} {
					require.False(t, c.over())
					require.Equal(t, hello+"data: more\n\n", c.text(), "byte for byte")
				}
				require.Zero(t, s.holders(0))
			}, key)
		})
	}
}

func TestMissingKey_IsDenied(t *testing.T) {
	for name, test := range map[string]struct {
		key   func(*Config)
		asked int // requests of the backend
	}{
		"default key, before the backend is asked": {func(*Config) {}, 0},
		"part of the request":                      {keyedBy("{req.X-User}"), 1},
		"part of the response":                     {keyedBy("{resp.X-User}"), 1},
		"at the header only":                       {onlyAtHeader, 0},
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				c := s.open()
				require.Equal(t, http.StatusForbidden, problemOf(t, c).Status)
				_, h, _ := c.got()
				require.Empty(t, h.Get("Retry-After"))
				require.Equal(t, test.asked, s.backend.asked())
				require.Zero(t, s.backend.say("more"), "nothing is left of it at the backend")

				c = s.open(notAsking)
				require.Equal(t, http.StatusForbidden, problemOf(t, c).Status)
				require.Equal(t, test.asked+1, s.backend.asked(), "it might have been no stream")

				s.backend.header = http.Header{"X-User": {"ann"}}
				require.Equal(t, hello, s.open(token("ann"), field("X-User", "ann")).text())
			}, all(test.key, denyingMissing))
		})
	}
}

func TestKey_MayComeFromTheResponse(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		s.backend.header = http.Header{"X-User": {"ann"}}
		first := s.open(token("a"))
		s.backend.header = http.Header{"X-User": {"bob"}}
		bob := s.open(token("b"))
		s.backend.header = http.Header{"X-User": {"ann"}}
		second := s.open(token("c"))
		require.True(t, first.ends())
		require.Equal(t, "superseded", first.lastEvent(t).Data.Reason)
		require.False(t, bob.over())
		require.False(t, second.over())
	}, keyedBy("{resp.X-User}"))
}

// Before the backend has answered, such a part would be the same for all.
func TestKey_WithAPartOfTheResponseIsNotComputedEarly(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		s.backend.header = http.Header{"X-User": {"ann"}}
		ann := s.open(token("shared"))
		s.backend.header = http.Header{"X-User": {"bob"}}
		bob := s.open(token("shared"))
		require.False(t, ann.over())
		require.False(t, bob.over())
		require.Equal(t, 2, s.holders(0))
	}, keyedBy("user {resp.X-User}"))
}

func TestKey_HoldsTokenHostAndPath(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		streams := []*client{
			s.open(token("ann")),
			s.open(token("bob")),
			s.open(token("ann"), func(c *client) { c.r.URL.Path = "/other" }),
			s.open(token("ann"), func(c *client) { c.r.Host = "other.example" }),
		}
		for _, c := range streams {
			require.False(t, c.over())
		}
		s.open(token("ann"), func(c *client) { c.r.Host = "EXAMPLE.com:443" })
		require.True(t, streams[0].ends())
		require.Equal(t, 4, s.holders(0))
	})
}

func TestPlaceholders_AreOfferedToTheHandlersBehind(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		c := s.open(token("ann"), field("X-Client-Id", "phone"))
		require.Regexp(t, `^[0-9a-f]{16}$`, c.published("sse_guard.key"))
		require.Regexp(t, `^[0-9a-f]{64}$`, c.published("sse_guard.token"))
		require.Regexp(t, `^[0-9a-f]{64}$`, c.published("sse_guard.client"))
		require.Empty(t, c.published("sse_guard.claims.sub"))

		same := s.open(token("ann"))
		require.Equal(t, c.published("sse_guard.token"), same.published("sse_guard.token"))
		require.Empty(t, same.published("sse_guard.client"))
		require.Empty(t, s.open().published("sse_guard.key"), "none without a token")
	}, func(g *Config) { g.Rule = registry.Rule{} })
}

func TestPlaceholders_OfARequestThatAsksForNoStream(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		s.backend.answer = answering(http.StatusOK, "application/json", "{}")
		asking, other := s.open(token("ann")), s.open(token("ann"), notAsking)
		for _, name := range []string{"sse_guard.key", "sse_guard.token"} {
			require.NotEmpty(t, asking.published(name))
			require.Equal(t, asking.published(name), other.published(name))
		}
	})
}
