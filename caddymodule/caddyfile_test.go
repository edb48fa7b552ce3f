package caddymodule

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// parse reads the block of an sse_guard directive, which begins on line 2.
func parse(block string) (*Handler, error) {
	tokens, err := caddyfile.Tokenize([]byte("sse_guard {\n"+block+"\n}"), "Caddyfile")
	if err != nil {
		return nil, errors.Join(errLexer, err)
	}
	h := new(Handler)
	return h, h.UnmarshalCaddyfile(caddyfile.NewDispenser(tokens))
}

var errLexer = errors.New("not a Caddyfile")

// adapt turns a Caddyfile into JSON, as `caddy adapt` does.
func adapt(t testing.TB, text string) []byte {
	t.Helper()
	adapted, warnings, err := adaptOrErr(text)
	require.NoError(t, err, text)
	require.Empty(t, warnings, text)
	return adapted
}

func adaptOrErr(text string) ([]byte, []caddyconfig.Warning, error) {
	return caddyconfig.GetAdapter("caddyfile").Adapt(caddyfile.Format([]byte(text)), map[string]any{"filename": "Caddyfile"})
}

// optionForms has every option in every form, and the JSON it stands for.
var optionForms = map[string]struct{ block, json string }{
	"nothing":               {``, `{}`},
	"zone":                  {`zone shop`, `{"zone":"shop"}`},
	"zone, quoted":          {`zone "my shop"`, `{"zone":"my shop"}`},
	"token header":          {`token header X-Api-Key`, `{"token":[{"from":"header","name":"X-Api-Key"}]}`},
	"token query":           {`token query t`, `{"token":[{"from":"query","name":"t"}]}`},
	"token cookie":          {`token cookie sid`, `{"token":[{"from":"cookie","name":"sid"}]}`},
	"token path":            {`token path jsessionid`, `{"token":[{"from":"path","name":"jsessionid"}]}`},
	"token, repeated":       {"token header A\ntoken query a\ntoken query b", `{"token":[{"from":"header","name":"A"},{"from":"query","name":"a"},{"from":"query","name":"b"}]}`},
	"client header":         {`client header X-Device`, `{"client":[{"from":"header","name":"X-Device"}]}`},
	"client query":          {`client query c`, `{"client":[{"from":"query","name":"c"}]}`},
	"client cookie":         {`client cookie c`, `{"client":[{"from":"cookie","name":"c"}]}`},
	"client, device":        {`client query c device`, `{"client":[{"from":"query","name":"c","scope":"device"}]}`},
	"client, tab":           {`client query c tab`, `{"client":[{"from":"query","name":"c","scope":"tab"}]}`},
	"client, repeated":      {"client query c tab\nclient cookie d", `{"client":[{"from":"query","name":"c","scope":"tab"},{"from":"cookie","name":"d"}]}`},
	"key, one part":         {`key {http.request.header.X-User}`, `{"key":["{http.request.header.X-User}"]}`},
	"key, many parts":       {`key {sse_guard.token} orders "{http.vars.a} x"`, `{"key":["{sse_guard.token}","orders","{http.vars.a} x"]}`},
	"missing_key pass":      {`missing_key pass`, `{"missing_key":"pass"}`},
	"missing_key deny":      {`missing_key deny`, `{"missing_key":"deny"}`},
	"methods":               {`methods GET post`, `{"methods":["GET","post"]}`},
	"methods any":           {`methods any`, `{"methods":["any"]}`},
	"limit":                 {`limit 3`, `{"limit":3}`},
	"limit 0":               {`limit 0`, `{"limit":0}`},
	"limit in streams":      {`limit 2 streams`, `{"limit":2,"limit_unit":"streams"}`},
	"limit in clients":      {`limit 2 clients`, `{"limit":2,"limit_unit":"clients"}`},
	"policy supersede":      {`policy supersede`, `{"policy":"supersede"}`},
	"policy reject":         {`policy reject`, `{"policy":"reject"}`},
	"takeover auto":         {`takeover auto`, `{"takeover":"auto"}`},
	"takeover request":      {"takeover request\njwt {\n\tpublic_key k.pem\n}", `{"takeover":"request","jwt":{"public_keys":[{"file":"k.pem"}]}}`},
	"jwt secret":            {"jwt {\n\thmac_secret {env.S}\n\thmac_secret /run/s old\n}", `{"jwt":{"hmac_secrets":[{"secret":"{env.S}"},{"file":"/run/s","kid":"old"}]}}`},
	"jwt keys":              {"jwt {\n\tpublic_key a.pem\n\tpublic_key b.pem b\n\tjwks https://a.example/jwks\n\tjwks https://b.example/jwks 10m\n}", `{"jwt":{"public_keys":[{"file":"a.pem"},{"file":"b.pem","kid":"b"}],"jwks":[{"url":"https://a.example/jwks"},{"url":"https://b.example/jwks","refresh":600000000000}]}}`},
	"jwt issuers":           {"jwt {\n\thmac_secret {env.S} issuer https://a.example\n\tpublic_key b.pem b issuer https://b.example B\n\tjwks https://c.example/jwks 10m issuer C\n\tjwks https://d.example/jwks issuer {env.D}\n}", `{"jwt":{"hmac_secrets":[{"secret":"{env.S}","issuers":["https://a.example"]}],"public_keys":[{"file":"b.pem","kid":"b","issuers":["https://b.example","B"]}],"jwks":[{"url":"https://c.example/jwks","refresh":600000000000,"issuers":["C"]},{"url":"https://d.example/jwks","issuers":["{env.D}"]}]}}`},
	"jwt rules":             {"jwt {\n\tpublic_key a.pem\n\talgorithms RS256 ES256\n\tissuer a b\n\taudience c d\n\tleeway 5s\n\trequire exp sub\n\toptional\n}", `{"jwt":{"public_keys":[{"file":"a.pem"}],"algorithms":["RS256","ES256"],"issuers":["a","b"],"audiences":["c","d"],"leeway":5000000000,"require":["exp","sub"],"optional":true}}`},
	"jwt unverified":        {"token cookie sid\njwt {\n\tunverified\n}\nkey {sse_guard.claims.sub}", `{"token":[{"from":"cookie","name":"sid"}],"key":["{sse_guard.claims.sub}"],"jwt":{"unverified":true}}`},
	"on_expiry":             {"on_expiry keep\njwt {\n\tpublic_key a.pem\n}", `{"on_expiry":"keep","jwt":{"public_keys":[{"file":"a.pem"}]}}`},
	"logout":                {`logout /logout`, `{"logout":[{"path":"/logout"}]}`},
	"logout, scope":         {`logout /logout token`, `{"logout":[{"path":"/logout","scope":"token"}]}`},
	"logout, status":        {`logout POST /logout 302`, `{"logout":[{"method":"POST","path":"/logout","status":[302]}]}`},
	"logout, deny":          {`logout /logout deny 1h`, `{"logout":[{"path":"/logout","deny":3600000000000}]}`},
	"logout, deny, status":  {`logout /logout token 2xx 302 deny 1m`, `{"logout":[{"path":"/logout","scope":"token","status":[2,302],"deny":60000000000}]}`},
	"logout, everything":    {"logout POST /api/logout client 2xx 302\nlogout * token\nlogout DELETE */session", `{"logout":[{"method":"POST","path":"/api/logout","scope":"client","status":[2,302]},{"path":"*","scope":"token"},{"method":"DELETE","path":"*/session"}]}`},
	"shared_account":        {`shared_account 3 1h`, `{"shared_account":{"addresses":3,"window":3600000000000}}`},
	"heartbeat":             {`heartbeat 5s`, `{"heartbeat":5000000000}`},
	"heartbeat off":         {`heartbeat off`, `{"heartbeat":0}`},
	"dead_after":            {`dead_after 1m`, `{"dead_after":60000000000}`},
	"dead_after off":        {`dead_after off`, `{"dead_after":0}`},
	"probe":                 {"probe 500ms\npolicy reject", `{"policy":"reject","probe":500000000}`},
	"probe off":             {`probe off`, `{"probe":0}`},
	"reserve":               {"reserve 10s\npolicy reject", `{"policy":"reject","reserve":10000000000}`},
	"reserve, webhook":      {"reserve 10s\nwebhook https://app.example/hook {\n\tsecret {env.S}\n}", `{"reserve":10000000000,"webhooks":[{"url":"https://app.example/hook","secret":"{env.S}"}]}`},
	"webhook":               {"webhook {env.HOOK} {\n\tevents ended returned\n\tsecret {env.S}\n}\nwebhook http://b.example {\n\tsecret s\n}", `{"webhooks":[{"url":"{env.HOOK}","secret":"{env.S}","events":["ended","returned"]},{"url":"http://b.example","secret":"s"}]}`},
	"reserve off":           {`reserve off`, `{"reserve":0}`},
	"flap":                  {`flap 3 2m`, `{"flap":{"count":3,"half_life":120000000000}}`},
	"flap, a count alone":   {`flap 3`, `{"flap":{"count":3,"half_life":60000000000}}`},
	"flap off":              {`flap off`, `{"flap":{"count":0}}`},
	"max_age":               {`max_age 25m`, `{"max_age":1500000000000}`},
	"drain":                 {`drain 20s`, `{"drain":{"window":20000000000}}`},
	"drain, rate":           {`drain 20s 500`, `{"drain":{"window":20000000000,"rate":500}}`},
	"shared_account off":    {`shared_account off`, `{"shared_account":{"addresses":0}}`},
	"takeover response":     {`takeover response`, `{"takeover":"response"}`},
	"retry_refused":         {`retry_refused 409 429`, `{"retry_refused":[409,429]}`},
	"retry_refused off":     {`retry_refused off`, `{"retry_refused":[]}`},
	"allow_origin":          {`allow_origin https://app.example.com http://localhost:3000`, `{"allow_origin":["https://app.example.com","http://localhost:3000"]}`},
	"allow_origin any":      {`allow_origin any`, `{"allow_origin":["any"]}`},
	"require_token":         {`require_token`, `{"require_token":true}`},
	"on_reject event":       {`on_reject event`, `{"on_reject":"event"}`},
	"on_reject park":        {"on_reject park\npolicy reject", `{"policy":"reject","on_reject":"park"}`},
	"on_reject status":      {`on_reject status`, `{"on_reject":"status"}`},
	"retry":                 {`retry 1500ms`, `{"retry":1500000000}`},
	"retry, in days":        {`retry 1d`, `{"retry":86400000000000}`},
	"end_timeout":           {`end_timeout 2s`, `{"end_timeout":2000000000}`},
	"end_timeout, least":    {`end_timeout 1ms`, `{"end_timeout":1000000}`},
	"max_event_size":        {`max_event_size 256KiB`, `{"max_event_size":262144}`},
	"max_event_size, bytes": {`max_event_size 1`, `{"max_event_size":1}`},
	"max_event_size, SI":    {`max_event_size 1MB`, `{"max_event_size":1000000}`},
	"come_back":             {`come_back clean`, `{"come_back":"clean"}`},
	"hold":                  {`hold 1s`, `{"hold":1000000000}`},
	"hold, least":           {`hold 100ms`, `{"hold":100000000}`},
	"stall_after":           {`stall_after 2m`, `{"stall_after":120000000000}`},
	"stall_after off":       {`stall_after off`, `{"stall_after":0}`},
	"message":               {`message logout "로그아웃되었습니다, {http.request.header.X-Name}"`, `{"messages":{"logout":"로그아웃되었습니다, {http.request.header.X-Name}"}}`},
	"label":                 {`label room {http.request.uri.query.room}`, `{"labels":{"room":"{http.request.uri.query.room}"}}`},
	"presence":              {"presence room PRESENCE\nlabel room {http.vars.a}", `{"labels":{"room":"{http.vars.a}"},"presence":[{"label":"room","event":"PRESENCE"}]}`},
	"presence, interval":    {"label room {http.vars.a}\npresence room PRESENCE 250ms", `{"labels":{"room":"{http.vars.a}"},"presence":[{"label":"room","event":"PRESENCE","interval":250000000}]}`},
	"label, twice":          {"label room {http.vars.a}\nlabel plan \"the {http.vars.b}\"", `{"labels":{"room":"{http.vars.a}","plan":"the {http.vars.b}"}}`},
	"message, twice":        {"message logout Bye\nmessage rejected Busy", `{"messages":{"logout":"Bye","rejected":"Busy"}}`},
	"event superseded":      {`event superseded KICKED`, `{"events":{"superseded":"KICKED"}}`},
	"event, repeated":       {"event rejected BUSY\nevent replaced \"Moved on\"\nevent parked WAIT", `{"events":{"parked":"WAIT","rejected":"BUSY","replaced":"Moved on"}}`},
	"secret":                {`secret {env.SSE_GUARD_SECRET}`, `{"secret":"{env.SSE_GUARD_SECRET}"}`},
	"registry":              {`registry memory`, `{"registry":{"module":"memory"}}`},
	"registry, empty block": {"registry memory {\n}", `{"registry":{"module":"memory"}}`},
	"registry with options": {"registry recording {\n\tcolour blue\n}\nlimit 2", `{"limit":2,"registry":{"colour":"blue","module":"recording"}}`},
}

