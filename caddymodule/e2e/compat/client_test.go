//go:build compat

package compat

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// sight is one thing that a client saw, as it reports it.
type sight struct {
	Saw  string // open, event, error, end
	Name string // of an event
	Data string
	ID   string
	Text string // of an error
}

// instance is one running client.
type instance interface {
	// seen returns what it saw so far.
	seen(t *testing.T) []sight
	// again has it open a new stream, as its user would.
	again(t *testing.T)
	// stop ends it, as its user would.
	stop(t *testing.T)
}

// start is what an instance is told.
type start struct{ url, token, instance string }

// process is a client that is a program.
type process struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stderr bytes.Buffer  // read after exited
	exited chan struct{} // closed once the process has ended, and all it printed was read

	mu     sync.Mutex // guards sights; nothing is called with it held
	sights []sight
}

func startProcess(t *testing.T, s start, command ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(command[0], command[1:]...), exited: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), "COMPAT_URL="+s.url, "COMPAT_TOKEN="+s.token, "COMPAT_N="+s.instance,
		"PYTHONDONTWRITEBYTECODE=1", "PYTHONUNBUFFERED=1", "LANGCHAIN_TRACING_V2=false")
	p.cmd.Stderr = &p.stderr
	var err error
	p.stdin, err = p.cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := p.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, p.cmd.Start())
	go p.read(stdout)
	t.Cleanup(func() {
		p.stop(t)
		t.Logf("%s, instance %s, saw %.2000v", s.token, s.instance, p.sights)
		if text := p.stderr.String(); text != "" && (t.Failed() || testing.Verbose()) {
			t.Logf("%s, instance %s, printed:\n%.4000s", s.token, s.instance, text)
		}
	})
	return p
}

// read ends with the process.
func (p *process) read(stdout io.Reader) {
	defer close(p.exited)
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		var s sight
		if json.Unmarshal(lines.Bytes(), &s) != nil {
			continue // some libraries print, too
		}
		p.mu.Lock()
		p.sights = append(p.sights, s)
		p.mu.Unlock()
	}
	_ = p.cmd.Wait()
}

func (p *process) seen(*testing.T) []sight {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.sights)
}

// again does nothing where the program has ended by itself.
func (p *process) again(*testing.T) { _, _ = io.WriteString(p.stdin, "\n") }

func (p *process) stop(*testing.T) {
	_ = p.cmd.Process.Kill() // if it has not ended before
	<-p.exited
}

// page is a client that runs in a page.
type page struct {
	url   string
	eval  func(t *testing.T, expression string) string
	close func()
	once  sync.Once
}

func (p *page) seen(t *testing.T) []sight {
	var sights []sight
	require.NoError(t, json.Unmarshal([]byte(p.eval(t, "JSON.stringify(window.seen)")), &sights))
	return sights
}

func (p *page) again(t *testing.T) { p.eval(t, "void window.again()") }

func (p *page) stop(t *testing.T) {
	p.once.Do(func() {
		t.Logf("%s saw %.2000v", p.url, p.seen(t))
		p.close()
	})
}

// pageURL is where the application has the page of that name.
func (s start) pageURL(name string) string {
	return fmt.Sprintf("%s/page/%s?token=%s&n=%s", s.url, name, s.token, s.instance)
}

// client is one kind of client, and a row of the table.
type client struct {
	name    string
	version func(t *testing.T) string
	path    string // of its streams; empty: /events
	site    siteKind
	slow    bool // it waits ever longer before it asks again
	// prepare is called once, and makes what starts an instance.
	prepare func(t *testing.T) func(*testing.T, start) instance
}

// streams is the path of the client's streams.
func (c client) streams() string {
	if c.path == "" {
		return "/events"
	}
	return c.path
}

// program is a client that is started by this command.
func program(command func(dir string) []string) func(*testing.T) func(*testing.T, start) instance {
	return func(t *testing.T) func(*testing.T, start) instance {
		line := command(made(t))
		return func(t *testing.T, s start) instance { return startProcess(t, s, line...) }
	}
}

