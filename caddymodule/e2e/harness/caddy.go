package harness

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard" // the modules that sites name
	"github.com/stretchr/testify/require"

	_ "github.com/sse-guard/sse-guard/caddymodule" // the module under test
)

// Caddy is a Caddy in this process with one site, configured by a
// Caddyfile. Caddy has one configuration per process, so there is one at a
// time: tests that start one do not run in parallel.
type Caddy struct {
	*CaddyLog

	// URL is where its site listens, without a final slash.
	URL string

	tls string // the site's tls directive, if it has one
	dir string // Caddy's storage
}

// StartCaddy runs a site with the given directives over clear-text HTTP, until
// the test ends.
func StartCaddy(t testing.TB, site string) *Caddy {
	t.Helper()
	return StartCaddyScheme(t, "http", site)
}

// StartCaddyTLS runs a site with the given directives over HTTPS, for HTTP/1.1,
// HTTP/2 and HTTP/3, until the test ends.
func StartCaddyTLS(t testing.TB, site string) *Caddy {
	t.Helper()
	return StartCaddyScheme(t, "https", site)
}

// StartCaddyScheme is StartCaddy for the scheme "http", and StartCaddyTLS for
// "https".
func StartCaddyScheme(t testing.TB, scheme, site string) *Caddy {
	t.Helper()
	dir := t.TempDir()
	c := &Caddy{
		CaddyLog: newCaddyLog(t, dir),
		URL:      fmt.Sprintf("%s://localhost:%d", scheme, FreePort(t)),
		dir:      dir,
	}
	if scheme == "https" {
		certificate := WriteCertificate(t, dir)
		c.tls = fmt.Sprintf("tls %q %q", certificate, certificate)
	}
	t.Cleanup(func() { require.NoError(t, caddy.Stop()) })
	require.NoError(t, c.Load(t, site))
	return c
}

// Reload puts a site with other directives in the place of the present one.
func (c *Caddy) Reload(t testing.TB, site string) {
	t.Helper()
	require.NoError(t, c.Load(t, site))
	WaitHandover(t, c.URL)
}

// WaitHandover waits until connections are taken by the server of a configuration that has
// just been loaded. The one before may take one more, and close it. Caddy itself answers
// this request, since no site has its host.
func WaitHandover(t testing.TB, url string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	request.Host = "nowhere.invalid"
	require.Eventually(t, func() bool {
		transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
		defer transport.CloseIdleConnections()
		response, err := transport.RoundTrip(request)
		if err == nil {
			response.Body.Close()
		}
		return err == nil
	}, Patience, 10*time.Millisecond)
}

// Load is Reload for callers that expect Caddy to refuse the site, and returns
// Caddy's error. What the Caddyfile adapter refuses fails the test. serverOptions
// are lines for the global servers block.
func (c *Caddy) Load(t testing.TB, site string, serverOptions ...string) error {
	t.Helper()
	global := fmt.Sprintf(`grace_period 1s
		servers {
			protocols h1 h2 h2c h3
			trusted_proxies static 127.0.0.0/8 ::1
			%s
		}`, strings.Join(serverOptions, "\n"))
	return load(t, caddyfile(c.dir, c.CaddyLog, global, fmt.Sprintf("%s {\n%s\n%s\n}", c.URL, c.tls, site)))
}

// LoadSites runs a Caddy in this process with sites, given as the site blocks of a
// Caddyfile, until the test ends. It returns Caddy's error, which callers may expect.
func LoadSites(t testing.TB, global, sites string) (*CaddyLog, error) {
	t.Helper()
	dir := t.TempDir()
	log := newCaddyLog(t, dir)
	t.Cleanup(func() { require.NoError(t, caddy.Stop()) })
	return log, load(t, caddyfile(dir, log, "grace_period 1s\n"+global, sites))
}

func load(t testing.TB, text string) error {
	t.Helper()
	adapted, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": "Caddyfile"})
	require.NoError(t, err, text)
	for _, w := range warnings {
		require.Contains(t, w.Message, "not formatted", "the tests' Caddyfiles are indented by their own taste, nothing else")
	}
	return caddy.Load(adapted, true)
}