func TestCaddyfile_OptionsBecomeJSON(t *testing.T) {
	for name, form := range optionForms {
		t.Run(name, func(t *testing.T) {
			h, err := parse(form.block)
			require.NoError(t, err)
			got, err := json.Marshal(h)
			require.NoError(t, err)
			require.JSONEq(t, form.json, string(got))
		})
	}
}

func TestCaddyfile_EveryOptionHasAForm(t *testing.T) {
	for _, o := range jwtOptions {
		require.True(t, slices.ContainsFunc(blocks(), func(b string) bool {
			return strings.Contains(b, "\t"+o.name)
		}), "option %s of jwt is in no test", o.name)
	}
	for _, o := range options {
		require.True(t, slices.ContainsFunc(blocks(), func(b string) bool {
			return strings.HasPrefix(b, o.name)
		}), "option %s is in no test", o.name)
	}
}

// isOption reports whether an error's first word is the name of an option.
func isOption(name string) bool {
	name, _, _ = strings.Cut(name, " ")
	_, ok := optionNamed(options, name)
	return ok
}

func blocks() (all []string) {
	for _, form := range optionForms {
		all = append(all, form.block)
	}
	return all
}

func TestCaddyfile_SurvivesJSONAndDefaults(t *testing.T) {
	for name, form := range optionForms {
		t.Run(name, func(t *testing.T) {
			h, err := parse(form.block)
			require.NoError(t, err)
			require.Equal(t, h, throughJSON(t, h))

			h.setDefaults()
			require.NoError(t, h.Validate())
			again := throughJSON(t, h)
			again.setDefaults()
			require.Equal(t, h, again, "the defaults are what their JSON says")
		})
	}
}

