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

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

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
			site := harness.StartUserSite(t, "limit 9\nlogout POST /logout "+test.scope)
			url := site.Server.URL + "/user-stream?max=9"
			client := harness.NewClient(t, harness.HTTP1)
			shared, other, bobs := site.Token(t), site.Token(t), site.Token(t, harness.WithSub("bob"))
			streams := map[string][]harness.RequestOption{
				"phone":     {harness.WithBearer(shared), harness.WithClient("phone")},
				"laptop":    {harness.WithBearer(shared), harness.WithClient("laptop")},
				"elsewhere": {harness.WithBearer(other), harness.WithClient("tablet")},
				"stranger":  {harness.WithBearer(bobs), harness.WithClient("phone")},
			}
			open := make(map[string]*harness.Stream)
			for name, options := range streams {
				open[name] = client.Open(t, url, options...)
				harness.RequireAdmitted(t, open[name])
			}
			options := []harness.RequestOption{harness.WithBearer(shared)}
			if test.named {
				options = append(options, harness.WithClient("phone"))
			}
			require.Equal(t, 200, harness.LogOut(t, site.Server.URL+"/logout", options...))

			for name, ended := range map[string]bool{
				"phone": test.ended.phone, "laptop": test.ended.laptop,
				"elsewhere": test.ended.elsewhere, "stranger": test.ended.stranger,
			} {
				if ended {
					harness.RequireLoggedOut(t, open[name])
					harness.RequireDenied(t, url, streams[name]...)
					continue
				}
				harness.RequireLive(t, open[name])
				harness.RequireAdmitted(t, client.Open(t, url, streams[name]...))
			}
			harness.RequireAdmitted(t, client.Open(t, url, harness.WithBearer(site.Token(t)), harness.WithClient("phone")))
		})
	}
}

// TestLogout_AStrangerWhoNamesTheClientLogsNobodyOut: client ids are chosen by
// clients, and count only within the same user or token.
func TestLogout_AStrangerWhoNamesTheClientLogsNobodyOut(t *testing.T) {
	app := harness.StartFastAPI(t)
	i := harness.NewIssuer(t, "ES256")
	for name, site := range map[string]string{
		"verified": harness.VerifyingSite(app, i.KeyOption(t), harness.ByUser, "logout POST /logout"),
		"opaque":   "sse_guard {\nlogout POST /logout\n}\nreverse_proxy " + app.URL,
	} {
		t.Run(name, func(t *testing.T) {
			url := harness.StartCaddy(t, site).URL
			alice := harness.NewClient(t, harness.HTTP1).Open(t, url+"/raw", harness.WithBearer(i.Token(t)), harness.WithClient("phone"))
			harness.RequireAdmitted(t, alice)
			require.Equal(t, 200, harness.LogOut(t, url+"/logout", harness.WithBearer(i.Token(t, harness.WithSub("bob"))), harness.WithClient("phone")))
			require.Equal(t, 200, harness.LogOut(t, url+"/logout", harness.WithBearer("made up"), harness.WithClient("phone")))
			require.Equal(t, 200, harness.LogOut(t, url+"/logout", harness.WithClient("phone")))
			harness.RequireLive(t, alice)
		})
	}
}

// TestLogout_OfAUserDeniesTokensFromBefore by when they were issued, and those
// that the guard has seen, but not the next login.
func TestLogout_OfAUserDeniesTokensFromBefore(t *testing.T) {
	site := harness.StartUserSite(t, "limit 9\nlogout POST /logout user")
	url := site.Server.URL + "/user-stream?max=9"
	client := harness.NewClient(t, harness.HTTP1)
	old := harness.WithClaim("iat", 1)
	held, neverSeen, bobs := site.Token(t), site.Token(t, old), site.Token(t, old, harness.WithSub("bob"))
	harness.RequireAdmitted(t, client.Open(t, url, harness.WithBearer(held)))
	seenInPassing := site.Token(t, harness.WithClaim("iat", nil))
	answer, _ := harness.Get(t, site.Server.URL+"/whoami", harness.WithBearer(seenInPassing))
	require.Equal(t, 200, answer.StatusCode)

	require.Equal(t, 200, harness.LogOut(t, site.Server.URL+"/logout", harness.WithBearer(site.Token(t))))
	for name, token := range map[string]string{"held": held, "never seen": neverSeen, "seen in passing": seenInPassing} {
		t.Run(name, func(t *testing.T) { harness.RequireDenied(t, url, harness.WithBearer(token)) })
	}
	harness.RequireAdmitted(t, client.Open(t, url, harness.WithBearer(site.Token(t))))
	harness.RequireAdmitted(t, client.Open(t, url, harness.WithBearer(bobs)))
}

