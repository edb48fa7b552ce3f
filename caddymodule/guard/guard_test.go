package guard

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/sse-guard/sse-guard/caddymodule/event"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/registry/memory"
	"github.com/sse-guard/sse-guard/caddymodule/stream"
	"github.com/sse-guard/sse-guard/caddymodule/tombstone"
	"github.com/sse-guard/sse-guard/caddymodule/zone"
)

// fakeEnv is a server around a request that knows two placeholders.
type fakeEnv struct{ r *http.Request }

func (e fakeEnv) Expand(template string, own func(string) string) string {
	if name, ok := strings.CutPrefix(template, "own:"); ok {
		return own(name)
	}
	return strings.ReplaceAll(template, "{path}", e.r.URL.Path)
}
func (fakeEnv) Publish(func(string) string)   {}
func (e fakeEnv) Path() string                { return e.r.URL.Path }
func (fakeEnv) Original() *url.URL            { return nil }
func (fakeEnv) Snapshot() func()              { return func() {} }
func (fakeEnv) FullDuplex() bool              { return false }
func (fakeEnv) ClientIP() string              { return "192.0.2.1" }
func (fakeEnv) ForwardedHosts() []string      { return nil }
func (fakeEnv) WriteDeadline() time.Time      { return time.Time{} }
func (fakeEnv) Connection() stream.Connection { return stream.Connection{} }
func (fakeEnv) Users() *stream.Users          { return nil }

// newGuard is a guard as "sse_guard" without options makes it, and no log.
func newGuard(t testing.TB) *Guard {
	t.Helper()
	return New(plainConfig(t, zap.NewNop()))
}

// newZone is a zone that is closed when the test ends.
func newZone(t testing.TB, name string) *zone.Zone {
	z, err := zone.New(name, func(node registry.Node) (registry.Registry, error) {
		return byValue{memory.New(node)}, nil
	}, event.NoMetrics{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, z.Close()) })
	return z
}

func requestOf(token string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/events", nil)
	r.Header.Set("Accept", "text/event-stream")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return r
}

// call is a request on its way through a guard, whose upstream streams until
// it is ended.
type call struct {
	rec   *httptest.ResponseRecorder
	open  chan struct{} // closed when the upstream has sent its first event
	leave context.CancelFunc
	done  chan struct{}
}

func serve(t testing.TB, g *Guard, r *http.Request, headers ...string) *call {
	t.Helper()
	ctx, leave := context.WithCancel(t.Context())
	c := &call{rec: httptest.NewRecorder(), open: make(chan struct{}), leave: leave, done: make(chan struct{})}
	r = r.WithContext(ctx)
	go func() {
		defer close(c.done)
		defer func() {
			if p := recover(); p != nil {
				assert.Equal(t, http.ErrAbortHandler, p)
			}
		}()
		err := g.Serve(c.rec, r, func(w http.ResponseWriter, r *http.Request) error {
			w.Header().Set("Content-Type", "text/event-stream")
			for i := 0; i < len(headers); i += 2 {
				w.Header().Set(headers[i], headers[i+1])
			}
			_, _ = io.WriteString(w, "data: a\n\n")
			close(c.open)
			<-r.Context().Done()
			return nil
		}, fakeEnv{r})
		assert.NoError(t, err)
	}()
	t.Cleanup(func() {
		leave()
		<-c.done
	})
	return c
}

// asked reports whether the upstream was asked, once the call is over.
func (c *call) asked() bool {
	<-c.done
	select {
	case <-c.open:
		return true
	default:
		return false
	}
}

func TestEarlyReject_AsksTheUpstreamOnlyForAnotherToken(t *testing.T) {
	g := newGuard(t)
	g.Rule.Policy = registry.Reject
	g.Key = []string{"{path}"}
	<-serve(t, g, requestOf("alice")).open
	assert.False(t, serve(t, g, requestOf("alice")).asked())
	stranger := serve(t, g, requestOf("mallory"))
	assert.True(t, stranger.asked(), "only the upstream knows whether this token is good")
	assert.Contains(t, stranger.rec.Body.String(), "event: DUPLICATE_SESSION")
}

func TestEarlyTakeover_WaitsForTheOlderUpstreamRequest(t *testing.T) {
	g := newGuard(t)
	older := serve(t, g, requestOf("alice"))
	<-older.open
	newer := serve(t, g, requestOf("alice"))
	<-newer.open
	<-older.done
	assert.Contains(t, older.rec.Body.String(), "event: DUPLICATED_CONNECTION")
}

