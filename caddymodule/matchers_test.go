package caddymodule

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
)

func unmarshalMatcher(t *testing.T, m caddyfile.Unmarshaler, text string) (string, error) {
	t.Helper()
	tokens, err := caddyfile.Tokenize([]byte(text), "Caddyfile")
	require.NoError(t, err)
	if err := m.UnmarshalCaddyfile(caddyfile.NewDispenser(tokens)); err != nil {
		return "", err
	}
	b, err := json.Marshal(m)
	require.NoError(t, err)
	return string(b), nil
}

func TestMatchers_Caddyfile(t *testing.T) {
	for text, want := range map[string]string{
		"sse_guard_claim role spectator":                                      `{"claims":{"role":["spectator"]}}`,
		"sse_guard_claim role a b":                                            `{"claims":{"role":["a","b"]}}`,
		"sse_guard_claim role a\nsse_guard_claim role b\nsse_guard_claim x y": `{"claims":{"role":["a","b"],"x":["y"]}}`,
		"sse_guard_claim role a {\n\tzone game\n}":                            `{"claims":{"role":["a"]},"zone":"game"}`,
	} {
		got, err := unmarshalMatcher(t, new(MatchClaim), text)
		require.NoError(t, err)
		require.JSONEq(t, want, got)
	}
	for text, want := range map[string]string{
		"sse_guard_holder":      `{}`,
		"sse_guard_holder game": `{"zone":"game"}`,
	} {
		got, err := unmarshalMatcher(t, new(MatchHolder), text)
		require.NoError(t, err)
		require.JSONEq(t, want, got)
	}
}

func TestMatchers_CaddyfileErrors(t *testing.T) {
	for text, want := range map[string]string{
		"sse_guard_claim":                           "write: sse_guard_claim <name> <value...>",
		"sse_guard_claim role":                      "does not take 1 arguments",
		"sse_guard_claim role a {\n\tzones game\n}": `unknown option "zones"`,
		"sse_guard_claim role a {\n\tzone\n}":       "write: zone <name>",
		"sse_guard_claim role a {\n\tzone a b\n}":   "write: zone <name>",
	} {
		_, err := unmarshalMatcher(t, new(MatchClaim), text)
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, "Caddyfile:")
	}
	for text, want := range map[string]string{
		"sse_guard_holder a b":          "does not take 2 arguments",
		"sse_guard_holder {\n\tzone\n}": "takes no block",
	} {
		_, err := unmarshalMatcher(t, new(MatchHolder), text)
		require.ErrorContains(t, err, want)
	}
}

const testSecret = "0123456789abcdef0123456789abcdef"

func signed(t *testing.T, claims jwt.MapClaims) string {
	t.Helper()
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(testSecret))
	require.NoError(t, err)
	return token
}

func (c configuration) matcher(t *testing.T, id, config string) caddyhttp.RequestMatcherWithError {
	t.Helper()
	mod, err := c.LoadModuleByID("http.matchers."+id, json.RawMessage(config))
	require.NoError(t, err)
	return mod.(caddyhttp.RequestMatcherWithError)
}

func matches(t *testing.T, m caddyhttp.RequestMatcherWithError, token string) bool {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, "/", nil)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	ok, err := m.MatchWithError(r)
	require.NoError(t, err)
	return ok
}

func TestMatchClaim(t *testing.T) {
	t.Setenv("SSE_GUARD_JWT_SECRET", testSecret)
	c := newConfiguration(t, storageIn(t.TempDir()))
	// A matcher may be set up before the guard that it asks.
	m := c.matcher(t, "sse_guard_claim", `{"claims": {"role": ["spectator", "referee"], "realm.team": ["red"]}}`)
	c.handler(t, `{"jwt": {"hmac_secrets": [{"secret": "{env.SSE_GUARD_JWT_SECRET}"}]}}`)
	red := map[string]any{"team": "red"}
	for name, test := range map[string]struct {
		claims jwt.MapClaims
		want   bool
	}{
		"value":        {jwt.MapClaims{"role": "spectator", "realm": red}, true},
		"other value":  {jwt.MapClaims{"role": "referee", "realm": red}, true},
		"in an array":  {jwt.MapClaims{"role": []string{"player", "referee"}, "realm": red}, true},
		"wrong value":  {jwt.MapClaims{"role": "player", "realm": red}, false},
		"one of two":   {jwt.MapClaims{"role": "spectator"}, false},
		"part of it":   {jwt.MapClaims{"role": "spectators", "realm": red}, false},
		"expired":      {jwt.MapClaims{"role": "spectator", "realm": red, "exp": 1}, false},
		"joined array": {jwt.MapClaims{"role": []string{"spectator,referee"}, "realm": red}, false},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, test.want, matches(t, m, signed(t, test.claims))) })
	}
	require.False(t, matches(t, m, ""))
	require.False(t, matches(t, m, "no.jwt.atall"))
}

// A placeholder would be compared as it is written, and never match.
func TestMatchClaim_RefusesPlaceholders(t *testing.T) {
	c := newConfiguration(t, storageIn(t.TempDir()))
	for _, config := range []string{
		`{"claims": {"role": ["a", "{http.request.header.X-Role}"]}}`,
		`{"claims": {"{sse_guard.claim.sub}": ["a"]}}`,
	} {
		_, err := c.LoadModuleByID("http.matchers.sse_guard_claim", json.RawMessage(config))
		require.ErrorContains(t, err, "placeholders are not replaced here")
	}
	c.matcher(t, "sse_guard_claim", `{"claims": {"role": ["{a}"]}}`)
}

