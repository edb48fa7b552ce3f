package caddymodule

import (
	"encoding/json"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// httpAppOf provisions the HTTP app of a Caddyfile. It does not listen.
func httpAppOf(t *testing.T, text string) *caddyhttp.App {
	t.Helper()
	adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": "Caddyfile"})
	require.NoError(t, err, text)
	var config caddy.Config
	require.NoError(t, json.Unmarshal(adapted, &config))
	return provisionHTTP(t, config.AppsRaw["http"])
}

func provisionHTTP(t *testing.T, app json.RawMessage) *caddyhttp.App {
	t.Helper()
	c := newConfiguration(t, storageIn(t.TempDir()))
	mod, err := c.LoadModuleByID("http", app)
	require.NoError(t, err)
	return mod.(*caddyhttp.App)
}

func TestZones_SitesWithAKeyMustNameThem(t *testing.T) {
	for name, test := range map[string]struct {
		sites string
		want  []string // parts of the error; nil: there is none
	}{
		"two sites": {
			"http://a.example {\nsse_guard {\nkey {query.user}\n}\n}\nhttp://b.example {\nsse_guard {\nkey {header.X-User}\n}\n}",
			[]string{"Caddyfile:2 (a.example)", "Caddyfile:7 (b.example)", "`zone a.example`", "`zone b.example`", "key"},
		},
		"one snippet": {
			"(g) {\nsse_guard {\nkey {query.user}\n}\n}\nhttp://a.example {\nimport g\n}\nhttp://b.example {\nimport g\n}",
			[]string{"Caddyfile:2 (a.example)", "Caddyfile:2, import 2 (b.example)", "`zone {args[0]}`"},
		},
		"two ports":                   {":8080 {\nsse_guard {\nkey {query.user}\n}\n}\n:8081 {\nsse_guard {\nkey {query.user}\n}\n}", []string{"any host of srv0", "`zone a`", "`zone b`"}},
		"one host, two ports":         {"http://localhost:8080 {\nsse_guard {\nkey {query.user}\n}\n}\nhttp://localhost:8081 {\nsse_guard {\nkey {query.user}\n}\n}", []string{"Caddyfile:2", "Caddyfile:7", "`zone a` and `zone b`"}},
		"by HTTP and HTTPS":           {"http://a.example {\nsse_guard {\nkey {query.user}\n}\n}\nhttps://a.example, https://www.a.example {\nsse_guard {\nkey {query.user}\n}\n}", nil},
		"any, by HTTP and HTTPS":      {"http:// {\nsse_guard {\nkey {query.user}\n}\n}\nhttps:// {\ntls internal\nsse_guard {\nkey {query.user}\n}\n}", nil},
		"other hosts by HTTPS":        {"http://a.example {\nsse_guard {\nkey {query.user}\n}\n}\nhttps://b.example {\nsse_guard {\nkey {query.user}\n}\n}", []string{"Caddyfile:2 (a.example)", "Caddyfile:7 (b.example)"}},
		"one names the zone":          {"http://a.example {\nsse_guard {\nzone default\nkey {query.user}\n}\n}\nhttp://b.example {\nsse_guard {\nkey {query.user}\n}\n}", []string{"Caddyfile:2", "Caddyfile:8"}},
		"both name it":                {"http://a.example {\nsse_guard {\nzone default\nkey {query.user}\n}\n}\nhttp://b.example {\nsse_guard {\nzone default\nkey {query.user}\n}\n}", nil},
		"one has another":             {"http://a.example {\nsse_guard {\nzone a\nkey {query.user}\n}\n}\nhttp://b.example {\nsse_guard {\nkey {query.user}\n}\n}", nil},
		"one has the default key":     {"http://a.example {\nsse_guard\n}\nhttp://b.example {\nsse_guard {\nkey {query.user}\n}\n}", nil},
		"one site block, two servers": {"http://a.example, https://a.example, http://b.example:8080 {\nsse_guard {\nkey {query.user}\n}\n}", nil},
		"two guards of one block":     {":8080, :8081 {\nsse_guard /a {\nkey {query.user}\n}\nroute /b {\nsse_guard {\nkey {query.user}\n}\n}\n}", nil},
		"the host is in the key":      {"http://a.example {\nsse_guard {\nkey {query.user} {host}\n}\n}\nhttp://b.example {\nsse_guard {\nkey {query.user} {host}\n}\n}", nil},
		"words tell them apart":       {"http://a.example {\nsse_guard {\nkey a {query.user}\n}\n}\nhttp://b.example {\nsse_guard {\nkey b {query.user}\n}\n}", nil},
		"more parts in one":           {"http://a.example {\nsse_guard {\nkey {query.user}\n}\n}\nhttp://b.example {\nsse_guard {\nkey {query.user} {query.tab}\n}\n}", nil},
		"a named route":               {"&(g) {\nsse_guard {\nkey {query.user}\n}\n}\nhttp://a.example {\ninvoke g\n}\nhttp://b.example {\ninvoke g\n}", nil},
	} {
		t.Run(name, func(t *testing.T) {
			err := checkZones(placements(httpAppOf(t, test.sites)))
			if test.want == nil {
				require.NoError(t, err)
				return
			}
			require.Error(t, err)
			for _, part := range test.want {
				require.ErrorContains(t, err, part)
			}
		})
	}
}

// In JSON a site is the routes of one server for the same hosts.
func TestZones_OfJSON(t *testing.T) {
	const guard = `{"handler": "sse_guard", "key": ["{http.request.uri.query.user}"]}`
	route := func(match string) string { return `{"match": [` + match + `], "handle": [` + guard + `]}` }
	for routes, refused := range map[string]bool{
		route(`{"host": ["a.example"]}`) + "," + route(`{"host": ["b.example"]}`):                           true,
		route(`{"host": ["a.example", "b.example"]}`) + "," + route(`{"host": ["b.example", "a.example"]}`): false,
		route(`{"path": ["/a"]}`) + "," + route(`{"path": ["/b"]}`):                                         false,
		route(`{"path": ["/a"]}`) + "," + route(`{"host": ["b.example"]}`):                                  true,
	} {
		err := checkZones(placements(provisionHTTP(t, json.RawMessage(`{"servers": {"one": {"listen": [":8080"], "automatic_https": {"disable": true}, "routes": [`+routes+`]}}}`))))
		require.Equal(t, refused, err != nil, "%s: %v", routes, err)
	}
}

func TestPlacements_AGuardThatSeesNothingIsAWarning(t *testing.T) {
	const order = "{\norder sse_guard after reverse_proxy\n}\n"
	for name, test := range map[string]struct {
		text string
		want string // part of the warning; empty: there is none
	}{
		"first by default":             {"http://a.example {\nreverse_proxy localhost:1\nsse_guard\n}", ""},
		"after reverse_proxy":          {order + "http://a.example {\nreverse_proxy localhost:1\nsse_guard\n}", "reverse_proxy answers"},
		"after some of it":             {order + "http://a.example {\nreverse_proxy /api/* localhost:1\nsse_guard\n}", ""},
		"after respond":                {"http://a.example {\nroute {\nrespond 404\nsse_guard\n}\n}", "respond"},
		"after file_server":            {"http://a.example {\nroute {\nfile_server\nsse_guard\n}\n}", "file_server"},
		"after file_server, passing":   {"http://a.example {\nroute {\nfile_server {\npass_thru\n}\nsse_guard\n}\n}", ""},
		"after forward_auth":           {"http://a.example {\nforward_auth localhost:1 {\nuri /auth\n}\nsse_guard\n}", ""},
		"after early hints":            {"http://a.example {\nroute {\nrespond 103\nsse_guard\n}\n}", ""},
		"after header":                 {"http://a.example {\nroute {\nheader X y\nsse_guard\n}\n}", ""},
		"behind handle blocks":         {"{\norder sse_guard last\n}\nhttp://a.example {\nhandle /api/* {\nreverse_proxy localhost:1\n}\nhandle {\nrespond 404\n}\nsse_guard\n}", "respond"},
		"behind some that do not end":  {"{\norder sse_guard last\n}\nhttp://a.example {\nhandle /api/* {\nheader X y\n}\nhandle {\nrespond 404\n}\nsse_guard\n}", ""},
		"in a handle block":            {"http://a.example {\nhandle /api/* {\nrespond 404\n}\nhandle {\nsse_guard\nreverse_proxy localhost:1\n}\n}", ""},
		"in the last of handle blocks": {"http://a.example {\nroute {\nhandle {\nheader X y\n}\nhandle /events {\nsse_guard\n}\n}\n}", "another route of its group"},
		"another site":                 {"http://a.example {\nrespond 404\n}\nhttp://b.example {\nsse_guard\n}", ""},
		"a method that does not count": {"http://a.example {\n@m method POST\nsse_guard @m\n}", "methods POST"},
		"one that counts":              {"http://a.example {\n@m method POST\nsse_guard @m {\nmethods POST\n}\n}", ""},
		"one that needs a token":       {"http://a.example {\n@m method POST\nsse_guard @m {\nrequire_token\n}\n}", ""},
		"one that logs out":            {"http://a.example {\n@m method POST\nsse_guard @m {\nlogout POST /logout\n}\n}", ""},
		"one of two counts":            {"http://a.example {\n@m method POST GET\nsse_guard @m\n}", ""},
		"a method around it":           {"http://a.example {\n@m method POST\nhandle @m {\nsse_guard\n}\n}", "methods POST"},
		"a path that none is":          {"http://a.example {\n@m path events\nsse_guard @m\n}", "paths begin with /"},
		"one of two is":                {"http://a.example {\n@m path events *.json\nsse_guard @m\n}", ""},
		"a named route":                {"&(g) {\nsse_guard\n}\nhttp://a.example {\nroute {\nrespond 404\ninvoke g\n}\n}", "respond"},
	} {
		t.Run(name, func(t *testing.T) {
			core, logs := observer.New(zap.DebugLevel)
			found := placements(httpAppOf(t, test.text))
			require.Len(t, found, 1)
			(&App{logger: zap.New(core)}).warnOf(found[0])
			if test.want == "" {
				require.Empty(t, logs.All())
				return
			}
			require.Len(t, logs.All(), 1)
			require.Equal(t, zap.WarnLevel, logs.All()[0].Level)
			require.Contains(t, logs.All()[0].Message, test.want)
			require.Contains(t, logs.All()[0].ContextMap()["defined_at"], "Caddyfile:")
		})
	}
}

func TestPlacements_ALogoutThatNeverComesIsAWarning(t *testing.T) {
	const guard = "sse_guard {\nlogout POST /logout\n}\n"
	for name, test := range map[string]struct {
		site string
		want int
	}{
		"no matcher":               {guard, 0},
		"another handle":           {"handle /events* {\n" + guard + "}\nhandle {\nreverse_proxy localhost:1\n}", 1},
		"a route":                  {"route /events/* {\n" + guard + "}", 1},
		"its own handle":           {"handle /logout {\n" + guard + "}", 0},
		"both handles":             {"handle /events* {\n" + guard + "}\nhandle /logout {\n" + guard + "}", 0},
		"both, of different zones": {"handle /events* {\nsse_guard {\nzone a\nlogout POST /logout\n}\n}\nhandle /logout {\nsse_guard {\nzone b\nlogout POST /logout\n}\n}", 1},
		"a pattern of several":     {"@m path /events /log*\nhandle @m {\n" + guard + "}", 0},
		"one of two matchers":      {"@m {\nexpression path('/a') || path('/logout')\n}\nhandle @m {\n" + guard + "}", 0},
		"handle_path":              {"handle_path /api/* {\n" + guard + "}", 0},
		"handle_path, and within":  {"handle_path /api/* {\nhandle /events {\n" + guard + "}\n}", 1},
		"rewritten":                {"route /api/* {\nuri strip_prefix /api\n" + guard + "}", 0},
		"rewritten by some":        {"route /api/* {\nrewrite /api/out /logout\n" + guard + "}", 0},
		"rewritten elsewhere":      {"handle /x {\nrewrite /y\n}\nhandle /events {\n" + guard + "}", 1},
		"answered before":          {"route /events {\nrespond 404\n" + guard + "}", 0},
	} {
		t.Run(name, func(t *testing.T) {
			core, logs := observer.New(zap.DebugLevel)
			(&App{logger: zap.New(core)}).warnOfLogouts(placements(httpAppOf(t, "http://a.example {\n"+test.site+"\n}")))
			require.Len(t, logs.All(), test.want)
			for _, entry := range logs.All() {
				require.Equal(t, zap.WarnLevel, entry.Level)
				require.Equal(t, "/logout", entry.ContextMap()["logout"])
				require.Contains(t, entry.ContextMap()["defined_at"], "Caddyfile:")
			}
		})
	}
}

// What only Provision finds has file and line too, where it comes from a Caddyfile.
func TestProvision_ErrorsNameTheLine(t *testing.T) {
	adapted := adapt(t, "http://a.example {\n\tsse_guard {\n\t\tsecret short\n\t}\n}\n")
	var config caddy.Config
	require.NoError(t, json.Unmarshal(adapted, &config))
	_, err := newConfiguration(t, storageIn(t.TempDir())).LoadModuleByID("http", config.AppsRaw["http"])
	require.ErrorContains(t, err, "Caddyfile:2: secret:")
}
