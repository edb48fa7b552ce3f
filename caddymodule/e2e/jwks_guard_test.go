package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// keyedIssuer is a new issuer of ES256 whose key has that kid.
func keyedIssuer(t testing.TB, kid string) *harness.Issuer {
	t.Helper()
	i := harness.NewIssuer(t, "ES256")
	i.KID = kid
	return i
}

// requireLater asserts that a stream was refused for now: its page comes back by itself.
func requireLater(t testing.TB, s *harness.Stream, retry time.Duration) {
	t.Helper()
	require.Equal(t, http.StatusOK, s.Status)
	require.Equal(t, "text/event-stream", s.Header.Get("Content-Type"))
	require.Empty(t, s.Rest(t))
	require.Equal(t, retry, harness.RequireCut(t, s))
}

// requireFirst asserts that a stream is the application's.
func requireFirst(t testing.TB, s *harness.Stream) {
	t.Helper()
	require.Equal(t, http.StatusOK, s.Status)
	require.Equal(t, "1", s.Next(t).ID)
}

// fetchLogs are the lines about the fetching of keys, by their level.
func fetchLogs(t testing.TB, server *harness.Caddy) (warnings, news []harness.LogLine) {
	t.Helper()
	for _, line := range server.HandlerLogs(t) {
		switch {
		case !strings.Contains(line.Msg, "JWKS"):
		case line.Level == "warn":
			warnings = append(warnings, line)
		default:
			news = append(news, line)
		}
	}
	return warnings, news
}

// TestJWKS_ANewKeyIsFetchedWhenATokenNamesIt, but made-up names do not have it
// fetched more than every ten seconds, which this test has to wait for once.
func TestJWKS_ANewKeyIsFetchedWhenATokenNamesIt(t *testing.T) {
	app := harness.StartFastAPI(t)
	old, next := keyedIssuer(t, "2025"), keyedIssuer(t, "2026")
	keys := harness.NewJWKSServer(t, old)
	site := harness.VerifyingSite(app, "jwks "+keys.URL, harness.ByUser, "retry 500ms")
	server := harness.StartCaddy(t, site)
	client := harness.NewClient(t, harness.HTTP1)
	olds := old.Token(t)
	holder := client.Open(t, server.URL+"/sse", harness.WithBearer(olds))
	requireFirst(t, holder)
	server.Reload(t, site+"\n@other path /other\n"+harness.VerifyingGuard("@other", "jwks "+keys.URL+"\nleeway 1s"))
	require.Equal(t, 1, keys.Requested(), "guards and configurations share what was fetched")

	keys.Publish(t, next)
	app.Reset(t)
	var flood sync.WaitGroup
	streams, errs := make([]*harness.Stream, 50), make([]error, 50)
	for n := range streams {
		token := next.Token(t, harness.WithKID(fmt.Sprint("made up ", n)))
		flood.Go(func() {
			streams[n], errs[n] = client.Connect(t.Context(), server.URL+"/sse", "", harness.WithBearer(token))
		})
	}
	flood.Wait()
	for n, s := range streams {
		require.NoError(t, errs[n])
		requireLater(t, s, 500*time.Millisecond)
	}
	require.Equal(t, 1, keys.Requested())
	require.Empty(t, app.Requests(t))

	// Nothing else fetches, so that the attempt that succeeds is the one that has
	// the key fetched.
	newcomer := harness.WithBearer(next.Token(t, harness.WithSub("bob")))
	var admitted *harness.Stream
	require.Eventually(t, func() bool {
		before := keys.Requested()
		s := client.Open(t, server.URL+"/sse", newcomer)
		if keys.Requested() == 1 {
			requireLater(t, s, 500*time.Millisecond)
			return false
		}
		require.Equal(t, 1, before)
		admitted = s
		return true
	}, harness.Patience, 100*time.Millisecond, "the new key is never fetched")
	requireFirst(t, admitted)

	harness.RequireInvalid(t, client.Open(t, server.URL+"/sse", harness.WithBearer(olds)), "not signed with a key that is known")
	requireLater(t, client.Open(t, server.URL+"/sse", harness.WithBearer(old.Token(t))), 500*time.Millisecond)
	holder.Next(t)
	for range 20 {
		client.Open(t, server.URL+"/sse", harness.WithBearer(next.Token(t, harness.WithKID("made up")))).Wait(t)
	}
	require.Equal(t, 2, keys.Requested())
	require.Len(t, app.Requests(t), 1)
	server.RequireNotTold(t, "", olds)
}

