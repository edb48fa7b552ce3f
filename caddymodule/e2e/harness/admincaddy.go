package harness

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// AdminCaddy is cmd/caddy, run as a user does, with one site and an admin endpoint.
type AdminCaddy struct {
	*CaddyProcess
	*CaddyLog
	// URL is where its site listens, and Admin where its admin endpoint does, both without
	// a final slash.
	URL, Admin string

	dir, global string
}

// StartAdminCaddy runs a site with the given directives, until the test ends. global are
// lines for the global block.
func StartAdminCaddy(t testing.TB, site string, global ...string) *AdminCaddy {
	t.Helper()
	dir := t.TempDir()
	admin := FreePort(t)
	c := &AdminCaddy{
		CaddyLog: newCaddyLog(t, dir),
		URL:      fmt.Sprintf("http://localhost:%d", FreePort(t)),
		Admin:    fmt.Sprintf("http://localhost:%d", admin),
		dir:      dir, global: fmt.Sprintf("grace_period 1s\nadmin localhost:%d\n%s", admin, strings.Join(global, "\n")),
	}
	require.NoError(t, os.WriteFile(c.file(), []byte(c.caddyfile(site)), 0o600))
	c.Restart(t)
	return c
}

// Restart runs the site again, once its process has ended.
func (c *AdminCaddy) Restart(t testing.TB) {
	t.Helper()
	c.CaddyProcess = StartCaddyProcess(t, c.Admin+"/config/", "run", "--config", c.file(), "--adapter", "caddyfile")
}

func (c *AdminCaddy) file() string { return filepath.Join(c.dir, "Caddyfile") }

func (c *AdminCaddy) caddyfile(site string) string {
	return caddyfile(c.dir, c.CaddyLog, c.global, fmt.Sprintf("%s {\n%s\n}", c.URL, site))
}

// Reload puts a site with other directives in the place of the present one, as "caddy
// reload" does.
func (c *AdminCaddy) Reload(t testing.TB, site string) {
	t.Helper()
	response, body := c.Load(t, site)
	require.Equal(t, http.StatusOK, response.StatusCode, body)
	WaitHandover(t, c.URL)
}

// Load asks for a Reload, and returns the answer.
func (c *AdminCaddy) Load(t testing.TB, site string) (response *http.Response, body string) {
	t.Helper()
	return Send(t, http.MethodPost, c.Admin+"/load", WithPost(c.caddyfile(site)), WithHeader("Content-Type", "text/caddyfile"))
}
