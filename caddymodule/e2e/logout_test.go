package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// withClient names the device that a request comes from.
func withClient(id string) requestOption { return withHeader("X-Client-Id", id) }

// requireLoggedOut waits for the end of a stream that a logout ended.
func requireLoggedOut(t testing.TB, s *sseStream) sseEvent {
	t.Helper()
	notice := requireEnded(t, s, loggedOut, "logout")
	data := noticeOf(t, notice)
	require.Equal(t, loggedOut, data.Code)
	require.NotEmpty(t, data.Message)
	require.Contains(t, notice.ID, "sse-guard", "it is told to stay away")
	return notice
}

// requireDenied asks for a stream with a token that was logged out.
func requireDenied(t testing.TB, url string, options ...requestOption) {
	t.Helper()
	s := newSSEClient(t, http1).open(t, url, options...)
	s.wait(t)
	require.Equal(t, 401, s.Status, "%s", s.bytes())
	require.Contains(t, s.Header.Get("WWW-Authenticate"), `error="invalid_token"`)
	require.Contains(t, string(s.bytes()), "logged out")
}

// requireLive waits for an event that was not there before.
func requireLive(t testing.TB, s *sseStream) {
	t.Helper()
	for range len(s.events) {
		require.Equal(t, "message", s.next(t).Type)
	}
	require.Equal(t, "message", s.next(t).Type)
}

// TestLogout_Scopes: four streams of alice and one of bob, and which of them a
// logout of alice's phone ends, and which tokens it denies.
func TestLogout_Scopes(t *testing.T) {
	type set struct{ phone, laptop, elsewhere, stranger bool }
	for name, test := range map[string]struct {
		scope string
		named bool // the request names the phone
		ended set
	}{
		"token":              {"token", true, set{phone: true, laptop: true}},
		"client":             {"client", true, set{phone: true}},
		"client, not named":  {"client", false, set{}},
		"user":               {"user", true, set{phone: true, laptop: true, elsewhere: true}},
		"default":            {"", true, set{phone: true}},
		"default, not named": {"", false, set{phone: true, laptop: true}},
	} {
		t.Run(name, func(t *testing.T) {
			site := startUserSite(t, "limit 9\nlogout POST /logout "+test.scope)
			url := site.server.URL + "/user-stream?max=9"
			client := newSSEClient(t, http1)
			shared, other, bobs := site.token(t), site.token(t), site.token(t, withSub("bob"))
			streams := map[string][]requestOption{
				"phone":     {withBearer(shared), withClient("phone")},
				"laptop":    {withBearer(shared), withClient("laptop")},
				"elsewhere": {withBearer(other), withClient("tablet")},
				"stranger":  {withBearer(bobs), withClient("phone")},
			}
			open := make(map[string]*sseStream)
			for name, options := range streams {
				open[name] = client.open(t, url, options...)
				requireAdmitted(t, open[name])
			}
			options := []requestOption{withBearer(shared)}
			if test.named {
				options = append(options, withClient("phone"))
			}
			require.Equal(t, 200, logOut(t, site.server.URL+"/logout", options...))

			for name, ended := range map[string]bool{
				"phone": test.ended.phone, "laptop": test.ended.laptop,
				"elsewhere": test.ended.elsewhere, "stranger": test.ended.stranger,
			} {
				if ended {
					requireLoggedOut(t, open[name])
					requireDenied(t, url, streams[name]...)
					continue
				}
				requireLive(t, open[name])
				requireAdmitted(t, client.open(t, url, streams[name]...))
			}
			requireAdmitted(t, client.open(t, url, withBearer(site.token(t)), withClient("phone")))
		})
	}
}

// TestLogout_AStrangerWhoNamesTheClientLogsNobodyOut: client ids are chosen by
// clients, and count only within the same user or token.
func TestLogout_AStrangerWhoNamesTheClientLogsNobodyOut(t *testing.T) {
	app := startFastAPI(t)
	i := newIssuer(t, "ES256")
	for name, site := range map[string]string{
		"verified": verifyingSite(app, i.keyOption(t), byUser, "logout POST /logout"),
		"opaque":   "sse_guard {\nlogout POST /logout\n}\nreverse_proxy " + app.URL,
	} {
		t.Run(name, func(t *testing.T) {
			url := startCaddy(t, site).URL
			alice := newSSEClient(t, http1).open(t, url+"/raw", withBearer(i.token(t)), withClient("phone"))
			requireAdmitted(t, alice)
			require.Equal(t, 200, logOut(t, url+"/logout", withBearer(i.token(t, withSub("bob"))), withClient("phone")))
			require.Equal(t, 200, logOut(t, url+"/logout", withBearer("made up"), withClient("phone")))
			require.Equal(t, 200, logOut(t, url+"/logout", withClient("phone")))
			requireLive(t, alice)
		})
	}
}

