package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const tokenExpired = "TOKEN_EXPIRED"

// byUser is the guard's option that counts streams by user.
const byUser = "key {sse_guard.claims.sub}"

// verifyingSite is the application behind a guard with these lines in its jwt
// block, and these options besides.
func verifyingSite(app *fastAPI, jwt string, options ...string) string {
	return verifyingGuard("", jwt, options...) + "\nreverse_proxy " + app.URL
}

func verifyingGuard(matcher, jwt string, options ...string) string {
	return fmt.Sprintf("sse_guard %s {\njwt {\n%s\n}\n%s\n}", matcher, jwt, strings.Join(options, "\n"))
}

// keyOption is the line of a jwt block with which the issuer's tokens are verified.
func (i *issuer) keyOption(t testing.TB) string {
	t.Helper()
	option := "hmac_secret"
	if i.public != nil {
		option = "public_key"
	}
	return fmt.Sprintf("%s %q %s", option, i.keyFile(t), i.kid)
}

// carriers are the places where the guard looks for a token unless it is told.
var carriers = []struct {
	name  string
	carry func(token string) requestOption
}{
	{"header", withBearer},
	{"query", withQueryToken},
	{"cookie", func(token string) requestOption { return withHeader("Cookie", "access_token="+token) }},
}

func withQueryToken(token string) requestOption {
	return func(r *http.Request) {
		query := r.URL.Query()
		query.Set("token", token)
		r.URL.RawQuery = query.Encode()
	}
}

// requireNotTold asserts that neither what was answered nor Caddy's log holds a
// token, or what is secret of it.
func (c *caddyServer) requireNotTold(t testing.TB, answers string, tokens ...string) {
	t.Helper()
	log, err := os.ReadFile(c.logs)
	require.NoError(t, err)
	for _, token := range tokens {
		for _, part := range append(strings.Split(token, ".")[1:], token) {
			if len(part) > 8 {
				require.False(t, strings.Contains(string(log), part), "the log holds %.40s", part)
				require.False(t, strings.Contains(answers, part), "an answer holds %.40s", part)
			}
		}
	}
}

// refusal is an answer in a form for comparisons.
func refusal(t testing.TB, s *sseStream) (challenge, all string) {
	t.Helper()
	s.wait(t)
	assert.Equal(t, "application/problem+json", s.Header.Get("Content-Type"))
	assert.Equal(t, "no-store", s.Header.Get("Cache-Control"))
	var problem struct{ Status int }
	require.NoError(t, json.Unmarshal(s.bytes(), &problem))
	assert.Equal(t, s.Status, problem.Status)
	return s.Header.Get("WWW-Authenticate"), fmt.Sprint(s.Header, string(s.bytes()))
}

// requireInvalid asserts that a request was refused for its token, as RFC 6750
// section 3 says, and why.
func requireInvalid(t testing.TB, s *sseStream, why string) (answer string) {
	t.Helper()
	require.Equal(t, http.StatusUnauthorized, s.Status)
	challenge, answer := refusal(t, s)
	require.Regexp(t, `^Bearer realm="sse_guard", error="invalid_token", error_description="[^"\\]+"$`, challenge)
	require.Contains(t, challenge, why)
	return answer
}

// TestVerified_AGoodTokenOpensAStream of its user, who has one, whatever token
// it comes with and wherever that is.
func TestVerified_AGoodTokenOpensAStream(t *testing.T) {
	issuers := []*issuer{newIssuer(t, "RS256")}
	pss := *issuers[0] // an RSA key takes long to make
	pss.alg = "PS256"
	issuers = append(issuers, &pss)
	for _, alg := range []string{"ES256", "ES384", "EdDSA", "HS256"} {
		issuers = append(issuers, newIssuer(t, alg))
	}
	for _, i := range issuers {
		t.Run(i.alg, func(t *testing.T) {
			app := startFastAPI(t)
			server := startCaddy(t, verifyingSite(app, i.keyOption(t), byUser))
			client := newSSEClient(t, http1)

			bobs := i.token(t, withSub("bob"))
			bob := client.open(t, server.URL+"/sse", withBearer(bobs))
			bob.next(t)
			tokens := []string{bobs}
			var older *sseStream
			for _, c := range carriers {
				token := i.token(t)
				tokens = append(tokens, token)
				newer := client.open(t, server.URL+"/sse", c.carry(token))
				require.Equal(t, http.StatusOK, newer.Status, c.name)
				newer.next(t)
				if older != nil {
					requireEnded(t, older, duplicated, "superseded")
				}
				older = newer
			}
			older.next(t)
			assert.False(t, bob.ended(), "another user's")
			app.waitOpen(t, 2)

			for _, line := range server.waitLogs(t, 4) {
				if line.Logger == securityLogger {
					assert.Contains(t, line.raw, `"sub":"alice"`)
				}
			}
			server.requireNotTold(t, "", tokens...)
		})
	}
}

