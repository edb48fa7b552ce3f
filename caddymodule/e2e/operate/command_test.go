package operate

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// TestSSEProxy_BeforeAnApplication needs no file.
func TestSSEProxy_BeforeAnApplication(t *testing.T) {
	app := harness.StartFastAPI(t)
	for _, policy := range []string{"supersede", "reject"} {
		_, url := harness.StartSSEProxy(t, "--to", strings.TrimPrefix(app.URL, "http://"), "--policy", policy, "--key", "{http.request.uri.query.token}")
		client := harness.NewClient(t, harness.HTTP1)
		first := client.Open(t, url+"/raw?token=alice")
		first.Next(t)
		second := client.Open(t, url+"/sse?token=alice")
		if policy == "supersede" {
			second.Next(t)
			harness.RequireEnded(t, first, harness.Duplicated, "superseded")
		} else {
			harness.RequireRejected(t, second)
		}
	}
}

// TestSSEProxy_RefusesBadFlags with a message that says what is allowed.
func TestSSEProxy_RefusesBadFlags(t *testing.T) {
	for want, flags := range map[string][]string{
		"supersede, reject":      {"--policy", "first"},
		"0 (track only) or more": {"--limit", "-1"},
		"backtick":               {"--key", "`"},
		"name the upstream with": {"localhost:8000"},
	} {
		cmd := exec.CommandContext(t.Context(), harness.CaddyBinary(t), append([]string{"sse-proxy", "--to", "localhost:1"}, flags...)...)
		output, err := cmd.CombinedOutput()
		require.Error(t, err, flags)
		assert.Contains(t, string(output), want)
	}
}

// TestSSEProxy_RefusesAPortInUse, of another one too: Caddies share ports, and each
// would get some of the clients.
func TestSSEProxy_RefusesAPortInUse(t *testing.T) {
	first, url := harness.StartSSEProxy(t)
	require.Eventually(t, func() bool { return strings.Contains(first.String(), "Open "+url+" in two tabs") },
		harness.Patience, 10*time.Millisecond, "it says what to open: %s", first)
	_, port, _ := strings.Cut(strings.TrimPrefix(url, "http://"), ":")
	for _, from := range []string{":" + port, "http://127.0.0.1:" + port} {
		ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
		defer cancel()
		output, err := exec.CommandContext(ctx, harness.CaddyBinary(t), "sse-proxy", "--from", from).CombinedOutput()
		require.NoError(t, ctx.Err(), "it has started: %s", output)
		require.Error(t, err)
		require.Contains(t, string(output), "already; end that program")
		require.Contains(t, string(output), ":"+port)
		require.Contains(t, string(output), "--from")
	}
}

// TestCaddyfileExample is valid, formatted, and keeps tokens out of the logs.
func TestCaddyfileExample(t *testing.T) {
	caddy := harness.CaddyBinary(t)
	validate := exec.CommandContext(t.Context(), caddy, "validate", "--config", "Caddyfile.example", "--adapter", "caddyfile")
	data := t.TempDir()
	validate.Dir, validate.Env = harness.Root(t), append(os.Environ(), "XDG_DATA_HOME="+data, "XDG_CONFIG_HOME="+data)
	output, err := validate.CombinedOutput()
	require.NoError(t, err, string(output))
	assert.Contains(t, string(output), "Valid configuration")
	_, err = os.Stat(filepath.Join(data, "caddy", "sse_guard"))
	require.ErrorIs(t, err, os.ErrNotExist, "validating writes no secret")

	formatted := exec.CommandContext(t.Context(), caddy, "fmt", "Caddyfile.example")
	formatted.Dir = harness.Root(t)
	want, err := formatted.Output()
	require.NoError(t, err)
	have, err := os.ReadFile(filepath.Join(harness.Root(t), "Caddyfile.example"))
	require.NoError(t, err)
	assert.Equal(t, string(want), string(have))
}

// TestCaddyfileExample_RunsAsAnyUser needs no right to a port below 1024, no
// certificate and no internet. The ports are others than the file's, which may be in use.
func TestCaddyfileExample_RunsAsAnyUser(t *testing.T) {
	example, err := os.ReadFile(filepath.Join(harness.Root(t), "Caddyfile.example"))
	require.NoError(t, err)
	sites := regexp.MustCompile(`(?m)^(\S+) \{$`).FindAllStringSubmatch(string(example), -1)
	require.Greater(t, len(sites), 2)
	text := strings.Replace(string(example), "{\n", "{\n\tadmin off\n", 1)
	var last string
	for _, site := range sites {
		require.Regexp(t, `^http://localhost:[1-9]\d{3}$`, site[1])
		last = fmt.Sprintf("http://localhost:%d", harness.FreePort(t))
		text = strings.Replace(text, site[1], last, 1)
	}
	file := filepath.Join(t.TempDir(), "Caddyfile")
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	p := harness.StartCaddyProcess(t, last, "run", "--config", file, "--adapter", "caddyfile")
	require.NotContains(t, p.String(), "permission denied")
	require.NotRegexp(t, `passes untracked|sees no request|counts no request`, p.String())
}

