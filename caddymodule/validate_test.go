package caddymodule

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// In JSON there is no file and line; the option, what was given and what is
// allowed are told all the same.
func TestValidate_ErrorsNameOptionAndAllowedValues(t *testing.T) {
	c := newConfiguration(t, storageIn(t.TempDir()))
	t.Setenv("SSE_GUARD_EMPTY", "")
	t.Setenv("SSE_GUARD_SHORT", "hunter2")
	for name, test := range map[string]struct {
		config string
		want   []string
	}{
		"policy":                    {`{"policy": "first"}`, []string{"policy", `"first"`, "supersede, reject"}},
		"takeover":                  {`{"takeover": "never"}`, []string{"takeover", `"never"`, "auto, response, request"}},
		"on_reject":                 {`{"on_reject": "drop"}`, []string{"on_reject", `"drop"`, "event, park, status"}},
		"missing_key":               {`{"missing_key": "ignore"}`, []string{"missing_key", `"ignore"`, "pass, deny"}},
		"methods":                   {`{"methods": ["GE T"]}`, []string{"methods", `"GE T"`, "the name of a method"}},
		"retry_refused":             {`{"retry_refused": [409, 600]}`, []string{"retry_refused", "600", "400 to 599"}},
		"limit":                     {`{"limit": -1}`, []string{"limit", "-1", "0 (track only) or more"}},
		"limit_unit":                {`{"limit_unit": "users"}`, []string{"limit_unit", `"users"`, "streams, clients"}},
		"retry":                     {`{"retry": -1}`, []string{"retry", "-1ns", "at least 1ms"}},
		"park, supersede":           {`{"on_reject": "park"}`, []string{"on_reject park", "policy supersede", "policy reject"}},
		"probe, supersede":          {`{"policy": "supersede", "probe": "1s"}`, []string{"probe 1s", "policy supersede", "policy reject"}},
		"reserve, supersede":        {`{"reserve": "1s"}`, []string{"reserve 1s", "policy supersede", "policy reject"}},
		"end_timeout":               {`{"end_timeout": "1us"}`, []string{"end_timeout", "1µs", "at least 1ms"}},
		"negative max_event_size":   {`{"max_event_size": -1}`, []string{"max_event_size", "-1", "1 byte to less than 2 GiB"}},
		"too large max_event_size":  {`{"max_event_size": 2147483648}`, []string{"max_event_size", "2147483648", "less than 2 GiB"}},
		"token place":               {`{"token": [{"from": "body", "name": "t"}]}`, []string{"token", `"body"`, `"header", "query", "cookie" or "path"`}},
		"token without a name":      {`{"token": [{"from": "query"}]}`, []string{"token", "without a name"}},
		"token twice":               {`{"token": [{"from": "query", "name": "t"}, {"from": "query", "name": "t"}]}`, []string{"token", "given twice"}},
		"client scope":              {`{"client": [{"from": "query", "name": "c", "scope": "window"}]}`, []string{"client", `"window"`, `"device" or "tab"`}},
		"empty key part":            {`{"key": ["a", " "]}`, []string{"key", "part 2 is empty", "a placeholder or a word"}},
		"unknown placeholder":       {`{"key": ["a", "b {sse_guard.user}"]}`, []string{"key", "{sse_guard.user}", "{sse_guard.token}, {sse_guard.client}, {sse_guard.claims.*}"}},
		"claim without an s":        {`{"key": ["{sse_guard.claim.sub}"]}`, []string{"key", "{sse_guard.claim.sub}", "{sse_guard.claims.*}"}},
		"zone with a placeholder":   {`{"zone": "{http.request.host}"}`, []string{"zone", "{http.request.host}", "not replaced here"}},
		"logout path of a claim":    {`{"logout": [{"path": "/{sse_guard.claims.sub}/logout"}]}`, []string{"logout", "{sse_guard.claims.sub}", "none"}},
		"key made of the key":       {`{"key": ["{sse_guard.key}"]}`, []string{"key", "{sse_guard.key}", "{sse_guard.token}, {sse_guard.client}"}},
		"unclosed placeholder":      {`{"key": ["{http.request.host} {http.request.ur"]}`, []string{"key", "part 1", "{http.request.ur", "write: {name}"}},
		"come_back":                 {`{"come_back": "gently"}`, []string{"come_back", `"gently"`, "cut, clean"}},
		"hold":                      {`{"hold": "99ms"}`, []string{"hold", "99ms", "at least 100ms"}},
		"negative hold":             {`{"hold": -1}`, []string{"hold", "-1ns", "at least 100ms"}},
		"stall_after":               {`{"stall_after": "1ms"}`, []string{"stall_after", "1ms", "at least 100ms"}},
		"message of unknown reason": {`{"messages": {"kicked": "X"}}`, []string{"message", `"kicked"`, "superseded, replaced, parked, rejected"}},
		"message without text":      {`{"messages": {"logout": ""}}`, []string{"message logout", `""`, "what a person may read"}},
		"message with a typo":       {`{"messages": {"logout": "{sse_guard.user}"}}`, []string{"message logout", "{sse_guard.user}"}},
		"label without a value":     {`{"labels": {"room": ""}}`, []string{"label room", `""`, "a placeholder such as"}},
		"labels, nine":              {`{"labels": {"a": "{a}", "b": "{a}", "c": "{a}", "d": "{a}", "e": "{a}", "f": "{a}", "g": "{a}", "h": "{a}", "i": "{a}"}}`, []string{"label", "9", "8"}},
		"presence without a label":  {`{"presence": [{"label": "room", "event": "P"}]}`, []string{"presence", `no label "room"`, "label <name>"}},
		"presence without an event": {`{"labels": {"room": "{http.vars.a}"}, "presence": [{"label": "room"}]}`, []string{"presence room", `""`, "one line of text"}},
		"presence of two lines":     {`{"labels": {"room": "{http.vars.a}"}, "presence": [{"label": "room", "event": "a\nb"}]}`, []string{"presence room", `"a\nb"`, "one line of text"}},
		"presence, too seldom":      {`{"labels": {"room": "{http.vars.a}"}, "presence": [{"label": "room", "event": "P", "interval": "2h"}]}`, []string{"presence room", "2h0m0s", "100ms to 1h"}},
		"label's name":              {`{"labels": {"the room": "{http.vars.a}"}}`, []string{"label", `"the room"`, "a-z, 0-9 and _"}},
		"event of unknown reason":   {`{"events": {"kicked": "X"}}`, []string{"event", `"kicked"`, "superseded, replaced, parked, rejected"}},
		"event without a name":      {`{"events": {"superseded": " "}}`, []string{"event superseded", `" "`, "one line of text"}},
		"event name of two lines":   {`{"events": {"superseded": "a\nb"}}`, []string{"event superseded", `"a\nb"`, "one line of text"}},
		"reject without a limit":    {`{"limit": 0, "policy": "reject"}`, []string{"limit 0", "policy reject", "a limit of 1 or more"}},
		"secret of unset variable":  {`{"secret": "{env.SSE_GUARD_EMPTY}"}`, []string{"secret", "{env.SSE_GUARD_EMPTY}", "empty", "at least 16 bytes"}},
		"secret of unknown name":    {`{"secret": "{vault.key}"}`, []string{"secret", "{vault.key}", "unrecognized", "at least 16 bytes"}},
		"secret that is too short":  {`{"secret": "{env.SSE_GUARD_SHORT}"}`, []string{"secret", "7 bytes", "at least 16"}},
		"webhook without a secret":  {`{"webhooks": [{"url": "http://a.example"}]}`, []string{"webhook", "secret is missing", "secret {env."}},
		"webhook without a URL":     {`{"webhooks": [{"secret": "hunter2hunter2hunter2"}]}`, []string{"webhook", "https:// or http://"}},
		"webhook, event":            {`{"webhooks": [{"url": "http://a.example", "secret": "hunter2", "events": ["left"]}]}`, []string{"webhook", "events", `"left"`, "admitted, ended, rejected, returned"}},
		"webhook, short secret":     {`{"webhooks": [{"url": "http://a.example", "secret": "{env.SSE_GUARD_SHORT}"}]}`, []string{"webhook", "secret", "7 bytes", "16"}},
		"webhook, unset secret":     {`{"webhooks": [{"url": "http://a.example", "secret": "{env.SSE_GUARD_EMPTY}"}]}`, []string{"webhook", "secret", "{env.SSE_GUARD_EMPTY}", "empty"}},
		"webhook, unset URL":        {`{"webhooks": [{"url": "{env.SSE_GUARD_EMPTY}", "secret": "0123456789abcdef"}]}`, []string{"webhook", "URL", "{env.SSE_GUARD_EMPTY}", "empty"}},
		"webhook, URL of a secret":  {`{"webhooks": [{"url": "{env.SSE_GUARD_SHORT}", "secret": "0123456789abcdef"}]}`, []string{"webhook", "https:// or http://"}},
		"request without jwt":       {`{"takeover": "request"}`, []string{"takeover request", "jwt", "takeover auto"}},
		"request at the header":     {`{"takeover": "request", "key": ["{http.reverse_proxy.header.X-User}"], "jwt": {"public_keys": [{"file": "a"}]}}`, []string{"takeover request", "key"}},
		"request unverified":        {`{"takeover": "request", "token": [{"from": "query", "name": "t"}], "jwt": {"unverified": true}}`, []string{"takeover request", "verified"}},
		"on_expiry":                 {`{"on_expiry": "never"}`, []string{"on_expiry", `"never"`, "renew, end, keep"}},
		"on_expiry without jwt":     {`{"on_expiry": "keep"}`, []string{"on_expiry keep", "jwt"}},
		"claims without jwt":        {`{"key": ["a", "{sse_guard.claims.sub}"]}`, []string{"key", "{sse_guard.claims.sub}", "jwt"}},
		"jwt without a key":         {`{"jwt": {}}`, []string{"jwt", "hmac_secret, public_key or jwks"}},
		"unverified with a key":     {`{"jwt": {"unverified": true, "public_keys": [{"file": "a"}]}}`, []string{"jwt", "unverified", "public_key"}},
		"unverified with rules":     {`{"jwt": {"unverified": true, "issuers": ["a"]}}`, []string{"jwt", "unverified", "issuer"}},
		"unverified, many tokens":   {`{"jwt": {"unverified": true}}`, []string{"jwt unverified", "exactly one token option", "got 4"}},
		"unverified user logout":    {`{"token": [{"from": "query", "name": "t"}], "jwt": {"unverified": true}, "logout": [{"path": "/out", "scope": "user"}]}`, []string{"logout /out user", "verified"}},
		"user logout without jwt":   {`{"logout": [{"path": "/out", "scope": "user"}]}`, []string{"logout /out user", "jwt"}},
		"optional and required":     {`{"require_token": true, "jwt": {"optional": true, "public_keys": [{"file": "a"}]}}`, []string{"require_token", "optional"}},
		"jwks of another scheme":    {`{"jwt": {"jwks": [{"url": "ftp://a.example/"}]}}`, []string{"jwks", "ftp://a.example/", "https://"}},
		"jwks refreshed too often":  {`{"jwt": {"jwks": [{"url": "https://a.example/", "refresh": "1ms"}]}}`, []string{"jwks", "1ms", "1s"}},
		"secret nowhere":            {`{"jwt": {"hmac_secrets": [{}]}}`, []string{"hmac_secret", "either"}},
		"jwt secret of unset name":  {`{"jwt": {"hmac_secrets": [{"secret": "{env.SSE_GUARD_EMPTY}"}]}}`, []string{"jwt", "hmac_secret", "{env.SSE_GUARD_EMPTY}"}},
		"jwt secret without file":   {`{"jwt": {"hmac_secrets": [{"file": "hunter2"}]}}`, []string{"jwt", "hmac_secret", "no such file", "placeholder"}},
		"public key without file":   {`{"jwt": {"public_keys": [{"file": "/nowhere"}]}}`, []string{"jwt", "public_key", "/nowhere"}},
		"public key that is none":   {`{"jwt": {"public_keys": [{"file": "validate_test.go"}]}}`, []string{"jwt", "public_key", "validate_test.go", "PEM"}},
		"unknown algorithm":         {`{"jwt": {"algorithms": ["none"], "jwks": [{"url": "https://a.invalid/"}]}}`, []string{"jwt", "none"}},
		"negative leeway":           {`{"jwt": {"leeway": -1, "jwks": [{"url": "https://a.invalid/"}]}}`, []string{"leeway", "-1ns"}},
		"logout path":               {`{"logout": [{"path": "logout"}]}`, []string{"logout", `"logout"`, "begins with / or *"}},
		"logout method":             {`{"logout": [{"path": "/", "method": "post"}]}`, []string{"logout", `"post"`, "capitals"}},
		"logout by OPTIONS":         {`{"logout": [{"path": "/", "method": "OPTIONS"}]}`, []string{"logout", "OPTIONS"}},
		"logout deny":               {`{"logout": [{"path": "/", "deny": 5}]}`, []string{"logout: deny", "5ns", "at least 1s"}},
		"allow_origin":              {`{"allow_origin": ["null"]}`, []string{"allow_origin", `"null"`, "a scheme and a host"}},
		"logout status":             {`{"logout": [{"path": "/", "status": [20]}]}`, []string{"logout", "20", "100 to 599"}},
		"logout scope":              {`{"logout": [{"path": "/", "scope": "all"}]}`, []string{"logout", `"all"`, "client, user, token"}},
		"heartbeat too short":       {`{"heartbeat": "1ms"}`, []string{"heartbeat", "1ms", "100ms"}},
		"negative probe":            {`{"probe": -1}`, []string{"probe", "-1ns", "100ms"}},
		"heartbeat, dead_after":     {`{"heartbeat": "30s", "dead_after": "30s"}`, []string{"heartbeat 30s", "dead_after 30s", "shorter"}},
		"max_age too short":         {`{"max_age": "10ms"}`, []string{"max_age", "10ms", "1s"}},
		"flap count":                {`{"flap": {"count": -1}}`, []string{"flap", "-1 times", "flap off"}},
		"flap half-life":            {`{"flap": {"count": 3, "half_life": 1000}}`, []string{"flap", "1µs", "1s"}},
		"drain window":              {`{"drain": {"window": 0}}`, []string{"drain", "0s", "1s"}},
		"drain rate":                {`{"drain": {"window": "1s", "rate": -1}}`, []string{"drain", "-1"}},
		"too few addresses":         {`{"shared_account": {"addresses": 1, "window": "1m"}}`, []string{"shared_account", "1 addresses", "off"}},
		"too short a window":        {`{"shared_account": {"addresses": 5}}`, []string{"shared_account", "0s", "1s"}},
		"registry that is unknown":  {`{"registry": {"module": "etcd"}}`, []string{"registry", "etcd"}},
		"registry without a module": {`{"registry": {}}`, []string{"registry", "module"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.handlerOrErr(test.config)
			require.Error(t, err)
			for _, part := range test.want {
				require.ErrorContains(t, err, part)
			}
			require.NotRegexp(t, `: ,|: ?$|: ;|  `, err.Error(), "an empty list")
			require.NotContains(t, err.Error(), "hunter2", "a secret is not told")
		})
	}
}