// TestVerified_NoOtherTokenReachesTheBackend of a request that asks for a stream.
func TestVerified_NoOtherTokenReachesTheBackend(t *testing.T) {
	app := startFastAPI(t)
	rsa, secret := newIssuer(t, "RS256"), newIssuer(t, "HS256")
	rsa.kid, secret.kid = "rsa-1", "hs-1"
	stranger, nameless := newIssuer(t, "HS256"), newIssuer(t, "ES256")
	stranger.kid, nameless.kid = "hs-1", "rsa-1"
	site := verifyingSite(app, strings.Join([]string{
		rsa.keyOption(t),
		secret.keyOption(t),
		"issuer https://issuer.example https://other-issuer.example",
		"audience stream",
		"require exp tenant",
	}, "\n"))
	server := startCaddy(t, site)
	// Else Caddy itself answers 431 to more than 20 KB.
	require.NoError(t, server.load(t, "servers {\nmax_header_size 1MB\n}", site))

	// with is what a good token says, and then the options.
	with := func(options ...tokenOption) []tokenOption {
		return append([]tokenOption{
			withClaim("iss", "https://issuer.example"),
			withClaim("aud", []string{"page", "stream"}),
			withClaim("tenant", "acme"),
		}, options...)
	}
	good := rsa.token(t, with()...)
	unsigned := good[:strings.LastIndexByte(good, '.')+1]
	in := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	var answers strings.Builder
	var tokens []string
	for _, test := range []struct{ name, token, why string }{
		{"public key taken for a secret", rsa.confusedToken(t, with()...), "does not fit its key"},
		{"public key taken for the other secret", rsa.confusedToken(t, with(withKid("hs-1"))...), "signature"},
		{"public key taken for any secret", rsa.confusedToken(t, with(withKid(""))...), "signature"},
		{"algorithm none", rsa.unsignedToken(t, with()...), "algorithm"},
		{"algorithm none without a kid", rsa.unsignedToken(t, with(withKid(""))...), "algorithm"},
		{"no signature", unsigned, "signature"},
		{"another token's signature", unsigned + strings.Split(rsa.token(t, with()...), ".")[2], "signature"},
		{"unknown kid", rsa.token(t, with(withKid("rsa-2"))...), "not signed with a key that is known"},
		{"kid of another key", rsa.token(t, with(withKid("hs-1"))...), "does not fit its key"},
		{"kid that is no text", rsa.token(t, with(func(d *tokenDraft) { d.header["kid"] = 1 })...), "kid"},
		{"stranger's secret", stranger.token(t, with()...), "signature"},
		{"stranger's algorithm", nameless.token(t, with()...), "algorithm"},
		{"critical extension", rsa.token(t, with(func(d *tokenDraft) { d.header["crit"] = []string{"exp"} })...), "crit"},
		{"another sub", tampered(t, good, "mallory"), "signature"},
		{"respelled signature", respelled(t, good), "well-formed"},
		{"padded signature", padded(t, good), "well-formed"},
		{"respelled HMAC", respelled(t, secret.token(t, with()...)), "well-formed"},
		{"exp in the past", rsa.token(t, with(withClaim("exp", in(-time.Second)))...), "expired"},
		{"exp that is text", rsa.token(t, with(withClaim("exp", fmt.Sprint(in(time.Hour))))...), "exp is not a number"},
		{"no exp", rsa.token(t, with(withClaim("exp", nil))...), "lacks the claim exp"},
		{"nbf in the future", rsa.token(t, with(withClaim("nbf", in(time.Minute)))...), "not valid yet"},
		{"another audience", rsa.token(t, with(withClaim("aud", "page"))...), "audience"},
		{"no audience", rsa.token(t, with(withClaim("aud", nil))...), "audience"},
		{"another issuer", rsa.token(t, with(withClaim("iss", "https://issuer.example.org"))...), "issuer"},
		{"no issuer", rsa.token(t, with(withClaim("iss", nil))...), "issuer"},
		{"a claim less", rsa.token(t, with(withClaim("tenant", nil))...), "lacks the claim tenant"},
		{"a claim that is null", rsa.token(t, with(withClaim("tenant", json.RawMessage("null")))...), "lacks the claim tenant"},
		{"64 KB", rsa.token(t, with(withClaim("filler", strings.Repeat("x", 64<<10)))...), "too long"},
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
				s := newSSEClient(t, http1).open(t, server.URL+"/sse", c.carry(test.token))
				answers.WriteString(requireInvalid(t, s, test.why))
			}
		})
		tokens = append(tokens, test.token)
	}

	client := newSSEClient(t, http1)
	other := rsa.token(t, with()...)
	for _, query := range []string{other, respelled(t, other), tampered(t, good, "mallory")} {
		two := client.open(t, server.URL+"/sse", withBearer(good), withQueryToken(query))
		require.Equal(t, http.StatusBadRequest, two.Status)
		_, answer := refusal(t, two)
		answers.WriteString(answer)
	}
	none := client.open(t, server.URL+"/sse")
	require.Equal(t, http.StatusUnauthorized, none.Status)
	challenge, _ := refusal(t, none)
	assert.Equal(t, `Bearer realm="sse_guard"`, challenge, "RFC 6750 section 3.1: no error where there is no token")

	assert.Empty(t, app.requests(t), "something reached the backend")
	client.open(t, server.URL+"/sse", withBearer(good)).next(t)
	client.open(t, server.URL+"/raw", withBearer(secret.token(t, with()...))).next(t)
	assert.Len(t, app.requests(t), 2)
	server.requireNotTold(t, answers.String(), append(tokens, good, other)...)
}