// TestLogout_OnlyWhereTheBackendHasLoggedOut: by its answer's status, and never
// on a preflight.
func TestLogout_OnlyWhereTheBackendHasLoggedOut(t *testing.T) {
	method := func(name string) harness.RequestOption {
		return func(r *http.Request) { r.Method, r.Body, r.ContentLength = name, nil, 0 }
	}
	for name, test := range map[string]struct {
		logout string
		target string
		option harness.RequestOption
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
		"no method, a POST":   {"/logout", "/logout", nil, 200, true},
		"no method, a GET":    {"/logout", "/logout", method("GET"), 200, false},
		"a GET":               {"GET /logout", "/logout", method("GET"), 200, true},
		"preflight":           {"/logout", "/logout", method("OPTIONS"), 204, false},
		"HEAD":                {"/logout", "/logout", method("HEAD"), 204, false},
		"below the path":      {"POST /auth/*", "/auth/logout", nil, 200, true},
		"the path as written": {"POST /auth/logout", "/auth/logout", nil, 200, true},
	} {
		t.Run(name, func(t *testing.T) {
			app := harness.StartFastAPI(t)
			server := harness.StartCaddy(t, `
				sse_guard {
					logout `+test.logout+`
				}
				@silent method OPTIONS HEAD
				respond @silent 204
				handle_path /auth/* {
					reverse_proxy `+app.URL+`
				}
				reverse_proxy `+app.URL)
			alice := harness.NewClient(t, harness.HTTP1).Open(t, server.URL+"/raw", harness.WithBearer("alice"))
			harness.RequireAdmitted(t, alice)
			options := []harness.RequestOption{harness.WithBearer("alice")}
			if test.option != nil {
				options = append(options, test.option)
			}
			require.Equal(t, test.status, harness.LogOut(t, server.URL+test.target, options...))
			if test.ended {
				harness.RequireLoggedOut(t, alice)
				harness.RequireDenied(t, server.URL+"/raw", harness.WithBearer("alice"))
				return
			}
			harness.RequireLive(t, alice)
			harness.RequireAdmitted(t, harness.NewClient(t, harness.HTTP1).Open(t, server.URL+"/raw", harness.WithBearer("alice")))
			harness.RequireEnded(t, alice, harness.Duplicated, "superseded")
		})
	}
}

// TestLogout_AnswersAfterTheStreamsHaveTheirEvent: when the answer is there, so
// is the event, in the socket of the stream's client.
func TestLogout_AnswersAfterTheStreamsHaveTheirEvent(t *testing.T) {
	const rounds = 20
	site := harness.StartUserSite(t, "logout POST /logout token")
	address := strings.TrimPrefix(site.Server.URL, "http://")
	for range rounds {
		conn, err := net.Dial("tcp", address)
		require.NoError(t, err)
		token := site.Token(t)
		_, err = io.WriteString(conn, "GET /user-stream HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\nAuthorization: Bearer "+token+"\r\n\r\n")
		require.NoError(t, err)
		first, err := bufio.NewReaderSize(conn, 16).ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, "HTTP/1.1 200 OK\r\n", first)

		require.Equal(t, 200, harness.LogOut(t, site.Server.URL+"/logout", harness.WithBearer(token)))
		require.Contains(t, arrived(t, conn.(*net.TCPConn)), "event: "+harness.LoggedOut)
		require.NoError(t, conn.Close())
	}
	for _, stream := range site.App.WaitOpen(t, 0).Streams {
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
	app := harness.StartFastAPI(t)
	i := harness.NewIssuer(t, "ES256")
	verified := harness.VerifyingGuard("", i.KeyOption(t), harness.ByUser, "logout POST /logout %s")
	opaque := "sse_guard {\nlogout POST /logout %s\n}"
	for name, test := range map[string]struct{ guard, scope string }{
		"token": {verified, "token"}, "client": {verified, "client"}, "user": {verified, "user"},
		"opaque": {opaque, "token"}, "opaque client": {opaque, "client"},
	} {
		t.Run(name, func(t *testing.T) {
			app.Reset(t)
			url := harness.StartCaddy(t, fmt.Sprintf(test.guard, test.scope)+"\nreverse_proxy "+app.URL).URL
			token := i.Token(t)
			newcomer := openLater(t, url+"/slow-header?delay=0.5", harness.WithBearer(token), harness.WithClient("phone"))
			waitRequested(t, app, "/slow-header")
			require.Equal(t, 200, harness.LogOut(t, url+"/logout", harness.WithBearer(token), harness.WithClient("phone")))

			s := newcomer()
			s.Wait(t)
			require.Equal(t, 401, s.Status)
			require.Contains(t, string(s.Bytes()), "logged out")
			app.WaitOpen(t, 0)
		})
	}
}