func TestRefusedAtTheHeader_RestoresTheHeader(t *testing.T) {
	g := newGuard(t)
	g.Rule.Policy = registry.Reject
	g.Takeover = TakeoverResponse
	<-serve(t, g, requestOf("alice")).open
	refused := serve(t, g, requestOf("alice"), "Set-Cookie", "a=b", "Etag", "x", "Vary", "Origin", "Access-Control-Allow-Origin", "*")
	<-refused.done
	h := refused.rec.Header()
	assert.Empty(t, h.Get("Set-Cookie"))
	assert.Empty(t, h.Get("Etag"))
	assert.Equal(t, "Origin", h.Get("Vary"))
	assert.Equal(t, "*", h.Get("Access-Control-Allow-Origin"))
}

// deadRegistry cannot be reached.
type deadRegistry struct{ registry.Registry }

var errUnreachable = errors.New("connection refused")

func (deadRegistry) Admit(context.Context, registry.Phase, registry.Consent, []registry.Ask, []registry.StreamID) ([]registry.Admission, error) {
	return nil, errUnreachable
}

func TestRegistryUnreachable_IsATemporaryRefusal(t *testing.T) {
	for _, takeover := range []Takeover{TakeoverAuto, TakeoverResponse} {
		g := newGuard(t)
		g.Zone.Registry, g.Takeover = deadRegistry{g.Zone.Registry}, takeover
		asking := serve(t, g, requestOf("alice"))
		<-asking.done
		assert.Equal(t, http.StatusOK, asking.rec.Code)
		assert.Equal(t, "retry: 5000\n", asking.rec.Body.String())

		r := requestOf("alice")
		r.Header.Del("Accept")
		other := serve(t, g, r)
		<-other.done
		assert.Equal(t, http.StatusServiceUnavailable, other.rec.Code)
		assert.Equal(t, "5", other.rec.Header().Get("Retry-After"))
	}
}

func TestTombstones_AreTakenOutOfTheRequest(t *testing.T) {
	const id = tombstone.Prefix + "whatever"
	for given, want := range map[string]string{
		"":                                  "",
		"a=1&b=%zz":                         "a=1&b=%zz",
		"lastEventId=7":                     "lastEventId=7",
		"lastEventId=" + id:                 "",
		"a=1&lastEventId=" + id + "&b=+%20": "a=1&b=+%20",
		"last%45ventId=" + id + "&c":        "c",
	} {
		r := httptest.NewRequest(http.MethodGet, "/?"+given, nil)
		r.Header["Last-Event-Id"] = []string{id, "41"}
		taken := takeTombstones(r, nil)
		assert.Equal(t, want, r.URL.RawQuery)
		assert.Equal(t, []string{"41"}, r.Header["Last-Event-Id"])
		assert.Contains(t, tombstones(taken), id)
	}
}

func TestPlaceholders_AreHashes(t *testing.T) {
	g := newGuard(t)
	g.Key = []string{"own:sse_guard.token", "own:sse_guard.client"}
	g.DenyMissing = true
	r := requestOf("alice")
	without := serve(t, g, r)
	<-without.done
	assert.Equal(t, http.StatusForbidden, without.rec.Code)

	r = requestOf("alice")
	r.Header.Set("X-Client-Id", "phone")
	v := newRequest(g, r, fakeEnv{r}, true, nil)
	assert.Len(t, v.placeholder("sse_guard.token"), 64)
	assert.Len(t, v.placeholder("sse_guard.client"), 64)
	assert.Len(t, v.placeholder("sse_guard.key"), 16)
	assert.Empty(t, v.placeholder("sse_guard.claims.sub"))
}

func TestLog_OneLinePerEndedStreamAndOnePerContestedKey(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	g := New(plainConfig(t, zap.New(core)))
	older := serve(t, g, requestOf("alice"))
	<-older.open
	newer := serve(t, g, requestOf("alice"))
	<-newer.open
	<-older.done
	newer.leave()
	<-newer.done
	require.Equal(t, 2, logs.Len(), "%v", logs.All())
	ended := logs.FilterMessage("stream ended").All()[0].ContextMap()
	assert.Equal(t, "superseded", ended["reason"])
	assert.Equal(t, "192.0.2.1", ended["client_ip"])
	assert.EqualValues(t, 1, ended["events"])
	contested := logs.FilterMessage("stream superseded").All()[0]
	assert.Equal(t, "security", contested.LoggerName)
	assert.Equal(t, zap.WarnLevel, contested.Level)
}
