package guard

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/sse-guard/sse-guard/caddymodule/identity"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/stream"
	"github.com/sse-guard/sse-guard/caddymodule/tombstone"
)

// site is guards in front of one backend. It runs in a synctest bubble: settle
// waits until nothing moves any more, and time passes only where a test lets
// it.
type site struct {
	t       *testing.T
	guards  []*Guard // outermost first
	backend *backend
	// onEntry is the header that handlers further out have set already.
	onEntry http.Header
	logs    *observer.ObservedLogs
	clients []*client // all that were sent
}

// atSite runs test at a site with one guard per configure, or one as
// "sse_guard" without options makes it.
func atSite(t *testing.T, test func(*testing.T, *site), configure ...func(*Config)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zapcore.DebugLevel)
		s := &site{t: t, backend: newBackend(), logs: logs}
		if len(configure) == 0 {
			configure = []func(*Config){func(*Config) {}}
		}
		for _, c := range configure {
			cfg := plainConfig(t, zap.New(core))
			c(&cfg)
			s.guards = append(s.guards, New(cfg))
		}
		test(t, s)
	})
}

const secretOfSite = "the secret of this site"

func plainConfig(t testing.TB, logger *zap.Logger) Config {
	extractor, err := identity.NewExtractor(nil, nil)
	require.NoError(t, err)
	z := newZone(t, "default")
	return Config{
		Zone:           z,
		Identity:       extractor,
		KeyFromRequest: true,
		Rule:           registry.Rule{Policy: registry.Supersede, Limit: 1, Unit: registry.Streams},
		Takeover:       TakeoverAuto,
		RetryRefused:   []int{http.StatusConflict},
		OnReject:       RejectEvent,
		Retry:          5 * time.Second,
		Stream:         stream.Config{EndTimeout: time.Second, MaxEventSize: 1 << 20, Wheel: z.Wheel},
		Signer:         func(context.Context) (*tombstone.Signer, error) { return tombstone.NewSigner([]byte(secretOfSite)) },
		Logger:         logger,
		Security:       logger.Named("security"),
	}
}

// Configurations of a guard.

func rejecting(g *Config)    { g.Rule.Policy = registry.Reject }
func parking(g *Config)      { g.Rule.Policy, g.OnReject = registry.Reject, RejectPark }
func withStatus(g *Config)   { g.Rule.Policy, g.OnReject = registry.Reject, RejectStatus }
func onlyAtHeader(g *Config) { g.Takeover = TakeoverResponse }

// keyedBy makes the key of parts; "{req.X}" is a field of the request and
// "{resp.X}" one of the backend's answer.
func keyedBy(parts ...string) func(*Config) {
	return func(g *Config) {
		g.Key = parts
		g.KeyFromRequest = !strings.Contains(strings.Join(parts, ""), "{resp.")
	}
}

func all(configure ...func(*Config)) func(*Config) {
	return func(g *Config) {
		for _, c := range configure {
			c(g)
		}
	}
}

// holders counts the streams that hold a key of the i-th guard.
func (s *site) holders(i int) int { return s.guards[i].Zone.Registry.(byValue).Len() }

// settle waits until every goroutine waits for something.
func (*site) settle() { synctest.Wait() }

// pass lets time pass.
func (s *site) pass(d time.Duration) {
	<-time.After(d)
	s.settle()
}

// open sends a request that asks for a stream, and waits until it gets no
// further.
func (s *site) open(edits ...func(*client)) *client {
	c := s.send(edits...)
	s.settle()
	return c
}

// leaveAll has all clients leave, so that time passes quickly.
func (s *site) leaveAll() {
	for _, c := range s.clients {
		c.leave()
	}
	s.settle()
}