// openLater asks for a stream, and returns what waits for its header.
func openLater(t testing.TB, url string, options ...harness.RequestOption) func() *harness.Stream {
	t.Helper()
	client := harness.NewClient(t, harness.HTTP1)
	var s *harness.Stream
	var err error
	opened := make(chan struct{})
	go func() {
		defer close(opened)
		s, err = client.Connect(t.Context(), url, "", options...)
	}()
	return func() *harness.Stream {
		t.Helper()
		<-opened
		require.NoError(t, err)
		t.Cleanup(s.Close)
		return s
	}
}

// waitRequested waits until a request for that path has reached the application.
func waitRequested(t testing.TB, app *harness.FastAPI, path string) {
	t.Helper()
	app.WaitStats(t, func(harness.AppStats) bool {
		for _, request := range app.Requests(t) {
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
	app := harness.StartFastAPI(t)
	server := harness.StartCaddy(t, `
		sse_guard {
			limit 9
			logout /logout
		}
		reverse_proxy `+app.URL)
	client := harness.NewClient(t, harness.HTTP1)
	alice := client.Open(t, server.URL+"/raw", harness.WithBearer("alice"))
	harness.RequireAdmitted(t, alice)
	require.Equal(t, 200, harness.LogOut(t, server.URL+"/logout", harness.WithBearer("alice")))
	harness.RequireLoggedOut(t, alice)
	harness.RequireDenied(t, server.URL+"/raw", harness.WithBearer("alice"))

	for name, log := range map[string]harness.RequestOption{
		"POST":                   harness.WithPost(""),
		"GET":                    func(r *http.Request) { r.Method = http.MethodGet },
		"GET, asking for events": func(r *http.Request) { r.Method = http.MethodGet; r.Header.Set("Accept", "text/event-stream") },
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, 200, harness.LogOut(t, server.URL+"/logout", harness.WithBearer("stranger of "+name), log))
			harness.RequireAdmitted(t, client.Open(t, server.URL+"/raw", harness.WithBearer("stranger of "+name)))
		})
	}
}

// TestLogout_OfAStrangersTokenLeavesNoTrace where a key of its own makes the
// guard govern every method, or the token is no good.
func TestLogout_OfAStrangersTokenLeavesNoTrace(t *testing.T) {
	app := harness.StartFastAPI(t)
	server := harness.StartCaddy(t, `
		sse_guard {
			key {sse_guard.token}
			limit 9
			logout POST /logout
		}
		reverse_proxy `+app.URL)
	require.Equal(t, 200, harness.LogOut(t, server.URL+"/logout", harness.WithBearer("stranger")))
	harness.RequireAdmitted(t, harness.NewClient(t, harness.HTTP1).Open(t, server.URL+"/raw", harness.WithBearer("stranger")))
}

