package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// carriers are the places where the guard looks for a token unless it is told.
var carriers = []struct {
	name  string
	carry func(token string) harness.RequestOption
}{
	{"header", harness.WithBearer},
	{"query", harness.WithQueryToken},
	{"cookie", func(token string) harness.RequestOption { return harness.WithHeader("Cookie", "access_token="+token) }},
}

// TestVerified_AGoodTokenOpensAStream of its user, who has one, whatever token
// it comes with and wherever that is.
func TestVerified_AGoodTokenOpensAStream(t *testing.T) {
	issuers := []*harness.Issuer{harness.NewIssuer(t, "RS256")}
	pss := *issuers[0] // an RSA key takes long to make
	pss.Alg = "PS256"
	issuers = append(issuers, &pss)
	for _, alg := range []string{"ES256", "ES384", "EdDSA", "HS256"} {
		issuers = append(issuers, harness.NewIssuer(t, alg))
	}
	for _, i := range issuers {
		t.Run(i.Alg, func(t *testing.T) {
			app := harness.StartFastAPI(t)
			server := harness.StartCaddy(t, harness.VerifyingSite(app, i.KeyOption(t), harness.ByUser))
			client := harness.NewClient(t, harness.HTTP1)

			bobs := i.Token(t, harness.WithSub("bob"))
			bob := client.Open(t, server.URL+"/sse", harness.WithBearer(bobs))
			bob.Next(t)
			tokens := []string{bobs}
			var older *harness.Stream
			for _, c := range carriers {
				token := i.Token(t)
				tokens = append(tokens, token)
				newer := client.Open(t, server.URL+"/sse", c.carry(token))
				require.Equal(t, http.StatusOK, newer.Status, c.name)
				newer.Next(t)
				if older != nil {
					harness.RequireEnded(t, older, harness.Duplicated, "superseded")
				}
				older = newer
			}
			older.Next(t)
			assert.False(t, bob.Ended(), "another user's")
			app.WaitOpen(t, 2)

			for _, line := range server.WaitLogs(t, 4) {
				if line.Logger == harness.SecurityLogger {
					assert.Contains(t, line.Raw, `"sub":"alice"`)
				}
			}
			server.RequireNotTold(t, "", tokens...)
		})
	}
}