func TestMatchHolder_NobodyHoldsYet(t *testing.T) {
	c := newConfiguration(t, storageIn(t.TempDir()))
	m := c.matcher(t, "sse_guard_holder", `{}`)
	c.handler(t, `{}`)
	require.False(t, matches(t, m, "abc"))
	require.False(t, matches(t, m, ""))
}

func TestApp_SharesOneVerifierPerOptions(t *testing.T) {
	t.Setenv("SSE_GUARD_JWT_SECRET", testSecret)
	c := newConfiguration(t, storageIn(t.TempDir()))
	const options = `{"hmac_secrets": [{"secret": "{env.SSE_GUARD_JWT_SECRET}"}]`
	a := c.handler(t, `{"jwt": `+options+`}}`).guard.Verifier
	require.Same(t, a, c.handler(t, `{"zone": "other", "jwt": `+options+`}}`).guard.Verifier)
	require.NotSame(t, a, c.handler(t, `{"jwt": `+options+`, "issuers": ["x"]}}`).guard.Verifier)
}

func TestApp_StartRefusesGuardsOfAZoneThatTrustDifferentIssuers(t *testing.T) {
	t.Setenv("SSE_GUARD_JWT_SECRET", testSecret)
	const key = `"hmac_secrets": [{"secret": "{env.SSE_GUARD_JWT_SECRET}"}]`
	for name, test := range map[string]struct {
		guards  []string
		refused bool
	}{
		"another issuer": {[]string{`{"jwt": {` + key + `}}`, `{"jwt": {` + key + `, "issuers": ["b"]}}`}, true},
		"other rules":    {[]string{`{"jwt": {` + key + `}}`, `{"jwt": {` + key + `, "optional": true, "require": ["exp"]}}`}, false},
		"one without":    {[]string{`{"jwt": {` + key + `}}`, `{}`}, false},
		"other zones":    {[]string{`{"jwt": {` + key + `}}`, `{"zone": "b", "jwt": {` + key + `, "issuers": ["b"]}}`}, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := newConfiguration(t, storageIn(t.TempDir()))
			for _, g := range test.guards {
				c.handler(t, g)
			}
			app, err := appOf(c.Context)
			require.NoError(t, err)
			if test.refused {
				require.ErrorContains(t, app.Start(), `zone "default"`)
			} else {
				require.NoError(t, app.Start())
			}
		})
	}
}

func TestDefaults_AMissingClaimIsNoWayAroundTheKey(t *testing.T) {
	h := &Handler{Key: []string{"shop", "{sse_guard.claims.sub}"}}
	h.setDefaults()
	require.Equal(t, missingKeyDeny, h.MissingKey)
	h = &Handler{Key: []string{"{sse_guard.claims.sub}"}, MissingKey: missingKeyPass}
	h.setDefaults()
	require.Equal(t, missingKeyPass, h.MissingKey)
}

func TestApp_StartRefusesMatchersThatCannotWork(t *testing.T) {
	t.Setenv("SSE_GUARD_JWT_SECRET", testSecret)
	const verifying = `"jwt": {"hmac_secrets": [{"secret": "{env.SSE_GUARD_JWT_SECRET}"}]}`
	for name, test := range map[string]struct {
		guards  []string
		matcher string
		config  string
		want    []string // of the error; none: it starts
	}{
		"no guard":         {[]string{`{"zone": "a"}`, `{"zone": "b"}`}, "sse_guard_holder", `{}`, []string{"sse_guard_holder", `"default"`, "a, b"}},
		"no guard at all":  {nil, "sse_guard_holder", `{}`, []string{"sse_guard_holder", `"default"`, "nor has any other"}},
		"unlike":           {[]string{`{}`, `{"token": [{"from": "query", "name": "t"}]}`}, "sse_guard_holder", `{}`, []string{"sse_guard_holder", `"default"`, "token, client, jwt or registry"}},
		"alike":            {[]string{`{}`, `{"limit": 3}`}, "sse_guard_holder", `{}`, nil},
		"unlike elsewhere": {[]string{`{}`, `{"zone": "a", "token": [{"from": "query", "name": "t"}]}`}, "sse_guard_holder", `{}`, nil},
		"no claims":        {[]string{`{}`}, "sse_guard_claim", `{"claims": {"a": ["b"]}}`, []string{"sse_guard_claim", `"default"`, "jwt"}},
		"unverified":       {[]string{`{"token": [{"from": "query", "name": "t"}], "jwt": {"unverified": true}}`}, "sse_guard_claim", `{"claims": {"a": ["b"]}}`, []string{"do not verify"}},
		"claims":           {[]string{`{` + verifying + `}`}, "sse_guard_claim", `{"claims": {"a": ["b"]}}`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			c := newConfiguration(t, storageIn(t.TempDir()))
			c.matcher(t, test.matcher, test.config)
			for _, g := range test.guards {
				c.handler(t, g)
			}
			app, err := appOf(c.Context)
			require.NoError(t, err)
			err = app.Start()
			if test.want == nil {
				require.NoError(t, err)
				return
			}
			for _, part := range test.want {
				require.ErrorContains(t, err, part)
			}
		})
	}
}
