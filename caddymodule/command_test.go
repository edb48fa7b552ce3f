package caddymodule

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/stretchr/testify/require"
)

func TestSSEProxy_FlagsBecomeACaddyfile(t *testing.T) {
	for name, test := range map[string]struct {
		proxy sseProxy
		want  string
	}{
		"defaults": {
			sseProxy{from: ":8080", to: []string{"localhost:8000"}, limit: 1, policy: "supersede"},
			"{\n\tadmin off\n\tpersist_config off\n\tgrace_period 2s\n}\n" +
				"`:8080` {\n\tsse_guard {\n\t\tlimit 1\n\t\tpolicy `supersede`\n\t\tkey `{sse_guard.token}` `{http.request.orig_uri.path}`\n\t}\n\treverse_proxy `localhost:8000`\n}\n",
		},
		"the demo": {
			sseProxy{demo: true, from: ":8080", to: []string{"localhost:8000"}, limit: 1, policy: "supersede"},
			"{\n\tadmin off\n\tpersist_config off\n\tgrace_period 2s\n}\n" +
				"`:8080` {\n\t@operator {\n\t\tpath /operate/*\n\t\tremote_ip 127.0.0.0/8 ::1\n\t\tnot header X-Forwarded-For *\n\t\tnot header Forwarded *\n\t}\n\tsse_guard_status @operator {\n\t\tinsecure\n\t}\n" +
				"\tsse_guard {\n\t\tlimit 1\n\t\tpolicy `supersede`\n\t\tkey `{sse_guard.token}` `{http.request.orig_uri.path}`\n\t}\n\treverse_proxy `localhost:8000`\n}\n",
		},
		"everything": {
			sseProxy{
				from: "example.com", to: []string{"a:1", "b:2"}, key: []string{"{sse_guard.token}", "a b"},
				limit: 3, policy: "reject", accessLog: true, debug: true,
			},
			"{\n\tadmin off\n\tpersist_config off\n\tgrace_period 2s\n\tdebug\n}\n" +
				"`example.com` {\n\tlog\n\tsse_guard {\n\t\tlimit 3\n\t\tpolicy `reject`\n\t\tkey `{sse_guard.token}` `a b`\n\t}\n\treverse_proxy `a:1` `b:2`\n}\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			text, err := test.proxy.caddyfile()
			require.NoError(t, err)
			require.Equal(t, test.want, string(text))
		})
	}
}

func TestSSEProxy_ConfigGuardsTheUpstreams(t *testing.T) {
	for name, test := range map[string]struct {
		proxy sseProxy
		guard string // JSON
		dials []string
	}{
		"defaults": {
			sseProxy{from: ":8080", to: []string{"localhost:8000"}, limit: 1, policy: "supersede"},
			`{"handler": "sse_guard", "limit": 1, "policy": "supersede", "key": ["{sse_guard.token}", "{http.request.orig_uri.path}"]}`,
			[]string{"localhost:8000"},
		},
		"no limit, several upstreams": {
			sseProxy{from: "http://127.0.0.1:9000", to: []string{"a:1", "b:2"}, policy: "supersede"},
			`{"handler": "sse_guard", "limit": 0, "policy": "supersede", "key": ["{sse_guard.token}", "{http.request.orig_uri.path}"]}`,
			[]string{"a:1", "b:2"},
		},
		"key parts with blanks, quotes and short placeholders": {
			sseProxy{from: "example.com", to: []string{"a:1"}, key: []string{`{header.X-User}`, `a "b"`, "# no comment"}, limit: 2, policy: "reject"},
			`{"handler": "sse_guard", "limit": 2, "policy": "reject", "key": ["{http.request.header.X-User}", "a \"b\"", "# no comment"]}`,
			[]string{"a:1"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			config, err := test.proxy.config()
			require.NoError(t, err)
			require.True(t, config.Admin.Disabled)
			require.False(t, *config.Admin.Config.Persist)

			app := string(config.AppsRaw["http"])
			require.JSONEq(t, test.guard, handlerJSON(t, app, "sse_guard"))
			var proxy struct {
				Upstreams []struct{ Dial string }
			}
			require.NoError(t, json.Unmarshal([]byte(handlerJSON(t, app, "reverse_proxy")), &proxy))
			var dials []string
			for _, u := range proxy.Upstreams {
				dials = append(dials, u.Dial)
			}
			require.Equal(t, test.dials, dials)
			require.Less(t, strings.Index(app, `"sse_guard"`), strings.Index(app, `"reverse_proxy"`))
		})
	}
}