// TestLogout_OfAUserDeniesTokensFromBefore by when they were issued, and those
// that the guard has seen, but not the next login.
func TestLogout_OfAUserDeniesTokensFromBefore(t *testing.T) {
	site := startUserSite(t, "limit 9\nlogout POST /logout user")
	url := site.server.URL + "/user-stream?max=9"
	client := newSSEClient(t, http1)
	old := withClaim("iat", 1)
	held, neverSeen, bobs := site.token(t), site.token(t, old), site.token(t, old, withSub("bob"))
	requireAdmitted(t, client.open(t, url, withBearer(held)))
	seenInPassing := site.token(t, withClaim("iat", nil))
	answer, _ := get(t, site.server.URL+"/whoami", withBearer(seenInPassing))
	require.Equal(t, 200, answer.StatusCode)

	require.Equal(t, 200, logOut(t, site.server.URL+"/logout", withBearer(site.token(t))))
	for name, token := range map[string]string{"held": held, "never seen": neverSeen, "seen in passing": seenInPassing} {
		t.Run(name, func(t *testing.T) { requireDenied(t, url, withBearer(token)) })
	}
	requireAdmitted(t, client.open(t, url, withBearer(site.token(t))))
	requireAdmitted(t, client.open(t, url, withBearer(bobs)))
}

// TestLogout_OnlyWhereTheBackendHasLoggedOut: by its answer's status, and never
// on a preflight.
func TestLogout_OnlyWhereTheBackendHasLoggedOut(t *testing.T) {
	method := func(name string) requestOption {
		return func(r *http.Request) { r.Method, r.Body, r.ContentLength = name, nil, 0 }
	}
	for name, test := range map[string]struct {
		logout string
		target string
		option requestOption
		status int
		ended  bool
	}{
		"success":             {"POST /logout", "/logout", nil, 200, true},
		"nothing to say":      {"POST /logout", "/logout?status=204", nil, 204, true},
		"refused":             {"POST /logout", "/logout?status=403", nil, 403, false},
		"broken":              {"POST /logout", "/logout?status=500", nil, 500, false},
		"redirect":            {"POST /logout", "/logout?status=302", nil, 302, false},
		"redirect, as given":  {"POST /logout token 302", "/logout?status=302", nil, 302, true},
		"success, not given":  {"POST /logout token 302", "/logout", nil, 200, false},
		"both given":          {"POST /logout 2xx 302", "/logout", nil, 200, true},
		"another path":        {"POST /logout", "/refresh", nil, 200, false},
		"another method":      {"POST /logout", "/logout", method("GET"), 200, false},
		"any method":          {"/logout", "/logout", method("GET"), 200, true},
		"preflight":           {"/logout", "/logout", method("OPTIONS"), 204, false},
		"HEAD":                {"/logout", "/logout", method("HEAD"), 204, false},
		"below the path":      {"POST /auth/*", "/auth/logout", nil, 200, true},
		"the path as written": {"POST /auth/logout", "/auth/logout", nil, 200, true},
	} {
		t.Run(name, func(t *testing.T) {
			app := startFastAPI(t)
			server := startCaddy(t, `
				sse_guard {
					logout `+test.logout+`
				}
				@silent method OPTIONS HEAD
				respond @silent 204
				handle_path /auth/* {
					reverse_proxy `+app.URL+`
				}
				reverse_proxy `+app.URL)
			alice := newSSEClient(t, http1).open(t, server.URL+"/raw", withBearer("alice"))
			requireAdmitted(t, alice)
			options := []requestOption{withBearer("alice")}
			if test.option != nil {
				options = append(options, test.option)
			}
			require.Equal(t, test.status, logOut(t, server.URL+test.target, options...))
			if test.ended {
				requireLoggedOut(t, alice)
				requireDenied(t, server.URL+"/raw", withBearer("alice"))
				return
			}
			requireLive(t, alice)
			requireAdmitted(t, newSSEClient(t, http1).open(t, server.URL+"/raw", withBearer("alice")))
			requireEnded(t, alice, duplicated, "superseded")
		})
	}
}