// TestVerified_AStreamEndsWithItsToken is problem P7.
func TestVerified_AStreamEndsWithItsToken(t *testing.T) {
	app := startFastAPI(t)
	i := newIssuer(t, "ES256")
	server := startCaddy(t, verifyingSite(app, i.keyOption(t), byUser))
	client := newSSEClient(t, http1)

	exp := time.Unix(time.Now().Unix()+3, 0) // in two to three seconds
	expiring := i.token(t, withExp(exp))
	stream := client.open(t, server.URL+"/sse", withBearer(expiring))
	page := newEventSource(t, newSSEClient(t, http1), server.URL+"/sse", withBearer(i.token(t, withSub("bob"), withExp(exp))))
	lasting := client.open(t, server.URL+"/sse", withBearer(i.token(t, withSub("carol"))))

	notice := requireEnded(t, stream, tokenExpired, "expired")
	assert.False(t, time.Now().Before(exp), "too early")
	data := noticeOf(t, notice)
	assert.Equal(t, data.LastEventID, notice.ID, "no tombstone, but the application's last id: it may come back")
	assert.Equal(t, tokenExpired, data.Code)
	assert.NotEmpty(t, data.LastEventID)
	assert.Equal(t, []int{200, 401}, page.waitClosed(t), "it comes back once with its old token")
	app.waitOpen(t, 1)
	lasting.next(t)

	reached := len(app.requests(t))
	requireInvalid(t, client.open(t, server.URL+"/sse", withBearer(expiring), withHeader("Last-Event-ID", stream.lastID())), "expired")
	assert.Len(t, app.requests(t), reached)
	fresh := client.open(t, server.URL+"/sse", withBearer(i.token(t)), withHeader("Last-Event-ID", data.LastEventID))
	require.Equal(t, http.StatusOK, fresh.Status)
	assert.Equal(t, "message", fresh.next(t).Type)

	for _, line := range server.waitLogs(t, 2) {
		assert.Equal(t, "expired", line.Reason, line.raw)
		assert.True(t, line.EventSent)
	}
	server.requireNotTold(t, "", expiring)
}