// TestVerified_NoOtherTokenReachesTheBackend of a request that asks for a stream.
func TestVerified_NoOtherTokenReachesTheBackend(t *testing.T) {
	app := harness.StartFastAPI(t)
	rsa, secret := harness.NewIssuer(t, "RS256"), harness.NewIssuer(t, "HS256")
	rsa.KID, secret.KID = "rsa-1", "hs-1"
	stranger, nameless := harness.NewIssuer(t, "HS256"), harness.NewIssuer(t, "ES256")
	stranger.KID, nameless.KID = "hs-1", "rsa-1"
	site := harness.VerifyingSite(app, strings.Join([]string{
		rsa.KeyOption(t) + " issuer https://issuer.example https://other-issuer.example",
		secret.KeyOption(t) + " issuer https://other-issuer.example https://issuer.example",
		"issuer https://issuer.example https://other-issuer.example",
		"audience stream",
		"require exp tenant",
	}, "\n"))
	server := harness.StartCaddy(t, site)
	// Else Caddy itself answers 431 to more than 20 KB.
	require.NoError(t, server.Load(t, site, "max_header_size 1MB"))

	// with is what a good token says, and then the options.
	with := func(options ...harness.TokenOption) []harness.TokenOption {
		return append([]harness.TokenOption{
			harness.WithClaim("iss", "https://issuer.example"),
			harness.WithClaim("aud", []string{"page", "stream"}),
			harness.WithClaim("tenant", "acme"),
		}, options...)
	}
	good := rsa.Token(t, with()...)
	unsigned := good[:strings.LastIndexByte(good, '.')+1]
	in := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	var answers strings.Builder
	var tokens []string
	for _, test := range []struct{ name, token, why string }{
		{"public key taken for a secret", rsa.ConfusedToken(t, with()...), "does not fit its key"},
		{"public key taken for the other secret", rsa.ConfusedToken(t, with(harness.WithKID("hs-1"))...), "signature"},
		{"public key taken for any secret", rsa.ConfusedToken(t, with(harness.WithKID(""))...), "signature"},
		{"algorithm none", rsa.UnsignedToken(t, with()...), "algorithm"},
		{"algorithm none without a kid", rsa.UnsignedToken(t, with(harness.WithKID(""))...), "algorithm"},
		{"no signature", unsigned, "signature"},
		{"another token's signature", unsigned + strings.Split(rsa.Token(t, with()...), ".")[2], "signature"},
		{"unknown kid", rsa.Token(t, with(harness.WithKID("rsa-2"))...), "not signed with a key that is known"},
		{"kid of another key", rsa.Token(t, with(harness.WithKID("hs-1"))...), "does not fit its key"},
		{"kid that is no text", rsa.Token(t, with(func(d *harness.TokenDraft) { d.Header["kid"] = 1 })...), "kid"},
		{"stranger's secret", stranger.Token(t, with()...), "signature"},
		{"stranger's algorithm", nameless.Token(t, with()...), "algorithm"},
		{"critical extension", rsa.Token(t, with(func(d *harness.TokenDraft) { d.Header["crit"] = []string{"exp"} })...), "crit"},
		{"another sub", harness.Tampered(t, good, "mallory"), "signature"},
		{"respelled signature", harness.Respelled(t, good), "well-formed"},
		{"padded signature", harness.Padded(t, good), "well-formed"},
		{"respelled HMAC", harness.Respelled(t, secret.Token(t, with()...)), "well-formed"},
		{"exp in the past", rsa.Token(t, with(harness.WithClaim("exp", in(-time.Second)))...), "expired"},
		{"exp that is text", rsa.Token(t, with(harness.WithClaim("exp", fmt.Sprint(in(time.Hour))))...), "exp is not a number"},
		{"no exp", rsa.Token(t, with(harness.WithClaim("exp", nil))...), "lacks the claim exp"},
		{"nbf in the future", rsa.Token(t, with(harness.WithClaim("nbf", in(time.Minute)))...), "not valid yet"},
		{"another audience", rsa.Token(t, with(harness.WithClaim("aud", "page"))...), "audience"},
		{"no audience", rsa.Token(t, with(harness.WithClaim("aud", nil))...), "audience"},
		{"another issuer", rsa.Token(t, with(harness.WithClaim("iss", "https://issuer.example.org"))...), "issuer"},
		{"no issuer", rsa.Token(t, with(harness.WithClaim("iss", nil))...), "issuer"},
		{"a claim less", rsa.Token(t, with(harness.WithClaim("tenant", nil))...), "lacks the claim tenant"},
		{"a claim that is null", rsa.Token(t, with(harness.WithClaim("tenant", json.RawMessage("null")))...), "lacks the claim tenant"},
		{"64 KB", rsa.Token(t, with(harness.WithClaim("filler", strings.Repeat("x", 64<<10)))...), "too long"},
		{"64 KB of nothing", strings.Repeat("x", 64<<10), "too long"},
		{"encrypted", "eyJhbGciOiJkaXIiLCJlbmMiOiJBMTI4R0NNIn0..aaaaaaaaaaaaaaaa.bbbb.cccc", "encrypted"},
		{"no JWT", "deadbeefdeadbeef", "not a JWT"},
		{"not base64", "!!!!.????.####", "well-formed"},
		{"only dots", "..", "well-formed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, c := range carriers {
				if strings.ContainsAny(test.token, "?#!") && c.name != "query" {
					continue // Go's client sends no such cookie
				}
				s := harness.NewClient(t, harness.HTTP1).Open(t, server.URL+"/sse", c.carry(test.token))
				answers.WriteString(harness.RequireInvalid(t, s, test.why))
			}
		})
		tokens = append(tokens, test.token)
	}

	client := harness.NewClient(t, harness.HTTP1)
	other := rsa.Token(t, with()...)
	for _, query := range []string{other, harness.Respelled(t, other), harness.Tampered(t, good, "mallory")} {
		two := client.Open(t, server.URL+"/sse", harness.WithBearer(good), harness.WithQueryToken(query))
		require.Equal(t, http.StatusBadRequest, two.Status)
		_, answer := harness.Refusal(t, two)
		answers.WriteString(answer)
	}
	none := client.Open(t, server.URL+"/sse")
	require.Equal(t, http.StatusUnauthorized, none.Status)
	challenge, _ := harness.Refusal(t, none)
	assert.Equal(t, `Bearer realm="sse_guard"`, challenge, "RFC 6750 section 3.1: no error where there is no token")

	assert.Empty(t, app.Requests(t), "something reached the backend")
	client.Open(t, server.URL+"/sse", harness.WithBearer(good)).Next(t)
	client.Open(t, server.URL+"/raw", harness.WithBearer(secret.Token(t, with()...))).Next(t)
	assert.Len(t, app.Requests(t), 2)
	server.RequireNotTold(t, answers.String(), append(tokens, good, other)...)
}