// throughJSON writes h as JSON and reads it as strictly as Caddy does.
func throughJSON(t require.TestingT, h *Handler) *Handler {
	written, err := json.Marshal(h)
	require.NoError(t, err)
	var read Handler
	require.NoError(t, caddy.StrictUnmarshalJSON(written, &read), "%s", written)
	return &read
}

func TestDefaults(t *testing.T) {
	h := new(Handler)
	h.setDefaults()
	got, err := json.Marshal(h)
	require.NoError(t, err)
	require.JSONEq(t, `{
		"zone": "default",
		"token": [
			{"from": "header", "name": "Authorization"},
			{"from": "query", "name": "token"},
			{"from": "query", "name": "access_token"},
			{"from": "cookie", "name": "access_token"}
		],
		"client": [
			{"from": "header", "name": "X-Client-Id", "scope": "device"},
			{"from": "query", "name": "client_id", "scope": "device"}
		],
		"missing_key": "pass",
		"limit": 1,
		"limit_unit": "streams",
		"policy": "supersede",
		"takeover": "auto",
		"retry_refused": [409],
		"on_expiry": "renew",
		"heartbeat": 15000000000,
		"dead_after": 30000000000,
		"stall_after": 0,
		"probe": 1000000000,
		"reserve": 3000000000,
		"flap": {"count": 4, "half_life": 60000000000},
		"drain": {"window": 6000000000},
		"shared_account": {"addresses": 5, "window": 600000000000},
		"on_reject": "event",
		"come_back": "cut",
		"end_timeout": 1000000000,
		"hold": 250000000,
		"max_event_size": 1048576
	}`, string(got))
}

func TestDefaults_KeepWhatIsGiven(t *testing.T) {
	zero := 0
	h := &Handler{Limit: &zero, Policy: registry.Reject, Zone: "z"}
	h.setDefaults()
	require.Equal(t, 0, *h.Limit)
	require.Equal(t, registry.Reject, h.Policy)
	require.Equal(t, "z", h.Zone)
}

// The order of handlers decides what is guarded: nothing, if the guard came
// after them.
func TestCaddyfile_GuardStandsBeforeWhatItGuards(t *testing.T) {
	const upstream = "reverse_proxy localhost:8000"
	for name, test := range map[string]struct {
		site string
		want []string
	}{
		"bare reverse_proxy": {upstream + "\nsse_guard", []string{"sse_guard", "reverse_proxy"}},
		"handle":             {"handle /api/* {\n" + upstream + "\n}\nsse_guard", []string{"sse_guard", "subroute"}},
		"handle_path":        {"handle_path /api/* {\n" + upstream + "\n}\nsse_guard", []string{"sse_guard", "subroute"}},
		"route":              {"route {\n" + upstream + "\n}\nsse_guard", []string{"sse_guard", "subroute"}},
		"with a matcher":     {upstream + "\nsse_guard /events", []string{"sse_guard", "reverse_proxy"}},
		"after authentication and rewriting": {
			"sse_guard\nuri strip_prefix /x\nbasic_auth {\nann $2a$14$Zkx19XLiW6VYouLHR5NmfOFU0z2GTNmpkT/5qqR7hx4IjWJPDhjvG\n}\n" + upstream,
			[]string{"rewrite", "authentication", "sse_guard", "reverse_proxy"},
		},
		"where it is written, inside route": {"route {\nsse_guard\n" + upstream + "\n}", []string{"subroute"}},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, test.want, siteHandlers(t, adapt(t, "http://example.com {\n"+test.site+"\n}")))
		})
	}
}

