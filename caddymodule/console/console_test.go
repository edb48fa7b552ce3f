package console_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/console"
)

// api is an admin endpoint that a test plays.
type api struct {
	*httptest.Server

	// mu guards the fields below. Nothing is called with it held.
	mu       sync.Mutex
	answers  map[string]string // by method, path and query; "" are all others
	status   int
	mime     string
	requests []string // with their bodies
}

func newAPI(t *testing.T, answers map[string]string) *api {
	t.Helper()
	a := &api{answers: answers, status: http.StatusOK, mime: "application/json"}
	a.Server = httptest.NewServer(a)
	t.Cleanup(a.Close)
	return a
}

// Config: the embedded server's handler is the api itself.
func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	a.mu.Lock()
	defer a.mu.Unlock()
	name := r.Method + " " + r.URL.RequestURI()
	a.requests = append(a.requests, strings.TrimSpace(name+" "+r.Header.Get("Content-Type")+" "+string(body)))
	answer, ok := a.answers[name]
	if !ok {
		answer = a.answers[""]
	}
	w.Header().Set("Content-Type", a.mime)
	w.WriteHeader(a.status)
	_, _ = io.WriteString(w, answer)
}

// set changes what is answered.
func (a *api) set(status int, mime string, answers map[string]string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.status, a.mime, a.answers = status, mime, answers
}

func (a *api) asked() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]string(nil), a.requests...)
}

func (a *api) client() *console.Client {
	return &console.Client{HTTP: a.Client(), Base: a.URL, Origin: a.URL, Address: "localhost:2019"}
}

const aliceRow = `{"id":"01","zone":"default","state":"live","key":"aaaaaaaaaaaaaaaa","token":"bbbbbbbbbbbbbbbb","client":"",
	"since":"2026-11-26T10:00:00Z","age_seconds":3725.4,"events":1234,"bytes":5678901,"remote_ip":"192.0.2.1","node":"host-1",
	"protocol":"HTTP/2.0","path":"/events","labels":{"room":"7"}}`

func row(id string, events int) string {
	return fmt.Sprintf(`{"id":%q,"zone":"z","state":"parked","events":%d,"age_seconds":1,"path":"/%s"}`, id, events, id)
}

func TestStreams_ArePrintedAsATable(t *testing.T) {
	a := newAPI(t, map[string]string{"": `{"streams":[` + aliceRow + `,` + row("x", 0) + `]}`})
	page, err := a.client().Streams(t.Context(), console.Filter{}, 100)
	require.NoError(t, err)
	var out bytes.Buffer
	page.Print(&out)
	lines := strings.Split(out.String(), "\n")
	assert.Equal(t, []string{"ZONE", "STATE", "AGE", "EVENTS", "BYTES", "KEY", "TOKEN", "ADDRESS", "NODE", "PROTOCOL", "PATH", "LABELS"}, strings.Fields(lines[0]))
	assert.Equal(t, []string{"default", "live", "1h02m", "1234", "5.7M", "aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb", "192.0.2.1", "host-1", "HTTP/2.0", "/events", "room=7"}, strings.Fields(lines[1]))
	assert.Equal(t, strings.Index(lines[0], "PATH"), strings.Index(lines[1], "/events"), "columns stand below their heads")
	assert.Equal(t, []string{"GET /sse_guard/streams?limit=100"}, a.asked())
	assert.Empty(t, page.Warning())
}

func TestStreams_NoneAndMore(t *testing.T) {
	var out bytes.Buffer
	(&console.Page{}).Print(&out)
	assert.Equal(t, "There is no such stream.\n", out.String())
	out.Reset()
	(&console.Page{Streams: make([]console.Stream, 3), Next: "c"}).Print(&out)
	assert.Contains(t, out.String(), "There are more: give a higher --limit than 3")
}