// TestVerified_LeewayIsForExpAndNbf.
func TestVerified_LeewayIsForExpAndNbf(t *testing.T) {
	app := startFastAPI(t)
	i := newIssuer(t, "EdDSA")
	server := startCaddy(t, verifyingSite(app, i.keyOption(t)+"\nleeway 1m", byUser))
	client := newSSEClient(t, http1)
	in := func(claim string, d time.Duration) tokenOption { return withClaim(claim, time.Now().Add(d).Unix()) }

	for name, option := range map[string]tokenOption{"exp": in("exp", -30*time.Second), "nbf": in("nbf", 30*time.Second)} {
		s := client.open(t, server.URL+"/sse", withBearer(i.token(t, withSub(name), option)))
		require.Equal(t, http.StatusOK, s.Status, name)
		s.next(t)
		s.next(t)
	}
	requireInvalid(t, client.open(t, server.URL+"/sse", withBearer(i.token(t, in("exp", -61*time.Second)))), "expired")
	requireInvalid(t, client.open(t, server.URL+"/sse", withBearer(i.token(t, in("nbf", 90*time.Second)))), "not valid yet")
}

// TestVerified_WhatIsNoStreamPasses with any token: a refresh call carries an
// expired one.
func TestVerified_WhatIsNoStreamPasses(t *testing.T) {
	for name, option := range map[string]string{"GET is governed": "", "every method is governed": byUser} {
		t.Run(name, func(t *testing.T) {
			app := startFastAPI(t)
			i := newIssuer(t, "ES256")
			server := startCaddy(t, verifyingSite(app, i.keyOption(t), option))
			tokens := map[string]string{
				"expired":  i.token(t, withExp(time.Now().Add(-time.Hour))),
				"tampered": tampered(t, i.token(t), "mallory"),
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
					_, want := send(t, c.method, app.URL+c.path)
					app.reset(t)
					response, body := send(t, c.method, server.URL+c.path, withBearer(token))
					assert.Equal(t, want, body, "%s %s with a token that is %s", c.method, c.path, name)
					requests := app.requests(t)
					require.Len(t, requests, 1)
					assert.Equal(t, *requests[0].Status, response.StatusCode)
					assert.Equal(t, []string{"Bearer " + token}, requests[0].header("authorization"))
				}
				preflight, _ := send(t, http.MethodOptions, server.URL+"/cors", withQueryToken(token),
					withHeader("Origin", "https://app.example"), withHeader("Access-Control-Request-Method", "GET"))
				assert.Equal(t, http.StatusOK, preflight.StatusCode)
				assert.Equal(t, "https://app.example", preflight.Header.Get("Access-Control-Allow-Origin"))

				// Only the answer tells that it is about a stream.
				app.reset(t)
				response, body := get(t, server.URL+"/sse", withBearer(token))
				assert.Equal(t, http.StatusUnauthorized, response.StatusCode)
				assert.Contains(t, response.Header.Get("WWW-Authenticate"), `error="invalid_token"`)
				assert.Equal(t, "application/problem+json", response.Header.Get("Content-Type"))
				assert.NotContains(t, body, "data:")
				requests := app.requests(t)
				require.Len(t, requests, 1)
				assert.Equal(t, http.StatusOK, *requests[0].Status, "the backend's answer")
				app.waitOpen(t, 0)
				server.requireNotTold(t, fmt.Sprint(response.Header, body), token)
			}
			two, _ := get(t, server.URL+"/sse", withBearer(i.token(t)), withQueryToken(i.token(t)))
			assert.Equal(t, http.StatusBadRequest, two.StatusCode)
			none, _ := get(t, server.URL+"/sse")
			assert.Equal(t, http.StatusUnauthorized, none.StatusCode)
			app.waitOpen(t, 0)
		})
	}
}