// send is open without waiting.
func (s *site) send(edits ...func(*client)) *client {
	ctx, leave := context.WithCancel(context.Background())
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, "http://example.com/events", nil)
	r.Header.Set("Accept", "text/event-stream")
	c := &client{r: r, addr: "192.0.2.1", leave: leave, done: make(chan struct{}), header: s.onEntry.Clone()}
	if c.header == nil {
		c.header = http.Header{}
	}
	for _, edit := range edits {
		edit(c)
	}
	next := s.backend.serve
	for _, g := range slices.Backward(s.guards) {
		next = func(next Next) Next {
			return func(w http.ResponseWriter, r *http.Request) error {
				return g.Serve(w, r, next, &aroundRequest{c, r, r.URL.Path, c.original})
			}
		}(next)
	}
	go func() {
		defer close(c.done)
		defer func() {
			if p := recover(); p != nil {
				require.Equal(s.t, http.ErrAbortHandler, p)
				c.cut = true
			}
		}()
		c.err = next(c, c.r)
	}()
	s.t.Cleanup(func() {
		leave()
		<-c.done
	})
	s.clients = append(s.clients, c)
	return c
}

// aroundRequest is the server around one request. It implements Env.
type aroundRequest struct {
	c    *client
	r    *http.Request
	path string
	// original is the URL that the server received; nil: it is not known.
	original *url.URL
}

var placeholders = regexp.MustCompile(`\{([^}]*)\}`)

func (e *aroundRequest) Expand(template string, own func(string) string) string {
	return placeholders.ReplaceAllStringFunc(template, func(p string) string {
		name := p[1 : len(p)-1]
		if field, ok := strings.CutPrefix(name, "req."); ok {
			return e.r.Header.Get(field)
		}
		if field, ok := strings.CutPrefix(name, "resp."); ok {
			return e.c.header.Get(field)
		}
		return own(name)
	})
}

func (e *aroundRequest) Publish(own func(string) string) { e.c.published = own }
func (e *aroundRequest) Path() string                    { return e.path }
func (e *aroundRequest) Original() *url.URL              { return e.original }
func (e *aroundRequest) Snapshot() func() {
	kept := e.c.kept
	return func() { e.c.kept = kept }
}
func (e *aroundRequest) WriteDeadline() time.Time    { return e.c.deadline }
func (e *aroundRequest) FullDuplex() bool            { return e.c.duplex }
func (e *aroundRequest) ClientIP() string            { return e.c.addr }
func (*aroundRequest) ForwardedHosts() []string      { return nil }
func (*aroundRequest) Connection() stream.Connection { return stream.Connection{} }
func (*aroundRequest) Users() *stream.Users          { return nil }

// client is a request, and the writer of its response.
type client struct {
	r         *http.Request
	addr      string
	original  *url.URL
	leave     context.CancelFunc
	published func(string) string // the placeholders that handlers see
	kept      int                 // what the server keeps of the request
	deadline  time.Time           // when the server cuts the response off
	duplex    bool                // the server answers a request before it is all there
	deferred  http.Header         // what handlers further out set as the header goes out

	header http.Header
	done   chan struct{}
	err    error
	cut    bool // the response was cut; for who knows that it is over

	mu     sync.Mutex
	status int
	sent   http.Header // as it went out
	body   bytes.Buffer
}

// Edits of a request.

func token(value string) func(*client) { return field("Authorization", "Bearer "+value) }

func field(name, value string) func(*client) {
	return func(c *client) { c.r.Header.Add(name, value) }
}

func query(raw string) func(*client) { return func(c *client) { c.r.URL.RawQuery = raw } }
func method(m string) func(*client)  { return func(c *client) { c.r.Method = m } }
func from(addr string) func(*client) { return func(c *client) { c.addr = addr } }
func notAsking(c *client)            { c.r.Header.Set("Accept", "*/*") }

func (c *client) Header() http.Header { return c.header }

func (c *client) WriteHeader(status int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.status == 0 {
		maps.Copy(c.header, c.deferred)
		c.status, c.sent = status, c.header.Clone()
	}
}