// TestVerified_AStreamEndsWithItsToken is problem P7.
func TestVerified_AStreamEndsWithItsToken(t *testing.T) {
	app := harness.StartFastAPI(t)
	i := harness.NewIssuer(t, "ES256")
	server := harness.StartCaddy(t, harness.VerifyingSite(app, i.KeyOption(t), harness.ByUser))
	client := harness.NewClient(t, harness.HTTP1)

	exp := time.Unix(time.Now().Unix()+3, 0) // in two to three seconds
	expiring := i.Token(t, harness.WithExp(exp))
	stream := client.Open(t, server.URL+"/sse", harness.WithBearer(expiring))
	page := harness.NewEventSource(t, harness.NewClient(t, harness.HTTP1), server.URL+"/sse", harness.WithBearer(i.Token(t, harness.WithSub("bob"), harness.WithExp(exp))))
	lasting := client.Open(t, server.URL+"/sse", harness.WithBearer(i.Token(t, harness.WithSub("carol"))))

	notice := harness.RequireEnded(t, stream, harness.TokenExpired, "expired")
	assert.False(t, time.Now().Before(exp), "too early")
	data := harness.NoticeOf(t, notice)
	assert.Equal(t, data.LastEventID, notice.ID, "no tombstone, but the application's last id: it may come back")
	assert.Equal(t, harness.TokenExpired, data.Code)
	assert.NotEmpty(t, data.LastEventID)
	assert.Equal(t, []int{200, 401}, page.WaitClosed(t), "it comes back once with its old token")
	app.WaitOpen(t, 1)
	lasting.Next(t)

	reached := len(app.Requests(t))
	harness.RequireInvalid(t, client.Open(t, server.URL+"/sse", harness.WithBearer(expiring), harness.WithHeader("Last-Event-ID", stream.LastID())), "expired")
	assert.Len(t, app.Requests(t), reached)
	fresh := client.Open(t, server.URL+"/sse", harness.WithBearer(i.Token(t)), harness.WithHeader("Last-Event-ID", data.LastEventID))
	require.Equal(t, http.StatusOK, fresh.Status)
	assert.Equal(t, "message", fresh.Next(t).Type)

	for _, line := range server.WaitLogs(t, 2) {
		assert.Equal(t, "expired", line.Reason, line.Raw)
		assert.True(t, line.EventSent)
	}
	server.RequireNotTold(t, "", expiring)
}

// TestVerified_LeewayIsForExpAndNbf.
func TestVerified_LeewayIsForExpAndNbf(t *testing.T) {
	app := harness.StartFastAPI(t)
	i := harness.NewIssuer(t, "EdDSA")
	server := harness.StartCaddy(t, harness.VerifyingSite(app, i.KeyOption(t)+"\nleeway 1m", harness.ByUser))
	client := harness.NewClient(t, harness.HTTP1)
	in := func(claim string, d time.Duration) harness.TokenOption {
		return harness.WithClaim(claim, time.Now().Add(d).Unix())
	}

	for name, option := range map[string]harness.TokenOption{"exp": in("exp", -30*time.Second), "nbf": in("nbf", 30*time.Second)} {
		s := client.Open(t, server.URL+"/sse", harness.WithBearer(i.Token(t, harness.WithSub(name), option)))
		require.Equal(t, http.StatusOK, s.Status, name)
		s.Next(t)
		s.Next(t)
	}
	harness.RequireInvalid(t, client.Open(t, server.URL+"/sse", harness.WithBearer(i.Token(t, in("exp", -61*time.Second)))), "expired")
	harness.RequireInvalid(t, client.Open(t, server.URL+"/sse", harness.WithBearer(i.Token(t, in("nbf", 90*time.Second)))), "not valid yet")
}