// TestVerified_OfEveryMethodWithAKey: an answer to a POST is a stream like any
// other then.
func TestVerified_OfEveryMethodWithAKey(t *testing.T) {
	app := startFastAPI(t)
	i := newIssuer(t, "HS256")
	server := startCaddy(t, verifyingSite(app, i.keyOption(t), byUser))
	client := newSSEClient(t, http1)
	chat := func(token string, options ...requestOption) *sseStream {
		return client.open(t, server.URL+"/chat?n=0", append(options, withPost("{}"), withBearer(token))...)
	}
	plain := withHeader("Accept", "*/*")
	expired := i.token(t, withExp(time.Now().Add(-time.Hour)))
	requireInvalid(t, chat(expired), "expired")
	assert.Empty(t, app.requests(t))
	requireInvalid(t, chat(expired, plain), "expired")
	assert.Len(t, app.requests(t), 1)

	older := chat(i.token(t))
	older.next(t)
	chat(i.token(t), plain).next(t)
	requireEnded(t, older, duplicated, "superseded")
}

// TestOptional_AStreamWithoutATokenIsUntracked, but a bad token is no reason to
// pass for a guest.
func TestOptional_AStreamWithoutATokenIsUntracked(t *testing.T) {
	app := startFastAPI(t)
	i := newIssuer(t, "ES256")
	server := startCaddy(t, verifyingSite(app, i.keyOption(t)+"\noptional", "key shop"))
	client := newSSEClient(t, http1)

	guests := []*sseStream{client.open(t, server.URL+"/sse"), client.open(t, server.URL+"/sse")}
	older := client.open(t, server.URL+"/sse", withBearer(i.token(t)))
	older.next(t)
	guests = append(guests, client.open(t, server.URL+"/sse"))
	newer := client.open(t, server.URL+"/sse", withBearer(i.token(t, withSub("bob"))))
	newer.next(t)
	requireEnded(t, older, duplicated, "superseded")
	for _, guest := range guests {
		require.Equal(t, http.StatusOK, guest.Status)
		guest.next(t)
		guest.next(t)
	}
	app.waitOpen(t, 4)
	requireInvalid(t, client.open(t, server.URL+"/sse", withBearer("deadbeefdeadbeef")), "not a JWT")
	assert.False(t, newer.ended())
}

// TestUnverified_ClaimsCountOnceTheBackendHasAnswered, since only the backend
// has the keys.
func TestUnverified_ClaimsCountOnceTheBackendHasAnswered(t *testing.T) {
	app := startFastAPI(t)
	i, forger := newIssuer(t, "HS256"), newIssuer(t, "HS256")
	app.verifyWith(t, i)
	server := startCaddy(t, verifyingSite(app, "unverified", "token query token", byUser))
	client := newSSEClient(t, http1)
	open := func(token string, options ...requestOption) *sseStream {
		return client.open(t, server.URL+"/user-stream?max=9&token="+url.QueryEscape(token), options...)
	}
	warnings := server.waitLogs(t, 1)
	require.Len(t, warnings, 1)
	assert.Equal(t, "warn", warnings[0].Level)
	assert.Contains(t, warnings[0].Msg, "jwt unverified")

	older := open(i.token(t))
	older.next(t)
	bob := open(i.token(t, withSub("bob")))
	bob.next(t)
	holder := open(i.token(t))
	holder.next(t)
	requireEnded(t, older, duplicated, "superseded")

	tokens := []string{forger.token(t), i.unsignedToken(t), tampered(t, i.token(t, withSub("mallory")), "alice")}
	for _, token := range tokens {
		for _, accept := range []string{"text/event-stream", "*/*"} {
			refused := open(token, withHeader("Accept", accept))
			assert.Equal(t, http.StatusUnauthorized, refused.Status)
			assert.Equal(t, "Bearer", refused.Header.Get("WWW-Authenticate"), "the backend's own answer")
		}
	}
	elsewhere := client.open(t, server.URL+"/user-stream?max=9", withBearer(i.token(t)))
	assert.Equal(t, http.StatusUnauthorized, elsewhere.Status, "a token where nobody looks is none")
	refused, _ := refusal(t, elsewhere)
	assert.Equal(t, `Bearer realm="sse_guard"`, refused)
	holder.next(t)
	holder.next(t)
	assert.False(t, bob.ended())
	server.requireNotTold(t, "", tokens...)
}

