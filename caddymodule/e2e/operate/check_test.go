package operate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// checkReport is what "caddy sse-guard check --json" prints.
type checkReport struct {
	Verdict, Code, Summary string
	Hints                  []string
	Streams                []struct {
		Number, Status int
		Open           bool
		Notice         *struct{ Event, Reason string }
	}
}

// runCommand runs the binary with the arguments and returns what it printed to
// standard output and to standard error, and its exit code.
func runCommand(t testing.TB, args ...string) (out, errors string, code int) {
	t.Helper()
	return runCommandIn(t, nil, args...)
}

func runCommandIn(t testing.TB, environment []string, args ...string) (out, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, harness.CaddyBinary(t), args...)
	cmd.Env = append(os.Environ(), environment...)
	var printed, said strings.Builder
	cmd.Stdout, cmd.Stderr = &printed, &said
	err := cmd.Run()
	require.NoError(t, ctx.Err(), "the command does not end: %v\n%s%s", args, &printed, &said)
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		require.NoError(t, err)
	}
	return printed.String(), said.String(), cmd.ProcessState.ExitCode()
}

// check runs "caddy sse-guard check" and returns its report and exit code.
func check(t testing.TB, url string, flags ...string) (checkReport, int) {
	t.Helper()
	out, stderr, code := runCommand(t, append([]string{"sse-guard", "check", url, "--json"}, flags...)...)
	var r checkReport
	require.NoError(t, json.Unmarshal([]byte(out), &r), "%s%s", out, stderr)
	return r, code
}

// recipe is one of README's sites, and the check that shows it at work.
type recipe struct {
	heading string // under which it stands
	mark    string // what its text has, where there are several under a heading
	path    string
	flags   []string
	code    string
	event   string // of the stream that was told
}

// TestCheck_Recipes: the check finds each of README's sites at work, as it is there
// but for its addresses.
func TestCheck_Recipes(t *testing.T) {
	secret := harness.NewIssuer(t, "HS256")
	content, err := os.ReadFile(strings.Trim(strings.Fields(secret.KeyOption(t))[1], `"`))
	require.NoError(t, err)
	t.Setenv("JWT_SECRET", string(content))
	keycloak := harness.NewIssuer(t, "ES256")
	keys := harness.NewJWKSServer(t, keycloak)
	const password = "0123456789abcdef0123456789abcdef"
	t.Setenv("WEBHOOK_SECRET", password)
	t.Setenv("REDIS_PASSWORD", password)
	redis := harness.StartRedis(t)
	redis.Do(t, "CONFIG", "SET", "requirepass", password)
	const bearer, superseded = "--token", "superseded"
	alice := []string{bearer, "alice"}
	recipes := []recipe{
		{heading: "A site", flags: alice, code: superseded},
		{heading: "FastAPI", flags: alice, code: superseded},
		{heading: "Spring", flags: []string{"--cookie", "JSESSIONID=alice"}, code: superseded},
		{heading: "One stream per user: verified tokens", flags: []string{bearer, secret.Token(t)}, code: superseded},
		{heading: "Spring Security, Keycloak and other issuers", mark: "jwks", code: superseded, flags: []string{
			bearer, keycloak.Token(t, harness.WithClaim("iss", "https://login.example.com/realms/shop"), harness.WithClaim("aud", "shop")),
		}},
		{heading: "Spring Security, Keycloak and other issuers", mark: "unverified", flags: []string{"--cookie", "access_token=" + keycloak.Token(t)}, code: superseded},
		{heading: "Players and spectators", flags: []string{bearer, secret.Token(t)}, code: superseded},
		{heading: "Players and spectators", flags: []string{bearer, secret.Token(t, harness.WithClaim("role", "spectator"))}, code: "all_stay_open"},
		{heading: "The holder acts, others watch (a quiz game)", path: "/raw?tab=1", flags: alice, code: superseded},
		{heading: "The first one stays (a quiz, an exam)", flags: alice, code: "rejected", event: harness.DuplicateSession},
		{heading: "An LLM gateway", path: "/chat?n=0", flags: []string{"--method", "POST", "--data", "{}", "--header", "X-Api-Key: alice"}, code: superseded, event: "error"},
		{heading: "An MCP server", flags: append([]string{"--header", "Mcp-Session-Id: 7"}, alice...), code: superseded},
		{heading: "A backend that hangs", flags: alice, code: superseded},
		{heading: "A backend with a timeout of its own", flags: alice, code: superseded},
		{heading: "Tell the backend why a stream ended", flags: alice, code: superseded},
		{heading: "Tell a page how many are there", path: "/raw?room=one", flags: alice, code: superseded},
		{heading: "Several nodes", flags: alice, code: superseded},
		{heading: "Access log and traces", flags: alice, code: superseded},
		{heading: "Operate: live page", flags: alice, code: superseded},
		{heading: "Three devices per store, one stream per user", path: "/raw?store=1", flags: alice, code: superseded},
		{heading: "A page with two streams", path: "/raw?topic=news", flags: alice, code: superseded},
		{heading: "A key that only the backend knows", path: "/user-header", flags: alice, code: superseded},
		{heading: "What the client sees", flags: alice, code: superseded},
	}
	tried := make(map[string]bool)
	for _, r := range recipes {
		t.Run(r.heading+" "+r.mark, func(t *testing.T) {
			block := r.find(t)
			tried[block] = true
			app := harness.StartFastAPI(t)
			url := fmt.Sprintf("http://localhost:%d", harness.FreePort(t))
			site := strings.NewReplacer(
				"http://localhost:8080", url,
				"redis.internal:6379", redis.Addr,
				"https://login.example.com/realms/shop/protocol/openid-connect/certs", keys.URL,
			).Replace(block)
			site = regexp.MustCompile(`localhost:80\d\d\b`).ReplaceAllString(site, strings.TrimPrefix(app.URL, "http://"))
			_, err := harness.LoadSites(t, "", site)
			require.NoError(t, err, site)
			if strings.Contains(site, keys.URL) {
				keys.WaitRequested(t, 1)
			}

			path := r.path
			if path == "" {
				path = "/raw"
			}
			report, code := check(t, url+path, r.flags...)
			require.Equal(t, r.code, report.Code, "%+v", report)
			if r.code == "all_stay_open" {
				require.Equal(t, 1, code)
				require.Contains(t, strings.Join(report.Hints, "\n"), "With limit 0 it only tracks")
			} else {
				require.Zero(t, code)
			}
			told := 0
			for _, s := range report.Streams {
				if s.Notice == nil {
					continue
				}
				told++
				if r.event == "" {
					r.event = harness.Duplicated
				}
				assert.Equal(t, r.event, s.Notice.Event)
			}
			assert.Equal(t, r.code != "all_stay_open", told == 1, "%+v", report)
			app.WaitOpen(t, 0) // the check has ended its streams
		})
	}
	for _, block := range readmeSites(t) {
		assert.True(t, tried[block.text], "no check of this site: %s", block.text)
	}
}

