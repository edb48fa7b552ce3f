package e2e

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

func TestFastAPI_StreamsDirectly(t *testing.T) {
	f := harness.StartFastAPI(t)
	tokens := []struct {
		name   string
		query  string
		option harness.RequestOption
	}{
		{"bearer", "", harness.WithBearer("alice")},
		{"query", "&token=alice", func(*http.Request) {}},
		{"cookie", "", harness.WithHeader("Cookie", "theme=dark; access_token=alice")},
	}
	for _, path := range []string{"/sse", "/raw", "/cors", "/user-header", "/slow-header", "/secured"} {
		for _, token := range tokens {
			t.Run(path+" "+token.name, func(t *testing.T) {
				f.Reset(t)
				s := harness.NewClient(t, harness.HTTP1).Open(t, f.URL+path+"?count=3&interval=0&delay=0&first=hello"+token.query,
					token.option, harness.WithHeader("Last-Event-ID", "41"))
				require.Equal(t, http.StatusOK, s.Status)
				require.Equal(t, "text/event-stream; charset=utf-8", s.Header.Get("Content-Type"))

				events := s.Rest(t)
				require.True(t, s.Wait(t).Clean(), "%v", s.Wait(t).Err)
				require.Len(t, events, 3)
				record := f.WaitStats(t, func(s harness.AppStats) bool { return s.Closed == 1 }).Streams[0]
				for i, e := range events {
					d := harness.DataOf(t, e)
					require.Equal(t, strconv.Itoa(42+i), e.ID)
					require.Equal(t, 42+i, d.N)
					require.Equal(t, "alice", d.User)
					require.Equal(t, record.Stream, d.Stream)
					require.Equal(t, "41", *d.LastEventID)
				}
				require.Equal(t, "hello", harness.DataOf(t, events[0]).Data)
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
	f := harness.StartFastAPI(t)
	for _, path := range []string{"/sse", "/raw", "/sse?interval=3600", "/raw?interval=3600", "/emitter?user=bob"} {
		t.Run(path, func(t *testing.T) {
			f.Reset(t)
			s := harness.NewClient(t, harness.HTTP1).Open(t, f.URL+path)
			open := f.WaitOpen(t, 1)
			require.Equal(t, strings.Split(path, "?")[0], open.Open[0].Path)
			require.GreaterOrEqual(t, open.Open[0].Age, 0.0)
			require.Zero(t, open.Closed)

			s.Close()
			after := f.WaitOpen(t, 0)
			require.Equal(t, 1, after.Opened)
			require.Equal(t, 1, after.Closed)
			require.Equal(t, "client", after.Streams[0].EndedBy)
		})
	}
}

func TestFastAPI_ResetKeepsTheStreamsThatAreOpen(t *testing.T) {
	f := harness.StartFastAPI(t)
	client := harness.NewClient(t, harness.HTTP1)
	client.Open(t, f.URL+"/sse?count=1").Wait(t)
	client.Open(t, f.URL+"/sse").Next(t)
	f.WaitStats(t, func(s harness.AppStats) bool { return s.Opened == 2 && s.Closed == 1 })
	f.Reset(t)
	require.Empty(t, f.Requests(t))
	s := f.Stats(t)
	require.Equal(t, 1, s.Opened)
	require.Zero(t, s.Closed)
	require.Len(t, s.Open, 1)
}

// This is the fault of real backends that the guard's order of admission avoids.
func TestFastAPI_EmitterOfANewerStreamIsRemovedByTheOlder(t *testing.T) {
	f := harness.StartFastAPI(t)
	client := harness.NewClient(t, harness.HTTP1)
	require.False(t, f.Emit(t, "bob", "nobody listens"))

	older := client.Open(t, f.URL+"/emitter?user=bob")
	f.WaitOpen(t, 1)
	require.True(t, f.Emit(t, "bob", "one"))
	require.Equal(t, "one", harness.DataOf(t, older.Next(t)).Data)

	newer := client.Open(t, f.URL+"/emitter", harness.WithBearer("bob"))
	f.WaitOpen(t, 2)
	require.True(t, f.Emit(t, "bob", "two"))
	first := newer.Next(t)
	require.Equal(t, "two", harness.DataOf(t, first).Data)
	require.Equal(t, "bob", harness.DataOf(t, first).User)

	older.Close()
	f.WaitOpen(t, 1)
	require.False(t, f.Emit(t, "bob", "three"), "the older stream took the newer one's emitter with it")
}

func TestFastAPI_VerifiesTheTokenOfAUserStream(t *testing.T) {
	f := harness.StartFastAPI(t)
	client := harness.NewClient(t, harness.HTTP1)
	const path = "/user-stream?count=2&interval=0"
	status := func(t *testing.T, token string) int {
		t.Helper()
		s := client.Open(t, f.URL+path, harness.WithBearer(token))
		s.Wait(t)
		f.WaitOpen(t, 0)
		return s.Status
	}
	for _, alg := range []string{"RS256", "PS256", "ES256", "ES384", "EdDSA", "HS256"} {
		t.Run(alg, func(t *testing.T) {
			f.Reset(t)
			i := harness.NewIssuer(t, alg)
			token := i.Token(t)
			require.Equal(t, http.StatusUnauthorized, status(t, token), "a key from before the reset")
			f.VerifyWith(t, i)
			for query, option := range map[string]harness.RequestOption{
				"":                harness.WithBearer(token),
				"&token=" + token: harness.WithHeader("Last-Event-ID", ""),
				"&n=1":            harness.WithHeader("Cookie", "access_token="+token),
			} {
				events := client.Open(t, f.URL+path+query, option).Rest(t)
				require.Len(t, events, 2)
				require.Equal(t, "alice", harness.DataOf(t, events[1]).User)
				require.Equal(t, "2", events[1].ID)
				f.WaitOpen(t, 0)
			}

			now := time.Now()
			bad := map[string]string{
				"none":      "",
				"no JWT":    "alice",
				"expired":   i.Token(t, harness.WithExp(now.Add(-time.Minute))),
				"not yet":   i.Token(t, harness.WithClaim("nbf", now.Add(time.Minute).Unix())),
				"no sub":    i.Token(t, harness.WithClaim("sub", nil)),
				"tampered":  harness.Tampered(t, token, "bob"),
				"unsigned":  i.UnsignedToken(t),
				"another's": harness.NewIssuer(t, alg).Token(t),
			}
			if alg != "HS256" {
				bad["confused"] = i.ConfusedToken(t)
			}
			for name, token := range bad {
				require.Equal(t, http.StatusUnauthorized, status(t, token), name)
			}
			if alg != "ES384" { // whose signatures have but one spelling
				require.Equal(t, http.StatusOK, status(t, harness.Padded(t, token)))
				require.Equal(t, http.StatusUnauthorized, status(t, harness.Respelled(t, token)))
			}
		})
	}
	for _, r := range f.Requests(t) {
		require.NotEqual(t, "/jwt/key", r.Path)
	}
}

// This is how a zombie locks its own user out.
func TestFastAPI_RefusesAUserWhoHasTheStreamsAllowed(t *testing.T) {
	f := harness.StartFastAPI(t)
	i := harness.NewIssuer(t, "ES256")
	f.VerifyWith(t, i)
	client := harness.NewClient(t, harness.HTTP1)
	url := f.URL + "/user-stream"
	alice := harness.WithBearer(i.Token(t))

	older := client.Open(t, url, alice)
	older.Next(t)
	refused := client.Open(t, url, harness.WithBearer(i.Token(t)))
	require.Equal(t, http.StatusConflict, refused.Status)
	refused.Wait(t)
	require.Contains(t, string(refused.Bytes()), "too many connections")
	client.Open(t, url, harness.WithBearer(i.Token(t, harness.WithSub("bob")))).Next(t)
	second := client.Open(t, url+"?max=2", alice)
	second.Next(t)

	older.Close()
	second.Close()
	f.WaitOpen(t, 1)
	c := harness.NewCable(t, f.URL)
	lost := client.Open(t, c.URL+"/user-stream", alice)
	lost.Next(t)
	c.Cut(t)
	lost.Close()
	require.Equal(t, http.StatusConflict, client.Open(t, c.URL+"/user-stream", alice).Status)

	c.Close()
	f.WaitOpen(t, 1)
	client.Open(t, url, alice).Next(t)
}

func TestFastAPI_ListsWhatReachedIt(t *testing.T) {
	f := harness.StartFastAPI(t)
	s := harness.NewClient(t, harness.HTTP1).Open(t, f.URL+"/secured?a=1&b=%20",
		harness.WithHeader("Last-Event-ID", "7"), harness.WithHeader("Accept-Encoding", "identity"))
	require.Equal(t, http.StatusUnauthorized, s.Status)
	s.Wait(t)

	requests := f.Requests(t)
	require.Len(t, requests, 1)
	r := requests[0]
	require.Equal(t, "GET", r.Method)
	require.Equal(t, "/secured", r.Path)
	require.Equal(t, "a=1&b=%20", r.Query)
	require.Equal(t, []string{"7"}, r.Header("last-event-id"))
	require.Equal(t, []string{"identity"}, r.Header("accept-encoding"))
	require.Equal(t, []string{"text/event-stream"}, r.Header("accept"))
	require.Equal(t, http.StatusUnauthorized, *r.Status)
	require.Empty(t, r.Header("cookie"))
}

func TestFastAPI_ChatAnswersAPostWithAStream(t *testing.T) {
	f := harness.StartFastAPI(t)
	client := harness.NewClient(t, harness.HTTP1)
	s := client.Open(t, f.URL+"/chat?n=3&interval=0", harness.WithPost(`{"messages":[]}`), harness.WithBearer("key"))
	require.Equal(t, http.StatusOK, s.Status)
	events := s.Rest(t)
	require.Len(t, events, 5, "three words, the stop, and [DONE]")
	require.Contains(t, events[0].Data, `"content": "word1 "`)
	require.Contains(t, events[3].Data, `"finish_reason": "stop"`)
	require.Equal(t, "[DONE]", events[4].Data)

	endless := client.Open(t, f.URL+"/chat?n=0", harness.WithPost(`{}`))
	endless.Next(t)
	endless.Close()
	f.WaitOpen(t, 0)
}

func TestFastAPI_AnswersWhatIsNoStream(t *testing.T) {
	f := harness.StartFastAPI(t)
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
	client := f.Client
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
	f := harness.StartFastAPI(t)
	const size = 100_001
	response, err := f.Client.Get(f.URL + "/download?size=" + strconv.Itoa(size))
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
	f := harness.StartFastAPI(t)
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
	f := harness.StartOwnFastAPI(t)
	client := harness.NewClient(t, harness.HTTP1)
	var streams []*harness.Stream
	for _, path := range []string{"/sse", "/raw", "/raw?interval=3600", "/emitter?user=bob", "/emitter?user=bob"} {
		streams = append(streams, client.Open(t, f.URL+path))
	}
	streams = append(streams, client.Open(t, f.URL+"/chat?n=0", harness.WithPost("{}")))
	f.WaitOpen(t, len(streams))

	require.NoError(t, f.Stop())
	for _, s := range streams {
		end := s.Wait(t)
		require.True(t, end.Clean(), "%v", end.Err)
		require.False(t, end.Torn)
	}
	log := f.Log()
	require.Contains(t, log, "Finished server process")
	for _, unwanted := range []string{"ERROR", "WARNING", "Traceback"} {
		require.NotContains(t, log, unwanted)
	}
}