// TestCaddyfileExample_FiltersTokens runs the example's log filter.
func TestCaddyfileExample_FiltersTokens(t *testing.T) {
	app := harness.StartFastAPI(t)
	example, err := os.ReadFile(filepath.Join(harness.Root(t), "Caddyfile.example"))
	require.NoError(t, err)
	format := regexp.MustCompile(`(?s)\tlog \{\n(\t\tformat filter.*?\n\t\t\}\n)\t\}`).FindSubmatch(example)
	require.NotNil(t, format, "the example's access log")
	access := filepath.Join(t.TempDir(), "access.log")
	server := harness.StartCaddy(t, "log {\noutput file "+access+" {\nroll_disabled\n}\n"+string(format[1])+"}\nsse_guard\nreverse_proxy "+app.URL)
	harness.Get(t, server.URL+"/raw?count=1&token=s3cr3t")
	harness.Get(t, server.URL+"/raw?count=1&access_token=s3cr3t")
	harness.Get(t, server.URL+"/raw?count=1", harness.WithHeader("Cookie", "access_token=s3cr3t; theme=dark"))
	server.Reload(t, "respond bye")
	content, err := os.ReadFile(access)
	require.NoError(t, err)
	assert.Equal(t, 3, strings.Count(string(content), "/raw?"))
	assert.NotContains(t, string(content), "s3cr3t")
}

// TestXcaddy builds Caddy with this checkout as the README says.
func TestXcaddy(t *testing.T) {
	dir := t.TempDir()
	xcaddy, out := filepath.Join(dir, "xcaddy"), filepath.Join(dir, "caddy")
	module := "module tools\n\ngo 1.26\n\nrequire github.com/caddyserver/xcaddy v0.4.5\n"
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go.mod"), []byte(module), 0o600))
	install := exec.CommandContext(t.Context(), "go", "build", "-mod=mod", "-o", xcaddy, "github.com/caddyserver/xcaddy/cmd/xcaddy")
	install.Dir = dir
	output, err := install.CombinedOutput()
	require.NoError(t, err, string(output))

	args := append(strings.Fields(readmeCommand(t, "xcaddy build"))[1:], "--output", out)
	build := exec.CommandContext(t.Context(), xcaddy, args...)
	build.Dir = harness.Root(t)
	build.Env = append(os.Environ(), "GOPROXY="+startModuleProxy(t), "GONOSUMDB=github.com/sse-guard")
	output, err = build.CombinedOutput()
	require.NoError(t, err, string(output))
	assert.Contains(t, harness.Run(t, out, "list-modules"), "http.handlers.sse_guard")
}

// startModuleProxy passes on what the configured Go module proxy answers, but
// knows nothing of this module, as long as it is not published: some proxies
// answer that they may not tell, which the go command takes for an outage.
func startModuleProxy(t testing.TB) string {
	t.Helper()
	first, _, _ := strings.Cut(strings.TrimSpace(harness.Run(t, "go", "env", "GOPROXY")), ",")
	upstream, err := url.Parse(first)
	require.NoError(t, err)
	require.NotEmpty(t, upstream.Host, "GOPROXY is %q", first)
	transport := http.DefaultTransport.(*http.Transport).Clone()
	t.Cleanup(transport.CloseIdleConnections)
	pass := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(upstream)
			r.Out.Host = upstream.Host
		},
		Transport: transport,
	}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/github.com/sse-guard") {
			http.NotFound(w, r)
			return
		}
		pass.ServeHTTP(w, r)
	}))
	t.Cleanup(proxy.Close)
	return proxy.URL
}

// readmeCommand finds the command in the README's shell blocks that begins so.
func readmeCommand(t testing.TB, prefix string) string {
	t.Helper()
	for _, command := range readmeCommands(t) {
		if strings.HasPrefix(command, prefix) {
			return command
		}
	}
	require.FailNow(t, "the README has no such command", prefix)
	return ""
}