// siteHandlers lists the handlers of a one-site configuration in the order in
// which a request meets them; what is inside subroutes of the site counts as
// one.
func siteHandlers(t *testing.T, adapted []byte) (names []string) {
	type route struct {
		Handle []struct {
			Handler string          `json:"handler"`
			Routes  json.RawMessage `json:"routes"`
		} `json:"handle"`
	}
	var config struct {
		Apps struct {
			HTTP struct {
				Servers map[string]struct {
					Routes []route `json:"routes"`
				} `json:"servers"`
			} `json:"http"`
		} `json:"apps"`
	}
	require.NoError(t, json.Unmarshal(adapted, &config))
	routes := config.Apps.HTTP.Servers["srv0"].Routes
	require.Len(t, routes, 1)
	require.Equal(t, "subroute", routes[0].Handle[0].Handler)
	var site []route
	require.NoError(t, json.Unmarshal(routes[0].Handle[0].Routes, &site))
	for _, r := range site {
		for _, h := range r.Handle {
			names = append(names, h.Handler)
		}
	}
	return names
}

func TestCaddyfile_ShortPlaceholdersAreSpelledOut(t *testing.T) {
	adapted := adapt(t, `http://example.com {
		sse_guard {
			key {rp.header.X-User} {host} {path} {header.X-A} {sse_guard.client}
		}
		reverse_proxy localhost:8000
	}`)
	require.Contains(t, string(adapted), `"key":["{http.reverse_proxy.header.X-User}","{http.request.host}","{http.request.uri.path}","{http.request.header.X-A}","{sse_guard.client}"]`)
}

