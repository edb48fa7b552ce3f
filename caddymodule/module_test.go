package caddymodule

import (
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/conflict"
	"github.com/sse-guard/sse-guard/caddymodule/guard"
	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/zone"
)

func TestKeyFromRequest_KnowsWhatAResponseMayAdd(t *testing.T) {
	for name, test := range map[string]struct {
		parts []string
		want  bool
	}{
		"default key":               {nil, true},
		"words only":                {[]string{"orders", "a b"}, true},
		"of the request":            {[]string{"{http.request.host}", "{http.request.header.X-User}"}, true},
		"variables":                 {[]string{"{http.vars.tenant}"}, true},
		"verified user":             {[]string{"{http.auth.user.id}"}, true},
		"capture group":             {[]string{"{http.regexp.user.1}"}, true},
		"the guard's own":           {[]string{"{sse_guard.token}", "{sse_guard.client}"}, true},
		"environment":               {[]string{"{env.REGION}", "{system.hostname}", "{file./etc/region}"}, true},
		"of the response":           {[]string{"{http.reverse_proxy.header.X-User}"}, false},
		"request and response":      {[]string{"{http.request.host}", "{http.reverse_proxy.header.X-User}"}, false},
		"both in one part":          {[]string{"{http.request.host}-{http.reverse_proxy.header.X-User}"}, false},
		"response, then request":    {[]string{"{http.reverse_proxy.header.X-User}-{http.request.host}"}, false},
		"response inside words":     {[]string{"user {http.reverse_proxy.header.X-User} here"}, false},
		"unknown":                   {[]string{"{my.plugin.user}"}, false},
		"only looks like a request": {[]string{"{http.requests.total}"}, false},
		"a shorthand of Caddyfiles": {[]string{"{path}"}, false},
		"an empty placeholder":      {[]string{"{}"}, false},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, test.want, (&Handler{Key: test.parts}).keyFromRequest()) })
	}

	claims := []string{"{sse_guard.claims.sub}"}
	require.True(t, (&Handler{Key: claims, JWT: new(JWT)}).keyFromRequest())
	require.False(t, (&Handler{Key: claims, JWT: &JWT{Unverified: true}}).keyFromRequest(),
		"the claims count when the backend has answered")
	require.True(t, (&Handler{Key: []string{"{sse_guard.token}"}, JWT: &JWT{Unverified: true}}).keyFromRequest())
}

