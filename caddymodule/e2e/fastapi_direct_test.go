package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// appData is the data of the application's events.
type appData struct {
	N           int     `json:"n"`
	User        string  `json:"user"`
	Stream      int     `json:"stream"`
	LastEventID *string `json:"lastEventId"`
	Data        string  `json:"data"`
}

func dataOf(t testing.TB, e sseEvent) appData {
	t.Helper()
	var d appData
	require.NoError(t, json.Unmarshal([]byte(e.Data), &d), "data %q", e.Data)
	return d
}

func TestFastAPI_StreamsDirectly(t *testing.T) {
	f := startFastAPI(t)
	tokens := []struct {
		name   string
		query  string
		option requestOption
	}{
		{"bearer", "", withBearer("alice")},
		{"query", "&token=alice", func(*http.Request) {}},
		{"cookie", "", withHeader("Cookie", "theme=dark; access_token=alice")},
	}
	for _, path := range []string{"/sse", "/raw", "/cors", "/user-header", "/slow-header", "/secured"} {
		for _, token := range tokens {
			t.Run(path+" "+token.name, func(t *testing.T) {
				f.reset(t)
				s := newSSEClient(t, http1).open(t, f.URL+path+"?count=3&interval=0&delay=0&first=hello"+token.query,
					token.option, withHeader("Last-Event-ID", "41"))
				require.Equal(t, http.StatusOK, s.Status)
				require.Equal(t, "text/event-stream; charset=utf-8", s.Header.Get("Content-Type"))

				events := s.rest(t)
				require.True(t, s.end.clean(), "%v", s.end.Err)
				require.Len(t, events, 3)
				record := f.waitStats(t, func(s appStats) bool { return s.Closed == 1 }).Streams[0]
				for i, e := range events {
					d := dataOf(t, e)
					require.Equal(t, strconv.Itoa(42+i), e.ID)
					require.Equal(t, 42+i, d.N)
					require.Equal(t, "alice", d.User)
					require.Equal(t, record.Stream, d.Stream)
					require.Equal(t, "41", *d.LastEventID)
				}
				require.Equal(t, "hello", dataOf(t, events[0]).Data)
				require.Equal(t, path, record.Path)
				require.Equal(t, "alice", record.User)
				require.Equal(t, "app", record.EndedBy)
				require.GreaterOrEqual(t, *record.ClosedAt, record.OpenedAt)
				if path == "/user-header" {
					require.Equal(t, "alice", s.Header.Get("X-User"))
				}
			})
		}
	}
}

func TestFastAPI_NoticesAClientThatLeaves(t *testing.T) {
	f := startFastAPI(t)
	for _, path := range []string{"/sse", "/raw", "/sse?interval=3600", "/raw?interval=3600", "/emitter?user=bob"} {
		t.Run(path, func(t *testing.T) {
			f.reset(t)
			s := newSSEClient(t, http1).open(t, f.URL+path)
			open := f.waitOpen(t, 1)
			require.Equal(t, strings.Split(path, "?")[0], open.Open[0].Path)
			require.GreaterOrEqual(t, open.Open[0].Age, 0.0)
			require.Zero(t, open.Closed)

			s.close()
			after := f.waitOpen(t, 0)
			require.Equal(t, 1, after.Opened)
			require.Equal(t, 1, after.Closed)
			require.Equal(t, "client", after.Streams[0].EndedBy)
		})
	}
}

func TestFastAPI_ResetKeepsTheStreamsThatAreOpen(t *testing.T) {
	f := startFastAPI(t)
	client := newSSEClient(t, http1)
	client.open(t, f.URL+"/sse?count=1").wait(t)
	client.open(t, f.URL+"/sse").next(t)
	f.waitStats(t, func(s appStats) bool { return s.Opened == 2 && s.Closed == 1 })
	f.reset(t)
	require.Empty(t, f.requests(t))
	s := f.stats(t)
	require.Equal(t, 1, s.Opened)
	require.Zero(t, s.Closed)
	require.Len(t, s.Open, 1)
}