// TestUnverified_ShowsNoClaimsToTheBackend, since they may be anybody's.
func TestUnverified_ShowsNoClaimsToTheBackend(t *testing.T) {
	app := startFastAPI(t)
	i := newIssuer(t, "HS256")
	server := startCaddy(t, verifyingGuard("", "unverified", "token query token")+
		"\nreverse_proxy "+app.URL+" {\nheader_up X-User {sse_guard.claims.sub}\n}")
	seen := whoami(t, server, withQueryToken(i.token(t)), withHeader("X-User", "mallory"))
	assert.Empty(t, seen["x-user"])
}

// whoami returns the headers that reach the backend.
func whoami(t testing.TB, server *caddyServer, options ...requestOption) map[string]string {
	t.Helper()
	response, body := get(t, server.URL+"/whoami", append([]requestOption{withHeader("Accept", "*/*")}, options...)...)
	require.Equal(t, http.StatusOK, response.StatusCode)
	var seen map[string]string
	require.NoError(t, json.Unmarshal([]byte(body), &seen))
	return seen
}

// TestClaims_AreToldToTheBackend, and never what the client claims by itself.
func TestClaims_AreToldToTheBackend(t *testing.T) {
	app := startFastAPI(t)
	i := newIssuer(t, "ES256")
	server := startCaddy(t, verifyingGuard("", i.keyOption(t))+`
		reverse_proxy `+app.URL+` {
			header_up X-User {sse_guard.claims.sub}
			header_up X-Roles {sse_guard.claims.realm_access.roles}
			header_up X-Level {sse_guard.claims.level}
			header_up X-Url {sse_guard.claims.https://example.com/role}
		}`)
	forged := []requestOption{
		withHeader("X-User", "mallory"), withHeader("X-Roles", "admin"), withHeader("X-Level", "9"), withHeader("X-Url", "owner"),
	}
	roles := withClaim("realm_access", map[string]any{"roles": []string{"player", "editor"}})
	expired := withExp(time.Now().Add(-time.Second))
	for name, test := range map[string]struct{ token, user, roles, level, url string }{
		"text, array":       {i.token(t, roles), "alice", "player,editor", "", ""},
		"one role":          {i.token(t, withClaim("realm_access", map[string]any{"roles": "player"})), "alice", "player", "", ""},
		"small number":      {i.token(t, withClaim("level", json.RawMessage("1e3"))), "alice", "", "1000", ""},
		"large number":      {i.token(t, withClaim("level", json.RawMessage("12345678901234567890"))), "alice", "", "12345678901234567890", ""},
		"huge number":       {i.token(t, withClaim("level", 1e21)), "alice", "", "1000000000000000000000", ""},
		"truth":             {i.token(t, withClaim("level", true)), "alice", "", "true", ""},
		"claim that is URL": {i.token(t, withClaim("https://example.com/role", "guest")), "alice", "", "", "guest"},
		"claim with dot":    {i.token(t, withClaim("realm_access.roles", "flat")), "alice", "flat", "", ""},
		"placeholder":       {i.token(t, withSub("{env.HOME}{http.request.uri}")), "{env.HOME}{http.request.uri}", "", "", ""},
		"no sub":            {i.token(t, withClaim("sub", nil), roles), "", "player,editor", "", ""},
		"expired":           {i.token(t, roles, expired), "", "", "", ""},
		"tampered":          {tampered(t, i.token(t, roles), "mallory"), "", "", "", ""},
		"unsigned":          {i.unsignedToken(t, roles), "", "", "", ""},
		"none":              {"", "", "", "", ""},
	} {
		seen := whoami(t, server, append(forged, withBearer(test.token))...)
		assert.Equal(t, test.user, seen["x-user"], name)
		assert.Equal(t, test.roles, seen["x-roles"], name)
		assert.Equal(t, test.level, seen["x-level"], name)
		assert.Equal(t, test.url, seen["x-url"], name)
	}
	two := whoami(t, server, append(forged, withBearer(i.token(t)), withQueryToken(i.token(t, withSub("bob"))))...)
	assert.Empty(t, two["x-user"], "two tokens are nobody's")

	app.reset(t)
	newSSEClient(t, http1).open(t, server.URL+"/sse", append(forged, withBearer(i.token(t)))...).next(t)
	send(t, http.MethodPost, server.URL+"/game/answer", append(forged, withBearer(i.token(t)))...)
	send(t, http.MethodPost, server.URL+"/refresh", append(forged, withBearer(i.token(t, expired)))...)
	requests := app.requests(t)
	require.Len(t, requests, 3)
	assert.Equal(t, []string{"alice"}, requests[0].header("x-user"), "a stream")
	assert.Equal(t, []string{"alice"}, requests[1].header("x-user"), "a POST")
	assert.Equal(t, []string{""}, requests[2].header("x-user"), "with an expired token")
}