func TestStreams_PageByPage(t *testing.T) {
	a := newAPI(t, map[string]string{
		"GET /sse_guard/streams?limit=1000":           `{"streams":[` + row("a", 1) + `],"next":"c1"}`,
		"GET /sse_guard/streams?cursor=c1&limit=1000": `{"streams":[` + row("b", 1) + `],"next":"c2","incomplete":"node 2 is away"}`,
		"GET /sse_guard/streams?cursor=c2&limit=1000": `{"streams":[` + row("c", 1) + `]}`,
		"GET /sse_guard/streams?limit=2":              `{"streams":[` + row("a", 1) + `,` + row("b", 1) + `],"next":"c2"}`,
	})
	page, err := a.client().Streams(t.Context(), console.Filter{}, 0)
	require.NoError(t, err)
	assert.Len(t, page.Streams, 3)
	assert.Empty(t, page.Next)
	assert.Equal(t, "node 2 is away", page.Warning())

	page, err = a.client().Streams(t.Context(), console.Filter{}, 2)
	require.NoError(t, err)
	assert.Len(t, page.Streams, 2)
	assert.Equal(t, "c2", page.Next)

	a.set(http.StatusOK, "application/json", map[string]string{"": `{"streams":[],"next":"c"}`})
	_, err = a.client().Streams(t.Context(), console.Filter{}, 0)
	require.ErrorContains(t, err, "the same page again and again")
}

func TestFilter_NamesStreams(t *testing.T) {
	f := console.Filter{ID: "i", Zone: "z", State: "live", Key: "k", Token: "t", Client: "c", Subject: "a b", OlderThan: "10m"}
	require.NoError(t, f.SetLabels([]string{"room=7", "x=a=b"}))
	a := newAPI(t, map[string]string{"": `{"streams":[]}`})
	_, err := a.client().Streams(t.Context(), f, 5)
	require.NoError(t, err)
	assert.Equal(t, []string{"GET /sse_guard/streams?client=c&id=i&key=k&label.room=7&label.x=a%3Db&limit=5&older_than=10m&state=live&subject=a+b&token=t&zone=z"}, a.asked())

	for _, labels := range [][]string{{"room"}, {"=7"}, {"room="}, {"a=1", "a=2"}} {
		require.Error(t, new(console.Filter).SetLabels(labels), labels)
	}
	require.ErrorContains(t, new(console.Filter).SetKeyParts([]string{"a", "{b"}), "key part 2")
}

func TestEnd_SendsWhatTheOperatorSaid(t *testing.T) {
	a := newAPI(t, map[string]string{"": `{"ended":3}`})
	f := console.Filter{Subject: "alice", RawToken: "s3cr3t", RawClient: "phone"}
	require.NoError(t, f.SetKeyParts([]string{"store", `{"sub":"alice","iss":"i"}`}))
	end, err := console.NewEnd(f, false)
	require.NoError(t, err)
	end.Reason, end.Message, end.Deny, end.Limit = "revoked", "Bye.", "10m", 5
	done, err := a.client().End(t.Context(), end)
	require.NoError(t, err)
	require.Len(t, a.asked(), 1)
	request, body, _ := strings.Cut(a.asked()[0], "{")
	assert.Equal(t, "POST /sse_guard/end application/json ", request)
	assert.JSONEq(t, `{"select":{"subject":"alice","raw_token":"s3cr3t","raw_client":"phone","key_parts":["store",{"sub":"alice","iss":"i"}]},
		"reason":"revoked","message":"Bye.","deny":"10m","limit":5}`, "{"+body)
	var out bytes.Buffer
	done.Print(&out)
	assert.Equal(t, "3 streams were ended.\n", out.String())

	end, err = console.NewEnd(console.Filter{}, true)
	require.NoError(t, err)
	_, err = a.client().End(t.Context(), end)
	require.NoError(t, err)
	assert.Equal(t, `POST /sse_guard/end application/json {"select":{},"all":true}`, a.asked()[1])
}

func TestNotify_SendsWhatTheOperatorSaid(t *testing.T) {
	a := newAPI(t, map[string]string{"": `{"notified":1}`})
	n, err := console.NewNotify(console.Filter{Zone: "z"}, false, "MAINTENANCE", "at\nnoon")
	require.NoError(t, err)
	done, err := a.client().Notify(t.Context(), n)
	require.NoError(t, err)
	assert.Equal(t, []string{`POST /sse_guard/notify application/json {"select":{"zone":"z"},"event":"MAINTENANCE","data":"at\nnoon"}`}, a.asked())
	var out bytes.Buffer
	done.Print(&out)
	assert.Equal(t, "1 stream was notified.\n", out.String())
}

