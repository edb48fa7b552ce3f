package demo_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sse-guard/sse-guard/caddymodule/demo"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

const (
	soon = 10 * time.Second // longer than anything here takes
	rare = time.Hour        // an interval that does not pass in a test
	fast = time.Millisecond
)

// visitor is a browser with one token, or none.
type visitor struct {
	t      *testing.T
	server *httptest.Server
	token  string
}

func serve(t *testing.T, opts ...demo.Option) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(demo.New(opts...))
	t.Cleanup(server.Close)
	return server
}

func (v visitor) request(method, target string) *http.Request {
	r, err := http.NewRequestWithContext(v.t.Context(), method, v.server.URL+target, nil)
	require.NoError(v.t, err)
	if v.token != "" {
		r.AddCookie(&http.Cookie{Name: "access_token", Value: v.token})
	}
	return r
}

// get returns a whole response.
func (v visitor) get(target string) (*http.Response, string) {
	return v.send(v.request(http.MethodGet, target))
}

func (v visitor) send(r *http.Request) (*http.Response, string) {
	v.t.Helper()
	response, err := v.server.Client().Do(r)
	require.NoError(v.t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(v.t, err)
	return response, string(body)
}

type held struct {
	Open    int      `json:"open"`
	Opened  int      `json:"opened"`
	Closed  int      `json:"closed"`
	Streams []string `json:"streams"`
}

func (v visitor) state() held {
	v.t.Helper()
	response, body := v.get("/state")
	require.Equal(v.t, http.StatusOK, response.StatusCode)
	require.Equal(v.t, "application/json", response.Header.Get("Content-Type"))
	require.Equal(v.t, "no-store", response.Header.Get("Cache-Control"))
	var h held
	require.NoError(v.t, json.Unmarshal([]byte(body), &h))
	return h
}

// stream is an open stream, as a client reads it.
type stream struct {
	t        *testing.T
	response *http.Response
	lines    *bufio.Reader
	leave    context.CancelFunc
}

type event struct {
	id, name string
	data     struct {
		N      uint64    `json:"n"`
		Stream string    `json:"stream"`
		Open   int       `json:"open"`
		Time   time.Time `json:"time"`
	}
}

func (v visitor) open(lastEventID string) *stream {
	v.t.Helper()
	r := v.request(http.MethodGet, "/events")
	r.Header.Set("Accept", "text/event-stream")
	if lastEventID != "" {
		r.Header.Set("Last-Event-ID", lastEventID)
	}
	ctx, leave := context.WithCancel(r.Context())
	response, err := v.server.Client().Do(r.WithContext(ctx))
	require.NoError(v.t, err)
	s := &stream{t: v.t, response: response, lines: bufio.NewReader(response.Body), leave: leave}
	v.t.Cleanup(s.close)
	return s
}

func (s *stream) close() {
	s.leave()
	s.response.Body.Close()
}

// next reads one event.
func (s *stream) next() event {
	s.t.Helper()
	var e event
	for {
		line, err := s.lines.ReadString('\n')
		require.NoError(s.t, err)
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch name {
		case "id":
			e.id = value
		case "event":
			e.name = value
		case "data":
			require.NoError(s.t, json.Unmarshal([]byte(value), &e.data))
		case "":
			return e
		default:
			require.Fail(s.t, "unexpected line", line)
		}
	}
}

func TestEvents_RefuseWithoutToken(t *testing.T) {
	server := serve(t)
	for _, target := range []string{"/events", "/state"} {
		for name, cookie := range map[string]string{"none": "", "empty": "access_token=", "another": "session=x"} {
			t.Run(target+" "+name, func(t *testing.T) {
				v := visitor{t: t, server: server}
				r := v.request(http.MethodGet, target)
				r.Header.Set("Cookie", cookie)
				response, _ := v.send(r)
				require.Equal(t, http.StatusUnauthorized, response.StatusCode)
				require.Equal(t, "no-store", response.Header.Get("Cache-Control"))
			})
		}
	}
}

func TestEvents_FirstTickComesAtOnce(t *testing.T) {
	v := visitor{t: t, server: serve(t, demo.WithInterval(rare)), token: "a"}
	s := v.open("")
	require.Equal(t, http.StatusOK, s.response.StatusCode)
	require.Equal(t, "text/event-stream", s.response.Header.Get("Content-Type"))
	require.Equal(t, "no-cache", s.response.Header.Get("Cache-Control"))

	e := s.next()
	require.Equal(t, "tick", e.name)
	require.Equal(t, "1", e.id)
	require.EqualValues(t, 1, e.data.N)
	require.Equal(t, 1, e.data.Open)
	require.Len(t, e.data.Stream, 6)
	require.WithinDuration(t, time.Now(), e.data.Time, soon)
}

// TestEvents_SayWhichNodeTheyCameThrough, where a proxy has a name.
func TestEvents_SayWhichNodeTheyCameThrough(t *testing.T) {
	v := visitor{t: t, server: serve(t, demo.WithInterval(rare)), token: "a"}
	r := v.request(http.MethodGet, "/events")
	r.Header.Set("X-Node", "node 2")
	response, err := v.server.Client().Do(r)
	require.NoError(t, err)
	s := &stream{t: t, response: response, lines: bufio.NewReader(response.Body), leave: func() {}}
	defer s.close()
	require.Regexp(t, "^[a-z0-9]{6} on node 2$", s.next().data.Stream)
}

func TestEvents_CountOn(t *testing.T) {
	v := visitor{t: t, server: serve(t, demo.WithInterval(fast)), token: "a"}
	s := v.open("")
	first := s.next()
	for n := uint64(2); n < 10; n++ {
		e := s.next()
		require.Equal(t, n, e.data.N)
		require.Equal(t, first.data.Stream, e.data.Stream)
	}
}

func TestEvents_GoOnAfterLastEventID(t *testing.T) {
	server := serve(t, demo.WithInterval(fast))
	tests := map[string]struct {
		lastEventID string
		want        []string
	}{
		"a new EventSource":    {"", []string{"1", "2"}},
		"a reconnecting one":   {"41", []string{"42", "43"}},
		"not a number":         {"sg1.abc", []string{"1", "2"}},
		"negative":             {"-4", []string{"1", "2"}},
		"beyond a page's ints": {"9007199254740993", []string{"1", "2"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := visitor{t: t, server: server, token: name}.open(test.lastEventID)
			for _, want := range test.want {
				require.Equal(t, want, s.next().id)
			}
		})
	}
}

func TestEvents_OpenCountsTheStreamsOfOneToken(t *testing.T) {
	server := serve(t, demo.WithInterval(rare))
	ann := visitor{t: t, server: server, token: "ann"}
	bob := visitor{t: t, server: server, token: "bob"}

	one := ann.open("").next()
	two := ann.open("").next()
	other := bob.open("").next()
	require.Equal(t, 1, one.data.Open)
	require.Equal(t, 2, two.data.Open)
	require.Equal(t, 1, other.data.Open)
	require.Equal(t, held{Open: 2, Opened: 2, Streams: []string{one.data.Stream, two.data.Stream}}, ann.state())
	require.Equal(t, held{Open: 1, Opened: 1, Streams: []string{other.data.Stream}}, bob.state())
}

func TestEvents_EndWithTheirRequest(t *testing.T) {
	// The interval does not pass: it is the request's end that is noticed.
	v := visitor{t: t, server: serve(t, demo.WithInterval(rare)), token: "a"}
	stays := v.open("").next()
	s := v.open("")
	s.next()
	s.close()
	require.Eventually(t, func() bool { return v.state().Closed == 1 }, soon, fast)
	require.Equal(t, held{Open: 1, Opened: 2, Closed: 1, Streams: []string{stays.data.Stream}}, v.state())
}

// brokenWriter is a client that has gone without the server's notice.
type brokenWriter struct{ *httptest.ResponseRecorder }

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

// brokenFlusher fails one step later.
type brokenFlusher struct{ *httptest.ResponseRecorder }

func (brokenFlusher) FlushError() error { return errors.New("broken pipe") }

func TestEvents_EndWhenTheyCannotBeWritten(t *testing.T) {
	for name, w := range map[string]http.ResponseWriter{
		"write": brokenWriter{httptest.NewRecorder()},
		"flush": brokenFlusher{httptest.NewRecorder()},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, "/events", nil)
			r.AddCookie(&http.Cookie{Name: "access_token", Value: "a"})
			demo.New(demo.WithInterval(rare)).ServeHTTP(w, r) // returns
		})
	}
}