// This is the fault of real backends that the guard's order of admission avoids.
func TestFastAPI_EmitterOfANewerStreamIsRemovedByTheOlder(t *testing.T) {
	f := startFastAPI(t)
	client := newSSEClient(t, http1)
	require.False(t, f.emit(t, "bob", "nobody listens"))

	older := client.open(t, f.URL+"/emitter?user=bob")
	f.waitOpen(t, 1)
	require.True(t, f.emit(t, "bob", "one"))
	require.Equal(t, "one", dataOf(t, older.next(t)).Data)

	newer := client.open(t, f.URL+"/emitter", withBearer("bob"))
	f.waitOpen(t, 2)
	require.True(t, f.emit(t, "bob", "two"))
	first := newer.next(t)
	require.Equal(t, "two", dataOf(t, first).Data)
	require.Equal(t, "bob", dataOf(t, first).User)

	older.close()
	f.waitOpen(t, 1)
	require.False(t, f.emit(t, "bob", "three"), "the older stream took the newer one's emitter with it")
}

func TestFastAPI_VerifiesTheTokenOfAUserStream(t *testing.T) {
	f := startFastAPI(t)
	client := newSSEClient(t, http1)
	const path = "/user-stream?count=2&interval=0"
	status := func(t *testing.T, token string) int {
		t.Helper()
		s := client.open(t, f.URL+path, withBearer(token))
		s.wait(t)
		f.waitOpen(t, 0)
		return s.Status
	}
	for _, alg := range []string{"RS256", "PS256", "ES256", "ES384", "EdDSA", "HS256"} {
		t.Run(alg, func(t *testing.T) {
			f.reset(t)
			i := newIssuer(t, alg)
			token := i.token(t)
			require.Equal(t, http.StatusUnauthorized, status(t, token), "a key from before the reset")
			f.verifyWith(t, i)
			for query, option := range map[string]requestOption{
				"":                withBearer(token),
				"&token=" + token: withHeader("Last-Event-ID", ""),
				"&n=1":            withHeader("Cookie", "access_token="+token),
			} {
				events := client.open(t, f.URL+path+query, option).rest(t)
				require.Len(t, events, 2)
				require.Equal(t, "alice", dataOf(t, events[1]).User)
				require.Equal(t, "2", events[1].ID)
				f.waitOpen(t, 0)
			}

			now := time.Now()
			bad := map[string]string{
				"none":      "",
				"no JWT":    "alice",
				"expired":   i.token(t, withExp(now.Add(-time.Minute))),
				"not yet":   i.token(t, withClaim("nbf", now.Add(time.Minute).Unix())),
				"no sub":    i.token(t, withClaim("sub", nil)),
				"tampered":  tampered(t, token, "bob"),
				"unsigned":  i.unsignedToken(t),
				"another's": newIssuer(t, alg).token(t),
			}
			if alg != "HS256" {
				bad["confused"] = i.confusedToken(t)
			}
			for name, token := range bad {
				require.Equal(t, http.StatusUnauthorized, status(t, token), name)
			}
			if alg != "ES384" { // whose signatures have but one spelling
				require.Equal(t, http.StatusOK, status(t, padded(t, token)))
				require.Equal(t, http.StatusUnauthorized, status(t, respelled(t, token)))
			}
		})
	}
	for _, r := range f.requests(t) {
		require.NotEqual(t, "/jwt/key", r.Path)
	}
}

// This is how a zombie locks its own user out.
func TestFastAPI_RefusesAUserWhoHasTheStreamsAllowed(t *testing.T) {
	f := startFastAPI(t)
	i := newIssuer(t, "ES256")
	f.verifyWith(t, i)
	client := newSSEClient(t, http1)
	url := f.URL + "/user-stream"
	alice := withBearer(i.token(t))

	older := client.open(t, url, alice)
	older.next(t)
	refused := client.open(t, url, withBearer(i.token(t)))
	require.Equal(t, http.StatusConflict, refused.Status)
	refused.wait(t)
	require.Contains(t, string(refused.bytes()), "too many connections")
	client.open(t, url, withBearer(i.token(t, withSub("bob")))).next(t)
	second := client.open(t, url+"?max=2", alice)
	second.next(t)

	older.close()
	second.close()
	f.waitOpen(t, 1)
	c := newCable(t, f.URL)
	lost := client.open(t, c.URL+"/user-stream", alice)
	lost.next(t)
	c.cut(t)
	lost.close()
	require.Equal(t, http.StatusConflict, client.open(t, c.URL+"/user-stream", alice).Status)

	c.close()
	f.waitOpen(t, 1)
	client.open(t, url, alice).next(t)
}