// TestEndAndNotify_NobodyByAccident: an empty filter is not all streams.
func TestEndAndNotify_NobodyByAccident(t *testing.T) {
	_, err := console.NewEnd(console.Filter{}, false)
	require.ErrorContains(t, err, "--all")
	_, err = console.NewNotify(console.Filter{}, false, "e", "d")
	require.ErrorContains(t, err, "--all")
	_, err = console.NewEnd(console.Filter{State: "parked"}, true)
	require.ErrorContains(t, err, "--all stands alone")
	_, err = console.NewNotify(console.Filter{}, true, "e", "")
	require.ErrorContains(t, err, "--data is empty")
}

func TestStats_ArePrinted(t *testing.T) {
	a := newAPI(t, map[string]string{"": `{"streams":{"live":5,"parked":1,"untracked":2,"ending":0},"zones":[
		{"zone":"a","streams":{"live":4,"parked":1,"untracked":2},"nodes":[{"node":"n1","streams":{"live":3}},{"node":"n2","streams":{"live":1,"parked":1,"untracked":2}}],
		 "labels":{"room":{"values":{"7":3,"8":1},"others":2}},"incomplete":"node n3 is away"},
		{"zone":"b","streams":{"live":1},"nodes":[{"node":"n1","streams":{"live":1}}],"labels":{}}]}`})
	s, err := a.client().Stats(t.Context(), "")
	require.NoError(t, err)
	var out bytes.Buffer
	s.Print(&out)
	var rows []string
	for line := range strings.Lines(out.String()) {
		rows = append(rows, strings.Join(strings.Fields(line), " "))
	}
	assert.Equal(t, []string{
		"ZONE NODE LIVE PARKED UNTRACKED ENDING",
		"a n1 3 0 0 0", "a n2 1 1 2 0", "a all nodes 4 1 2 0", "b n1 1 0 0 0", "all zones 5 1 2 0", "",
		"ZONE LABEL VALUE LIVE", "a room 7 3", "a room 8 1", "a room (others) 2", "",
		"Untracked streams hold no key, so nothing ends them for a newer one. Caddy's log says why.",
	}, rows)
	assert.Equal(t, "node n3 is away", s.Warning())
	_, err = a.client().Stats(t.Context(), "a b")
	require.NoError(t, err)
	assert.Equal(t, "GET /sse_guard/stats?zone=a+b", a.asked()[1])
}

// TestClient_SaysWhatIsWrong in plain words.
func TestClient_SaysWhatIsWrong(t *testing.T) {
	for name, test := range map[string]struct {
		status int
		mime   string
		body   string
		want   string
	}{
		"a problem":             {400, "application/problem+json", `{"title":"The request is not understood","status":400,"detail":"limit: it is 1 to 1000"}`, "The request is not understood: limit: it is 1 to 1000"},
		"a part was done":       {502, "application/problem+json", `{"title":"Not all nodes have answered","detail":"n2","ended":3}`, "Not all nodes have answered: n2 (ended: 3 streams)"},
		"no module":             {404, "application/json", `{"error":"not found"}`, "has no admin API of sse_guard"},
		"origin is not allowed": {403, "application/json", `{"error":"host not allowed: x"}`, "refuses, with status 403: host not allowed: x"},
		"somebody else":         {500, "text/html", `<h1>Error</h1>`, "with status 500, is not Caddy's admin endpoint"},
		"somebody else's page":  {200, "text/html", `<h1>Hello</h1>`, "is not Caddy's admin endpoint"},
		"a redirect":            {307, "text/html", ``, "status 307"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPI(t, nil)
			a.set(test.status, test.mime, map[string]string{"": test.body})
			_, err := a.client().Stats(t.Context(), "")
			require.ErrorContains(t, err, test.want)
			assert.NotContains(t, err.Error(), "%!")
		})
	}
}

func TestClient_NobodyThere(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := listener.Addr().String()
	require.NoError(t, listener.Close())
	c := &console.Client{HTTP: &http.Client{}, Base: "http://" + address, Address: address}
	_, err = c.Stats(t.Context(), "")
	require.ErrorContains(t, err, "nobody listens at "+address+": does Caddy run, and is its admin endpoint on (admin off turns it off) and there?")
	for _, name := range []string{"--address", "CADDY_ADMIN"} {
		assert.ErrorContains(t, err, name)
	}
}

