package caddymodule

import (
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/stretchr/testify/require"
)

// A logout that the guard never sees would log nobody out, silently.
func TestLogout_ThatItsMatcherLeavesOutIsAnError(t *testing.T) {
	for name, test := range map[string]struct {
		site  string
		error []string // empty: it may come
	}{
		"no matcher":              {site: "sse_guard {\nlogout /logout\n}"},
		"its path":                {site: "sse_guard /api/* {\nlogout /api/logout\n}"},
		"its path among several":  {site: "@g path /events /Logout\nsse_guard @g {\nlogout /logout\n}"},
		"perhaps":                 {site: "sse_guard /events/* {\nlogout */logout\n}"},
		"a placeholder":           {site: "@g path {env.PREFIX}/*\nsse_guard @g {\nlogout /logout\n}"},
		"its method":              {site: "@g method GET DELETE\nsse_guard @g {\nlogout /logout\n}"},
		"another path":            {"sse_guard /events {\nlogout /logout\n}", []string{"logout: /logout", "/events only", "path /events /logout"}},
		"another path, in handle": {"handle {\nsse_guard /events/* {\nlogout /logout token 302\n}\n}", []string{"logout: /logout", "/events/* only"}},
		"one of two":              {"sse_guard /api/* {\nlogout /api/logout\nlogout /logout\n}", []string{"logout: /logout", "/api/* only"}},
		"another method":          {"@g method GET\nsse_guard @g {\nlogout /logout\n}", []string{"POST or DELETE /logout", "GET only", "add the method"}},
		"its method, not":         {"@g method POST\nsse_guard @g {\nlogout GET /logout\n}", []string{"logout: GET /logout", "POST only"}},
	} {
		t.Run(name, func(t *testing.T) {
			adapter := caddyfile.Adapter{ServerType: httpcaddyfile.ServerType{}}
			_, _, err := adapter.Adapt([]byte("http://example.com {\n"+test.site+"\n}"), nil)
			if len(test.error) == 0 {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, "Caddyfile:")
			for _, part := range test.error {
				require.ErrorContains(t, err, part)
			}
		})
	}
}
