package caddymodule

import (
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// pagesOf finds the status pages in routes.
func pagesOf(routes caddyhttp.RouteList) (pages []*Status) {
	for _, r := range routes {
		for _, h := range r.Handlers {
			switch h := h.(type) {
			case *Status:
				pages = append(pages, h)
			case *caddyhttp.Subroute:
				pages = append(pages, pagesOf(h.Routes)...)
			}
		}
	}
	return pages
}

// TestStatus_NeedsAnAuthenticationHandlerBeforeIt for each request that comes to it.
func TestStatus_NeedsAnAuthenticationHandlerBeforeIt(t *testing.T) {
	const (
		user = " {\nann $2a$04$AeT0N1W8qfraLCdrdQ53FusEb849D5hnOWzwWuh7C.VfM.4C.eZ1y\n}\n"
		auth = "basic_auth" + user
	)
	for name, test := range map[string]struct {
		site string
		ok   bool
	}{
		"nothing":                             {"sse_guard_status /status*", false},
		"for all":                             {auth + "sse_guard_status /status*", true},
		"in a handle block":                   {"handle /status* {\n" + auth + "sse_guard_status\n}", true},
		"in a handle_path block":              {"handle_path /status* {\n" + auth + "sse_guard_status\n}", true},
		"in a route block":                    {"route /status* {\n" + auth + "sse_guard_status\n}", true},
		"behind it in a route block":          {"route /status* {\nsse_guard_status\n" + auth + "}", false},
		"around a handle block":               {auth + "handle /status* {\nsse_guard_status\n}", true},
		"in another handle block":             {"handle /admin* {\n" + auth + "}\nhandle /status* {\nsse_guard_status\n}", false},
		"in another route block":              {"route /admin* {\n" + auth + "}\nroute /status* {\nsse_guard_status\n}", false},
		"for the same path":                   {"basic_auth /status*" + user + "sse_guard_status /status*", true},
		"for a shorter path":                  {"basic_auth /st*" + user + "sse_guard_status /status/*", true},
		"for less":                            {"basic_auth /status/*" + user + "sse_guard_status /status*", false},
		"for another path":                    {"basic_auth /admin*" + user + "sse_guard_status /status*", false},
		"for one path of two":                 {"@s path /status* /seen*\nbasic_auth /status*" + user + "sse_guard_status @s", false},
		"for the same path and a method":      {"@s {\npath /status*\nmethod GET\n}\nbasic_auth @s" + user + "sse_guard_status /status*", false},
		"for all paths but one":               {"@s not path /status/feed\nbasic_auth @s" + user + "sse_guard_status /status*", false},
		"for a path that is rewritten":        {"route {\nbasic_auth /status*" + user + "rewrite /open /status/\nsse_guard_status /status*\n}", false},
		"forward_auth":                        {"handle /status* {\nforward_auth localhost:9 {\nuri /verify\n}\nsse_guard_status\n}", true},
		"a proxy that is no forward_auth":     {"route /status* {\nreverse_proxy localhost:9 {\n@ok status 2xx\nhandle_response @ok {\nheader X-Ok yes\n}\n}\nsse_guard_status\n}", false},
		"a named route, once without":         {"handle /a* {\n" + auth + "invoke page\n}\nhandle /b* {\ninvoke page\n}", false},
		"a named route, behind it":            {"handle /a* {\n" + auth + "invoke page\n}", true},
		"where errors are handled, not found": {auth + "handle_errors {\nsse_guard_status\n}", false},
	} {
		t.Run(name, func(t *testing.T) {
			app := httpAppOf(t, "&(page) {\nsse_guard_status\n}\nhttp://a.example {\n"+test.site+"\n}")
			_, found := walkThrough(app)
			var pages []*Status
			for _, server := range app.Servers {
				pages = append(pages, pagesOf(server.Routes)...)
				if server.Errors != nil {
					pages = append(pages, pagesOf(server.Errors.Routes)...)
				}
				for _, r := range server.NamedRoutes {
					pages = append(pages, pagesOf(caddyhttp.RouteList{*r})...)
				}
			}
			require.Len(t, pages, 1)
			core, logs := observer.New(zap.WarnLevel)
			a := &App{logger: zap.New(core), pages: pages}
			err := a.checkPages(found)
			if test.ok {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, "Caddyfile:")
			require.ErrorContains(t, err, "sse_guard_status: no authentication handler is before it")
			require.ErrorContains(t, err, "basic_auth")
			require.ErrorContains(t, err, "insecure")

			pages[0].Insecure = true
			require.NoError(t, a.checkPages(found))
			require.Equal(t, 1, logs.Len(), "that is a warning")
		})
	}
}

func TestStatus_OfACaddyfile(t *testing.T) {
	s := new(Status)
	require.NoError(t, s.UnmarshalCaddyfile(caddyfile.NewTestDispenser("sse_guard_status {\ninsecure\n}")))
	require.True(t, s.Insecure)
	for text, want := range map[string]string{
		"sse_guard_status now":                      `no argument but a matcher, got "now"`,
		"sse_guard_status {\nopen\n}":               `unknown option "open" of sse_guard_status; the options are: insecure`,
		"sse_guard_status {\ninsecure yes\n}":       "option insecure does not take 1 arguments",
		"sse_guard_status {\ninsecure\ninsecure\n}": "given twice",
	} {
		require.ErrorContains(t, new(Status).UnmarshalCaddyfile(caddyfile.NewTestDispenser(text)), want)
	}
}

// TestStatus_IsNotGuarded: its feed is an event stream, of which a guard would let each
// administrator have one.
func TestStatus_IsNotGuarded(t *testing.T) {
	adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte("http://a.example {\nsse_guard\nsse_guard_status /status*\n}"), nil)
	require.NoError(t, err)
	require.Regexp(t, `"sse_guard_status".*"handler":"sse_guard"`, string(adapted))
}