func TestProvision_HandsTheOptionsToTheGuard(t *testing.T) {
	c := newConfiguration(t, storageIn(t.TempDir()))

	g := c.handler(t, `{}`).guard
	require.Equal(t, "default", g.Zone.Name)
	require.True(t, g.KeyFromRequest)
	require.Equal(t, guard.TakeoverAuto, g.Takeover)
	require.Equal(t, guard.ExpiryRenew, g.OnExpiry)
	require.Equal(t, guard.Sharing{Addrs: 5, Window: 10 * time.Minute}, g.Sharing)
	require.Equal(t, 15*time.Second, g.Stream.Heartbeat)
	require.Equal(t, 30*time.Second, g.Stream.DeadAfter)
	require.Zero(t, g.Stream.MaxAge)
	require.NotNil(t, g.Stream.Wheel)
	require.Equal(t, time.Second, g.Probe)
	require.Zero(t, g.Reserve, "nobody is refused whom it could be kept from")
	require.Equal(t, conflict.Rule{Count: 4, HalfLife: time.Minute}, g.Flap)
	require.Equal(t, zone.Drain{Window: 6 * time.Second, EndTimeout: time.Second}, g.Drain)
	require.Nil(t, g.Verifier)
	require.Empty(t, g.Logouts)
	require.False(t, g.DenyMissing)
	require.Equal(t, registry.Rule{Policy: registry.Supersede, Limit: 1, Unit: registry.Streams}, g.Rule)
	require.Equal(t, guard.RejectEvent, g.OnReject)
	require.Equal(t, 5*time.Second, g.Retry, "rejected newcomers are told when to come back")
	require.Zero(t, g.Stream.OpenRetry, "others are not, unless that is configured")
	require.Equal(t, time.Second, g.Stream.EndTimeout)
	require.Equal(t, 1<<20, g.Stream.MaxEventSize)
	require.Equal(t, 250*time.Millisecond, g.Stream.Hold)
	require.False(t, g.Stream.FinishAll, "responses are cut whose clients are to come back")
	require.Zero(t, g.Stream.StallAfter)
	require.Empty(t, g.Messages)
	require.NotNil(t, g.Stream.Held)
	require.Same(t, g.Stream.Held, c.handler(t, `{"zone": "other"}`).guard.Stream.Held, "the process has one memory")

	g = c.handler(t, `{
		"zone": "z", "key": ["{http.reverse_proxy.header.X-User}"], "missing_key": "deny",
		"limit": 3, "limit_unit": "clients", "policy": "reject", "takeover": "response",
		"require_token": true, "on_reject": "park", "retry": "2s", "end_timeout": "3s",
		"max_event_size": 100, "events": {"superseded": "KICKED"}, "messages": {"superseded": "Away"},
		"hold": "1s", "come_back": "clean", "stall_after": "1m"
	}`).guard
	require.Equal(t, "z", g.Zone.Name)
	require.Equal(t, []string{"{http.reverse_proxy.header.X-User}"}, g.Key)
	require.False(t, g.KeyFromRequest)
	require.Equal(t, guard.TakeoverResponse, g.Takeover)
	require.Equal(t, 3*time.Second, g.Reserve, "the policy is reject")
	require.True(t, g.DenyMissing)
	require.True(t, g.RequireToken)
	require.Equal(t, registry.Rule{Policy: registry.Reject, Limit: 3, Unit: registry.Clients}, g.Rule)
	require.Equal(t, guard.RejectPark, g.OnReject)
	require.Equal(t, 2*time.Second, g.Retry)
	require.Equal(t, 2*time.Second, g.Stream.OpenRetry)
	require.Equal(t, 3*time.Second, g.Stream.EndTimeout)
	require.Equal(t, 100, g.Stream.MaxEventSize)
	require.Equal(t, map[reason.Reason]string{reason.Superseded: "KICKED"}, g.Names)
	require.Equal(t, map[reason.Reason]string{reason.Superseded: "Away"}, g.Messages)
	require.Equal(t, time.Second, g.Stream.Hold)
	require.True(t, g.Stream.FinishAll)
	require.Equal(t, time.Minute, g.Stream.StallAfter)

	t.Setenv("SSE_GUARD_JWT_SECRET", "0123456789abcdef0123456789abcdef")
	g = c.handler(t, `{
		"jwt": {"hmac_secrets": [{"secret": "{env.SSE_GUARD_JWT_SECRET}"}], "leeway": "3s", "optional": true},
		"takeover": "request", "on_expiry": "end", "shared_account": {"addresses": 0},
		"logout": [{"path": "/logout", "scope": "user"}]
	}`).guard
	require.NotNil(t, g.Verifier)
	require.True(t, g.Optional)
	require.False(t, g.Unverified)
	require.Equal(t, 3*time.Second, g.Leeway)
	require.Equal(t, guard.TakeoverRequest, g.Takeover)
	require.Equal(t, guard.ExpiryEnd, g.OnExpiry)
	require.Zero(t, g.Sharing.Addrs)
	require.Len(t, g.Logouts, 1)
	require.Equal(t, guard.LogoutUser, g.Logouts[0].Scope)
}