// TestVerified_WhatIsNoStreamPasses with any token: a refresh call carries an
// expired one.
func TestVerified_WhatIsNoStreamPasses(t *testing.T) {
	for name, option := range map[string]string{"GET is governed": "", "every method is governed": harness.ByUser} {
		t.Run(name, func(t *testing.T) {
			app := harness.StartFastAPI(t)
			i := harness.NewIssuer(t, "ES256")
			server := harness.StartCaddy(t, harness.VerifyingSite(app, i.KeyOption(t), option))
			tokens := map[string]string{
				"expired":  i.Token(t, harness.WithExp(time.Now().Add(-time.Hour))),
				"tampered": harness.Tampered(t, i.Token(t), "mallory"),
				"garbage":  "deadbeefdeadbeef",
			}
			for name, token := range tokens {
				for _, c := range []struct{ method, path string }{
					{http.MethodPost, "/refresh"},
					{http.MethodGet, "/api/items"},
					{http.MethodGet, "/login"},
					{http.MethodPost, "/logout"},
					{http.MethodHead, "/api/items"},
				} {
					_, want := harness.Send(t, c.method, app.URL+c.path)
					app.Reset(t)
					response, body := harness.Send(t, c.method, server.URL+c.path, harness.WithBearer(token))
					assert.Equal(t, want, body, "%s %s with a token that is %s", c.method, c.path, name)
					requests := app.Requests(t)
					require.Len(t, requests, 1)
					assert.Equal(t, *requests[0].Status, response.StatusCode)
					assert.Equal(t, []string{"Bearer " + token}, requests[0].Header("authorization"))
				}
				preflight, _ := harness.Send(t, http.MethodOptions, server.URL+"/cors", harness.WithQueryToken(token),
					harness.WithHeader("Origin", "https://app.example"), harness.WithHeader("Access-Control-Request-Method", "GET"))
				assert.Equal(t, http.StatusOK, preflight.StatusCode)
				assert.Equal(t, "https://app.example", preflight.Header.Get("Access-Control-Allow-Origin"))

				// Only the answer tells that it is about a stream.
				app.Reset(t)
				response, body := harness.Get(t, server.URL+"/sse", harness.WithBearer(token))
				assert.Equal(t, http.StatusUnauthorized, response.StatusCode)
				assert.Contains(t, response.Header.Get("WWW-Authenticate"), `error="invalid_token"`)
				assert.Equal(t, "application/problem+json", response.Header.Get("Content-Type"))
				assert.NotContains(t, body, "data:")
				requests := app.Requests(t)
				require.Len(t, requests, 1)
				assert.Equal(t, http.StatusOK, *requests[0].Status, "the backend's answer")
				app.WaitOpen(t, 0)
				server.RequireNotTold(t, fmt.Sprint(response.Header, body), token)
			}
			two, _ := harness.Get(t, server.URL+"/sse", harness.WithBearer(i.Token(t)), harness.WithQueryToken(i.Token(t)))
			assert.Equal(t, http.StatusBadRequest, two.StatusCode)
			none, _ := harness.Get(t, server.URL+"/sse")
			assert.Equal(t, http.StatusUnauthorized, none.StatusCode)
			app.WaitOpen(t, 0)
		})
	}
}

// TestVerified_OfEveryMethodThatCounts: an answer to a POST is a stream like any
// other then.
func TestVerified_OfEveryMethodThatCounts(t *testing.T) {
	app := harness.StartFastAPI(t)
	i := harness.NewIssuer(t, "HS256")
	server := harness.StartCaddy(t, harness.VerifyingSite(app, i.KeyOption(t), harness.ByUser, "methods any"))
	client := harness.NewClient(t, harness.HTTP1)
	chat := func(token string, options ...harness.RequestOption) *harness.Stream {
		return client.Open(t, server.URL+"/chat?n=0", append(options, harness.WithPost("{}"), harness.WithBearer(token))...)
	}
	plain := harness.WithHeader("Accept", "*/*")
	expired := i.Token(t, harness.WithExp(time.Now().Add(-time.Hour)))
	harness.RequireInvalid(t, chat(expired), "expired")
	assert.Empty(t, app.Requests(t))
	harness.RequireInvalid(t, chat(expired, plain), "expired")
	assert.Len(t, app.Requests(t), 1)

	older := chat(i.Token(t))
	older.Next(t)
	chat(i.Token(t), plain).Next(t)
	harness.RequireEnded(t, older, harness.Duplicated, "superseded")
}