func node(script string) func(*testing.T) func(*testing.T, start) instance {
	return program(func(dir string) []string { return []string{"node", filepath.Join(dir, "js", "node", script)} })
}

func golang(name string) func(*testing.T) func(*testing.T, start) instance {
	return program(func(dir string) []string { return []string{filepath.Join(dir, "go", name)} })
}

func java(class string) func(*testing.T) func(*testing.T, start) instance {
	return program(func(dir string) []string {
		// The flags spare a machine of two cores the compiler's work.
		return []string{"java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto",
			"-cp", filepath.Join(dir, "java", "classes") + ":" + filepath.Join(dir, "java", "lib", "*"), "compat." + class}
	})
}

func python(script string) func(*testing.T) func(*testing.T, start) instance {
	return func(t *testing.T) func(*testing.T, start) instance {
		line := []string{filepath.Join(made(t), "python", "bin", "python"), filepath.Join(harness.Root(t), "testdata", "compat", "python", script)}
		return func(t *testing.T, s start) instance { return startProcess(t, s, line...) }
	}
}

// chromium opens the page in tabs of a Chromium of the client's own.
func chromium(name string) func(*testing.T) func(*testing.T, start) instance {
	return func(t *testing.T) func(*testing.T, start) instance {
		browser := harness.StartBrowser(t)
		return func(t *testing.T, s start) instance {
			tab := browser.NewTab(t, s.pageURL(name))
			return &page{
				url:   s.pageURL(name),
				eval:  func(t *testing.T, expression string) string { return tab.Eval(t, expression) },
				close: tab.Close,
			}
		}
	}
}

// firefox opens the page in windows of a Firefox of the client's own.
func firefox(name string) func(*testing.T) func(*testing.T, start) instance {
	return func(t *testing.T) func(*testing.T, start) instance {
		browser := startFirefox(t)
		return func(t *testing.T, s start) instance { return browser.open(t, s.pageURL(name)) }
	}
}

// The versions are read where they are pinned.

func npm(name string) func(*testing.T) string {
	return pinned("js/package.json", `"`+name+`": "`, `"`)
}

func pip(name string) func(*testing.T) string {
	return pinned("python/requirements.txt", "\n"+name+"==", "\n")
}

func module(name string) func(*testing.T) string { return pinned("go/go.mod", name+" v", "\n") }

func maven(artifact string) func(*testing.T) string {
	return pinned("java/pom.xml", "<artifactId>"+artifact+"</artifactId><version>", "<")
}

// pinned returns what stands between two texts in a file of testdata/compat.
func pinned(file, before, after string) func(*testing.T) string {
	return func(t *testing.T) string {
		content, err := os.ReadFile(filepath.Join(harness.Root(t), "testdata", "compat", file))
		require.NoError(t, err)
		// However it is indented.
		_, rest, found := strings.Cut(regexp.MustCompile(`>\s+<`).ReplaceAllString(string(content), "><"), before)
		require.True(t, found, "%s has no %q", file, before)
		version, _, found := strings.Cut(rest, after)
		require.True(t, found, "%s has no %q after %q", file, after, before)
		return strings.TrimSpace(version)
	}
}

// installed returns the last word that "command --version" prints, without a note.
func installed(commands ...string) func(*testing.T) string {
	return func(t *testing.T) string {
		for _, command := range commands {
			if path, err := exec.LookPath(command); err == nil {
				output, err := exec.Command(path, "--version").Output()
				require.NoError(t, err)
				for word := range strings.FieldsSeq(string(output)) {
					if word[0] >= '0' && word[0] <= '9' {
						return word
					}
				}
				require.Fail(t, "no version", "%s --version printed %q", path, output)
			}
		}
		require.FailNow(t, "not installed: run .ci/compat-deps.sh", "%v", commands)
		return ""
	}
}

// pause waits. What a client does by itself in a while is what is measured here, so
// there is no condition to wait for.
func pause(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
		require.FailNow(t, "the test ends")
	}
}