func TestFastAPI_ListsWhatReachedIt(t *testing.T) {
	f := startFastAPI(t)
	s := newSSEClient(t, http1).open(t, f.URL+"/secured?a=1&b=%20",
		withHeader("Last-Event-ID", "7"), withHeader("Accept-Encoding", "identity"))
	require.Equal(t, http.StatusUnauthorized, s.Status)
	s.wait(t)

	requests := f.requests(t)
	require.Len(t, requests, 1)
	r := requests[0]
	require.Equal(t, "GET", r.Method)
	require.Equal(t, "/secured", r.Path)
	require.Equal(t, "a=1&b=%20", r.Query)
	require.Equal(t, []string{"7"}, r.header("last-event-id"))
	require.Equal(t, []string{"identity"}, r.header("accept-encoding"))
	require.Equal(t, []string{"text/event-stream"}, r.header("accept"))
	require.Equal(t, http.StatusUnauthorized, *r.Status)
	require.Empty(t, r.header("cookie"))
}

func TestFastAPI_ChatAnswersAPostWithAStream(t *testing.T) {
	f := startFastAPI(t)
	client := newSSEClient(t, http1)
	s := client.open(t, f.URL+"/chat?n=3&interval=0", withPost(`{"messages":[]}`), withBearer("key"))
	require.Equal(t, http.StatusOK, s.Status)
	events := s.rest(t)
	require.Len(t, events, 5, "three words, the stop, and [DONE]")
	require.Contains(t, events[0].Data, `"content": "word1 "`)
	require.Contains(t, events[3].Data, `"finish_reason": "stop"`)
	require.Equal(t, "[DONE]", events[4].Data)

	endless := client.open(t, f.URL+"/chat?n=0", withPost(`{}`))
	endless.next(t)
	endless.close()
	f.waitOpen(t, 0)
}

func TestFastAPI_AnswersWhatIsNoStream(t *testing.T) {
	f := startFastAPI(t)
	tests := []struct {
		name, method, target string
		header               map[string]string
		status               int
		wantHeader           map[string]string
		wantBody             string
	}{
		{name: "page", target: "/login", status: 200, wantHeader: map[string]string{"Content-Type": "text/html; charset=utf-8"}, wantBody: "<form"},
		{name: "JSON", target: "/api/items", status: 200, wantHeader: map[string]string{"Content-Type": "application/json"}, wantBody: `"name":"two"`},
		{name: "status", target: "/status/418", status: 418, wantBody: "status 418"},
		{name: "no content", target: "/status/204", status: 204},
		{name: "redirect", target: "/redirect", status: 302, wantHeader: map[string]string{"Location": "/login"}},
		{name: "no token", target: "/secured", status: 401, wantHeader: map[string]string{"Www-Authenticate": "Bearer"}},
		{name: "forbidden token", target: "/secured?token=forbidden", status: 403},
		{name: "unknown path", target: "/nowhere", status: 404},
		{name: "logout", method: "POST", target: "/logout", status: 200, wantBody: `{"ok":true}`},
		{name: "logout by a link", target: "/logout", status: 200, wantBody: `{"ok":true}`},
		{name: "slow logout", method: "POST", target: "/logout?delay=0.01", status: 200, wantBody: `{"ok":true}`},
		{name: "silent logout", method: "POST", target: "/logout?status=204", status: 204},
		{name: "redirecting logout", method: "POST", target: "/logout?status=302", status: 302, wantHeader: map[string]string{"Location": "/login?logout"}},
		{name: "failing logout", method: "POST", target: "/logout?status=403", status: 403, wantBody: `{"ok":false}`},
		{name: "refresh", method: "POST", target: "/refresh?token=expired", status: 200, wantBody: `{"refreshed":true}`},
		{name: "answer of a game", method: "POST", target: "/game/answer", status: 200, wantBody: `{"accepted":true}`},
		{name: "headers", target: "/whoami", header: map[string]string{"X-User": "alice"}, status: 200, wantBody: `"x-user":"alice"`},
		{name: "OPTIONS", method: "OPTIONS", target: "/sse", status: 405},
		{
			name: "preflight", method: "OPTIONS", target: "/cors", status: 200,
			header: map[string]string{"Origin": "https://page.example", "Access-Control-Request-Method": "GET"},
			wantHeader: map[string]string{
				"Access-Control-Allow-Origin":      "https://page.example",
				"Access-Control-Allow-Credentials": "true",
			},
		},
		{
			name: "cross-origin stream", target: "/cors?count=1", status: 200,
			header: map[string]string{"Origin": "https://page.example"},
			wantHeader: map[string]string{
				"Access-Control-Allow-Origin":      "https://page.example",
				"Access-Control-Allow-Credentials": "true",
				"Vary":                             "Origin",
			},
			wantBody: "id: 1",
		},
	}
	client := f.control
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			request, err := http.NewRequest(test.method, f.URL+test.target, nil)
			require.NoError(t, err)
			for name, value := range test.header {
				request.Header.Set(name, value)
			}
			response, err := client.Do(request)
			require.NoError(t, err)
			defer response.Body.Close()
			body, err := io.ReadAll(response.Body)
			require.NoError(t, err)
			require.Equal(t, test.status, response.StatusCode)
			for name, value := range test.wantHeader {
				require.Equal(t, value, response.Header.Get(name), name)
			}
			require.Contains(t, string(body), test.wantBody)
		})
	}
}