// TestOptional_AStreamWithoutATokenIsUntracked, but a bad token is no reason to
// pass for a guest.
func TestOptional_AStreamWithoutATokenIsUntracked(t *testing.T) {
	app := harness.StartFastAPI(t)
	i := harness.NewIssuer(t, "ES256")
	server := harness.StartCaddy(t, harness.VerifyingSite(app, i.KeyOption(t)+"\noptional", "key shop"))
	client := harness.NewClient(t, harness.HTTP1)

	guests := []*harness.Stream{client.Open(t, server.URL+"/sse"), client.Open(t, server.URL+"/sse")}
	older := client.Open(t, server.URL+"/sse", harness.WithBearer(i.Token(t)))
	older.Next(t)
	guests = append(guests, client.Open(t, server.URL+"/sse"))
	newer := client.Open(t, server.URL+"/sse", harness.WithBearer(i.Token(t, harness.WithSub("bob"))))
	newer.Next(t)
	harness.RequireEnded(t, older, harness.Duplicated, "superseded")
	for _, guest := range guests {
		require.Equal(t, http.StatusOK, guest.Status)
		guest.Next(t)
		guest.Next(t)
	}
	app.WaitOpen(t, 4)
	harness.RequireInvalid(t, client.Open(t, server.URL+"/sse", harness.WithBearer("deadbeefdeadbeef")), "not a JWT")
	assert.False(t, newer.Ended())
}

// TestUnverified_ClaimsCountOnceTheBackendHasAnswered, since only the backend
// has the keys.
func TestUnverified_ClaimsCountOnceTheBackendHasAnswered(t *testing.T) {
	app := harness.StartFastAPI(t)
	i, forger := harness.NewIssuer(t, "HS256"), harness.NewIssuer(t, "HS256")
	app.VerifyWith(t, i)
	server := harness.StartCaddy(t, harness.VerifyingSite(app, "unverified", "token query token", harness.ByUser))
	client := harness.NewClient(t, harness.HTTP1)
	open := func(token string, options ...harness.RequestOption) *harness.Stream {
		return client.Open(t, server.URL+"/user-stream?max=9&token="+url.QueryEscape(token), options...)
	}
	warnings := server.WaitLogs(t, 1)
	require.Len(t, warnings, 1)
	assert.Equal(t, "warn", warnings[0].Level)
	assert.Contains(t, warnings[0].Msg, "jwt unverified")

	older := open(i.Token(t))
	older.Next(t)
	bob := open(i.Token(t, harness.WithSub("bob")))
	bob.Next(t)
	holder := open(i.Token(t))
	holder.Next(t)
	harness.RequireEnded(t, older, harness.Duplicated, "superseded")

	tokens := []string{forger.Token(t), i.UnsignedToken(t), harness.Tampered(t, i.Token(t, harness.WithSub("mallory")), "alice")}
	for _, token := range tokens {
		for _, accept := range []string{"text/event-stream", "*/*"} {
			refused := open(token, harness.WithHeader("Accept", accept))
			assert.Equal(t, http.StatusUnauthorized, refused.Status)
			assert.Equal(t, "Bearer", refused.Header.Get("WWW-Authenticate"), "the backend's own answer")
		}
	}
	elsewhere := client.Open(t, server.URL+"/user-stream?max=9", harness.WithBearer(i.Token(t)))
	assert.Equal(t, http.StatusUnauthorized, elsewhere.Status, "a token where nobody looks is none")
	refused, _ := harness.Refusal(t, elsewhere)
	assert.Equal(t, `Bearer realm="sse_guard"`, refused)
	holder.Next(t)
	holder.Next(t)
	assert.False(t, bob.Ended())
	server.RequireNotTold(t, "", tokens...)
}

// TestUnverified_ShowsNoClaimsToTheBackend, since they may be anybody's.
func TestUnverified_ShowsNoClaimsToTheBackend(t *testing.T) {
	app := harness.StartFastAPI(t)
	i := harness.NewIssuer(t, "HS256")
	server := harness.StartCaddy(t, harness.VerifyingGuard("", "unverified", "token query token")+
		"\nreverse_proxy "+app.URL+" {\nheader_up X-User {sse_guard.claims.sub}\n}")
	seen := whoami(t, server, harness.WithQueryToken(i.Token(t)), harness.WithHeader("X-User", "mallory"))
	assert.Empty(t, seen["x-user"])
}