func TestLogouts_MatchMethodPathAndStatus(t *testing.T) {
	c := newConfiguration(t, storageIn(t.TempDir()))
	for name, test := range map[string]struct {
		option, method, path string
		matches              bool
		succeeds, fails      []int
	}{
		"a POST":      {`{"path": "/logout"}`, "POST", "/logout", true, []int{200, 204}, []int{199, 302, 403, 500}},
		"a DELETE":    {`{"path": "/logout"}`, "DELETE", "/logout", true, nil, nil},
		"a GET":       {`{"path": "/logout"}`, "GET", "/logout", false, nil, nil},
		"a GET, said": {`{"path": "/logout", "method": "GET"}`, "GET", "/logout", true, nil, nil},
		"method":      {`{"path": "/logout", "method": "POST"}`, "POST", "/logout", true, nil, nil},
		"not method":  {`{"path": "/logout", "method": "POST"}`, "GET", "/logout", false, nil, nil},
		"not path":    {`{"path": "/logout"}`, "POST", "/logout/all", false, nil, nil},
		"wildcard":    {`{"path": "/auth/*/logout"}`, "POST", "/auth/a/logout", true, nil, nil},
		"any case":    {`{"path": "/Logout"}`, "POST", "/logout", true, nil, nil},
		"status":      {`{"path": "/logout", "status": [302]}`, "POST", "/logout", true, []int{302}, []int{200, 303}},
		"class":       {`{"path": "/logout", "status": [2, 3]}`, "POST", "/logout", true, []int{200, 302}, []int{400}},
		"merged //":   {`{"path": "/logout"}`, "POST", "//logout", true, nil, nil},
		"parameters":  {`{"path": "/auth/logout"}], "token": [{"from": "path", "name": "jsessionid"}`, "POST", "/auth;a=1/logout;jsessionid=4D2", true, nil, nil},
		"elsewhere":   {`{"path": "/logout"}`, "POST", "/logout;jsessionid=4D2", false, nil, nil},
		"not a query": {`{"path": "/logout"}`, "POST", "/?/logout", false, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			l := c.handler(t, `{"logout": [`+test.option+`]}`).guard.Logouts[0]
			r := httptest.NewRequest(test.method, "http://example.com"+test.path, nil)
			r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), httptest.NewRecorder(), nil)
			require.Equal(t, test.matches, l.Matches(r))
			for _, status := range test.succeeds {
				require.True(t, l.Success(status), status)
			}
			for _, status := range test.fails {
				require.False(t, l.Success(status), status)
			}
		})
	}
}

func TestServeHTTP_PassesWhatIsNoStream(t *testing.T) {
	h := newConfiguration(t, storageIn(t.TempDir())).handler(t, `{}`)
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, nil)
	err := h.ServeHTTP(w, r, caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
		w.WriteHeader(http.StatusTeapot)
		return nil
	}))
	require.NoError(t, err)
	require.Equal(t, http.StatusTeapot, w.Code)
}

func TestServeHTTP_NeedsCaddyAroundIt(t *testing.T) {
	h := newConfiguration(t, storageIn(t.TempDir())).handler(t, `{}`)
	err := h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil), nil)
	require.ErrorContains(t, err, "replacer")
}

// The fields' comments become the documentation on Caddy's website.
func TestHandler_EveryFieldIsDocumented(t *testing.T) {
	for file, structs := range map[string][]string{
		"module.go":          {"Handler"},
		"jwt.go":             {"JWT", "HMACSecret", "PublicKey", "KeySet"},
		"logout.go":          {"Logout", "SharedAccount"},
		"liveness.go":        {"Flap", "Drain"},
		"matchers.go":        {"MatchClaim", "MatchHolder"},
		"identity/source.go": {"TokenSource", "ClientSource"},
	} {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
		require.NoError(t, err)
		found := 0
		ast.Inspect(parsed, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			fields, ok := spec.Type.(*ast.StructType)
			if !ok || !slices.Contains(structs, spec.Name.Name) {
				return true
			}
			found++
			for _, field := range fields.Fields.List {
				if field.Tag != nil && strings.Contains(field.Tag.Value, "json:") {
					require.NotEmpty(t, field.Doc.Text(), "%s.%s", spec.Name, field.Names)
				}
			}
			return true
		})
		require.Equal(t, len(structs), found, file)
	}
}