// TestLogout_ComingBack: with the tombstone it is told to stay away for good,
// without it that its token is no good, and a new login is welcome.
func TestLogout_ComingBack(t *testing.T) {
	site := harness.StartUserSite(t, "logout POST /logout")
	url := site.Server.URL + "/user-stream"
	client := harness.NewClient(t, harness.HTTP1)
	token := site.Token(t)
	alice := client.Open(t, url, harness.WithBearer(token))
	harness.RequireAdmitted(t, alice)
	require.Equal(t, 200, harness.LogOut(t, site.Server.URL+"/logout", harness.WithBearer(token)))
	tombstone := harness.RequireLoggedOut(t, alice).ID
	before := site.App.Stats(t).Opened

	back := client.Open(t, url, harness.WithBearer(token), harness.WithHeader("Last-Event-ID", tombstone))
	assert.Equal(t, 204, back.Status)
	assert.Equal(t, "no-store", back.Header.Get("Cache-Control"))
	assert.Equal(t, 204, client.Open(t, url+"?lastEventId="+tombstone, harness.WithBearer(token)).Status)
	harness.RequireDenied(t, url, harness.WithBearer(token))
	plain, body := harness.Get(t, url, harness.WithBearer(token))
	assert.Equal(t, 401, plain.StatusCode, body)
	require.Equal(t, []int{401}, harness.NewEventSource(t, client, url, harness.WithBearer(token)).WaitClosed(t))
	answer, _ := harness.Get(t, site.Server.URL+"/api/items", harness.WithBearer(token))
	assert.Equal(t, 200, answer.StatusCode, "what is no stream is the backend's business")
	assert.LessOrEqual(t, site.App.Stats(t).Opened, before+1, "only the plain request reached it")

	harness.RequireAdmitted(t, client.Open(t, url, harness.WithBearer(site.Token(t)), harness.WithHeader("Last-Event-ID", tombstone)))
	harness.RequireNoTombstoneSeen(t, site.App)
}

// TestLogout_SurvivesAReload: who was logged out stays so, and a stream from
// before can be logged out after.
func TestLogout_SurvivesAReload(t *testing.T) {
	site := harness.StartUserSite(t, "limit 9\nlogout POST /logout")
	url := site.Server.URL + "/user-stream?max=9"
	client := harness.NewClient(t, harness.HTTP1)
	gone, stays := site.Token(t), site.Token(t)
	first, second := client.Open(t, url, harness.WithBearer(gone)), client.Open(t, url, harness.WithBearer(stays))
	harness.RequireAdmitted(t, first)
	harness.RequireAdmitted(t, second)
	require.Equal(t, 200, harness.LogOut(t, site.Server.URL+"/logout", harness.WithBearer(gone)))
	harness.RequireLoggedOut(t, first)

	site.Reload(t)
	harness.RequireDenied(t, url, harness.WithBearer(gone))
	harness.RequireLive(t, second)
	require.Equal(t, 200, harness.LogOut(t, site.Server.URL+"/logout", harness.WithBearer(stays)))
	harness.RequireLoggedOut(t, second)
	harness.RequireDenied(t, url, harness.WithBearer(stays))
}

// TestLogout_AcrossProtocols: one connection carries the streams and the logout,
// and what else it carries stays.
func TestLogout_AcrossProtocols(t *testing.T) {
	for _, protocol := range []harness.Protocol{harness.HTTP2, harness.HTTP3} {
		t.Run(string(protocol), func(t *testing.T) {
			app := harness.StartFastAPI(t)
			server := harness.StartCaddyTLS(t, "sse_guard {\nlogout POST /logout\n}\nreverse_proxy "+app.URL)
			client := harness.NewClient(t, protocol)
			alice := client.Open(t, server.URL+"/raw", harness.WithBearer("alice"))
			bob := client.Open(t, server.URL+"/raw", harness.WithBearer("bob"))
			harness.RequireAdmitted(t, alice)
			harness.RequireAdmitted(t, bob)
			answer := client.Open(t, server.URL+"/logout", harness.WithBearer("alice"), harness.WithPost(""))
			answer.Wait(t)
			require.Equal(t, 200, answer.Status)
			require.Equal(t, alice.Proto, answer.Proto)
			harness.RequireLoggedOut(t, alice)
			harness.RequireLive(t, bob)
			app.WaitOpen(t, 1)
			require.Equal(t, 401, client.Open(t, server.URL+"/raw", harness.WithBearer("alice")).Status)
		})
	}
}