// TestMatchClaim_RolesHaveLimitsOfTheirOwn: spectators may watch on every
// screen, a player plays on one.
func TestMatchClaim_RolesHaveLimitsOfTheirOwn(t *testing.T) {
	app := startFastAPI(t)
	i := newIssuer(t, "ES256")
	key := i.keyOption(t)
	server := startCaddy(t, `
		@spectator sse_guard_claim role spectator
		@player not sse_guard_claim role spectator
		`+verifyingGuard("@spectator", key, "limit 0")+`
		`+verifyingGuard("@player", key, byUser)+`
		reverse_proxy `+app.URL)
	client := newSSEClient(t, http1)
	open := func(token string) *sseStream {
		s := client.open(t, server.URL+"/sse", withBearer(token))
		require.Equal(t, http.StatusOK, s.Status)
		s.next(t)
		return s
	}
	role := func(value any) tokenOption { return withClaim("role", value) }

	watching := i.token(t, role("spectator"))
	spectators := []*sseStream{open(watching), open(watching), open(i.token(t, role([]string{"guest", "spectator"})))}
	first := open(i.token(t, role("player")))
	second := open(i.token(t, role("player")))
	requireEnded(t, first, duplicated, "superseded")
	third := open(i.token(t)) // without a role
	requireEnded(t, second, duplicated, "superseded")
	bob := open(i.token(t, withSub("bob"), role("spectators")))
	for _, s := range append(spectators, third, bob) {
		s.next(t)
	}
	app.waitOpen(t, 5)

	reached := len(app.requests(t))
	for _, token := range []string{
		i.unsignedToken(t, role("spectator")),
		tampered(t, i.token(t, role("spectator")), "mallory"),
		i.token(t, role("spectator"), withExp(time.Now().Add(-time.Hour))),
	} {
		requireInvalid(t, client.open(t, server.URL+"/sse", withBearer(token)), "The token")
	}
	assert.Equal(t, http.StatusUnauthorized, client.open(t, server.URL+"/sse").Status)
	assert.Len(t, app.requests(t), reached)
	plain, _ := get(t, server.URL+"/api/items")
	assert.Equal(t, http.StatusOK, plain.StatusCode)
}

// TestMatchClaim_AlsoWhereThereIsNoGuard: the matcher needs one in the zone, not
// in the way of the request; names lead into objects.
func TestMatchClaim_AlsoWhereThereIsNoGuard(t *testing.T) {
	app := startFastAPI(t)
	i := newIssuer(t, "HS256")
	server := startCaddy(t, `
		@stranger {
			path /api/*
			not sse_guard_claim realm_access.roles editor admin {
				zone users
			}
		}
		respond @stranger "for editors" 403
		@stream path /sse
		`+verifyingGuard("@stream", i.keyOption(t), "zone users")+`
		reverse_proxy `+app.URL)
	roles := func(names ...string) tokenOption { return withClaim("realm_access", map[string]any{"roles": names}) }
	for name, test := range map[string]struct {
		token  string
		status int
	}{
		"editor":         {i.token(t, roles("player", "editor")), http.StatusOK},
		"admin":          {i.token(t, roles("admin")), http.StatusOK},
		"player":         {i.token(t, roles("player")), http.StatusForbidden},
		"no role":        {i.token(t), http.StatusForbidden},
		"forged editor":  {newIssuer(t, "HS256").token(t, roles("editor")), http.StatusForbidden},
		"expired editor": {i.token(t, roles("editor"), withExp(time.Now().Add(-time.Hour))), http.StatusForbidden},
		"nobody":         {"", http.StatusForbidden},
	} {
		response, _ := get(t, server.URL+"/api/items", withBearer(test.token))
		assert.Equal(t, test.status, response.StatusCode, name)
	}
}