// TestLogout_AnswersAfterTheStreamsHaveTheirEvent: when the answer is there, so
// is the event, in the socket of the stream's client.
func TestLogout_AnswersAfterTheStreamsHaveTheirEvent(t *testing.T) {
	const rounds = 20
	site := startUserSite(t, "logout POST /logout token")
	address := strings.TrimPrefix(site.server.URL, "http://")
	for range rounds {
		conn, err := net.Dial("tcp", address)
		require.NoError(t, err)
		token := site.token(t)
		_, err = io.WriteString(conn, "GET /user-stream HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\nAuthorization: Bearer "+token+"\r\n\r\n")
		require.NoError(t, err)
		first, err := bufio.NewReaderSize(conn, 16).ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, "HTTP/1.1 200 OK\r\n", first)

		require.Equal(t, 200, logOut(t, site.server.URL+"/logout", withBearer(token)))
		require.Contains(t, arrived(t, conn.(*net.TCPConn)), "event: "+loggedOut)
		require.NoError(t, conn.Close())
	}
	for _, stream := range site.app.waitOpen(t, 0).Streams {
		require.Equal(t, "client", stream.EndedBy)
	}
}

// arrived is what has come over conn by now and was not read.
func arrived(t testing.TB, conn *net.TCPConn) string {
	t.Helper()
	raw, err := conn.SyscallConn()
	require.NoError(t, err)
	var came []byte
	var readErr error
	require.NoError(t, raw.Read(func(fd uintptr) bool {
		buf := make([]byte, 1<<16)
		for readErr == nil {
			var n int
			if n, readErr = unix.Read(int(fd), buf); n <= 0 {
				break
			}
			came = append(came, buf[:n]...)
		}
		return true
	}))
	require.True(t, readErr == nil || errors.Is(readErr, unix.EAGAIN), "%v", readErr)
	return string(came)
}

// TestLogout_ANewcomerInFlightIsRefused: the backend has authorised it before the
// logout, and answers after.
func TestLogout_ANewcomerInFlightIsRefused(t *testing.T) {
	app := startFastAPI(t)
	i := newIssuer(t, "ES256")
	verified := verifyingGuard("", i.keyOption(t), byUser, "logout POST /logout %s")
	opaque := "sse_guard {\nlogout POST /logout %s\n}"
	for name, test := range map[string]struct{ guard, scope string }{
		"token": {verified, "token"}, "client": {verified, "client"}, "user": {verified, "user"},
		"opaque": {opaque, "token"}, "opaque client": {opaque, "client"},
	} {
		t.Run(name, func(t *testing.T) {
			app.reset(t)
			url := startCaddy(t, fmt.Sprintf(test.guard, test.scope)+"\nreverse_proxy "+app.URL).URL
			token := i.token(t)
			newcomer := openLater(t, url+"/slow-header?delay=0.5", withBearer(token), withClient("phone"))
			waitRequested(t, app, "/slow-header")
			require.Equal(t, 200, logOut(t, url+"/logout", withBearer(token), withClient("phone")))

			s := newcomer()
			s.wait(t)
			require.Equal(t, 401, s.Status)
			require.Contains(t, string(s.bytes()), "logged out")
			app.waitOpen(t, 0)
		})
	}
}

// openLater asks for a stream, and returns what waits for its header.
func openLater(t testing.TB, url string, options ...requestOption) func() *sseStream {
	t.Helper()
	client := newSSEClient(t, http1)
	var s *sseStream
	var err error
	opened := make(chan struct{})
	go func() {
		defer close(opened)
		s, err = client.connect(t.Context(), url, "", options...)
	}()
	return func() *sseStream {
		t.Helper()
		<-opened
		require.NoError(t, err)
		t.Cleanup(s.close)
		return s
	}
}

// waitRequested waits until a request for that path has reached the application.
func waitRequested(t testing.TB, app *fastAPI, path string) {
	t.Helper()
	app.waitStats(t, func(appStats) bool {
		for _, request := range app.requests(t) {
			if request.Path == path {
				return true
			}
		}
		return false
	})
}

// TestLogout_OfATokenNobodyVerifies: it is denied where it holds a stream, and a
// stranger's logout leaves no trace, whatever the request looks like.
func TestLogout_OfATokenNobodyVerifies(t *testing.T) {
	app := startFastAPI(t)
	server := startCaddy(t, `
		sse_guard {
			limit 9
			logout /logout
		}
		reverse_proxy `+app.URL)
	client := newSSEClient(t, http1)
	alice := client.open(t, server.URL+"/raw", withBearer("alice"))
	requireAdmitted(t, alice)
	require.Equal(t, 200, logOut(t, server.URL+"/logout", withBearer("alice")))
	requireLoggedOut(t, alice)
	requireDenied(t, server.URL+"/raw", withBearer("alice"))

	for name, log := range map[string]requestOption{
		"POST":                   withPost(""),
		"GET":                    func(r *http.Request) { r.Method = http.MethodGet },
		"GET, asking for events": func(r *http.Request) { r.Method = http.MethodGet; r.Header.Set("Accept", "text/event-stream") },
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, 200, logOut(t, server.URL+"/logout", withBearer("stranger of "+name), log))
			requireAdmitted(t, client.open(t, server.URL+"/raw", withBearer("stranger of "+name)))
		})
	}
}