// TestJWKS_ServerDownAtStart: nobody is refused for ever because the issuer
// starts later than the proxy.
func TestJWKS_ServerDownAtStart(t *testing.T) {
	app := harness.StartFastAPI(t)
	i := keyedIssuer(t, "1")
	keys := harness.NewJWKSServer(t, i)
	keys.Stop(t)
	server := harness.StartCaddy(t, harness.VerifyingSite(app, "jwks "+keys.URL, harness.ByUser, "retry 100ms"))
	client := harness.NewClient(t, harness.HTTP1)
	token := i.Token(t)

	requireLater(t, client.Open(t, server.URL+"/sse", harness.WithBearer(token)), 100*time.Millisecond)
	harness.RequireInvalid(t, client.Open(t, server.URL+"/sse", harness.WithBearer("deadbeefdeadbeef")), "not a JWT")
	assert.Empty(t, app.Requests(t), "something reached the backend")

	response, body := harness.Get(t, server.URL+"/sse", harness.WithBearer(token))
	assert.Equal(t, http.StatusServiceUnavailable, response.StatusCode)
	assert.Equal(t, "1", response.Header.Get("Retry-After"))
	assert.Equal(t, "application/problem+json", response.Header.Get("Content-Type"))
	var problem struct{ Status int }
	require.NoError(t, json.Unmarshal([]byte(body), &problem))
	assert.Equal(t, http.StatusServiceUnavailable, problem.Status)
	app.WaitOpen(t, 0)
	refreshed, _ := harness.Send(t, http.MethodPost, server.URL+"/refresh", harness.WithBearer(token))
	assert.Equal(t, http.StatusOK, refreshed.StatusCode)

	page := harness.NewEventSource(t, client, server.URL+"/sse", harness.WithBearer(token))
	require.Eventually(t, func() bool { return page.Count() > 1 }, harness.Patience, time.Millisecond, "it does not come back")
	keys.Start(t)
	assert.Equal(t, "1", page.Next(t).ID, "the page is in as soon as the keys are there")
	for _, status := range page.Answers() {
		assert.Equal(t, http.StatusOK, status)
	}
	assert.Equal(t, 1, keys.Requested())
	var warnings, news []harness.LogLine
	require.Eventually(t, func() bool {
		warnings, news = fetchLogs(t, server)
		return len(news) > 0
	}, harness.Patience, 10*time.Millisecond)
	require.Len(t, warnings, 1, "%v", warnings)
	require.Len(t, news, 1, "%v", news)
	assert.Contains(t, warnings[0].Raw, keys.URL)
	server.RequireNotTold(t, fmt.Sprint(response.Header, body), token)
}