func TestCaddyfile_Errors(t *testing.T) {
	const options = "allow_origin, client, come_back, dead_after, drain, end_timeout, event, flap, heartbeat, hold, jwt, key, label, limit, logout, max_age, max_event_size, message, methods, missing_key, on_expiry, on_reject, policy, presence, probe, registry, require_token, reserve, retry, retry_refused, secret, shared_account, stall_after, takeover, token, webhook, zone"
	for name, test := range map[string]struct {
		block string
		// parts of the message: the line, the option, what was given, what is
		// allowed. The block begins on line 3.
		want []string
	}{
		"unknown option": {`polcy reject`, []string{"Caddyfile:3", `"polcy"`, options}},

		"wrong policy":      {"limit 2\npolicy first", []string{"Caddyfile:4", "policy", `"first"`, "supersede, reject"}},
		"request alone":     {`takeover request`, []string{"Caddyfile:4", "takeover request", "jwt", "takeover auto"}},
		"jwt, argument":     {`jwt yes`, []string{"Caddyfile:3", "jwt", `"yes"`}},
		"jwt, empty":        {"jwt {\n}", []string{"Caddyfile:4", "jwt", "hmac_secret, public_key or jwks"}},
		"jwt, twice":        {"jwt {\npublic_key a\n}\njwt {\npublic_key a\n}", []string{"Caddyfile:6", "jwt", "twice"}},
		"jwt, unknown":      {"jwt {\npublickey a\n}", []string{"Caddyfile:4", `"publickey"`, "of jwt", "algorithms, audience, hmac_secret, issuer, jwks, leeway, optional, public_key, require, unverified"}},
		"jwt, block":        {"jwt {\noptional {\nx\n}\n}", []string{"Caddyfile:4", "optional", "no block"}},
		"jwt, no file":      {"jwt {\npublic_key\n}", []string{"Caddyfile:4", "public_key", "0 arguments", "public_key <PEM file> [<kid>]"}},
		"jwt, refresh":      {"jwt {\njwks https://a.example/ often\n}", []string{"Caddyfile:4", "jwks", `"often"`, "at least 1s"}},
		"jwt, free keys":    {"jwt {\nhmac_secret {env.A}\nhmac_secret {env.B}\nissuer A B\n}", []string{"Caddyfile:7", "several issuers and several keys", "write: hmac_secret <placeholder or file> issuer <name...>"}},
		"jwt, a free key":   {"jwt {\nhmac_secret {env.A} issuer A\npublic_key b.pem\n}", []string{"Caddyfile:6", "write: public_key b.pem issuer <name...>"}},
		"jwt, a free set":   {"jwt {\nhmac_secret {env.A} issuer A\njwks https://u:p@b.example/jwks\n}", []string{"Caddyfile:6", "write: jwks https://u:xxxxx@b.example/jwks issuer <name...>"}},
		"jwt, stranger":     {"jwt {\nhmac_secret {env.A} issuer C\nissuer A B\n}", []string{"Caddyfile:6", `"C"`, "none of the accepted ones: A, B"}},
		"jwt, keyless":      {"jwt {\nhmac_secret {env.A} issuer A\nissuer A B\n}", []string{"Caddyfile:6", `no key is for "B"`, "issuer B"}},
		"jwt, no issuer":    {"jwt {\nhmac_secret {env.A} issuer\n}", []string{"Caddyfile:4", "hmac_secret", `"issuer"`, "issuer <name...>"}},
		"jwt, empty issuer": {"jwt {\nhmac_secret {env.A} issuer \"\"\n}", []string{"Caddyfile:5", "issuer", `""`, "iss of the tokens"}},
		"jwt, two kids":     {"jwt {\npublic_key a.pem b c\n}", []string{"Caddyfile:4", "public_key", `"b c"`, "issuer <name...>"}},
		"unverified alone":  {"jwt {\nunverified\n}", []string{"Caddyfile:6", "exactly one token option"}},
		"logout, no path":   {`logout POST`, []string{"Caddyfile:3", "logout", `"POST"`, "begins with / or *"}},
		"logout, scope":     {`logout /out everybody`, []string{"Caddyfile:3", "logout", `"everybody"`, "client, user, token"}},
		"logout, status":    {`logout /out 3x`, []string{"Caddyfile:3", "logout", `"3x"`, "2xx"}},
		"logout, deny":      {`logout /out deny 10ms`, []string{"Caddyfile:3", "logout: deny", `"10ms"`, "at least 1s"}},
		"logout, no time":   {`logout /out deny`, []string{"Caddyfile:3", "logout", `"deny"`, "client, user, token"}},
		"logout, class":     {`logout /out 20xx`, []string{"Caddyfile:3", "logout", `"20xx"`, "2xx"}},
		"logout, no class":  {`logout /out 2`, []string{"Caddyfile:3", "logout", `"2"`, "2xx"}},
		"logout, user":      {`logout /out user`, []string{"Caddyfile:4", "logout /out user", "jwt"}},
		"heartbeat, never":  {`heartbeat never`, []string{"Caddyfile:3", "heartbeat", `"never"`, "at least 100ms", "off"}},
		"dead_after":        {`dead_after 1ms`, []string{"Caddyfile:3", "dead_after", `"1ms"`, "at least 100ms", "off"}},
		"dead_after, late":  {"heartbeat 30s\ndead_after 10s\nlimit 2", []string{"Caddyfile:4", "heartbeat 30s", "dead_after 10s", "shorter"}},
		"max_age, short":    {`max_age 10ms`, []string{"Caddyfile:3", "max_age", `"10ms"`, "at least 1s"}},
		"jwt, empty file":   {"jwt {\npublic_key \"\"\n}", []string{"Caddyfile:4", "public_key", `""`, "PEM file"}},
		"max_age off":       {`max_age off`, []string{"Caddyfile:3", "max_age", `"off"`}},
		"flap, no count":    {`flap often`, []string{"Caddyfile:3", "flap", `"often"`, "flap <count> [<half-life>]", "flap off"}},
		"flap, zero":        {`flap 0`, []string{"Caddyfile:3", "flap", `"0"`, "flap <count> [<half-life>]", "flap off"}},
		"flap, half-life":   {`flap 4 1ms`, []string{"Caddyfile:3", "flap", "1ms", "1s"}},
		"flap, many":        {`flap 1000 2m`, []string{"Caddyfile:3", "flap", "1000 times", "flap off"}},
		"drain, no time":    {`drain fast`, []string{"Caddyfile:3", "drain", `"fast"`, "at least 1s"}},
		"drain, rate":       {`drain 10s 0`, []string{"Caddyfile:3", "drain", `"0"`, "1 or more"}},
		"sharing":           {`shared_account on`, []string{"Caddyfile:3", "shared_account", `"on"`, "shared_account off"}},
		"sharing, window":   {`shared_account 5 long`, []string{"Caddyfile:3", "shared_account", `"long"`}},
		"claims without":    {`key {sse_guard.claims.sub}`, []string{"Caddyfile:4", "{sse_guard.claims.sub}", "jwt"}},
		"wrong takeover":    {`takeover never`, []string{"Caddyfile:3", "takeover", `"never"`, "auto, response, request"}},
		"wrong on_reject":   {`on_reject 409`, []string{"Caddyfile:3", "on_reject", `"409"`, "event, park, status"}},
		"wrong missing_key": {`missing_key ignore`, []string{"Caddyfile:3", "missing_key", `"ignore"`, "pass, deny"}},
		"wrong limit unit":  {`limit 1 users`, []string{"Caddyfile:3", "limit", `"users"`, "streams, clients"}},
		"wrong case":        {`policy Reject`, []string{"Caddyfile:3", "policy", `"Reject"`, "supersede, reject"}},

		"methods: any, and one":      {`methods any POST`, []string{"Caddyfile:3", "methods", `"any POST"`, "stands alone"}},
		"methods: no name":           {`methods "GET POST"`, []string{"Caddyfile:3", "methods", `"GET POST"`, "any, or the name of a method"}},
		"methods: HEAD":              {`methods GET head`, []string{"Caddyfile:3", "methods", `"head"`, "no body"}},
		"methods: any, late":         {`methods POST any`, []string{"Caddyfile:3", "methods", `"POST any"`, "stands alone"}},
		"park, supersede":            {"on_reject park\nlimit 2", []string{"Caddyfile:", "on_reject park", "policy supersede", "policy reject"}},
		"probe, supersede":           {"policy supersede\nprobe 2s", []string{"Caddyfile:", "probe 2s", "policy supersede", "policy reject"}},
		"reserve, supersede":         {`reserve 2s`, []string{"Caddyfile:", "reserve 2s", "policy reject"}},
		"webhook, no URL":            {"webhook {\nsecret s\n}", []string{"Caddyfile:3", "webhook", "0 arguments", "webhook <url> {"}},
		"webhook, two URLs":          {"webhook http://a http://b {\nsecret s\n}", []string{"Caddyfile:3", "webhook", "2 arguments", "webhook <url> {"}},
		"webhook, no secret":         {"limit 2\nwebhook https://a.example", []string{"Caddyfile:4", "webhook", "secret is missing", "secret {env."}},
		"webhook, unknown":           {"webhook https://a.example {\nkey s\n}", []string{"Caddyfile:4", `"key"`, "of webhook", "events, secret"}},
		"webhook, unknown event":     {"webhook https://a.example {\nsecret s\nevents closed\n}", []string{"Caddyfile:5", "events", `"closed"`, "admitted, ended, rejected, returned"}},
		"webhook, an event twice":    {"webhook https://a.example {\nsecret s\nevents ended ended\n}", []string{"Caddyfile:5", "events", `"ended"`, "twice"}},
		"webhook, another scheme":    {"webhook ftp://user:hunter2@a.example/hunter2?hunter2 {\nsecret s\n}", []string{"Caddyfile:5", "webhook", `"ftp://a.example"`, "https:// or http://"}},
		"webhook, a path":            {"webhook /hooks {\nsecret s\n}", []string{"Caddyfile:5", "webhook", "https:// or http://"}},
		"webhook, no URL at all":     {"webhook http://a:hunter2@b:c/ {\nsecret s\n}", []string{"Caddyfile:5", "webhook", "no URL", "https:// or http://"}},
		"webhook, a fragment":        {"webhook http://a.example/#hunter2 {\nsecret s\n}", []string{"Caddyfile:5", "webhook", "fragment", "http://a.example"}},
		"webhook, one URL twice":     {"webhook http://a.example {\nsecret s\n}\nwebhook http://a.example {\nsecret t\n}", []string{"Caddyfile:8", "webhook", "twice"}},
		"leeway, short":              {"jwt {\npublic_key a.pem\nleeway 5us\n}", []string{"Caddyfile:5", "leeway", `"5us"`, "at least 1ms"}},
		"negative limit":             {`limit -1`, []string{"Caddyfile:3", "limit", `"-1"`, "0 (track only) or more"}},
		"allow_origin: any and one":  {`allow_origin any https://a.example`, []string{"Caddyfile:3", "allow_origin", `"any"`, "stands alone"}},
		"allow_origin: a path":       {`allow_origin https://a.example/`, []string{"Caddyfile:3", "allow_origin", `"https://a.example/"`, "https://app.example.com"}},
		"allow_origin: a host":       {`allow_origin a.example`, []string{"Caddyfile:3", "allow_origin", `"a.example"`, "an origin as browsers write it"}},
		"allow_origin: upper case":   {`allow_origin https://A.example`, []string{"Caddyfile:3", "allow_origin", `"https://A.example"`, "in lower case"}},
		"allow_origin: its own port": {`allow_origin https://a.example:443`, []string{"Caddyfile:3", "allow_origin", `"https://a.example:443"`, "not the scheme's own"}},
		"allow_origin: everybody":    {`allow_origin *`, []string{"Caddyfile:3", "allow_origin", `"*"`, "it is any"}},
		"retry_refused: no status":   {`retry_refused 409 conflict`, []string{"Caddyfile:3", "retry_refused", `"conflict"`, "400 to 599", "or off"}},
		"retry_refused: a success":   {`retry_refused 204`, []string{"Caddyfile:3", "retry_refused", "204", "400 to 599"}},
		"retry_refused: off and on":  {`retry_refused off 409`, []string{"Caddyfile:3", "retry_refused", `"off"`, "400 to 599"}},
		"limit no number":            {`limit one`, []string{"Caddyfile:3", "limit", `"one"`, "a number"}},
		"limit a fraction":           {`limit 1.5`, []string{"Caddyfile:3", "limit", `"1.5"`, "a number"}},
		"limit too large":            {`limit 99999999999999999999`, []string{"Caddyfile:3", "limit", `"99999999999999999999"`, "a number"}},

		"bad retry":            {`retry soon`, []string{"Caddyfile:3", "retry", `"soon"`, "a duration of at least 1ms"}},
		"retry without a unit": {`retry 5`, []string{"Caddyfile:3", "retry", `"5"`, "such as 500ms or 5s"}},
		"zero retry":           {`retry 0s`, []string{"Caddyfile:3", "retry", `"0s"`, "a duration of at least 1ms"}},
		"negative retry":       {`retry -1s`, []string{"Caddyfile:3", "retry", `"-1s"`, "a duration of at least 1ms"}},
		"bad end_timeout":      {`end_timeout never`, []string{"Caddyfile:3", "end_timeout", `"never"`, "a duration of at least 1ms"}},
		"zero end_timeout":     {`end_timeout 0s`, []string{"Caddyfile:3", "end_timeout", `"0s"`, "a duration of at least 1ms"}},
		"least end_timeout":    {`end_timeout 999us`, []string{"Caddyfile:3", "end_timeout", `"999us"`, "a duration of at least 1ms"}},

		"bad max_event_size":       {`max_event_size big`, []string{"Caddyfile:3", "max_event_size", `"big"`, "a size from 1B to less than 2GiB"}},
		"zero max_event_size":      {`max_event_size 0`, []string{"Caddyfile:3", "max_event_size", `"0"`, "a size from 1B"}},
		"negative max_event_size":  {`max_event_size -1`, []string{"Caddyfile:3", "max_event_size", `"-1"`, "a size from 1B"}},
		"too large max_event_size": {`max_event_size 2GiB`, []string{"Caddyfile:3", "max_event_size", `"2GiB"`, "less than 2GiB"}},

		"policy without argument":        {`policy`, []string{"Caddyfile:3", "policy", "0 arguments", "write: policy supersede|reject"}},
		"limit without argument":         {`limit`, []string{"Caddyfile:3", "limit", "0 arguments", "write: limit <n> [streams|clients]"}},
		"zone without argument":          {`zone`, []string{"Caddyfile:3", "zone", "0 arguments", "write: zone <name>"}},
		"key without part":               {`key`, []string{"Caddyfile:3", "key", "0 arguments", "write: key <part...>"}},
		"retry without argument":         {`retry`, []string{"Caddyfile:3", "retry", "0 arguments", "write: retry <duration>"}},
		"secret without argument":        {`secret`, []string{"Caddyfile:3", "secret", "0 arguments", "write: secret <placeholder>"}},
		"max_event_size without":         {`max_event_size`, []string{"Caddyfile:3", "max_event_size", "0 arguments", "write: max_event_size <size>"}},
		"event without name":             {`event superseded`, []string{"Caddyfile:3", "event", "1 arguments", "write: event <reason> <name>"}},
		"registry without module":        {`registry`, []string{"Caddyfile:3", "registry", "0 arguments", "write: registry <module>"}},
		"token without source":           {`token`, []string{"Caddyfile:3", "token", "0 arguments", "write: token header|query|cookie|path <name>"}},
		"token without name":             {`token query`, []string{"Caddyfile:3", "token", "1 arguments", "write: token header|query|cookie|path <name>"}},
		"client without source":          {`client`, []string{"Caddyfile:3", "client", "0 arguments", "write: client header|query|cookie <name> [device|tab]"}},
		"too many for policy":            {`policy reject supersede`, []string{"Caddyfile:3", "policy", "2 arguments", "write: policy supersede|reject"}},
		"too many for limit":             {`limit 1 streams clients`, []string{"Caddyfile:3", "limit", "3 arguments", "write: limit <n> [streams|clients]"}},
		"too many for require_token":     {`require_token yes`, []string{"Caddyfile:3", "require_token", "1 arguments", "write: require_token"}},
		"too many for token":             {`token header A B`, []string{"Caddyfile:3", "token", "3 arguments", "write: token header|query|cookie|path <name>"}},
		"too many for client":            {`client header A tab tab`, []string{"Caddyfile:3", "client", "4 arguments", "[device|tab]"}},
		"too many for event":             {`event superseded A B`, []string{"Caddyfile:3", "event", "3 arguments", "write: event <reason> <name>"}},
		"too many for retry":             {`retry 1s 2s`, []string{"Caddyfile:3", "retry", "2 arguments", "write: retry <duration>"}},
		"too many for registry":          {`registry memory fast`, []string{"Caddyfile:3", "registry", "memory takes no options"}},
		"argument to the directive":      {``, []string{"Caddyfile:2", `"everything"`, "no argument but a matcher", "options go in a block"}},
		"block where none is allowed":    {"limit 1 {\nstreams\n}", []string{"Caddyfile:3", "limit takes no block", "write: limit <n> [streams|clients]"}},
		"block of require_token":         {"require_token {\nyes\n}", []string{"Caddyfile:3", "require_token takes no block"}},
		"block in place of the argument": {"policy {\nreject\n}", []string{"Caddyfile:3", "policy", "0 arguments", "supersede|reject"}},
		"block of the memory registry":   {"registry memory {\nsize 3\n}", []string{"Caddyfile:", "registry memory takes no options"}},

		"policy twice":        {"policy reject\npolicy reject", []string{"Caddyfile:4", "policy is given twice", "expected once"}},
		"require_token twice": {"require_token\nlimit 2\nrequire_token", []string{"Caddyfile:5", "require_token is given twice"}},
		"key twice":           {"key a\nkey b", []string{"Caddyfile:4", "key is given twice"}},
		"registry twice":      {"registry memory\nregistry memory", []string{"Caddyfile:4", "registry is given twice"}},
		"token source twice":  {"token query t\ntoken query T", []string{"Caddyfile:4", "token source query T is given twice", "each place once"}},
		"client source twice": {"client query c\nclient query c tab", []string{"Caddyfile:4", "client source query c is given twice", "each place once"}},

		"unknown token source":   {`token body t`, []string{"Caddyfile:3", "token", `"body"`, `"header", "query", "cookie" or "path"`}},
		"unknown client source":  {`client body t`, []string{"Caddyfile:3", "client", `"body"`, `"header", "query" or "cookie"`}},
		"unknown client scope":   {`client query c window`, []string{"Caddyfile:3", "client", `"window"`, `"device" or "tab"`}},
		"impossible header name": {`token header "X Y"`, []string{"Caddyfile:3", "token", `"X Y"`, "letters, digits"}},
		"empty source name":      {`token query ""`, []string{"Caddyfile:3", "token", "without a name", "the name of the query parameter"}},

		"event of unknown reason": {`event kicked X`, []string{"Caddyfile:3", "event", `"kicked"`, "superseded, replaced, parked, rejected"}},
		"event without a name":    {`event superseded ""`, []string{"Caddyfile:3", "event superseded", `""`, "one line of text"}},
		"event name of two lines": {"event superseded \"a\nb\"", []string{"Caddyfile:", "event superseded", `"a\nb"`, "one line of text"}},
		"event renamed twice":     {"event superseded A\nevent superseded B", []string{"Caddyfile:4", "event", "superseded is renamed twice", "expected once"}},

		"message of unknown reason": {`message kicked X`, []string{"Caddyfile:3", "message", `"kicked"`, "superseded, replaced, parked, rejected"}},
		"message without an event":  {`message max_age X`, []string{"Caddyfile:3", "message", `"max_age"`, "superseded, replaced, parked, rejected"}},
		"message without text":      {`message logout " "`, []string{"Caddyfile:3", "message logout", `" "`, "what a person may read"}},
		"message given twice":       {"message logout A\nmessage logout B", []string{"Caddyfile:4", "message", "logout has a message already", "expected one"}},
		"message with a typo":       {`message logout "Bye {sse_guard.user}"`, []string{"Caddyfile:3", "message logout", "{sse_guard.user}", "{sse_guard.key}, {sse_guard.token}"}},
		"label given twice":         {"label room {http.vars.a}\nlabel room {http.vars.b}", []string{"Caddyfile:4", "label", "room has a value already", "expected one"}},
		"presence of nothing":       {"label room {http.vars.a}\npresence rom PRESENCE", []string{"Caddyfile:", "presence", `no label "rom"`, "label <name> <placeholder>"}},
		"presence given twice":      {"label room {http.vars.a}\npresence room A\npresence room B", []string{"Caddyfile:", "presence", "room is given twice", "expected once"}},
		"presence, too often":       {"label room {http.vars.a}\npresence room A 99ms", []string{"Caddyfile:4", "presence", `"99ms"`, "at least 100ms"}},
		"presence, too seldom":      {"label room {http.vars.a}\npresence room A 61m", []string{"Caddyfile:", "presence room", "1h1m0s", "100ms to 1h"}},
		"presence without an event": {"label room {http.vars.a}\npresence room", []string{"Caddyfile:4", "presence", "1 arguments", "write: presence <label> <event> [<interval>]"}},
		"label without a value":     {`label room all`, []string{"Caddyfile:3", "label room", `"all"`, "{http.request.uri.query.room}"}},
		"label with a typo":         {`label room {sse_guard.user}`, []string{"Caddyfile:3", "label room", "{sse_guard.user}"}},
		"label of claims":           {`label plan {sse_guard.claims.plan}`, []string{"label plan", "{sse_guard.claims.plan} needs a jwt block"}},
		"label's name":              {`label Room {http.vars.a}`, []string{"Caddyfile:3", "label", `"Room"`, "a-z, 0-9 and _"}},
		"message of claims":         {`message logout "Bye {sse_guard.claims.name}!"`, []string{"message logout", "{sse_guard.claims.name} needs a jwt block"}},
		"unknown come_back":         {`come_back gently`, []string{"Caddyfile:3", "come_back", `"gently"`, "cut, clean"}},
		"hold too short":            {`hold 99ms`, []string{"Caddyfile:3", "hold", `"99ms"`, "at least 100ms"}},
		"hold off":                  {`hold off`, []string{"Caddyfile:3", "hold", `"off"`, "at least 100ms"}},
		"stall_after too short":     {`stall_after 1ms`, []string{"Caddyfile:3", "stall_after", `"1ms"`, "at least 100ms", "or off"}},

		"empty zone":               {`zone ""`, []string{"Caddyfile:3", "zone", `""`, "write: zone <name>"}},
		"empty secret":             {`secret ""`, []string{"Caddyfile:3", "secret", `""`, "write: secret <placeholder>"}},
		"secret that expands away": {`secret "{$SSE_GUARD_UNSET}"`, []string{"Caddyfile:3", "secret", `""`, "write: secret <placeholder>"}},
		"empty key part":           {`key {sse_guard.token} ""`, []string{"Caddyfile:3", "key", "part 2 is empty", "a placeholder or a word"}},
		"unknown placeholder":      {"limit 2\nkey {sse_guard.token} a-{sse_guard.tokn}", []string{"Caddyfile:4", "key", "{sse_guard.tokn}", "{sse_guard.token}, {sse_guard.client}, {sse_guard.claims.*}"}},
		"placeholder in capitals":  {`key {sse_guard.Token}`, []string{"Caddyfile:3", "key", "{sse_guard.Token}", "{sse_guard.token}"}},
		"claim without an s":       {`key {sse_guard.claim.sub}`, []string{"Caddyfile:3", "key", "{sse_guard.claim.sub}", "{sse_guard.claims.*}"}},
		"zone with a placeholder":  {`zone {host}`, []string{"Caddyfile:3", "zone", "{http.request.host}", "not replaced here"}},
		"logout path of a token":   {`logout /{sse_guard.token}`, []string{"logout", "{sse_guard.token}", "none"}},
		"key made of the key":      {`key {sse_guard.key}`, []string{"Caddyfile:3", "key", "{sse_guard.key}", "{sse_guard.token}"}},
		"claim without a name":     {`key {sse_guard.claims.}`, []string{"Caddyfile:3", "key", "{sse_guard.claims.}", "{sse_guard.claims.*}"}},
		"unclosed key part":        {`key "{http.request.host"`, []string{"Caddyfile:3", "key", `"{http.request.host"`, "write: {name}"}},

		"unknown registry":      {`registry redis-typo`, []string{"Caddyfile:3", "registry", `"redis-typo"`, "sse_guard.registries"}},
		"error of the registry": {"registry recording {\n\tcolour\n}", []string{"Caddyfile:4", "colour"}},

		"limit 0, then reject": {"limit 0\npolicy reject", []string{"Caddyfile:4", "limit 0", "policy reject", "a limit of 1 or more"}},
		"reject, then limit 0": {"policy reject\nlimit 0", []string{"Caddyfile:4", "limit 0", "policy reject", "a limit of 1 or more"}},
	} {
		t.Run(name, func(t *testing.T) {
			directive := "sse_guard {"
			if name == "argument to the directive" {
				directive = "sse_guard everything {"
			}
			text := "http://example.com {\n" + directive + "\n" + test.block + "\n}\n}\n"
			_, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": "Caddyfile"})
			require.Error(t, err)
			for _, part := range test.want {
				require.ErrorContains(t, err, part)
			}
			require.NotRegexp(t, `: ,|: ?$|: ;|  `, err.Error(), "an empty list")
		})
	}
}