// TestMatchClaim_AConfigurationThatCannotWorkIsRefused, and the one before stays.
func TestMatchClaim_AConfigurationThatCannotWorkIsRefused(t *testing.T) {
	app := startFastAPI(t)
	i := newIssuer(t, "HS256")
	key := i.keyOption(t)
	// Without a matcher the guards of a zone may differ, but not in whom they trust.
	server := startCaddy(t, "@raw path /raw\nsse_guard @raw\n@sse path /sse\n"+verifyingGuard("@sse", key, byUser)+
		"\n@cors path /cors\n"+verifyingGuard("@cors", key+"\nleeway 1s")+"\nreverse_proxy "+app.URL)
	role := "@spectator sse_guard_claim role spectator\n"
	for name, test := range map[string]struct {
		site string
		want []string
	}{
		"unknown zone": {
			"@spectator sse_guard_claim role spectator {\nzone userz\n}\n" + verifyingGuard("@spectator", key, "zone users"),
			[]string{`zone "userz" has no guard`, "the zones are: users"},
		},
		"no guard at all":                {role + "respond @spectator hello", []string{`zone "default" has no guard`}},
		"no jwt":                         {role + "sse_guard @spectator", []string{`zone "default" do not verify tokens`, "jwt block"}},
		"jwt that verifies nothing":      {role + verifyingGuard("@spectator", "unverified", "token query token"), []string{`zone "default" do not verify tokens`}},
		"guards that differ in keys":     {verifyingGuard("", key) + "\n" + verifyingGuard("", newIssuer(t, "HS256").keyOption(t)), []string{`the guards of zone "default" trust different keys or issuers`}},
		"guards that differ in issuers":  {verifyingGuard("", key) + "\n" + verifyingGuard("", key+"\nissuer me"), []string{`the guards of zone "default" trust different keys or issuers`}},
		"guards that differ in leeway":   {role + verifyingGuard("@spectator", key) + "\n" + verifyingGuard("", key+"\nleeway 1s"), []string{`the guards of zone "default" have different options`}},
		"guards that differ in jwt":      {role + verifyingGuard("@spectator", key) + "\nsse_guard", []string{`the guards of zone "default" have different options`}},
		"guards that differ in token":    {role + verifyingGuard("@spectator", key) + "\n" + verifyingGuard("", key, "token query t"), []string{`the guards of zone "default" have different options`}},
		"holder of an unknown zone":      {"@holder sse_guard_holder nowhere\n" + verifyingGuard("@holder", key), []string{`sse_guard_holder: zone "nowhere" has no guard`}},
		"holder where the guards differ": {"@holder sse_guard_holder\n" + verifyingGuard("@holder", key) + "\nsse_guard", []string{`sse_guard_holder: the guards of zone "default" have different options`}},
	} {
		t.Run(name, func(t *testing.T) {
			err := server.load(t, "", test.site)
			require.Error(t, err)
			for _, want := range test.want {
				assert.ErrorContains(t, err, want)
			}
			// Caddy may have begun to serve the new site when it learns of the
			// error, and then has connections in both.
			require.Eventually(t, func() bool {
				client := newSSEClient(t, http1)
				for path, token := range map[string]string{"/raw": "anything", "/sse": i.token(t)} {
					s, err := client.connect(t.Context(), server.URL+path, "", withBearer(token))
					if err != nil {
						return false
					}
					defer s.close()
					if event, ok := <-s.events; !ok || event.ID != "1" {
						return false
					}
				}
				return true
			}, patience, 10*time.Millisecond, "the site before does not answer any more")
		})
	}
}

// load is reload with global options besides, for callers that take errors.
func (c *caddyServer) load(t testing.TB, global, site string) error {
	t.Helper()
	text := fmt.Sprintf(`{
		admin off
		persist_config off
		grace_period 1s
		storage file_system %q
		log default {
			output file %q {
				roll_disabled
			}
			format json
		}
		%s
	}
	%s {
		%s
	}`, c.dir, c.logs, global, c.URL, site)
	adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": "Caddyfile"})
	require.NoError(t, err, text)
	return caddy.Load(adapted, true)
}