// readmeSite is a Caddyfile in the README.
type readmeSite struct{ heading, text string }

func readmeSites(t testing.TB) (sites []readmeSite) {
	t.Helper()
	readme, err := os.ReadFile(filepath.Join(harness.Root(t), "README.md"))
	require.NoError(t, err)
	heading := ""
	for _, m := range regexp.MustCompile("(?s)\n(?:#+ ([^\n]*)\n|```caddyfile\n(.*?)```)").FindAllSubmatch(readme, -1) {
		if len(m[1]) > 0 {
			heading = string(m[1])
		} else {
			sites = append(sites, readmeSite{heading, string(m[2])})
		}
	}
	require.NotEmpty(t, sites)
	return sites
}

func (r recipe) find(t testing.TB) string {
	t.Helper()
	for _, site := range readmeSites(t) {
		if site.heading == r.heading && strings.Contains(site.text, r.mark) {
			return site.text
		}
	}
	require.FailNow(t, "README has no such site", r.heading)
	return ""
}

// TestCheck_WrongConfigurations: the check says what is wrong.
func TestCheck_WrongConfigurations(t *testing.T) {
	for name, test := range map[string]struct {
		site    string // before reverse_proxy
		path    string
		flags   []string
		code    string
		exit    int
		says    string
		hint    string
		logs    string // what Caddy's log has, which the hint names
		backend string // in place of the application
	}{
		"the directive is missing": {
			flags: []string{"--token", "alice"}, code: "all_stay_open", exit: 1,
			says: "no guard counts them", hint: "The site that answers has no sse_guard, or its matcher",
		},
		"the matcher misses": {
			site:  "sse_guard /events*",
			flags: []string{"--token", "alice"}, code: "all_stay_open", exit: 1,
			says: "no guard counts them", hint: "or its matcher, or the route around it, leaves this path out",
		},
		"a part of the key is empty": {
			site:  "sse_guard {\nkey {sse_guard.token} {query.room}\nmissing_key pass\n}",
			flags: []string{"--token", "alice"}, code: "all_stay_open", exit: 1,
			says: "although a guard stands before this path, and sees the token", hint: "A part of its key is empty", logs: "passes untracked",
		},
		"the streams have different keys": {
			site:  "sse_guard {\nkey {sse_guard.token} {http.request.remote.port}\n}",
			flags: []string{"--token", "alice"}, code: "all_stay_open", exit: 1,
			says: "although a guard stands before this path", hint: "A part of its key differs from request to request",
		},
		"the token is elsewhere": {
			site:  "sse_guard {\ntoken cookie session\n}",
			flags: []string{"--token", "alice"}, code: "all_stay_open", exit: 1,
			hint: "elsewhere than in the header field Authorization (option token)", logs: "passes untracked",
		},
		"no token is sent": {
			site: "sse_guard", code: "all_stay_open", exit: 1,
			says: "the check sends no token, so that they pass untracked", hint: "require_token",
		},
		"methods leaves GET out": {
			site:  "sse_guard {\nmethods POST\n}",
			flags: []string{"--token", "alice"}, code: "all_stay_open", exit: 1,
			hint: "methods leaves GET out",
		},
		"the limit is 2": {
			site:  "sse_guard {\nlimit 2\n}",
			flags: []string{"--token", "alice"}, code: "all_stay_open", exit: 1,
			says: "both streams stay open", hint: "Its limit is 2 or more: try --streams 3",
		},
		"the limit is 2, and three are opened": {
			site:  "sse_guard {\nlimit 2\n}",
			flags: []string{"--token", "alice", "--streams", "3"}, code: "superseded",
			says: "of 3 streams, the oldest got DUPLICATED_CONNECTION",
		},
		"no token, where one is required": {
			site: "sse_guard {\nrequire_token\n}", code: "unauthorized", exit: 2,
			says: "the guard answers 401", hint: "--token",
		},
		"two tokens": {
			site:  "sse_guard",
			flags: []string{"--token", "alice", "--cookie", "access_token=bob"}, code: "two_tokens", exit: 2,
			says: "two different tokens", hint: "Give the check one of them",
		},
		"the backend holds its header back": {
			site: "sse_guard", path: "/slow-header?delay=60",
			flags: []string{"--token", "alice", "--timeout", "2s"}, code: "no_answer", exit: 2,
			says: "not even its header", hint: "the backend sends the header with its first event",
		},
		"the backend holds its events back": {
			site: "sse_guard", path: "/emitter",
			flags: []string{"--token", "alice"}, code: "superseded",
			hint: "something behind the guard holds its events back",
		},
		"a page in the stream's place": {
			site: "sse_guard", path: "/login",
			flags: []string{"--token", "alice"}, code: "no_event_stream", exit: 2,
			says: "200 OK, text/html", hint: "login page",
		},
		"a redirect to a login page": {
			site: "sse_guard", path: "/redirect",
			flags: []string{"--token", "alice"}, code: "redirect", exit: 2,
			says: "/login, which is no event stream", hint: "logged in",
		},
		"the backend is down": {
			site: "sse_guard", backend: "localhost:1",
			flags: []string{"--token", "alice"}, code: "unavailable", exit: 2,
			says: "502", hint: "Does the backend run?",
		},
		"the tombstone does not come back": {
			site:  "request_header -Last-Event-ID\nsse_guard",
			flags: []string{"--token", "alice"}, code: "tombstone_ignored", exit: 1,
			says: "again and again", hint: "Last-Event-ID",
		},
	} {
		t.Run(name, func(t *testing.T) {
			app := harness.StartFastAPI(t)
			backend := test.backend
			if backend == "" {
				backend = app.URL
			}
			server := harness.StartCaddy(t, "route {\n"+test.site+"\nreverse_proxy "+backend+"\n}")
			path := test.path
			if path == "" {
				path = "/raw"
			}
			report, code := check(t, server.URL+path, test.flags...)
			require.Equal(t, test.code, report.Code, "%+v", report)
			assert.Equal(t, test.exit, code)
			assert.Contains(t, report.Summary, test.says)
			assert.Contains(t, strings.ToLower(strings.Join(report.Hints, "\n")), strings.ToLower(test.hint))
			app.WaitOpen(t, 0)
			if test.logs != "" {
				assert.Contains(t, fmt.Sprint(server.WaitLogs(t, 1)), test.logs)
			}
		})
	}
}