// TestJWKS_KeysStayGoodWhileTheServerFails, whatever it answers, and over a
// reload of the configuration.
func TestJWKS_KeysStayGoodWhileTheServerFails(t *testing.T) {
	app := harness.StartFastAPI(t)
	i, next := keyedIssuer(t, "1"), keyedIssuer(t, "2")
	keys := harness.NewJWKSServer(t, i)
	jwt := "jwks " + keys.URL + " 1s"
	server := harness.StartCaddy(t, harness.VerifyingSite(app, jwt, harness.ByUser, "retry 100ms"))
	client := harness.NewClient(t, harness.HTTP1)
	var holder *harness.Stream
	requireGood := func(why string) {
		t.Helper()
		newer := client.Open(t, server.URL+"/sse", harness.WithBearer(i.Token(t)))
		require.Equal(t, http.StatusOK, newer.Status, why)
		require.Equal(t, "1", newer.Next(t).ID, why)
		if holder != nil {
			harness.RequireEnded(t, holder, harness.Duplicated, "superseded")
		}
		holder = newer
	}
	requireGood("the server is up")

	keys.Stop(t)
	require.Eventually(t, func() bool {
		warnings, _ := fetchLogs(t, server)
		return len(warnings) == 1
	}, harness.Patience, 10*time.Millisecond, "nobody notices that the server is down")
	requireGood("the server is down")
	server.Reload(t, harness.VerifyingSite(app, jwt+"\nleeway 10s\nrequire sub", harness.ByUser, "retry 200ms"))
	requireGood("the configuration is another")
	requireLater(t, client.Open(t, server.URL+"/sse", harness.WithBearer(next.Token(t))), 200*time.Millisecond)

	for n, answer := range []struct {
		status int
		body   string
	}{
		{http.StatusOK, "<!doctype html><title>Maintenance</title>"},
		{http.StatusInternalServerError, harness.JWKS(t, next)},
		{http.StatusOK, `{"keys":[]}`},
		{http.StatusNotFound, ""}, // its request says that all others have been dealt with
	} {
		keys.Answer(answer.status, answer.body, 0)
		asked := keys.Requested()
		if n == 0 {
			keys.Start(t)
		}
		keys.WaitRequested(t, asked+1)
	}
	requireGood("the server answers nonsense")
	requireLater(t, client.Open(t, server.URL+"/sse", harness.WithBearer(next.Token(t))), 200*time.Millisecond)
	warnings, news := fetchLogs(t, server)
	assert.Len(t, warnings, 1, "%v", warnings)
	assert.Empty(t, news)

	keys.Publish(t, i, next)
	page := harness.NewEventSource(t, client, server.URL+"/sse", harness.WithBearer(next.Token(t, harness.WithSub("bob"))))
	assert.Equal(t, "1", page.Next(t).ID)
	requireGood("both keys are published")
}

// TestJWKS_ASlowServerHoldsUpOnlyTheStreamsThatNeedIt.
func TestJWKS_ASlowServerHoldsUpOnlyTheStreamsThatNeedIt(t *testing.T) {
	app := harness.StartFastAPI(t)
	i, local := keyedIssuer(t, "1"), harness.NewIssuer(t, "HS256")
	local.KID = "local"
	keys := harness.NewJWKSServer(t, i)
	keys.Answer(http.StatusOK, harness.JWKS(t, i), time.Hour)
	server := harness.StartCaddy(t, harness.VerifyingSite(app, "jwks "+keys.URL+"\n"+local.KeyOption(t), harness.ByUser))
	keys.WaitRequested(t, 1)

	client := harness.NewClient(t, harness.HTTP1)
	token := harness.WithBearer(i.Token(t))
	waiting := make(chan *harness.Stream, 1)
	errs := make(chan error, 1)
	go func() {
		s, err := client.Connect(t.Context(), server.URL+"/sse", "", token)
		waiting <- s
		errs <- err
	}()
	for _, path := range []string{"/api/items", "/login", "/whoami"} {
		response, _ := harness.Get(t, server.URL+path, token)
		assert.Equal(t, http.StatusOK, response.StatusCode, path)
	}
	refreshed, _ := harness.Send(t, http.MethodPost, server.URL+"/refresh", token)
	assert.Equal(t, http.StatusOK, refreshed.StatusCode)
	requireFirst(t, client.Open(t, server.URL+"/sse", harness.WithBearer(local.Token(t, harness.WithSub("bob")))))
	select {
	case <-waiting:
		require.Fail(t, "admitted without a key")
	default:
	}
	assert.Equal(t, 1, app.Stats(t).Opened)

	keys.Publish(t, i)
	s := <-waiting
	require.NoError(t, <-errs)
	t.Cleanup(s.Close)
	requireFirst(t, s)
	assert.Equal(t, 1, keys.Requested())
}
