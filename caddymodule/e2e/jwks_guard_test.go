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
)

// keyedIssuer is a new issuer of ES256 whose key has that kid.
func keyedIssuer(t testing.TB, kid string) *issuer {
	t.Helper()
	i := newIssuer(t, "ES256")
	i.kid = kid
	return i
}

// requireLater asserts that a stream was refused for now: its page comes back by itself.
func requireLater(t testing.TB, s *sseStream, retry time.Duration) {
	t.Helper()
	require.Equal(t, http.StatusOK, s.Status)
	require.Equal(t, "text/event-stream", s.Header.Get("Content-Type"))
	require.Empty(t, s.rest(t))
	require.NoError(t, s.end.Err)
	require.NotNil(t, s.retry())
	require.Equal(t, retry, *s.retry())
}

// requireFirst asserts that a stream is the application's.
func requireFirst(t testing.TB, s *sseStream) {
	t.Helper()
	require.Equal(t, http.StatusOK, s.Status)
	require.Equal(t, "1", s.next(t).ID)
}

// fetchLogs are the lines about the fetching of keys, by their level.
func (c *caddyServer) fetchLogs(t testing.TB) (warnings, news []logLine) {
	t.Helper()
	for _, line := range c.handlerLogs(t) {
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
	app := startFastAPI(t)
	old, next := keyedIssuer(t, "2025"), keyedIssuer(t, "2026")
	keys := newJWKSServer(t, old)
	site := verifyingSite(app, "jwks "+keys.URL, byUser, "retry 500ms")
	server := startCaddy(t, site)
	client := newSSEClient(t, http1)
	olds := old.token(t)
	holder := client.open(t, server.URL+"/sse", withBearer(olds))
	requireFirst(t, holder)
	server.reload(t, site+"\n@other path /other\n"+verifyingGuard("@other", "jwks "+keys.URL+"\nleeway 1s"))
	require.Equal(t, 1, keys.requested(), "guards and configurations share what was fetched")

	keys.publish(t, next)
	app.reset(t)
	var flood sync.WaitGroup
	streams, errs := make([]*sseStream, 50), make([]error, 50)
	for n := range streams {
		token := next.token(t, withKid(fmt.Sprint("made up ", n)))
		flood.Go(func() { streams[n], errs[n] = client.connect(t.Context(), server.URL+"/sse", "", withBearer(token)) })
	}
	flood.Wait()
	for n, s := range streams {
		require.NoError(t, errs[n])
		requireLater(t, s, 500*time.Millisecond)
	}
	require.Equal(t, 1, keys.requested())
	require.Empty(t, app.requests(t))

	// Nothing else fetches, so that the attempt that succeeds is the one that has
	// the key fetched.
	newcomer := withBearer(next.token(t, withSub("bob")))
	var admitted *sseStream
	require.Eventually(t, func() bool {
		before := keys.requested()
		s := client.open(t, server.URL+"/sse", newcomer)
		if keys.requested() == 1 {
			requireLater(t, s, 500*time.Millisecond)
			return false
		}
		require.Equal(t, 1, before)
		admitted = s
		return true
	}, patience, 100*time.Millisecond, "the new key is never fetched")
	requireFirst(t, admitted)

	requireInvalid(t, client.open(t, server.URL+"/sse", withBearer(olds)), "not signed with a key that is known")
	requireLater(t, client.open(t, server.URL+"/sse", withBearer(old.token(t))), 500*time.Millisecond)
	holder.next(t)
	for range 20 {
		client.open(t, server.URL+"/sse", withBearer(next.token(t, withKid("made up")))).wait(t)
	}
	require.Equal(t, 2, keys.requested())
	require.Len(t, app.requests(t), 1)
	server.requireNotTold(t, "", olds)
}

// TestJWKS_ServerDownAtStart: nobody is refused for ever because the issuer
// starts later than the proxy.
func TestJWKS_ServerDownAtStart(t *testing.T) {
	app := startFastAPI(t)
	i := keyedIssuer(t, "1")
	keys := newJWKSServer(t, i)
	keys.stop(t)
	server := startCaddy(t, verifyingSite(app, "jwks "+keys.URL, byUser, "retry 100ms"))
	client := newSSEClient(t, http1)
	token := i.token(t)

	requireLater(t, client.open(t, server.URL+"/sse", withBearer(token)), 100*time.Millisecond)
	requireInvalid(t, client.open(t, server.URL+"/sse", withBearer("deadbeefdeadbeef")), "not a JWT")
	assert.Empty(t, app.requests(t), "something reached the backend")

	response, body := get(t, server.URL+"/sse", withBearer(token))
	assert.Equal(t, http.StatusServiceUnavailable, response.StatusCode)
	assert.Equal(t, "1", response.Header.Get("Retry-After"))
	assert.Equal(t, "application/problem+json", response.Header.Get("Content-Type"))
	var problem struct{ Status int }
	require.NoError(t, json.Unmarshal([]byte(body), &problem))
	assert.Equal(t, http.StatusServiceUnavailable, problem.Status)
	app.waitOpen(t, 0)
	refreshed, _ := send(t, http.MethodPost, server.URL+"/refresh", withBearer(token))
	assert.Equal(t, http.StatusOK, refreshed.StatusCode)

	page := newEventSource(t, client, server.URL+"/sse", withBearer(token))
	require.Eventually(t, func() bool { return page.count() > 1 }, patience, time.Millisecond, "it does not come back")
	keys.start(t)
	assert.Equal(t, "1", page.next(t).ID, "the page is in as soon as the keys are there")
	for _, status := range page.answers() {
		assert.Equal(t, http.StatusOK, status)
	}
	assert.Equal(t, 1, keys.requested())
	var warnings, news []logLine
	require.Eventually(t, func() bool {
		warnings, news = server.fetchLogs(t)
		return len(news) > 0
	}, patience, 10*time.Millisecond)
	require.Len(t, warnings, 1, "%v", warnings)
	require.Len(t, news, 1, "%v", news)
	assert.Contains(t, warnings[0].raw, keys.URL)
	server.requireNotTold(t, fmt.Sprint(response.Header, body), token)
}

// TestJWKS_KeysStayGoodWhileTheServerFails, whatever it answers, and over a
// reload of the configuration.
func TestJWKS_KeysStayGoodWhileTheServerFails(t *testing.T) {
	app := startFastAPI(t)
	i, next := keyedIssuer(t, "1"), keyedIssuer(t, "2")
	keys := newJWKSServer(t, i)
	jwt := "jwks " + keys.URL + " 1s"
	server := startCaddy(t, verifyingSite(app, jwt, byUser, "retry 100ms"))
	client := newSSEClient(t, http1)
	var holder *sseStream
	requireGood := func(why string) {
		t.Helper()
		newer := client.open(t, server.URL+"/sse", withBearer(i.token(t)))
		require.Equal(t, http.StatusOK, newer.Status, why)
		require.Equal(t, "1", newer.next(t).ID, why)
		if holder != nil {
			requireEnded(t, holder, duplicated, "superseded")
		}
		holder = newer
	}
	requireGood("the server is up")

	keys.stop(t)
	require.Eventually(t, func() bool {
		warnings, _ := server.fetchLogs(t)
		return len(warnings) == 1
	}, patience, 10*time.Millisecond, "nobody notices that the server is down")
	requireGood("the server is down")
	server.reload(t, verifyingSite(app, jwt+"\nleeway 10s\nrequire sub", byUser, "retry 200ms"))
	requireGood("the configuration is another")
	requireLater(t, client.open(t, server.URL+"/sse", withBearer(next.token(t))), 200*time.Millisecond)

	for n, answer := range []struct {
		status int
		body   string
	}{
		{http.StatusOK, "<!doctype html><title>Maintenance</title>"},
		{http.StatusInternalServerError, jwks(t, next)},
		{http.StatusOK, `{"keys":[]}`},
		{http.StatusNotFound, ""}, // its request says that all others have been dealt with
	} {
		keys.answer(answer.status, answer.body, 0)
		asked := keys.requested()
		if n == 0 {
			keys.start(t)
		}
		keys.waitRequested(t, asked+1)
	}
	requireGood("the server answers nonsense")
	requireLater(t, client.open(t, server.URL+"/sse", withBearer(next.token(t))), 200*time.Millisecond)
	warnings, news := server.fetchLogs(t)
	assert.Len(t, warnings, 1, "%v", warnings)
	assert.Empty(t, news)

	keys.publish(t, i, next)
	page := newEventSource(t, client, server.URL+"/sse", withBearer(next.token(t, withSub("bob"))))
	assert.Equal(t, "1", page.next(t).ID)
	requireGood("both keys are published")
}

// TestJWKS_ASlowServerHoldsUpOnlyTheStreamsThatNeedIt.
func TestJWKS_ASlowServerHoldsUpOnlyTheStreamsThatNeedIt(t *testing.T) {
	app := startFastAPI(t)
	i, local := keyedIssuer(t, "1"), newIssuer(t, "HS256")
	local.kid = "local"
	keys := newJWKSServer(t, i)
	keys.answer(http.StatusOK, jwks(t, i), time.Hour)
	server := startCaddy(t, verifyingSite(app, "jwks "+keys.URL+"\n"+local.keyOption(t), byUser))
	keys.waitRequested(t, 1)

	client := newSSEClient(t, http1)
	token := withBearer(i.token(t))
	waiting := make(chan *sseStream, 1)
	errs := make(chan error, 1)
	go func() {
		s, err := client.connect(t.Context(), server.URL+"/sse", "", token)
		waiting <- s
		errs <- err
	}()
	for _, path := range []string{"/api/items", "/login", "/whoami"} {
		response, _ := get(t, server.URL+path, token)
		assert.Equal(t, http.StatusOK, response.StatusCode, path)
	}
	refreshed, _ := send(t, http.MethodPost, server.URL+"/refresh", token)
	assert.Equal(t, http.StatusOK, refreshed.StatusCode)
	requireFirst(t, client.open(t, server.URL+"/sse", withBearer(local.token(t, withSub("bob")))))
	select {
	case <-waiting:
		require.Fail(t, "admitted without a key")
	default:
	}
	assert.Equal(t, 1, app.stats(t).Opened)

	keys.publish(t, i)
	s := <-waiting
	require.NoError(t, <-errs)
	t.Cleanup(s.close)
	requireFirst(t, s)
	assert.Equal(t, 1, keys.requested())
}
