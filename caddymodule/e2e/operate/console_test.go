package operate

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// operator runs commands against one admin endpoint.
type operator struct{ address string }

// do runs a command that succeeds, and returns what it printed.
func (o operator) do(t testing.TB, args ...string) string {
	t.Helper()
	out, said, code := runCommand(t, append([]string{"sse-guard"}, append(args, "--address", o.address)...)...)
	require.Zero(t, code, "%v\n%s%s", args, out, said)
	require.Empty(t, said)
	return out
}

// read runs a command with --json, and reads its answer.
func (o operator) read(t testing.TB, to any, args ...string) {
	t.Helper()
	out := o.do(t, append(args, "--json")...)
	require.NoError(t, json.Unmarshal([]byte(out), to), out)
}

// streams lists those that the flags name.
func (o operator) streams(t testing.TB, flags ...string) []harness.Listed {
	t.Helper()
	var page struct{ Streams []harness.Listed }
	o.read(t, &page, append([]string{"streams"}, flags...)...)
	return page.Streams
}

// consoleSite has two verified users with a stream each, and one that is untracked.
type consoleSite struct {
	operator
	server             *harness.AdminCaddy
	issuer             *harness.Issuer
	token              string // alice's
	alice, bob, nobody *harness.Stream
}

func startConsoleSite(t *testing.T) *consoleSite {
	t.Helper()
	s := &consoleSite{issuer: harness.NewIssuer(t, "HS256")}
	s.server = harness.StartAdminCaddy(t, "sse_guard {\nlabel room {query.room}\nmissing_key pass\njwt {\noptional\n"+
		s.issuer.KeyOption(t)+"\n}\nkey {sse_guard.claims.sub}\n}\nreverse_proxy "+harness.StartTickingBackend(t))
	s.address = strings.TrimPrefix(s.server.Admin, "http://")
	s.token = s.issuer.Token(t, harness.WithSub("alice"))
	client := harness.NewClient(t, harness.HTTP1)
	s.alice = client.Open(t, s.server.URL+"/events?room=one", harness.WithBearer(s.token))
	s.bob = client.Open(t, s.server.URL+"/events?room=two", harness.WithBearer(s.issuer.Token(t, harness.WithSub("bob"))))
	s.nobody = client.Open(t, s.server.URL+"/events")
	for _, stream := range []*harness.Stream{s.alice, s.bob, s.nobody} {
		harness.RequireLive(t, stream)
	}
	return s
}

// TestConsole_SeesStreams, as tables and as JSON.
func TestConsole_SeesStreams(t *testing.T) {
	s := startConsoleSite(t)
	all := s.streams(t)
	require.Len(t, all, 3)
	alice := s.streams(t, "--subject", "alice")
	require.Len(t, alice, 1)
	assert.Equal(t, map[string]string{"room": "one"}, alice[0].Labels)
	for _, flags := range [][]string{
		{"--id", alice[0].ID}, {"--key", alice[0].Key}, {"--token", alice[0].Token}, {"--label", "room=one"},
		{"--zone", "default", "--state", "live", "--subject", "alice", "--older-than", "1ms"},
	} {
		same := s.streams(t, flags...)
		require.Len(t, same, 1, flags)
		assert.Equal(t, alice[0].ID, same[0].ID, flags)
	}
	assert.Len(t, s.streams(t, "--state", "untracked"), 1)
	assert.Empty(t, s.streams(t, "--older-than", "1h"))
	assert.Len(t, s.streams(t, "--limit", "2"), 2)
	assert.Len(t, s.streams(t, "--limit", "0"), 3)

	table := s.do(t, "streams")
	assert.Len(t, strings.Split(strings.TrimSpace(table), "\n"), 4)
	for _, text := range []string{"SUBJECT", "alice", "bob", alice[0].Key, "room=one", "untracked", "HTTP/1.1", "/events"} {
		assert.Contains(t, table, text)
	}
	assert.NotContains(t, table, s.token)
	assert.Contains(t, s.do(t, "streams", "--limit", "1"), "There are more: give a higher --limit than 1")
	assert.Equal(t, "There is no such stream.\n", s.do(t, "streams", "--state", "parked"))

	var stats struct {
		Streams struct{ Live, Untracked int }
		Zones   []struct {
			Labels map[string]struct{ Values map[string]int }
		}
	}
	s.read(t, &stats, "stats")
	assert.Equal(t, 2, stats.Streams.Live)
	assert.Equal(t, 1, stats.Streams.Untracked)
	require.Len(t, stats.Zones, 1)
	assert.Equal(t, map[string]int{"one": 1, "two": 1}, stats.Zones[0].Labels["room"].Values)
	printed := s.do(t, "stats", "--zone", "default")
	assert.Regexp(t, `(?m)^default +\S+ +2 +0 +1 +0$`, printed)
	assert.Regexp(t, `(?m)^default +room +one +1$`, printed)
	assert.Contains(t, printed, "Untracked streams hold no key")

	frame := s.do(t, "top", "--sort", "age")
	assert.NotContains(t, frame, "\x1b", "this is no terminal")
	assert.Contains(t, frame, "live 2  parked 0  untracked 1  ending 0  zones 1  nodes 1")
	assert.Contains(t, frame, "alice")
	var look struct{ Streams []harness.Listed }
	s.read(t, &look, "top", "--subject", "bob")
	require.Len(t, look.Streams, 1)
	assert.Equal(t, "bob", look.Streams[0].Subject)
}