// whoami returns the headers that reach the backend.
func whoami(t testing.TB, server *harness.Caddy, options ...harness.RequestOption) map[string]string {
	t.Helper()
	response, body := harness.Get(t, server.URL+"/whoami", append([]harness.RequestOption{harness.WithHeader("Accept", "*/*")}, options...)...)
	require.Equal(t, http.StatusOK, response.StatusCode)
	var seen map[string]string
	require.NoError(t, json.Unmarshal([]byte(body), &seen))
	return seen
}

// TestClaims_AreToldToTheBackend, and never what the client claims by itself.
func TestClaims_AreToldToTheBackend(t *testing.T) {
	app := harness.StartFastAPI(t)
	i := harness.NewIssuer(t, "ES256")
	server := harness.StartCaddy(t, harness.VerifyingGuard("", i.KeyOption(t))+`
		reverse_proxy `+app.URL+` {
			header_up X-User {sse_guard.claims.sub}
			header_up X-Roles {sse_guard.claims.realm_access.roles}
			header_up X-Level {sse_guard.claims.level}
			header_up X-Url {sse_guard.claims.https://example.com/role}
		}`)
	forged := []harness.RequestOption{
		harness.WithHeader("X-User", "mallory"), harness.WithHeader("X-Roles", "admin"), harness.WithHeader("X-Level", "9"), harness.WithHeader("X-Url", "owner"),
	}
	roles := harness.WithClaim("realm_access", map[string]any{"roles": []string{"player", "editor"}})
	expired := harness.WithExp(time.Now().Add(-time.Second))
	for name, test := range map[string]struct{ token, user, roles, level, url string }{
		"text, array":       {i.Token(t, roles), "alice", "player,editor", "", ""},
		"one role":          {i.Token(t, harness.WithClaim("realm_access", map[string]any{"roles": "player"})), "alice", "player", "", ""},
		"small number":      {i.Token(t, harness.WithClaim("level", json.RawMessage("1e3"))), "alice", "", "1000", ""},
		"large number":      {i.Token(t, harness.WithClaim("level", json.RawMessage("12345678901234567890"))), "alice", "", "12345678901234567890", ""},
		"huge number":       {i.Token(t, harness.WithClaim("level", 1e21)), "alice", "", "1000000000000000000000", ""},
		"truth":             {i.Token(t, harness.WithClaim("level", true)), "alice", "", "true", ""},
		"claim that is URL": {i.Token(t, harness.WithClaim("https://example.com/role", "guest")), "alice", "", "", "guest"},
		"claim with dot":    {i.Token(t, harness.WithClaim("realm_access.roles", "flat")), "alice", "flat", "", ""},
		"placeholder":       {i.Token(t, harness.WithSub("{env.HOME}{http.request.uri}")), "{env.HOME}{http.request.uri}", "", "", ""},
		"no sub":            {i.Token(t, harness.WithClaim("sub", nil), roles), "", "player,editor", "", ""},
		"expired":           {i.Token(t, roles, expired), "", "", "", ""},
		"tampered":          {harness.Tampered(t, i.Token(t, roles), "mallory"), "", "", "", ""},
		"unsigned":          {i.UnsignedToken(t, roles), "", "", "", ""},
		"none":              {"", "", "", "", ""},
	} {
		seen := whoami(t, server, append(forged, harness.WithBearer(test.token))...)
		assert.Equal(t, test.user, seen["x-user"], name)
		assert.Equal(t, test.roles, seen["x-roles"], name)
		assert.Equal(t, test.level, seen["x-level"], name)
		assert.Equal(t, test.url, seen["x-url"], name)
	}
	two := whoami(t, server, append(forged, harness.WithBearer(i.Token(t)), harness.WithQueryToken(i.Token(t, harness.WithSub("bob"))))...)
	assert.Empty(t, two["x-user"], "two tokens are nobody's")

	app.Reset(t)
	harness.NewClient(t, harness.HTTP1).Open(t, server.URL+"/sse", append(forged, harness.WithBearer(i.Token(t)))...).Next(t)
	harness.Send(t, http.MethodPost, server.URL+"/game/answer", append(forged, harness.WithBearer(i.Token(t)))...)
	harness.Send(t, http.MethodPost, server.URL+"/refresh", append(forged, harness.WithBearer(i.Token(t, expired)))...)
	requests := app.Requests(t)
	require.Len(t, requests, 3)
	assert.Equal(t, []string{"alice"}, requests[0].Header("x-user"), "a stream")
	assert.Equal(t, []string{"alice"}, requests[1].Header("x-user"), "a POST")
	assert.Equal(t, []string{""}, requests[2].Header("x-user"), "with an expired token")
}