func TestValidate_AcceptsTheBounds(t *testing.T) {
	c := newConfiguration(t, storageIn(t.TempDir()))
	for _, config := range []string{
		`{"limit": 0}`,
		`{"probe": 0, "reserve": 0}`,
		`{"reserve": "2s", "webhooks": [{"url": "http://a.example/?b=c", "secret": "0123456789abcdef", "events": ["ended"]}]}`,
		`{"policy": "reject", "probe": "2s", "reserve": "2s", "on_reject": "park"}`,
		`{"limit": 0, "policy": "supersede"}`,
		`{"limit": 1, "policy": "reject"}`,
		`{"end_timeout": "1ms"}`,
		`{"retry": 0}`,
		`{"hold": 0}`,
		`{"hold": "100ms"}`,
		`{"stall_after": 0}`,
		`{"messages": {"logout": "{sse_guard.key} {sse_guard.client} { and }"}}`,
		`{"labels": {"room": "{http.request.uri.query.room}", "user_2": "the {sse_guard.token}"}}`,
		`{"max_event_size": 1}`,
		`{"max_event_size": 2147483647}`,
		`{"secret": "0123456789abcdef"}`,
		`{"key": ["{http.request.host}{http.request.uri.path}", "a word"]}`,
		`{"key": ["a {sse_guard.token}-{sse_guard.client}", "{my.sse_guard.user}"]}`,
	} {
		_, err := c.handlerOrErr(config)
		require.NoError(t, err, config)
	}
}