func TestFastAPI_DownloadHasItsLength(t *testing.T) {
	f := startFastAPI(t)
	const size = 100_001
	response, err := f.control.Get(f.URL + "/download?size=" + strconv.Itoa(size))
	require.NoError(t, err)
	defer response.Body.Close()
	require.EqualValues(t, size, response.ContentLength)
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	want := make([]byte, size)
	for i := range want {
		want[i] = byte(i)
	}
	require.True(t, bytes.Equal(want, body))
}

// TestFastAPI_EchoesWebSocketMessages speaks the WebSocket protocol (RFC 6455)
// by hand: one short text message each way.
func TestFastAPI_EchoesWebSocketMessages(t *testing.T) {
	f := startFastAPI(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(f.URL, "http://"))
	require.NoError(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, "GET /ws HTTP/1.1\r\nHost: app\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	require.NoError(t, err)
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusSwitchingProtocols, response.StatusCode)
	require.Equal(t, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", response.Header.Get("Sec-Websocket-Accept"))

	const message = "hello"
	// A final text frame with a mask of zeros, which leaves the text as it is.
	_, err = conn.Write(append([]byte{0x81, 0x80 | byte(len(message)), 0, 0, 0, 0}, message...))
	require.NoError(t, err)
	echo := make([]byte, 2+len(message))
	_, err = io.ReadFull(reader, echo)
	require.NoError(t, err)
	require.Equal(t, append([]byte{0x81, byte(len(message))}, message...), echo)
}

func TestFastAPI_EndsAtOnceWithStreamsOpen(t *testing.T) {
	f := startOwnFastAPI(t)
	client := newSSEClient(t, http1)
	var streams []*sseStream
	for _, path := range []string{"/sse", "/raw", "/raw?interval=3600", "/emitter?user=bob", "/emitter?user=bob"} {
		streams = append(streams, client.open(t, f.URL+path))
	}
	streams = append(streams, client.open(t, f.URL+"/chat?n=0", withPost("{}")))
	f.waitOpen(t, len(streams))

	require.NoError(t, f.process.stop())
	for _, s := range streams {
		require.True(t, s.wait(t).clean(), "%v", s.end.Err)
		require.False(t, s.end.Torn)
	}
	log := f.process.log.String()
	require.Contains(t, log, "Finished server process")
	for _, unwanted := range []string{"ERROR", "WARNING", "Traceback"} {
		require.NotContains(t, log, unwanted)
	}
}
