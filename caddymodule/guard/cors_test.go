package guard

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/sse-guard/sse-guard/caddymodule/identity"
)

const appOrigin = "https://app.example"

var ofApp = field("Origin", appOrigin)

// ofPage is a page of the application.
var ofPage = identity.Reader{Cross: true, Origin: appOrigin}

// allowing has the backend let pages of the application read its answers.
func allowing(s *site) {
	s.backend.header = http.Header{
		allowOrigin:                        {appOrigin},
		"Access-Control-Allow-Credentials": {"true"},
		"Access-Control-Expose-Headers":    {"Retry-After"},
		"Vary":                             {"Origin"},
		"Set-Cookie":                       {"session=1"},
	}
}

// preflight is what a browser asks before a request that is not a simple one.
var preflight = both(method(http.MethodOptions), notAsking, ofApp, field("Access-Control-Request-Method", "GET"))

// preflighted has the backend answer a preflight, and requests as before.
func (s *site) preflighted(edits ...func(*client)) {
	allowing(s)
	s.backend.answer = answering(http.StatusOK, "text/plain", "")
	s.open(append(edits, preflight)...)
	s.backend.answer = nil
}

// requireReadable asserts that a page of the application's can read the answer, which
// says nothing of what the backend once said besides.
func requireReadable(t *testing.T, c *client, status int) {
	t.Helper()
	got, h, body := c.got()
	require.Equal(t, status, got, body)
	require.Equal(t, appOrigin, h.Get(allowOrigin))
	require.Equal(t, "true", h.Get("Access-Control-Allow-Credentials"))
	require.Equal(t, "Retry-After", h.Get("Access-Control-Expose-Headers"))
	require.Equal(t, []string{"Origin"}, h["Vary"])
	require.Empty(t, h.Get("Set-Cookie"))
}

func TestRefusal_CanBeReadByThePageThatAsked(t *testing.T) {
	for name, test := range map[string]struct {
		configure func(*Config)
		refused   func(s *site) *client
		status    int
	}{
		"no token":      {requiringToken, func(s *site) *client { return s.open(ofApp) }, http.StatusUnauthorized},
		"a bad token":   {verifying, func(s *site) *client { return s.open(ofApp, token("sub=ann&exp=1")) }, http.StatusUnauthorized},
		"two tokens":    {requiringToken, func(s *site) *client { return s.open(ofApp, token("a"), query("token=b")) }, http.StatusBadRequest},
		"no key":        {denyingMissing, func(s *site) *client { return s.open(ofApp) }, http.StatusForbidden},
		"no registry":   {breaking(&failing{early: true}), func(s *site) *client { return s.open(ofApp, token("ann")) }, http.StatusOK},
		"no keys":       {func(g *Config) { g.Verifier = &plainVerifier{keyless: true} }, func(s *site) *client { return s.open(ofApp, token("sub=ann")) }, http.StatusOK},
		"rejected":      {rejecting, func(s *site) *client { s.open(token("ann")); return s.open(ofApp, token("ann")) }, http.StatusOK},
		"with a status": {withStatus, func(s *site) *client { s.open(token("ann")); return s.open(ofApp, token("ann")) }, http.StatusConflict},
		"parked":        {parking, func(s *site) *client { s.open(token("ann")); return s.open(ofApp, token("ann")) }, http.StatusOK},
		"a tombstone": {func(*Config) {}, func(s *site) *client {
			return s.open(ofApp, token("ann"), field("Last-Event-ID", s.entombedClient(token("ann"))))
		}, http.StatusNoContent},
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				s.preflighted()
				asked := s.backend.asked()
				c := test.refused(s)
				requireReadable(t, c, test.status)
				for _, r := range s.backend.requests[asked:] {
					require.Empty(t, r.Header.Get("Origin"), "nobody asked the backend for that")
				}
			}, test.configure)
		})
	}
}

// While nobody knows how the page can read it, a refusal waits for the backend's
// answer, and is known from then on.
func TestRefusal_WaitsForTheHeaderWhereNoPageCouldReadIt(t *testing.T) {
	for name, test := range map[string]struct {
		configure func(*Config)
		edit      func(*client)
		status    int
	}{
		"no token":   {requiringToken, func(*client) {}, http.StatusUnauthorized},
		"two tokens": {requiringToken, both(token("a"), query("token=b")), http.StatusBadRequest},
		"no key":     {denyingMissing, func(*client) {}, http.StatusForbidden},
		"no keys":    {func(g *Config) { g.Verifier = &plainVerifier{keyless: true} }, token("sub=ann"), http.StatusOK},
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				allowing(s)
				requireReadable(t, s.open(ofApp, test.edit), test.status)
				require.Equal(t, 1, s.backend.asked())
				requireReadable(t, s.open(ofApp, test.edit), test.status)
				require.Equal(t, 1, s.backend.asked(), "now it is known")
				s.open(field("Origin", "https://other.example"), test.edit)
				require.Equal(t, 2, s.backend.asked(), "not of that page")
				s.open(ofApp, test.edit, at("/elsewhere"))
				require.Equal(t, 3, s.backend.asked(), "not there")
				s.open(test.edit)
				s.open(test.edit, field("Origin", "http://example.com"))
				require.Equal(t, 3, s.backend.asked(), "the site's own pages read everything")
			}, test.configure)
		})
	}
}

// It may cost something, and is not to be had without a token.
func TestRefusal_OfARequestThatDoesSomethingDoesNotWait(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		allowing(s)
		for _, types := range []string{"text/event-stream", "application/json, text/event-stream"} {
			status, _, _ := s.open(ofApp, method(http.MethodPost), accepting(types)).got()
			require.Equal(t, http.StatusUnauthorized, status)
		}
		require.Zero(t, s.backend.asked())
	}, all(requiringToken, anyMethod))
}