// TestMatchClaim_RolesHaveLimitsOfTheirOwn: spectators may watch on every
// screen, a player plays on one.
func TestMatchClaim_RolesHaveLimitsOfTheirOwn(t *testing.T) {
	app := harness.StartFastAPI(t)
	i := harness.NewIssuer(t, "ES256")
	key := i.KeyOption(t)
	server := harness.StartCaddy(t, `
		@spectator sse_guard_claim role spectator
		@player not sse_guard_claim role spectator
		`+harness.VerifyingGuard("@spectator", key, "limit 0")+`
		`+harness.VerifyingGuard("@player", key, harness.ByUser)+`
		reverse_proxy `+app.URL)
	client := harness.NewClient(t, harness.HTTP1)
	open := func(token string) *harness.Stream {
		s := client.Open(t, server.URL+"/sse", harness.WithBearer(token))
		require.Equal(t, http.StatusOK, s.Status)
		s.Next(t)
		return s
	}
	role := func(value any) harness.TokenOption { return harness.WithClaim("role", value) }

	watching := i.Token(t, role("spectator"))
	spectators := []*harness.Stream{open(watching), open(watching), open(i.Token(t, role([]string{"guest", "spectator"})))}
	first := open(i.Token(t, role("player")))
	second := open(i.Token(t, role("player")))
	harness.RequireEnded(t, first, harness.Duplicated, "superseded")
	third := open(i.Token(t)) // without a role
	harness.RequireEnded(t, second, harness.Duplicated, "superseded")
	bob := open(i.Token(t, harness.WithSub("bob"), role("spectators")))
	for _, s := range append(spectators, third, bob) {
		s.Next(t)
	}
	app.WaitOpen(t, 5)

	reached := len(app.Requests(t))
	for _, token := range []string{
		i.UnsignedToken(t, role("spectator")),
		harness.Tampered(t, i.Token(t, role("spectator")), "mallory"),
		i.Token(t, role("spectator"), harness.WithExp(time.Now().Add(-time.Hour))),
	} {
		harness.RequireInvalid(t, client.Open(t, server.URL+"/sse", harness.WithBearer(token)), "The token")
	}
	assert.Equal(t, http.StatusUnauthorized, client.Open(t, server.URL+"/sse").Status)
	assert.Len(t, app.Requests(t), reached)
	plain, _ := harness.Get(t, server.URL+"/api/items")
	assert.Equal(t, http.StatusOK, plain.StatusCode)
}

// TestMatchClaim_AlsoWhereThereIsNoGuard: the matcher needs one in the zone, not
// in the way of the request; names lead into objects.
func TestMatchClaim_AlsoWhereThereIsNoGuard(t *testing.T) {
	app := harness.StartFastAPI(t)
	i := harness.NewIssuer(t, "HS256")
	server := harness.StartCaddy(t, `
		@stranger {
			path /api/*
			not sse_guard_claim realm_access.roles editor admin {
				zone users
			}
		}
		respond @stranger "for editors" 403
		@stream path /sse
		`+harness.VerifyingGuard("@stream", i.KeyOption(t), "zone users")+`
		reverse_proxy `+app.URL)
	roles := func(names ...string) harness.TokenOption {
		return harness.WithClaim("realm_access", map[string]any{"roles": names})
	}
	for name, test := range map[string]struct {
		token  string
		status int
	}{
		"editor":         {i.Token(t, roles("player", "editor")), http.StatusOK},
		"admin":          {i.Token(t, roles("admin")), http.StatusOK},
		"player":         {i.Token(t, roles("player")), http.StatusForbidden},
		"no role":        {i.Token(t), http.StatusForbidden},
		"forged editor":  {harness.NewIssuer(t, "HS256").Token(t, roles("editor")), http.StatusForbidden},
		"expired editor": {i.Token(t, roles("editor"), harness.WithExp(time.Now().Add(-time.Hour))), http.StatusForbidden},
		"nobody":         {"", http.StatusForbidden},
	} {
		response, _ := harness.Get(t, server.URL+"/api/items", harness.WithBearer(test.token))
		assert.Equal(t, test.status, response.StatusCode, name)
	}
}