// TestLogout_OfAStrangersTokenLeavesNoTrace where a key of its own makes the
// guard govern every method, or the token is no good.
func TestLogout_OfAStrangersTokenLeavesNoTrace(t *testing.T) {
	app := startFastAPI(t)
	server := startCaddy(t, `
		sse_guard {
			key {sse_guard.token}
			limit 9
			logout POST /logout
		}
		reverse_proxy `+app.URL)
	require.Equal(t, 200, logOut(t, server.URL+"/logout", withBearer("stranger")))
	requireAdmitted(t, newSSEClient(t, http1).open(t, server.URL+"/raw", withBearer("stranger")))
}

// TestLogout_ComingBack: with the tombstone it is told to stay away for good,
// without it that its token is no good, and a new login is welcome.
func TestLogout_ComingBack(t *testing.T) {
	site := startUserSite(t, "logout POST /logout")
	url := site.server.URL + "/user-stream"
	client := newSSEClient(t, http1)
	token := site.token(t)
	alice := client.open(t, url, withBearer(token))
	requireAdmitted(t, alice)
	require.Equal(t, 200, logOut(t, site.server.URL+"/logout", withBearer(token)))
	tombstone := requireLoggedOut(t, alice).ID
	before := site.app.stats(t).Opened

	back := client.open(t, url, withBearer(token), withHeader("Last-Event-ID", tombstone))
	assert.Equal(t, 204, back.Status)
	assert.Equal(t, "no-store", back.Header.Get("Cache-Control"))
	assert.Equal(t, 204, client.open(t, url+"?lastEventId="+tombstone, withBearer(token)).Status)
	requireDenied(t, url, withBearer(token))
	plain, body := get(t, url, withBearer(token))
	assert.Equal(t, 401, plain.StatusCode, body)
	require.Equal(t, []int{401}, newEventSource(t, client, url, withBearer(token)).waitClosed(t))
	answer, _ := get(t, site.server.URL+"/api/items", withBearer(token))
	assert.Equal(t, 200, answer.StatusCode, "what is no stream is the backend's business")
	assert.LessOrEqual(t, site.app.stats(t).Opened, before+1, "only the plain request reached it")

	requireAdmitted(t, client.open(t, url, withBearer(site.token(t)), withHeader("Last-Event-ID", tombstone)))
	assertNoTombstoneSeen(t, site.app)
}

// TestLogout_SurvivesAReload: who was logged out stays so, and a stream from
// before can be logged out after.
func TestLogout_SurvivesAReload(t *testing.T) {
	site := startUserSite(t, "limit 9\nlogout POST /logout")
	url := site.server.URL + "/user-stream?max=9"
	client := newSSEClient(t, http1)
	gone, stays := site.token(t), site.token(t)
	first, second := client.open(t, url, withBearer(gone)), client.open(t, url, withBearer(stays))
	requireAdmitted(t, first)
	requireAdmitted(t, second)
	require.Equal(t, 200, logOut(t, site.server.URL+"/logout", withBearer(gone)))
	requireLoggedOut(t, first)

	site.reload(t)
	requireDenied(t, url, withBearer(gone))
	requireLive(t, second)
	require.Equal(t, 200, logOut(t, site.server.URL+"/logout", withBearer(stays)))
	requireLoggedOut(t, second)
	requireDenied(t, url, withBearer(stays))
}

// TestLogout_AcrossProtocols: one connection carries the streams and the logout,
// and what else it carries stays.
func TestLogout_AcrossProtocols(t *testing.T) {
	for _, protocol := range []protocol{http2, http3} {
		t.Run(string(protocol), func(t *testing.T) {
			app := startFastAPI(t)
			server := startCaddyTLS(t, "sse_guard {\nlogout POST /logout\n}\nreverse_proxy "+app.URL)
			client := newSSEClient(t, protocol)
			alice := client.open(t, server.URL+"/raw", withBearer("alice"))
			bob := client.open(t, server.URL+"/raw", withBearer("bob"))
			requireAdmitted(t, alice)
			requireAdmitted(t, bob)
			answer := client.open(t, server.URL+"/logout", withBearer("alice"), withPost(""))
			answer.wait(t)
			require.Equal(t, 200, answer.Status)
			require.Equal(t, alice.Proto, answer.Proto)
			requireLoggedOut(t, alice)
			requireLive(t, bob)
			app.waitOpen(t, 1)
			require.Equal(t, 401, client.open(t, server.URL+"/raw", withBearer("alice")).Status)
		})
	}
}