// TestAttack_Client_WritesToTheOperatorsTerminal by the path, labels and names that it chooses.
func TestAttack_Client_WritesToTheOperatorsTerminal(t *testing.T) {
	const escape = `\u001b]0;owned\u0007\u202e\r\n`
	evil := strings.ReplaceAll(aliceRow, "/events", "/"+escape)
	evil = strings.ReplaceAll(evil, `"room":"7"`, `"`+escape+`":"`+escape+`"`)
	evil = strings.ReplaceAll(evil, "192.0.2.1", escape)
	evil = strings.ReplaceAll(evil, `"live"`, `"`+escape+`"`)
	answers := map[string]string{
		"":                                  `{"streams":{"live":1},"zones":[{"zone":"` + escape + `","nodes":[],"labels":{"` + escape + `":{"values":{"` + escape + `":1}}},"incomplete":"` + escape + `"}]}`,
		"GET /sse_guard/streams?limit=1000": `{"streams":[` + evil + `],"incomplete":"` + escape + `"}`,
	}
	a := newAPI(t, answers)
	top := console.Top{Client: a.client(), Interval: time.Second, Order: "rate"}
	look, err := top.Look(t.Context())
	require.NoError(t, err)
	page, err := a.client().Streams(t.Context(), console.Filter{}, 0)
	require.NoError(t, err)
	var out bytes.Buffer
	look.Print(&out, "rate", "localhost:2019")
	look.Stats.Print(&out)
	page.Print(&out)
	out.WriteString(look.Warning() + look.Stats.Warning() + page.Warning())
	a.set(http.StatusBadRequest, "application/problem+json", map[string]string{"": `{"title":"` + escape + `"}`})
	_, err = a.client().Stats(t.Context(), "")
	require.Error(t, err)
	out.WriteString(err.Error())
	assert.Contains(t, out.String(), "owned")
	for _, bad := range []string{"\x1b", "\a", "\u202e", "\r"} {
		assert.NotContains(t, out.String(), bad)
	}
}

// screen is a console.Screen that a test looks at.
type screen struct {
	width, height int
	keys          chan byte
	frames        chan []string
}

func newScreen() *screen {
	return &screen{width: 100, height: 12, keys: make(chan byte), frames: make(chan []string)}
}

func (s *screen) Size() (width, height int) { return s.width, s.height }
func (s *screen) Draw(lines []string) error { s.frames <- lines; return nil }
func (s *screen) Keys() <-chan byte         { return s.keys }

// next waits for the next frame.
func (s *screen) next(t *testing.T) []string {
	t.Helper()
	select {
	case frame := <-s.frames:
		return frame
	case <-time.After(30 * time.Second):
		require.FailNow(t, "no frame is drawn")
		return nil
	}
}

// until waits for a frame that has text.
func (s *screen) until(t *testing.T, text string) []string {
	t.Helper()
	for range 1000 {
		if frame := s.next(t); strings.Contains(strings.Join(frame, "\n"), text) {
			return frame
		}
	}
	require.FailNow(t, "no frame has this", text)
	return nil
}

// press types a key, while frames may be drawn.
func (s *screen) press(t *testing.T, key byte) {
	t.Helper()
	for {
		select {
		case s.keys <- key:
			return
		case <-s.frames:
		case <-time.After(30 * time.Second):
			require.FailNow(t, "the key is not read")
		}
	}
}

func topAnswers(a, b int, rest ...string) map[string]string {
	rows := append([]string{row("a", a), row("b", b)}, rest...)
	return map[string]string{
		"":                                  `{"streams":{"live":2,"untracked":4},"zones":[{"zone":"z","nodes":[{"node":"n"}]}]}`,
		"GET /sse_guard/streams?limit=1000": `{"streams":[` + strings.Join(rows, ",") + `]}`,
	}
}