// TestMatchClaim_AConfigurationThatCannotWorkIsRefused, and the one before stays.
func TestMatchClaim_AConfigurationThatCannotWorkIsRefused(t *testing.T) {
	app := harness.StartFastAPI(t)
	i := harness.NewIssuer(t, "HS256")
	key := i.KeyOption(t)
	// Without a matcher the guards of a zone may differ, but not in whom they trust.
	server := harness.StartCaddy(t, "@raw path /raw\nsse_guard @raw\n@sse path /sse\n"+harness.VerifyingGuard("@sse", key, harness.ByUser)+
		"\n@cors path /cors\n"+harness.VerifyingGuard("@cors", key+"\nleeway 1s")+"\nreverse_proxy "+app.URL)
	role := "@spectator sse_guard_claim role spectator\n"
	for name, test := range map[string]struct {
		site string
		want []string
	}{
		"unknown zone": {
			"@spectator sse_guard_claim role spectator {\nzone userz\n}\n" + harness.VerifyingGuard("@spectator", key, "zone users"),
			[]string{`zone "userz" has no guard`, "the zones are: users"},
		},
		"no guard at all":                {role + "respond @spectator hello", []string{`zone "default" has no guard`}},
		"no jwt":                         {role + "sse_guard @spectator", []string{`zone "default" do not verify tokens`, "jwt block"}},
		"jwt that verifies nothing":      {role + harness.VerifyingGuard("@spectator", "unverified", "token query token"), []string{`zone "default" do not verify tokens`}},
		"guards that differ in keys":     {harness.VerifyingGuard("", key) + "\n" + harness.VerifyingGuard("", harness.NewIssuer(t, "HS256").KeyOption(t)), []string{`the guards of zone "default" trust different keys or issuers`}},
		"guards that differ in issuers":  {harness.VerifyingGuard("", key) + "\n" + harness.VerifyingGuard("", key+"\nissuer me"), []string{`the guards of zone "default" trust different keys or issuers`}},
		"guards that differ in leeway":   {role + harness.VerifyingGuard("@spectator", key) + "\n" + harness.VerifyingGuard("", key+"\nleeway 1s"), []string{`the guards of zone "default" have different options`}},
		"guards that differ in jwt":      {role + harness.VerifyingGuard("@spectator", key) + "\nsse_guard", []string{`the guards of zone "default" have different options`}},
		"guards that differ in token":    {role + harness.VerifyingGuard("@spectator", key) + "\n" + harness.VerifyingGuard("", key, "token query t"), []string{`the guards of zone "default" have different options`}},
		"holder of an unknown zone":      {"@holder sse_guard_holder nowhere\n" + harness.VerifyingGuard("@holder", key), []string{`sse_guard_holder: zone "nowhere" has no guard`}},
		"holder where the guards differ": {"@holder sse_guard_holder\n" + harness.VerifyingGuard("@holder", key) + "\nsse_guard", []string{`sse_guard_holder: the guards of zone "default" have different options`}},
	} {
		t.Run(name, func(t *testing.T) {
			err := server.Load(t, test.site)
			require.Error(t, err)
			for _, want := range test.want {
				assert.ErrorContains(t, err, want)
			}
			// Caddy may have begun to serve the new site when it learns of the
			// error, and then has connections in both.
			require.Eventually(t, func() bool {
				client := harness.NewClient(t, harness.HTTP1)
				for path, token := range map[string]string{"/raw": "anything", "/sse": i.Token(t)} {
					s, err := client.Connect(t.Context(), server.URL+path, "", harness.WithBearer(token))
					if err != nil {
						return false
					}
					defer s.Close()
					if event, ok := <-s.Events(); !ok || event.ID != "1" {
						return false
					}
				}
				return true
			}, harness.Patience, 10*time.Millisecond, "the site before does not answer any more")
		})
	}
}