// TestConsole_SteersStreams: they are told, and ended.
func TestConsole_SteersStreams(t *testing.T) {
	s := startConsoleSite(t)
	assert.Equal(t, "1 stream was notified.\n", s.do(t, "notify", "--label", "room=two", "--event", "NEWS", "--data", "one\ntwo"))
	assert.Equal(t, "one\ntwo", s.bob.NextOfType(t, "NEWS").Data)
	assert.Equal(t, "0 streams were ended.\n", s.do(t, "end", "--subject", "carol"))

	assert.Equal(t, "1 stream was ended.\n", s.do(t, "end", "--subject", "alice", "--message", "Go home.", "--deny", "1h"))
	notice := harness.RequireEnded(t, s.alice, harness.Revoked, "revoked")
	assert.Equal(t, "Go home.", harness.NoticeOf(t, notice).Message)
	again := harness.NewClient(t, harness.HTTP1).Open(t, s.server.URL+"/events", harness.WithBearer(s.token))
	again.Wait(t)
	assert.Equal(t, 401, again.Status, "the token is denied")

	harness.RequireLive(t, s.bob)
	var ended struct{ Ended int }
	s.read(t, &ended, "end", "--all", "--reason", "max_age")
	assert.Equal(t, 2, ended.Ended, "bob's, and the untracked one")
	harness.RequireCut(t, s.bob)
}

// TestConsole_TokensStayOffTheCommandLine, where any user of the machine sees them.
func TestConsole_TokensStayOffTheCommandLine(t *testing.T) {
	s := startConsoleSite(t)
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, harness.CaddyBinary(t), "sse-guard", "end", "--raw-token", "-", "--address", s.address)
	cmd.Stdin = strings.NewReader(s.token + "\n")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Equal(t, "1 stream was ended.\n", string(out))
	harness.RequireEnded(t, s.alice, harness.Revoked, "revoked")
	harness.RequireLive(t, s.bob)
}

// TestConsole_FindsTheAdminEndpoint as caddy reload does.
func TestConsole_FindsTheAdminEndpoint(t *testing.T) {
	server := harness.StartAdminCaddy(t, "sse_guard\nreverse_proxy "+harness.StartTickingBackend(t))
	address := strings.TrimPrefix(server.Admin, "http://")
	file := filepath.Join(t.TempDir(), "Caddyfile")
	require.NoError(t, os.WriteFile(file, []byte("{\n\tadmin "+address+"\n}\n"), 0o600))

	out, said, code := runCommandIn(t, []string{"CADDY_ADMIN=" + address}, "sse-guard", "stats")
	assert.Zero(t, code, said)
	assert.Contains(t, out, "LIVE")
	_, said, code = runCommandIn(t, []string{"CADDY_ADMIN=localhost:1"}, "sse-guard", "stats", "--config", file)
	assert.Zero(t, code, said)

	socket := filepath.Join(t.TempDir(), "s")
	url := fmt.Sprintf("http://localhost:%d", harness.FreePort(t))
	harness.StartCaddyProcess(t, url, "run", "--adapter", "caddyfile", "--config", writeFile(t,
		fmt.Sprintf("{\n\tadmin unix/%s|0600\n\tpersist_config off\n}\n%s {\n\tsse_guard\n\trespond hello\n}\n", socket, url)))
	for _, address := range []string{"unix/" + socket, "unix/" + socket + "|0600"} {
		out, said, code = runCommand(t, "sse-guard", "stats", "--address", address)
		assert.Zero(t, code, said)
		assert.Contains(t, out, "LIVE")
	}
}

