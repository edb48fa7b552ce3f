package steer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/sse-guard/sse-guard/caddymodule/event"
	"github.com/sse-guard/sse-guard/caddymodule/identity"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/registry/memory"
	"github.com/sse-guard/sse-guard/caddymodule/stream"
	"github.com/sse-guard/sse-guard/caddymodule/zone"
)

// site has zones with streams in them, and an API over a server of its own.
type site struct {
	t     testing.TB
	api   *API
	zones []*zone.Zone
	url   string
	logs  *observer.ObservedLogs
}

func newSite(t testing.TB, zones ...string) *site {
	core, logs := observer.New(zapcore.DebugLevel)
	s := &site{t: t, logs: logs}
	for _, name := range zones {
		s.zones = append(s.zones, s.newZone(name, func(n registry.Node) registry.Registry { return memory.New(n) }))
	}
	s.api = &API{Zones: func() []*zone.Zone { return slices.Clone(s.zones) }, Logger: zap.New(core)}
	server := httptest.NewServer(s.api)
	t.Cleanup(server.Close)
	s.url = server.URL + Prefix
	return s
}

// newZone makes a zone that the site does not list by itself.
func (s *site) newZone(name string, open func(registry.Node) registry.Registry) *zone.Zone {
	z, err := zone.New(name, func(n registry.Node) (registry.Registry, error) { return open(n), nil }, event.NoMetrics{})
	require.NoError(s.t, err)
	s.t.Cleanup(func() { require.NoError(s.t, z.Close()) })
	return z
}

// guest is a stream, its Gate, and the writer of its response.
type guest struct {
	zone   *zone.Zone
	holder *registry.Holder
	about  registry.About
	cfg    stream.Config

	response  stream.Response
	untracked bool
	says      chan chan struct{} // has the backend send an event, and is told when it has
	greeted   chan struct{}      // closed once its first event is written
	leave     context.CancelFunc
	done      chan struct{}

	mu   sync.Mutex // guards body
	body bytes.Buffer
}

func hash(name string) (id registry.ID) {
	copy(id[:], name+strings.Repeat(".", 32))
	return id
}

// open opens a stream of a token, with the key of that name, which lives until it ends,
// or the test does.
func (s *site) open(z *zone.Zone, token string, edits ...func(*guest)) *guest {
	s.t.Helper()
	ctx, leave := context.WithCancel(context.Background())
	g := &guest{
		zone: z, says: make(chan chan struct{}), greeted: make(chan struct{}), done: make(chan struct{}), leave: leave,
		cfg: stream.Config{EndTimeout: time.Second, MaxEventSize: 1 << 10, Wheel: z.Wheel},
		holder: &registry.Holder{
			ID: registry.NewStreamID(), Key: hash("key of " + token), Token: s.tokenOf(token), Addr: "192.0.2.1",
			Asked: time.Now(), Since: time.Now(),
		},
	}
	for _, edit := range edits {
		edit(g)
	}
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/events", nil)
	g.response.Init(g, r, g, &g.cfg)
	go func() {
		defer close(g.done)
		defer func() { _ = recover() }() // the response is cut
		_, _ = g.response.Relay(ctx, func(w http.ResponseWriter, r *http.Request) error {
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = w.Write([]byte("data: hello\n\n"))
			close(g.greeted)
			for {
				select {
				case said := <-g.says:
					_, _ = w.Write([]byte("data: tick\n\n"))
					_ = http.NewResponseController(w).Flush()
					close(said)
				case <-r.Context().Done():
					return nil
				}
			}
		})
	}()
	<-g.greeted
	s.t.Cleanup(func() {
		leave()
		<-g.done
	})
	return g
}

func (s *site) tokenOf(token string) registry.ID {
	if token == "" {
		return registry.ID{}
	}
	hash, err := identity.HashOfToken(token)
	require.NoError(s.t, err)
	return registry.ID(hash)
}

// Judge implements stream.Gate.
func (g *guest) Judge(int, http.Header) stream.Verdict {
	st := g.response.NewStream(stream.Terms{
		Holder: g.holder, About: g.about, Untracked: g.untracked,
		Notice: func(dst []byte, e registry.Ending, _ string) []byte {
			return fmt.Appendf(dst, "event: %s\ndata: %s\n\n", e.Reason, e.Message)
		},
		Gone: g.zone.Forget,
	})
	g.zone.Enter(st)
	if !g.untracked {
		as, err := g.zone.Registry.Admit(context.Background(), registry.Header, registry.Consent{},
			[]registry.Ask{{Holder: g.holder, Rule: registry.Rule{Policy: registry.Supersede, Limit: 9}}}, nil)
		if err != nil || as[0].Outcome != registry.Admitted {
			return stream.Refuse
		}
		st.Hold(as[0].Place)
	}
	return stream.Admit
}