func TestJSON_UnknownFieldIsRefused(t *testing.T) {
	var h Handler
	err := caddy.StrictUnmarshalJSON([]byte(`{"limit": 1, "polcy": "reject"}`), &h)
	require.ErrorContains(t, err, `unknown field "polcy"`)

	for _, handler := range []string{
		`{"handler": "sse_guard", "polcy": "reject"}`,
		`{"handler": "sse_guard", "registry": {"module": "memory", "size": 3}}`,
	} {
		err := validateHandler(t, handler)
		require.ErrorContains(t, err, "unknown field", handler)
	}
}

func TestJSON_IsWhatCaddyAccepts(t *testing.T) {
	require.NoError(t, validateHandler(t, `{"handler": "sse_guard"}`))
	require.NoError(t, validateHandler(t, `{"handler": "sse_guard", "limit": 2, "registry": {"module": "memory"}}`))
}

// validateHandler does what `caddy validate` does with a configuration of one
// handler.
func validateHandler(t *testing.T, handler string) error {
	t.Helper()
	return validateConfig(t, t.TempDir(), `{"servers": {"s": {
		"listen": ["127.0.0.1:0"],
		"automatic_https": {"disable": true},
		"routes": [{"handle": [`+handler+`]}]
	}}}`)
}

func FuzzCaddyfile(f *testing.F) {
	for _, block := range blocks() {
		f.Add(block)
	}
	f.Add("token\nregistry")
	f.Add("limit 1 {\n}\n}")
	f.Add("registry memory {\n{\n")
	f.Add("key { } {{ \\{")
	f.Add("event superseded \"a\rb\"")
	f.Fuzz(func(t *testing.T, block string) {
		h, err := parse(block)
		if err != nil {
			require.True(t, errors.Is(err, errLexer) || strings.Contains(err.Error(), "Caddyfile:"), "no file and line: %v", err)
			return
		}
		// JSON has no way to write what is not UTF-8; once through it is.
		once := throughJSON(t, h)
		require.Equal(t, once, throughJSON(t, once))

		once.setDefaults()
		if err := once.Validate(); err != nil {
			option, _, _ := strings.Cut(err.Error(), ":")
			require.True(t, isOption(option), err)
		}
	})
}