// TestCheck_SaysItInPlainWords, and warns before it ends anybody's stream.
func TestCheck_SaysItInPlainWords(t *testing.T) {
	app := harness.StartFastAPI(t)
	server := harness.StartCaddyTLS(t, "sse_guard\nreverse_proxy "+app.URL)
	mine := harness.NewClient(t, harness.HTTP2).Open(t, server.URL+"/raw", harness.WithQueryToken("alice"))
	harness.RequireAdmitted(t, mine)

	out, said, code := runCommand(t, "sse-guard", "check", server.URL+"/raw?token=alice", "--insecure")
	require.Zero(t, code, out)
	assert.Contains(t, said, "ends the stream that the user has open now")
	harness.RequireEnded(t, mine, harness.Duplicated, "superseded")
	assert.Regexp(t, `stream 1 asks for https://localhost:\d+/raw\n`, out)
	assert.Regexp(t, `(?s)\nGuarded: the older stream got DUPLICATED_CONNECTION [\d.]+m?s after the newer.one.had.asked;.its.tombstone.was.answered.with.204`, out)
	assert.NotContains(t, out, "alice")

	out, said, code = runCommand(t, "sse-guard", "check", server.URL+"/raw")
	assert.Equal(t, 2, code)
	assert.Contains(t, out, "--insecure")
	assert.Empty(t, said, "there is no token")
}

