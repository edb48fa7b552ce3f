package caddymodule

import (
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
)

// The handlers behind the guard see every placeholder of the table.
func TestPlaceholders_HaveValuesBehindTheGuard(t *testing.T) {
	t.Setenv("SSE_GUARD_JWT_SECRET", testSecret)
	h := newConfiguration(t, storageIn(t.TempDir())).handler(t, `{"jwt": {"hmac_secrets": [{"secret": "{env.SSE_GUARD_JWT_SECRET}"}]}}`)
	repl := caddy.NewReplacer()
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "/?client_id=c", nil)
	r.Header.Set("Authorization", "Bearer "+signed(t, jwt.MapClaims{"sub": "ann"}))
	r = caddyhttp.PrepareRequest(r, repl, w, nil)
	asked := false
	err := h.ServeHTTP(w, r, caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error {
		asked = true
		for _, p := range guardPlaceholders {
			if p.later {
				continue
			}
			name := strings.Replace(p.name, "*", "sub", 1)
			value, known := repl.GetString(name)
			require.True(t, known, name)
			require.NotEmpty(t, value, name)
		}
		sub, _ := repl.GetString("sse_guard.claims.sub")
		require.Equal(t, "ann", sub)
		unknown, _ := repl.GetString("sse_guard.tokn")
		require.Empty(t, unknown)
		return nil
	}))
	require.NoError(t, err)
	require.True(t, asked)
}

// The table has every placeholder that package guard knows: each is a text of its
// own in the source.
func TestPlaceholders_AreThoseOfTheGuard(t *testing.T) {
	files, err := filepath.Glob("guard/*.go")
	require.NoError(t, err)
	known := make(map[string]bool)
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		ast.Inspect(parsed, func(n ast.Node) bool {
			lit, ok := n.(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING {
				return true
			}
			text, err := strconv.Unquote(lit.Value)
			require.NoError(t, err)
			if strings.HasPrefix(text, ownPlaceholders) && text != ownPlaceholders {
				known[text] = true
			}
			return true
		})
	}
	table := make(map[string]bool)
	for _, p := range guardPlaceholders {
		table[strings.TrimSuffix(p.name, "*")] = true
	}
	require.Equal(t, known, table)
}

func TestPlaceholder_Matches(t *testing.T) {
	for name, want := range map[string]bool{
		"sse_guard.token":      true,
		"sse_guard.claims.sub": true,
		"sse_guard.claims.a.b": true,
		"sse_guard.claims.":    false,
		"sse_guard.claims":     false,
		"sse_guard.claims.*":   true, // a claim may have any name
		"sse_guard.tokens":     false,
		"sse_guard.":           false,
	} {
		got := slices.ContainsFunc(guardPlaceholders, func(p placeholder) bool { return p.matches(name) })
		require.Equal(t, want, got, name)
	}
}

// Caddy knows fields of a response by their canonical names only: another spelling would
// be empty, and the stream pass untracked.
func TestKey_NamesResponseFieldsInAnySpelling(t *testing.T) {
	h := newConfiguration(t, storageIn(t.TempDir())).handler(t, `{
		"key": ["a {http.reverse_proxy.header.x-user}", "{http.intercept.header.X-TENANT}{http.request.header.x-a}"],
		"messages": {"logout": "Bye {http.reverse_proxy.header.x-name}"}
	}`)
	require.Equal(t, []string{"a {http.reverse_proxy.header.X-User}", "{http.intercept.header.X-Tenant}{http.request.header.x-a}"}, h.guard.Key)
	require.Equal(t, "Bye {http.reverse_proxy.header.X-Name}", h.guard.Messages["logout"])
	require.Contains(t, h.Key[0], "x-user", "the configuration is shown as it was given")
}

func TestKey_ThatIsConstantIsAWarning(t *testing.T) {
	for config, warned := range map[string]bool{
		`{"key": ["store"]}`:                        true,
		`{"key": ["store", "{env.HOME}"]}`:          true,
		`{"key": ["store", "{http.request.host}"]}`: false,
		`{"key": ["{my.plugin}"]}`:                  false,
		`{}`:                                        false,
		// All streams of a site are bounded, or counted.
		`{"key": ["all"], "limit": 500, "policy": "reject"}`: false,
		`{"key": ["all", "{env.HOME}"], "limit": 0}`:         false,
		`{"key": ["sse_guard.token"], "limit": 3}`:           true,
	} {
		require.Equal(t, warned, strings.Contains(warningsOf(t, config), "no placeholder of the request"), config)
	}
}