func writeFile(t testing.TB, text string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "Caddyfile")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// TestConsole_SaysWhatIsWrong in plain words, and by its exit code.
func TestConsole_SaysWhatIsWrong(t *testing.T) {
	server := harness.StartAdminCaddy(t, "sse_guard\nreverse_proxy "+harness.StartTickingBackend(t))
	address := strings.TrimPrefix(server.Admin, "http://")
	other := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(other.Close)
	elsewhere := strings.TrimPrefix(other.URL, "http://")
	off := writeFile(t, "{\n\tadmin off\n}\n")
	for _, test := range []struct {
		code int
		want string
		args []string
	}{
		{1, "nobody listens at localhost:1: does Caddy run, and is its admin endpoint on", []string{"stats", "--address", "localhost:1"}},
		{1, "no admin API of sse_guard", []string{"streams", "--address", elsewhere}},
		{1, "There is no zone of that name: There are: default.", []string{"streams", "--address", address, "--zone", "nosuch"}},
		{2, "state: it is one of live, parked, untracked and ending", []string{"streams", "--address", address, "--state", "lively"}},
		{2, "deny:", []string{"end", "--address", address, "--all", "--deny", "soon"}},
		{2, "reason:", []string{"end", "--address", address, "--all", "--reason", "boredom"}},
		{1, "nobody listens", []string{"top", "--address", "localhost:1"}},
		{2, "--all", []string{"end", "--address", address}},
		{2, "--all", []string{"notify", "--address", address, "--data", "x"}},
		{2, "--all stands alone", []string{"end", "--address", address, "--all", "--zone", "x"}},
		{2, "--data is empty", []string{"notify", "--address", address, "--all"}},
		{2, "--subject is empty", []string{"end", "--address", address, "--subject", ""}},
		{2, "--deny is empty", []string{"end", "--address", address, "--all", "--deny", ""}},
		{2, "--reason is empty", []string{"end", "--address", address, "--all", "--reason", ""}},
		{2, "--address is empty", []string{"end", "--address", "", "--all"}},
		{2, "--config is empty", []string{"top", "--config", ""}},
		{2, "write it as name=value", []string{"streams", "--address", address, "--label", "room"}},
		{2, "--interval 1ms is not allowed", []string{"top", "--address", address, "--interval", "1ms"}},
		{2, "write one such as localhost:2019", []string{"stats", "--address", "localhost:x"}},
		{2, "names several ports", []string{"stats", "--address", "localhost:1-9"}},
		{2, "turns the admin endpoint off", []string{"stats", "--config", off}},
		{2, "takes no argument", []string{"end", "alice"}},
		{2, "unknown flag", []string{"end", "--user", "alice"}},
	} {
		out, said, code := runCommand(t, append([]string{"sse-guard"}, test.args...)...)
		assert.Equal(t, test.code, code, test.args)
		assert.Contains(t, strings.ReplaceAll(said, `\"`, `"`), test.want, test.args)
		assert.Empty(t, out, test.args)
	}
}

// TestREADME_Console runs the commands of the section, as a shell does.
func TestREADME_Console(t *testing.T) {
	s := startConsoleSite(t)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "token.txt"), []byte(s.token+"\n"), 0o600))
	require.NoError(t, os.Symlink(harness.CaddyBinary(t), filepath.Join(dir, "caddy")))
	wants := map[string]string{
		"caddy sse-guard stats":                                 "Untracked streams hold no key",
		"caddy sse-guard streams --state untracked":             "untracked",
		"caddy sse-guard top":                                   "live 2  parked 0  untracked 1",
		"caddy sse-guard notify --all":                          "were notified",
		"caddy sse-guard end --subject alice --deny 10m":        "1 stream was ended.",
		"caddy sse-guard end --raw-token - < token.txt":         "0 streams were ended.",
		`caddy sse-guard end --key-part alice --message "This `: "0 streams were ended.",
	}
	ran := 0
	for _, command := range readmeCommands(t) {
		if !strings.HasPrefix(command, "caddy sse-guard ") || strings.HasPrefix(command, "caddy sse-guard check ") {
			continue
		}
		want := ""
		for begins, prints := range wants {
			if strings.HasPrefix(command, begins) {
				want = prints
			}
		}
		require.NotEmpty(t, want, "no test of: %s", command)
		ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
		shell := exec.CommandContext(ctx, "sh", "-c", command)
		shell.Dir = dir
		shell.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "CADDY_ADMIN="+s.address)
		out, err := shell.CombinedOutput()
		cancel()
		require.NoError(t, err, "%s\n%s", command, out)
		assert.Contains(t, string(out), want, command)
		ran++
	}
	assert.Equal(t, len(wants), ran)
	assert.Equal(t, "We are back at noon.", s.alice.NextOfType(t, "MAINTENANCE").Data)
	harness.RequireEnded(t, s.alice, harness.Revoked, "revoked")
}
