package caddymodule

import (
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/rewrite"
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
		"nothing":                                       {"sse_guard_status /status*", false},
		"for all":                                       {auth + "sse_guard_status /status*", true},
		"in a handle block":                             {"handle /status* {\n" + auth + "sse_guard_status\n}", true},
		"in a handle_path block":                        {"handle_path /status* {\n" + auth + "sse_guard_status\n}", true},
		"in a route block":                              {"route /status* {\n" + auth + "sse_guard_status\n}", true},
		"behind it in a route block":                    {"route /status* {\nsse_guard_status\n" + auth + "}", false},
		"around a handle block":                         {auth + "handle /status* {\nsse_guard_status\n}", true},
		"in another handle block":                       {"handle /admin* {\n" + auth + "}\nhandle /status* {\nsse_guard_status\n}", false},
		"in another route block":                        {"route /admin* {\n" + auth + "}\nroute /status* {\nsse_guard_status\n}", false},
		"for the same path":                             {"basic_auth /status*" + user + "sse_guard_status /status*", true},
		"for a shorter path":                            {"basic_auth /st*" + user + "sse_guard_status /status/*", true},
		"for less":                                      {"basic_auth /status/*" + user + "sse_guard_status /status*", false},
		"for another path":                              {"basic_auth /admin*" + user + "sse_guard_status /status*", false},
		"for one path of two":                           {"@s path /status* /seen*\nbasic_auth /status*" + user + "sse_guard_status @s", false},
		"for the same path and a method":                {"@s {\npath /status*\nmethod GET\n}\nbasic_auth @s" + user + "sse_guard_status /status*", false},
		"for all paths but one":                         {"@s not path /status/feed\nbasic_auth @s" + user + "sse_guard_status /status*", false},
		"for a path that is rewritten":                  {"route {\nbasic_auth /status*" + user + "rewrite /open /status/\nsse_guard_status /status*\n}", false},
		"forward_auth":                                  {"handle /status* {\nforward_auth localhost:9 {\nuri /verify\n}\nsse_guard_status\n}", true},
		"a proxy that is no forward_auth":               {"route /status* {\nreverse_proxy localhost:9 {\n@ok status 2xx\nhandle_response @ok {\nheader X-Ok yes\n}\n}\nsse_guard_status\n}", false},
		"a named route, once without":                   {"handle /a* {\n" + auth + "invoke page\n}\nhandle /b* {\ninvoke page\n}", false},
		"a named route, behind it":                      {"handle /a* {\n" + auth + "invoke page\n}", true},
		"where errors are handled":                      {auth + "handle_errors {\nsse_guard_status\n}", false},
		"a named route, also of errors":                 {"handle /a* {\n" + auth + "invoke page\n}\nhandle_errors {\ninvoke page\n}", false},
		"a named route, behind it there too":            {"handle /a* {\n" + auth + "invoke page\n}\nhandle_errors {\n" + auth + "invoke page\n}", true},
		"a named route, also of a response":             {"handle /a* {\n" + auth + "invoke page\n}\nhandle /b* {\nreverse_proxy localhost:9 {\n@no status 404\nhandle_response @no {\ninvoke page\n}\n}\n}", false},
		"a named route, also intercepting":              {"handle /a* {\n" + auth + "invoke page\n}\nhandle /b* {\nintercept {\n@no status 404\nhandle_response @no {\ninvoke page\n}\n}\n}", false},
		"a named route, where forward_auth has refused": {"handle /a* {\nforward_auth localhost:9 {\nuri /verify\n@no status 4xx\nhandle_response @no {\ninvoke page\n}\n}\ninvoke page\n}", false},
		"forward_auth that lets the refused go on":      {"handle /a* {\nforward_auth localhost:9 {\nuri /verify\n@no status 4xx\nhandle_response @no {\nheader X-No yes\n}\n}\ninvoke page\n}", false},
		"forward_auth that answers the refused":         {"handle /a* {\nforward_auth localhost:9 {\nuri /verify\n@no status 4xx\nhandle_response @no {\nrespond 401\n}\n}\ninvoke page\n}", true},
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
			found[pages[0]].vague = false // TestStatus_KnowsItsPaths is about that
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
		"sse_guard_status {\nopen\n}":               `unknown option "open" of sse_guard_status; the options are: hosts, insecure`,
		"sse_guard_status {\ninsecure yes\n}":       "option insecure does not take 1 arguments",
		"sse_guard_status {\ninsecure\ninsecure\n}": "given twice",
		"sse_guard_status {\nhosts a.example:80\n}": `hosts: "a.example:80" is not allowed; write names of hosts`,
		"sse_guard_status {\nhosts *.example\n}":    `hosts: "*.example" is not allowed`,
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

// TestStatus_SubroutesHandleErrors in JSON only: a request that an authentication handler
// has refused comes out there.
func TestStatus_SubroutesHandleErrors(t *testing.T) {
	app := httpAppOf(t, "&(page) {\nsse_guard_status\n}\nhttp://a.example {\nhandle {\nbasic_auth {\nann $2a$04$AeT0N1W8qfraLCdrdQ53FusEb849D5hnOWzwWuh7C.VfM.4C.eZ1y\n}\ninvoke page\n}\n}")
	authenticated := func() bool {
		_, pages := walkThrough(app)
		require.Len(t, pages, 1)
		for _, m := range pages {
			return m.authenticated
		}
		return false
	}
	require.True(t, authenticated())
	for _, server := range app.Servers {
		outer, ok := server.Routes[0].Handlers[0].(*caddyhttp.Subroute)
		require.True(t, ok)
		outer.Errors = &caddyhttp.HTTPErrorConfig{Routes: caddyhttp.RouteList{{Handlers: []caddyhttp.MiddlewareHandler{&caddyhttp.Invoke{Name: "page"}}}}}
	}
	require.False(t, authenticated())
}

// TestStatus_WhatIsRewrittenWasNotAuthenticatedByItsPath: an authentication handler for
// some paths has not seen what comes to them only later.
func TestStatus_WhatIsRewrittenWasNotAuthenticatedByItsPath(t *testing.T) {
	const site = "http://a.example {\nroute {\nbasic_auth /status* {\nann $2a$04$AeT0N1W8qfraLCdrdQ53FusEb849D5hnOWzwWuh7C.VfM.4C.eZ1y\n}\nroute {\nroute /status* {\nsse_guard_status\n}\n}\n}\n}"
	rewritten := &rewrite.Rewrite{URI: "/status/"}
	for name, test := range map[string]struct {
		edit func(inner *caddyhttp.Subroute, outer *caddyhttp.Route)
		want bool
	}{
		"as it is": {func(*caddyhttp.Subroute, *caddyhttp.Route) {}, true},
		"rewritten in the same route": {func(_ *caddyhttp.Subroute, outer *caddyhttp.Route) {
			outer.Handlers = append([]caddyhttp.MiddlewareHandler{rewritten}, outer.Handlers...)
		}, false},
		"rewritten before it fails": {func(inner *caddyhttp.Subroute, _ *caddyhttp.Route) {
			inner.Errors = &caddyhttp.HTTPErrorConfig{Routes: inner.Routes}
			inner.Routes = caddyhttp.RouteList{{Handlers: []caddyhttp.MiddlewareHandler{rewritten, &caddyhttp.StaticError{}}}}
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			app := httpAppOf(t, site)
			for _, server := range app.Servers {
				routes := server.Routes
				for {
					last := &routes[len(routes)-1]
					inner, ok := last.Handlers[len(last.Handlers)-1].(*caddyhttp.Subroute)
					require.True(t, ok)
					if len(inner.Routes) == 1 && len(inner.Routes[0].MatcherSets) > 0 {
						test.edit(inner, last)
						break
					}
					routes = inner.Routes
				}
			}
			_, pages := walkThrough(app)
			require.Len(t, pages, 1)
			for _, m := range pages {
				require.Equal(t, test.want, m.authenticated)
			}
		})
	}
}

// TestStatus_KnowsItsPaths: an action is beside the page and nowhere else, so that it can
// be told which path is protected.
func TestStatus_KnowsItsPaths(t *testing.T) {
	const page = "sse_guard_status {\ninsecure\n}"
	for name, test := range map[string]struct {
		site  string
		paths []string // nil: not known
		named bool
	}{
		"by its matcher":                  {"http://a.example {\nsse_guard_status /status* {\ninsecure\n}\n}", []string{"/status/"}, true},
		"by a matcher with a slash":       {"http://a.example {\nsse_guard_status /status/* {\ninsecure\n}\n}", []string{"/status/"}, true},
		"by two":                          {"http://a.example {\n@s path /status* /seen/*\nsse_guard_status @s {\ninsecure\n}\n}", []string{"/status/", "/seen/"}, true},
		"by a handle block":               {"http://a.example {\nhandle /a/status* {\n" + page + "\n}\n}", []string{"/a/status/"}, true},
		"by nested ones":                  {"http://a.example {\nhandle /a* {\nhandle /a/status* {\n" + page + "\n}\n}\n}", []string{"/a/status/"}, true},
		"by a handle_path block":          {"http://a.example {\nhandle_path /status* {\n" + page + "\n}\n}", []string{"/"}, true},
		"in a site of its own":            {"http://a.example {\n" + page + "\n}", []string{"/"}, true},
		"for some addresses":              {"http://a.example {\n@s remote_ip 10.0.0.0/8\nsse_guard_status @s {\ninsecure\n}\n}", []string{"/"}, true},
		"a path that was rewritten":       {"http://a.example {\nrewrite /x /status/\nsse_guard_status /status* {\ninsecure\n}\n}", []string{"/status/"}, true},
		"any that was":                    {"http://a.example {\nrewrite /x /status/\n" + page + "\n}", nil, true},
		"by an expression":                {"http://a.example {\n@s expression path('/status*')\nsse_guard_status @s {\ninsecure\n}\n}", nil, true},
		"where errors are handled":        {"http://a.example {\nhandle_errors {\n" + page + "\n}\n}", nil, true},
		"by a suffix":                     {"http://a.example {\n@s path *.status\nsse_guard_status @s {\ninsecure\n}\n}", nil, true},
		"of any host":                     {"http:// {\nsse_guard_status /status* {\ninsecure\n}\n}", []string{"/status/"}, false},
		"of a port":                       {"http://:8080 {\nsse_guard_status /status* {\ninsecure\n}\n}", []string{"/status/"}, false},
		"of the hosts of a domain":        {"http://*.a.example {\nsse_guard_status /status* {\ninsecure\n}\n}", []string{"/status/"}, true},
		"of hosts that anybody may have":  {"http://*.example {\nsse_guard_status /status* {\ninsecure\n}\n}", []string{"/status/"}, false},
		"of a host, by a matcher":         {"http:// {\n@s {\nhost a.example\npath /status*\n}\nsse_guard_status @s {\ninsecure\n}\n}", []string{"/status/"}, true},
		"a named route, at several paths": {"&(page) {\n" + page + "\n}\nhttp://a.example {\nhandle /a* {\ninvoke page\n}\nhandle /b* {\ninvoke page\n}\n}", []string{"/a/", "/b/"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			_, pages := walkThrough(httpAppOf(t, test.site))
			require.Len(t, pages, 1)
			for s, m := range pages {
				require.Equal(t, test.named, m.named)
				require.Equal(t, test.paths == nil, m.vague)
				if m.vague {
					require.ErrorContains(t, s.check(m), "it is not known at which paths the page is")
					return
				}
				require.Equal(t, test.paths, m.paths)
				require.NoError(t, s.check(m))
			}
		})
	}
}