func TestEvents_HeadOpensNoStream(t *testing.T) {
	v := visitor{t: t, server: serve(t), token: "a"}
	response, _ := v.send(v.request(http.MethodHead, "/events"))
	require.Equal(t, http.StatusOK, response.StatusCode)
	require.Equal(t, "text/event-stream", response.Header.Get("Content-Type"))
	require.Equal(t, held{Streams: []string{}}, v.state())
}

func TestEvents_ManyComeAndGo(t *testing.T) {
	v := visitor{t: t, server: serve(t, demo.WithInterval(fast)), token: "a"}
	const clients, times = 8, 25
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			for range times {
				r := httptest.NewRequest(http.MethodGet, "/events", nil)
				r.AddCookie(&http.Cookie{Name: "access_token", Value: v.token})
				ctx, leave := context.WithCancel(r.Context())
				leave()
				v.server.Config.Handler.ServeHTTP(httptest.NewRecorder(), r.WithContext(ctx))
			}
		})
	}
	all.Wait()
	require.Equal(t, held{Opened: clients * times, Closed: clients * times, Streams: []string{}}, v.state())
}

func TestWithInterval_KeepsTheDefaultForNonsense(t *testing.T) {
	v := visitor{t: t, server: serve(t, demo.WithInterval(0), demo.WithInterval(-time.Second)), token: "a"}
	require.Equal(t, "1", v.open("").next().id) // a ticker of no length would panic
}

func TestPaths(t *testing.T) {
	tests := []struct {
		method, path string
		want         int
	}{
		{http.MethodGet, "/", http.StatusOK},
		{http.MethodHead, "/", http.StatusOK},
		{http.MethodGet, "/?tab=2", http.StatusOK},
		{http.MethodGet, "/index.html", http.StatusNotFound},
		{http.MethodGet, "/favicon.ico", http.StatusNotFound},
		{http.MethodGet, "/events/more", http.StatusNotFound},
		{http.MethodPost, "/events", http.StatusMethodNotAllowed},
	}
	server := serve(t)
	for _, test := range tests {
		t.Run(test.method+" "+test.path, func(t *testing.T) {
			v := visitor{t: t, server: server, token: "a"}
			response, _ := v.send(v.request(test.method, test.path))
			require.Equal(t, test.want, response.StatusCode)
		})
	}
}