// Opened implements stream.Gate.
func (*guest) Opened() {}

func (*guest) Header() http.Header { return http.Header{} }
func (*guest) WriteHeader(int)     {}
func (*guest) Flush()              {}
func (g *guest) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.body.Write(p)
}

func (g *guest) text() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.body.String()
}

func (g *guest) id() string { return g.holder.ID.String() }

// say has the backend send an event, and returns once it was written.
func (g *guest) say() {
	said := make(chan struct{})
	g.says <- said
	<-said
}

// reads waits until the client has received text.
func (g *guest) reads(t *testing.T, text string) {
	t.Helper()
	require.Eventually(t, func() bool { return strings.Contains(g.text(), text) }, time.Minute, time.Millisecond, "%q is missing in %q", text, g.text())
}

// ends waits until the stream is over.
func (g *guest) ends(t *testing.T) {
	t.Helper()
	select {
	case <-g.done:
	case <-time.After(time.Minute):
		require.FailNow(t, "the stream does not end")
	}
}

// answered is an answer of the API.
type answered struct {
	status int
	header http.Header
	body   string
}

func (s *site) do(method, path, body string, header ...string) answered {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, strings.NewReader(body))
	require.NoError(s.t, err)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	response, err := http.DefaultClient.Do(r)
	require.NoError(s.t, err)
	defer response.Body.Close()
	var b bytes.Buffer
	_, err = b.ReadFrom(response.Body)
	require.NoError(s.t, err)
	return answered{response.StatusCode, response.Header, b.String()}
}

// ask is do for what is answered with 200, into to, with no field but those of to.
func (s *site) ask(method, path, body string, to any) {
	s.t.Helper()
	a := s.do(method, path, body)
	require.Equal(s.t, http.StatusOK, a.status, a.body)
	require.Equal(s.t, "application/json", a.header.Get("Content-Type"))
	d := json.NewDecoder(strings.NewReader(a.body))
	d.DisallowUnknownFields()
	require.NoError(s.t, d.Decode(to), a.body)
}

func (s *site) list(query string) (page Page) {
	s.t.Helper()
	s.ask(http.MethodGet, "streams?"+query, "", &page)
	return page
}

func (s *site) end(body string) (e Ended) {
	s.t.Helper()
	s.ask(http.MethodPost, "end", body, &e)
	return e
}

func (s *site) notify(body string) (n Notified) {
	s.t.Helper()
	s.ask(http.MethodPost, "notify", body, &n)
	return n
}

// problem is what is answered where something is wrong.
func (s *site) problem(status int, method, path, body string, header ...string) (p problem) {
	s.t.Helper()
	a := s.do(method, path, body, header...)
	require.Equal(s.t, status, a.status, a.body)
	require.Equal(s.t, "application/problem+json", a.header.Get("Content-Type"))
	require.NoError(s.t, json.Unmarshal([]byte(a.body), &p), a.body)
	require.Equal(s.t, status, p.Status)
	require.NotEmpty(s.t, p.Title)
	return p
}

// ids are those of a page's streams.
func ids(p Page) (ids []string) {
	for _, s := range p.Streams {
		ids = append(ids, s.ID)
	}
	return ids
}

func idsOf(guests ...*guest) (ids []string) {
	for _, g := range guests {
		ids = append(ids, g.id())
	}
	return ids
}

// nodes is a registry of several nodes, as one is whose places are elsewhere.
type nodes struct {
	registry.Registry
	others []registry.Node
	away   error
}

func (n *nodes) Each(ctx context.Context, f func(registry.Node)) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	err := n.Registry.Each(ctx, f)
	for _, other := range n.others {
		f(other)
	}
	return err
}

func (n *nodes) Away() error { return n.away }

func (n *nodes) Missing() bool { return n.away != nil }

// mute is a node that does not answer.
type mute struct{ registry.Node }

var errMute = errors.New("node n: it has not answered in time")

func (mute) EndAll(context.Context, []registry.StreamID, registry.Ending) error { return errMute }
func (mute) List(context.Context, registry.Filter, string, int) ([]registry.Row, string, error) {
	return nil, "", errMute
}
func (mute) Count(context.Context) (registry.Counts, error) { return registry.Counts{}, errMute }
func (mute) Notify(context.Context, registry.Filter, string, string) (int, error) {
	return 0, errMute
}

// lame is a node that lists its streams, and does not answer whoever ends them.
type lame struct{ registry.Node }

func (lame) EndAll(context.Context, []registry.StreamID, registry.Ending) error { return errMute }