// handlerJSON finds the one handler of this name, however deep.
func handlerJSON(t *testing.T, config, name string) string {
	t.Helper()
	var found []any
	var search func(any)
	search = func(value any) {
		switch v := value.(type) {
		case map[string]any:
			if v["handler"] == name {
				delete(v, "defined_at")
				found = append(found, v)
			}
			for _, child := range v {
				search(child)
			}
		case []any:
			for _, child := range v {
				search(child)
			}
		}
	}
	var value any
	require.NoError(t, json.Unmarshal([]byte(config), &value))
	search(value)
	require.Len(t, found, 1, name)
	spelled, err := json.Marshal(found[0])
	require.NoError(t, err)
	return string(spelled)
}

func TestSSEProxy_ConfigWithLogs(t *testing.T) {
	proxy := sseProxy{from: ":8080", to: []string{"a:1"}, limit: 1, policy: "supersede", accessLog: true, debug: true}
	config, err := proxy.config()
	require.NoError(t, err)
	require.Equal(t, "DEBUG", config.Logging.Logs["default"].Level)
	require.Contains(t, string(config.AppsRaw["http"]), `"logs"`)
}

func TestSSEProxy_RefusesFlagsThatCannotBeMeant(t *testing.T) {
	valid := sseProxy{from: ":8080", to: []string{"localhost:8000"}, limit: 1, policy: "supersede"}
	for name, test := range map[string]struct {
		change func(*sseProxy)
		want   []string
	}{
		"no from":                {func(p *sseProxy) { p.from = "" }, []string{"--from", "empty"}},
		"no to":                  {func(p *sseProxy) { p.to = nil }, []string{"--to", "empty"}},
		"backtick in from":       {func(p *sseProxy) { p.from = ":80` {" }, []string{"backtick", ":80` {"}},
		"backtick in to":         {func(p *sseProxy) { p.to = []string{"a:1", "`"} }, []string{"backtick"}},
		"backtick in key":        {func(p *sseProxy) { p.key = []string{"a` secret `b"} }, []string{"backtick"}},
		"backtick in policy":     {func(p *sseProxy) { p.policy = "`" }, []string{"backtick"}},
		"line break in key":      {func(p *sseProxy) { p.key = []string{"a\npolicy reject"} }, []string{"line break"}},
		"unknown policy":         {func(p *sseProxy) { p.policy = "first" }, []string{"policy", `"first"`, "supersede, reject"}},
		"negative limit":         {func(p *sseProxy) { p.limit = -1 }, []string{"limit", `"-1"`, "0 (track only) or more"}},
		"reject without a limit": {func(p *sseProxy) { p.limit, p.policy = 0, "reject" }, []string{"limit 0", "policy reject"}},
		"empty key":              {func(p *sseProxy) { p.key = []string{""} }, []string{"key", "part 1 is empty"}},
	} {
		t.Run(name, func(t *testing.T) {
			proxy := valid
			test.change(&proxy)
			_, err := proxy.config()
			require.Error(t, err)
			for _, part := range test.want {
				require.ErrorContains(t, err, part)
			}
		})
	}
}

func TestSSEProxy_CommandHasItsFlags(t *testing.T) {
	command, ok := caddycmd.Commands()["sse-proxy"]
	require.True(t, ok)
	require.NotEmpty(t, command.Short)
	for _, flag := range []string{"--key", "--limit", "--policy", "--access-log", "--debug", "--from", "--to"} {
		require.Contains(t, command.Usage, flag)
	}
}

func TestPublicURL_IsWhereABrowserFindsIt(t *testing.T) {
	for from, want := range map[string]string{
		":8080":                  "http://localhost:8080",
		"http://localhost:9000":  "http://localhost:9000",
		"https://localhost:9000": "https://localhost:9000",
		"localhost:9000":         "https://localhost:9000",
		"demo.example":           "https://demo.example",
		"demo.example:80":        "http://demo.example:80",
	} {
		require.Equal(t, want, publicURL(from), from)
	}
}

func TestStartDemo_ServesThePage(t *testing.T) {
	addr, stop, err := startDemo()
	require.NoError(t, err)
	defer stop()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Get("http://" + addr)
	require.NoError(t, err)
	defer res.Body.Close()
	page, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, res.StatusCode)
	require.Contains(t, string(page), "EventSource")
}

func TestSSEProxy_SaysWhatToOpen(t *testing.T) {
	require.Contains(t, sseProxy{demo: true, from: ":8080"}.started(), "Open http://localhost:8080 in two tabs")
	require.Contains(t, sseProxy{from: "example.com", to: []string{"a:1", "b:2"}}.started(), "Open https://example.com, which is a:1, b:2")
}