// What else refuses is asked before the token, and does not let it through either.
func TestRefusal_OfARequestThatDoesSomethingLetsNobodyThroughWithoutAToken(t *testing.T) {
	posting := both(ofApp, method(http.MethodPost))
	t.Run("while the server stops", func(t *testing.T) {
		atSite(t, func(t *testing.T, s *site) {
			allowing(s)
			s.guards[0].Zone.Drain(s.guards[0].Drain, s.guards[0].Logger)
			status, _, _ := s.open(posting).got()
			require.Equal(t, http.StatusUnauthorized, status)
			require.Zero(t, s.backend.asked())
			s.open(posting, token("ann"))
			require.Equal(t, 1, s.backend.asked(), "with one, its page is to read why it gets no stream")
		}, all(requiringToken, anyMethod))
	})
	t.Run("of a token that is logged out", func(t *testing.T) {
		atSite(t, func(t *testing.T, s *site) {
			stream := s.open(token("sub=ann&exp=9999999999"))
			s.logOut(http.StatusOK, token("sub=ann&exp=9999999999"))
			shown := stream.lastEvent(t).ID
			require.NotEmpty(t, shown)
			asked := s.backend.asked()
			allowing(s)
			status, _, _ := s.open(posting, token("sub=ann&exp=9999999999"), field("Last-Event-ID", shown)).got()
			require.Equal(t, http.StatusUnauthorized, status)
			require.Equal(t, asked, s.backend.asked())
		}, all(verifying, requiringToken, anyMethod, loggingOut(LogoutToken)))
	})
}

func TestRefusal_IsReadByThePageOnTheHostThatLetsIt(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		s.preflighted()
		_, h, _ := s.open(ofApp).got()
		require.Equal(t, appOrigin, h.Get(allowOrigin))
		s.backend.header, s.backend.answer = nil, answering(http.StatusOK, "text/plain", "")
		_, h, _ = s.open(ofApp, func(c *client) { c.r.Host = "other.example" }).got()
		require.Empty(t, h[allowOrigin])
	}, requiringToken)
}

// Handlers in front of the guard may say who reads the site's answers.
func TestRefusal_CanBeReadWhereTheSiteSaysSo(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		s.onEntry = http.Header{allowOrigin: {"*"}, "Vary": {"Accept-Encoding"}}
		status, h, _ := s.open(ofApp).got()
		require.Equal(t, http.StatusUnauthorized, status)
		require.Equal(t, "*", h.Get(allowOrigin))
		require.Zero(t, s.backend.asked())

		s.preflighted()
		_, h, _ = s.open(ofApp).got()
		require.Equal(t, []string{"*"}, h[allowOrigin])
		require.Empty(t, h.Get("Access-Control-Allow-Credentials"), "that is not for everybody")
		require.Equal(t, []string{"Accept-Encoding", "Origin"}, h["Vary"])
	}, requiringToken)
}

func TestCORS_IsWhatTheBackendSaidLast(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		known := func() bool { return s.guards[0].cors.lets(corsPage{appOrigin, "example.com", "/events"}, ofPage) }
		answer := func(status int, origins ...string) {
			s.backend.header = http.Header{allowOrigin: origins}
			s.backend.answer = answering(status, "text/plain", "")
			s.open(ofApp)
		}
		require.False(t, known())
		answer(http.StatusOK, appOrigin)
		require.True(t, known())
		answer(http.StatusInternalServerError)
		require.True(t, known(), "errors often lack the fields")
		answer(http.StatusBadGateway, "*")
		s.backend.header = nil
		_, h, _ := s.open(ofApp, token("a"), query("token=b")).got()
		require.Equal(t, "*", h.Get(allowOrigin), "the last")
		answer(http.StatusOK)
		require.False(t, known(), "it does not let it any more")
		answer(http.StatusOK, appOrigin, strings.Repeat("x", mostCORSBytes))
		require.False(t, known(), "what is long is not kept")
	})
}

func TestCORS_OfThePagesThatAskedLastIsKnown(t *testing.T) {
	m := newCORSMemory()
	allowed := http.Header{allowOrigin: {"*"}}
	for i := range 3 * mostCORS {
		m.note(corsPage{appOrigin, "a", fmt.Sprint("/", i)}, http.StatusOK, allowed)
		m.note(corsPage{appOrigin, "a", "/often"}, http.StatusOK, allowed)
	}
	require.Equal(t, mostCORS, m.pages.Len())
	require.True(t, m.lets(corsPage{appOrigin, "a", "/often"}, ofPage))
	require.False(t, m.lets(corsPage{appOrigin, "a", "/0"}, ofPage))
}

// Only requests with an Origin are looked at, and what is known already costs
// nothing.
func TestCORS_AllocatesNothingForWhatIsKnown(t *testing.T) {
	g := New(plainConfig(t, zap.NewNop()))
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api", nil)
	w := &discard{http.Header{}}
	handler := func(w http.ResponseWriter, _ *http.Request) error {
		w.WriteHeader(http.StatusOK)
		return nil
	}
	serve := func() { _ = g.Serve(w, r, handler, fakeEnv{r}) }
	without := testing.AllocsPerRun(100, serve)
	r.Header.Set("Origin", appOrigin)
	w.header = http.Header{allowOrigin: {"*"}, "Vary": {"Origin"}}
	require.Equal(t, without, testing.AllocsPerRun(100, serve))
	require.True(t, g.cors.lets(corsPage{appOrigin, r.Host, "/api"}, ofPage))
}