func TestTop_ShowsWhatChanges(t *testing.T) {
	a := newAPI(t, topAnswers(5, 1))
	top := console.Top{Client: a.client(), Interval: console.LeastInterval, Order: "rate"}
	require.NoError(t, top.Check())
	first, err := top.Look(t.Context())
	require.NoError(t, err)
	s := newScreen()
	done := make(chan error, 1)
	go func() { done <- top.Run(t.Context(), s, first) }()

	frame := s.next(t)
	assert.Contains(t, frame[0], "sse_guard at localhost:2019")
	assert.Equal(t, "live 2  parked 0  untracked 4  ending 0  zones 1  nodes 1", frame[1])
	assert.Contains(t, frame[4], "/a", "more events come first, as long as there are no rates")
	assert.Contains(t, frame[4], "-")

	a.set(http.StatusOK, "application/json", topAnswers(5, 3))
	frame = s.until(t, "events/s ")
	for !strings.Contains(frame[4], "/b") { // the one that has got events
		frame = s.next(t)
	}

	a.set(http.StatusInternalServerError, "application/problem+json", map[string]string{"": `{"title":"It is out of order"}`})
	frame = s.until(t, "It is out of order")
	assert.Contains(t, frame[5], "/", "what was seen last stays")

	a.set(http.StatusOK, "application/json", topAnswers(9, 3))
	for frame = s.next(t); strings.Contains(strings.Join(frame, "\n"), "out of order"); frame = s.next(t) {
	}
	s.press(t, 'e')
	assert.Contains(t, s.until(t, "by events")[4], "/a")

	s.press(t, 'q')
	require.NoError(t, <-done)
}

func TestTop_EndsWithItsContextAndCtrlC(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, s *screen, cancel context.CancelFunc){
		"context": func(_ *testing.T, _ *screen, cancel context.CancelFunc) { cancel() },
		"ctrl-c":  func(t *testing.T, s *screen, _ context.CancelFunc) { s.press(t, 3) },
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			a := newAPI(t, topAnswers(5, 1))
			top := console.Top{Client: a.client(), Interval: time.Hour, Order: "age"}
			first, err := top.Look(ctx)
			require.NoError(t, err)
			s := newScreen()
			done := make(chan error, 1)
			go func() { done <- top.Run(ctx, s, first) }()
			s.next(t)
			end(t, s, cancel)
			require.NoError(t, <-done)
		})
	}
}

// TestTop_FitsTheTerminal, whatever its size.
func TestTop_FitsTheTerminal(t *testing.T) {
	var rest []string
	for i := range 50 {
		rest = append(rest, row(fmt.Sprint(strings.Repeat("한", 80), i), i))
	}
	a := newAPI(t, topAnswers(5, 1, rest...))
	for _, size := range [][2]int{{80, 24}, {20, 5}, {1, 1}, {300, 100}} {
		ctx, cancel := context.WithCancel(t.Context())
		top := console.Top{Client: a.client(), Interval: time.Hour, Order: "bytes"}
		first, err := top.Look(ctx)
		require.NoError(t, err)
		s := newScreen()
		s.width, s.height = size[0], size[1]
		done := make(chan error, 1)
		go func() { done <- top.Run(ctx, s, first) }()
		frame := s.next(t)
		assert.LessOrEqual(t, len(frame), size[1])
		for _, line := range frame {
			assert.LessOrEqual(t, len([]rune(line)), size[0])
		}
		if size[1] == 24 {
			assert.Len(t, frame, 24)
			assert.Equal(t, "19 of 52 are shown.", frame[23])
		}
		cancel()
		require.NoError(t, <-done)
	}
}

func TestTop_RefusesWhatCannotBeMeant(t *testing.T) {
	for want, top := range map[string]console.Top{
		"--interval 0s":      {Order: "rate"},
		"--interval 2h0m0s":  {Order: "rate", Interval: 2 * time.Hour},
		`--sort "newest"`:    {Order: "newest", Interval: time.Second},
		"rate, age, events,": {Order: "", Interval: time.Second},
	} {
		require.ErrorContains(t, top.Check(), want)
	}
}

func TestLook_JSON(t *testing.T) {
	a := newAPI(t, topAnswers(5, 1))
	top := console.Top{Client: a.client(), Interval: time.Second, Order: "rate"}
	look, err := top.Look(t.Context())
	require.NoError(t, err)
	text, err := json.Marshal(look)
	require.NoError(t, err)
	var got struct {
		At      time.Time
		Stats   struct{ Streams map[string]int }
		Streams []struct{ ID string }
		More    *bool
	}
	require.NoError(t, json.Unmarshal(text, &got))
	assert.Len(t, got.Streams, 2)
	assert.Equal(t, 4, got.Stats.Streams["untracked"])
	assert.NotZero(t, got.At)
	assert.NotNil(t, got.More)
}

func TestIsTerminal_NotABuffer(t *testing.T) {
	assert.False(t, console.IsTerminal(new(bytes.Buffer)))
	_, err := console.OpenTerminal(new(bytes.Buffer))
	require.Error(t, err)
}