// A number without a unit is one of nanoseconds in JSON: "retry": 5 would be told to
// clients as no time at all. Every duration of the configuration has a least.
func TestValidate_NoDurationIsANumberOfNanoseconds(t *testing.T) {
	seen := 0
	var try func(path string, at func(*Handler) reflect.Value, typ reflect.Type)
	try = func(path string, at func(*Handler) reflect.Value, typ reflect.Type) {
		switch {
		case typ == reflect.TypeFor[caddy.Duration]():
			seen++
			t.Run(path, func(t *testing.T) {
				set := func(d time.Duration) error {
					h := plausible()
					at(h).SetInt(int64(d))
					h.setDefaults()
					return h.Validate()
				}
				require.Error(t, set(5))
				require.Error(t, set(-1))
				require.NoError(t, set(20*time.Second))
			})
		case typ.Kind() == reflect.Pointer:
			try(path, func(h *Handler) reflect.Value {
				v := at(h)
				if v.IsNil() {
					v.Set(reflect.New(typ.Elem()))
				}
				return v.Elem()
			}, typ.Elem())
		case typ.Kind() == reflect.Slice && typ.Elem().Kind() == reflect.Struct:
			try(path, func(h *Handler) reflect.Value {
				v := at(h)
				if v.Len() == 0 {
					v.Set(reflect.MakeSlice(typ, 1, 1))
				}
				return v.Index(0)
			}, typ.Elem())
		case typ.Kind() == reflect.Struct:
			for i := range typ.NumField() {
				if f := typ.Field(i); f.IsExported() {
					try(fmt.Sprintf("%s %s", path, f.Name), func(h *Handler) reflect.Value { return at(h).Field(i) }, f.Type)
				}
			}
		}
	}
	try("Handler", func(h *Handler) reflect.Value { return reflect.ValueOf(h).Elem() }, reflect.TypeFor[Handler]())
	require.Greater(t, seen, 10)
}

// plausible is a handler whose durations may all be given.
func plausible() *Handler {
	return &Handler{
		Policy:        registry.Reject,
		JWT:           &JWT{JWKS: []KeySet{{URL: "https://a.example/"}}},
		Flap:          &Flap{Count: 4},
		Drain:         &Drain{Window: caddy.Duration(time.Minute)},
		SharedAccount: &SharedAccount{Addresses: 5, Window: caddy.Duration(time.Minute)},
		Logout:        []Logout{{Path: "/logout"}},
		Labels:        map[string]string{"room": "{http.request.uri.query.room}"},
		Presence:      []Presence{{Label: "room", Event: "PRESENCE"}},
	}
}