func (c *client) Write(p []byte) (int, error) {
	c.WriteHeader(http.StatusOK)
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.body.Write(p)
}

func (c *client) Flush() { c.WriteHeader(http.StatusOK) }

// got is what the client has received.
func (c *client) got() (status int, h http.Header, body string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status, c.sent, c.body.String()
}

func (c *client) text() string {
	_, _, body := c.got()
	return body
}

// over reports whether the response has ended.
func (c *client) over() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// ends reports whether the response has ended, or everything has been sent and it is
// about to be cut.
func (c *client) ends() bool {
	select {
	case <-c.done:
	case <-time.After(300 * time.Millisecond):
	}
	return c.over()
}

// received is an event as a client reads it, of what the guard writes.
type received struct {
	ID, Retry, Name string
	Data            struct{ Code, Reason, Message, Time, LastEventID string }
}

// lastEvent reads the last event of what the client got.
func (c *client) lastEvent(t *testing.T) (e received) {
	t.Helper()
	whole := strings.Split(strings.TrimSuffix(c.text(), "\n\n"), "\n\n")
	for line := range strings.SplitSeq(whole[len(whole)-1], "\n") {
		name, value, _ := strings.Cut(line, ": ")
		switch name {
		case "id":
			e.ID = value
		case "retry":
			e.Retry = value
		case "event":
			e.Name = value
		case "data":
			require.NoError(t, json.Unmarshal([]byte(value), &e.Data), c.text())
		}
	}
	return e
}

// backend answers with a stream that lives until its request is canceled,
// unless answer says otherwise.
type backend struct {
	// header is added to each answer.
	header http.Header
	// answer, if set, is asked in place of the stream.
	answer func(w http.ResponseWriter, r *http.Request) error

	mu       sync.Mutex
	requests []*http.Request
	live     []chan string
	diary    []string
}

func newBackend() *backend { return &backend{} }

const hello = "id: 7\ndata: hello\n\n"

func (b *backend) serve(w http.ResponseWriter, r *http.Request) error {
	b.note("in", r)
	defer b.note("out", r)
	b.mu.Lock()
	b.requests = append(b.requests, r)
	b.mu.Unlock()
	for name, values := range b.header {
		w.Header()[name] = slices.Clone(values)
	}
	if b.answer != nil {
		return b.answer(w, r)
	}
	return b.stream(w, r)
}

func (b *backend) stream(w http.ResponseWriter, r *http.Request) error {
	said := make(chan string)
	b.mu.Lock()
	b.live = append(b.live, said)
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.live = slices.DeleteFunc(b.live, func(c chan string) bool { return c == said })
	}()

	w.Header().Set("Content-Type", "text/event-stream")
	_, _ = io.WriteString(w, hello)
	_ = http.NewResponseController(w).Flush()
	for {
		select {
		case text := <-said:
			_, _ = io.WriteString(w, text)
			_ = http.NewResponseController(w).Flush()
		case <-r.Context().Done():
			return nil
		}
	}
}

// say sends an event on every stream that lives, and returns how many.
func (b *backend) say(data string) int {
	b.mu.Lock()
	live := slices.Clone(b.live)
	b.mu.Unlock()
	for _, c := range live {
		c <- "data: " + data + "\n\n"
	}
	synctest.Wait()
	return len(live)
}

// note writes into the diary who came or went; X-Name says who.
func (b *backend) note(what string, r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if name := r.Header.Get("X-Name"); name != "" {
		b.diary = append(b.diary, name+" "+what)
	}
}

func (b *backend) read() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.diary)
}

// asked counts the requests that reached the backend.
func (b *backend) asked() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.requests)
}

// last is the request that reached the backend last.
func (b *backend) last() *http.Request {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.requests[len(b.requests)-1]
}

// Interface guards
var (
	_ Env          = (*aroundRequest)(nil)
	_ http.Flusher = (*client)(nil)
)