// readmeCommands returns the commands of the README's shell blocks, where a
// backslash continues a line.
func readmeCommands(t testing.TB) (commands []string) {
	t.Helper()
	readme, err := os.ReadFile(filepath.Join(harness.Root(t), "README.md"))
	require.NoError(t, err)
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllSubmatch(readme, -1) {
		text := strings.ReplaceAll(string(block[1]), "\\\n", " ")
		for line := range strings.Lines(text) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				commands = append(commands, line)
			}
		}
	}
	return commands
}

// TestREADME_CommandsAreTested knows every command in the README, and where it
// is run.
func TestREADME_CommandsAreTested(t *testing.T) {
	where := map[string]string{
		"go run ./cmd/caddy sse-proxy":                      "TestDemo_TwoTabs",
		"go run ./cmd/caddy sse-proxy --to localhost:8000":  "TestSSEProxy_BeforeAnApplication",
		"go run ./cmd/caddy run --config Caddyfile.example": "TestCaddyfileExample_RunsAsAnyUser",
		"make test":                      "this very run",
		"make compat":                    ".ci/run, after make test",
		"go run ./cmd/ssebench":          "TestBench_QuickRun in cmd/ssebench",
		"go run ./cmd/ssebench -nodes 3": "TestBench_QuickRunOfNodes in cmd/ssebench",
		"make build":                     "TestMake_Build",
		"make cluster-demo":              "TestClusterDemo_TwoTabs",
	}
	for _, command := range readmeCommands(t) {
		switch {
		case where[command] != "":
		case strings.HasPrefix(command, "xcaddy build"): // TestXcaddy
		case strings.HasPrefix(command, "curl -N"): // TestREADME_Curl
		case strings.HasPrefix(command, "caddy sse-guard check "): // TestREADME_Check
		case strings.HasPrefix(command, "caddy sse-guard "): // TestREADME_Console
		case strings.Contains(command, "localhost:2019/sse_guard/"): // TestREADME_AdminAPI
		case strings.HasPrefix(command, "go test -run - -bench"): // TestREADME_Benchmarks
		default:
			assert.Fail(t, "this command is not tested", command)
		}
	}
}

// TestREADME_Curl: the two commands show a takeover.
func TestREADME_Curl(t *testing.T) {
	_, url := harness.StartSSEProxy(t)
	command := strings.Fields(strings.ReplaceAll(readmeCommand(t, "curl -N"), "'", ""))
	require.Equal(t, "http://localhost:8080/events", command[len(command)-1])
	header := strings.Join(command[3:len(command)-1], " ")
	name, value, _ := strings.Cut(header, ":")
	option := harness.WithHeader(name, strings.TrimSpace(value))
	client := harness.NewClient(t, harness.HTTP1)
	first := client.Open(t, url+"/events", option)
	first.NextOfType(t, "tick")
	client.Open(t, url+"/events", option).NextOfType(t, "tick")
	harness.RequireEnded(t, first, harness.Duplicated, "superseded")
}

// TestREADME_Caddyfile runs the site that fits on a screen.
func TestREADME_Caddyfile(t *testing.T) {
	for _, name := range []string{"JWT_SECRET", "WEBHOOK_SECRET", "REDIS_PASSWORD"} {
		t.Setenv(name, "0123456789abcdef0123456789abcdef")
	}
	readme, err := os.ReadFile(filepath.Join(harness.Root(t), "README.md"))
	require.NoError(t, err)
	blocks := regexp.MustCompile("(?s)```caddyfile\n(.*?)```").FindAllSubmatch(readme, -1)
	require.NotEmpty(t, blocks)
	for _, block := range blocks {
		file := filepath.Join(t.TempDir(), "Caddyfile")
		require.NoError(t, os.WriteFile(file, block[1], 0o600))
		harness.Run(t, harness.CaddyBinary(t), "validate", "--config", file, "--adapter", "caddyfile")
	}
}

// TestREADME_Benchmarks have something to run.
func TestREADME_Benchmarks(t *testing.T) {
	for _, command := range readmeCommands(t) {
		if strings.HasPrefix(command, "go test -run - -bench") {
			output := harness.Run(t, "go", append(strings.Fields(command)[1:], "-benchtime", "1x")...)
			assert.Contains(t, output, "Benchmark", command)
		}
	}
}

// TestMake_Build makes the binary that the README names.
func TestMake_Build(t *testing.T) {
	harness.Run(t, "make", "build")
	assert.Contains(t, harness.Run(t, "bin/caddy", "list-modules"), "http.handlers.sse_guard")
}