// TestREADME_Check runs the README's commands, against the demo.
func TestREADME_Check(t *testing.T) {
	_, url := harness.StartSSEProxy(t)
	ran := 0
	for _, command := range readmeCommands(t) {
		if !strings.HasPrefix(command, "caddy sse-guard check ") {
			continue
		}
		ran++
		require.Contains(t, command, " http://localhost:8080/events")
		args := strings.Fields(strings.Replace(command, "http://localhost:8080", url, 1))
		out, said, code := runCommand(t, args[1:]...)
		assert.Zero(t, code, "%s\n%s%s", command, out, said)
	}
	require.Positive(t, ran)
}

// TestREADME_CheckOutput has the lines that the command prints, but for its times.
func TestREADME_CheckOutput(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(harness.Root(t), "README.md"))
	require.NoError(t, err)
	shown := regexp.MustCompile("(?s)```text\n([^`]*\\bstream 1 asks for [^`]*)```").FindSubmatch(readme)
	require.NotNil(t, shown)
	_, url := harness.StartSSEProxy(t)
	out, _, code := runCommand(t, "sse-guard", "check", url+"/events", "--cookie", "access_token=alice")
	require.Zero(t, code)
	plain := func(text string) string {
		text = regexp.MustCompile(`[\d.]+(µs|ms|s)\b`).ReplaceAllString(text, "TIME")
		text = strings.ReplaceAll(text, url, "http://localhost:8080")
		return strings.Join(strings.Fields(text), " ")
	}
	// Whether the newer stream is open before the older one is told is chance.
	const newer = "TIME stream 2 is open "
	for _, text := range []string{plain(string(shown[1])), plain(out)} {
		require.Contains(t, text, newer)
	}
	assert.Equal(t, strings.Replace(plain(string(shown[1])), newer, "", 1), strings.Replace(plain(out), newer, "", 1))
}

// TestCheck_UsageErrors end with code 2.
func TestCheck_UsageErrors(t *testing.T) {
	for want, args := range map[string][]string{
		"takes one URL, got 0":              {},
		"takes one URL, got 2":              {"http://a", "http://b"},
		"begins with http:// or https://":   {"localhost:8080"},
		"unknown flag: --tokens":            {"http://a", "--tokens", "x"},
		"from 2 to 100":                     {"http://a", "--streams", "1"},
		`write it as \"Name: value\"`:       {"http://a", "--header", "Name"},
		"write it as name=value":            {"http://a", "--cookie", "name"},
		"give one of them":                  {"http://a", "--token", "x", "--header", "Authorization: Basic y"},
		"invalid argument":                  {"http://a", "--watch", "x"},
		`sse-guard has no command \"nosuch`: nil,
	} {
		args = append([]string{"sse-guard", "check"}, args...)
		if strings.Contains(want, "nosuch") {
			args = []string{"sse-guard", "nosuch"}
		}
		out, said, code := runCommand(t, args...)
		assert.Equal(t, 2, code, args)
		assert.Contains(t, said, want)
		assert.Empty(t, out)
	}
}

// TestCheck_Completion is Caddy's own.
func TestCheck_Completion(t *testing.T) {
	for want, args := range map[string][]string{
		"check\tSays whether":         {"sse-guard", "ch"},
		"--insecure\tAccept any":      {"sse-guard", "check", "--inse"},
		http.MethodPost + "\n":        {"sse-guard", "check", "--method", ""},
		"sse-guard\tChecks, shows an": {"sse-g"},
	} {
		out, _, code := runCommand(t, append([]string{"__complete"}, args...)...)
		assert.Zero(t, code)
		assert.Contains(t, out, want)
	}
}
