package caddymodule

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/stretchr/testify/require"
)

// around is a request as Caddy's server hands it to its handlers.
func around(t *testing.T, target string) *environment {
	t.Helper()
	repl := caddy.NewReplacer()
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, target, nil)
	return &environment{r: caddyhttp.PrepareRequest(r, repl, w, nil), repl: repl}
}

func TestExpand(t *testing.T) {
	e := around(t, "http://example.com/events?room=7")
	e.repl.Set("http.reverse_proxy.header.X-User", "ann")
	own := func(name string) string { return "<" + name + ">" }
	for template, want := range map[string]string{
		"":                                   "",
		"a word":                             "a word",
		"{http.request.host}":                "example.com",
		"{http.request.uri.query.room}":      "7",
		"{http.reverse_proxy.header.X-User}": "ann",
		"{sse_guard.token}":                  "<sse_guard.token>",
		"{sse_guard.token}/{http.request.uri.path}": "<sse_guard.token>//events",
		"{http.request.header.X-Nobody}":            "",
		"{unknown.placeholder}":                     "",
	} {
		require.Equal(t, want, e.Expand(template, own), template)
	}
}

// Inside another guard, the replacer shows that one's placeholders.
func TestExpand_AsksTheGuardItselfNotTheOneAround(t *testing.T) {
	e := around(t, "/")
	e.Publish(func(string) string { return "outer" })
	require.Equal(t, "inner", e.Expand("{sse_guard.key}", func(string) string { return "inner" }))
}

func TestPublish_ShowsPlaceholdersToTheHandlersBehind(t *testing.T) {
	e := around(t, "/")
	e.Publish(func(name string) string { return "<" + name + ">" })
	require.Equal(t, "<sse_guard.key>", e.repl.ReplaceAll("{sse_guard.key}", ""))
	_, known := e.repl.Get("sse_guardian.key")
	require.False(t, known, "only its own")
}

func TestPath_IsWhatTheClientAskedFor(t *testing.T) {
	e := around(t, "/api/events?a=b")
	e.r.URL.Path = "/events" // as handle_path does
	require.Equal(t, "/api/events", e.Path())

	bare := &environment{r: httptest.NewRequest(http.MethodGet, "/bare", nil)}
	require.Equal(t, "/bare", bare.Path(), "outside of Caddy's server there is only one")
}

// Else the second of two tries would pass handle blocks by, and see the first one's
// variables.
func TestSnapshot_PutsBackWhatHandlersNote(t *testing.T) {
	e := around(t, "/")
	var served []string
	next := caddyhttp.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
		served = append(served, fmt.Sprint(caddyhttp.GetVar(r.Context(), "hops")))
		caddyhttp.SetVar(r.Context(), "hops", 1)
		return nil
	})
	group := caddyhttp.RouteList{{Group: "handle"}}
	group[0].Handlers = []caddyhttp.MiddlewareHandler{caddyhttp.VarsMiddleware{"met": "yes"}}
	require.NoError(t, group.ProvisionHandlers(caddy.Context{Context: t.Context()}, nil))
	restore := e.Snapshot()
	for range 3 {
		require.NoError(t, group.Compile(next).ServeHTTP(httptest.NewRecorder(), e.r))
		require.Equal(t, "yes", caddyhttp.GetVar(e.r.Context(), "met"), "the group is served each time")
		restore()
		require.Nil(t, caddyhttp.GetVar(e.r.Context(), "met"))
	}
	require.Equal(t, []string{"<nil>", "<nil>", "<nil>"}, served)

	bare := &environment{r: httptest.NewRequest(http.MethodGet, "/", nil)}
	bare.Snapshot()() // outside of Caddy's server there is nothing
}

func TestFullDuplex_IsTheServers(t *testing.T) {
	bare := &environment{r: httptest.NewRequest(http.MethodGet, "/", nil)}
	require.False(t, bare.FullDuplex())
	for _, duplex := range []bool{true, false} {
		ctx := context.WithValue(t.Context(), caddyhttp.ServerCtxKey, &caddyhttp.Server{EnableFullDuplex: duplex})
		require.Equal(t, duplex, (&environment{r: bare.r.WithContext(ctx)}).FullDuplex())
	}
}

func TestClientIP_ConsidersTrustedProxies(t *testing.T) {
	e := around(t, "/")
	caddyhttp.SetVar(e.r.Context(), caddyhttp.ClientIPVarKey, "192.0.2.7")
	require.Equal(t, "192.0.2.7", e.ClientIP())
}

func TestConn_IsTheServersFirst(t *testing.T) {
	require.Zero(t, around(t, "/").Connection())

	first, second := net.Pipe()
	defer first.Close()
	defer second.Close()
	ctx := withConn(withConn(context.Background(), first), second)
	e := &environment{r: httptest.NewRequest(http.MethodGet, "/", nil).WithContext(ctx)}
	require.Same(t, first, e.Connection().Net)
}
