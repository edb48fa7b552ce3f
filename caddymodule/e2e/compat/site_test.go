//go:build compat

package compat

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// siteKind is how a client's site is set up, as README says.
type siteKind int

const (
	// pageSite has a guard with its defaults.
	pageSite siteKind = iota
	// llmSite counts POST, as the gateway of an LLM does.
	llmSite
	// anthropicSite is an llmSite whose notices have the name that Anthropic's SDKs know.
	anthropicSite
	siteKinds
)

// kindOptions are the lines of the guard in sites of a kind.
var kindOptions = [siteKinds]string{
	pageSite:      "",
	llmSite:       "key {sse_guard.token}\nmethods any\n",
	anthropicSite: "key {sse_guard.token}\nmethods any\nevent superseded error\nevent rejected error\nevent parked error\nevent logout error\n",
}

// sceneOptions are the lines of the guard in a scene. Times are short, so that a run
// is.
var sceneOptions = map[Scene]string{
	Superseded: "",
	Rejected:   "policy reject\nretry 2s",
	Parked:     "policy reject\non_reject park",
	Idle:       "heartbeat 1s\ndead_after 30s",
	Rotated:    "max_age 4s",
	Drained:    "drain 2s",
	LoggedOut:  "logout POST /logout token",
}

// access is an access log, which several tests read.
type access struct{ path string }

// site is one site of a Caddy.
type site struct {
	url string
	access
}

// block returns the site's block for a Caddyfile.
func (s site) block(scene Scene, kind siteKind, app string) string {
	return fmt.Sprintf(`%s {
		log {
			output file %q {
				roll_disabled
			}
			format json
		}
		log_append <began {time.now.unix_ms}
		sse_guard {
			zone %s-%d
			%s%s
		}
		reverse_proxy %s
	}
	`, s.url, s.path, strings.ReplaceAll(string(scene), " ", "-"), kind, kindOptions[kind], sceneOptions[scene], app)
}

// globalOptions have the access log tell tokens, by which a test finds its lines,
// and bound how long Caddy waits for clients when it stops.
const globalOptions = `grace_period 5s
	servers {
		log_credentials
	}`

// newSite names a site that no other test has.
func newSite(t *testing.T, dir string) site {
	t.Helper()
	port := harness.FreePort(t)
	return site{fmt.Sprintf("http://localhost:%d", port), access{filepath.Join(dir, fmt.Sprintf("access-%d.log", port))}}
}

// startSites runs one Caddy with a site for each scene and kind, but for those that
// stop their Caddy.
func startSites(t *testing.T, app string) map[Scene][siteKinds]site {
	t.Helper()
	dir := t.TempDir()
	sites := map[Scene][siteKinds]site{}
	taken := map[string]bool{}
	var blocks strings.Builder
	var one string
	for scene := range sceneOptions {
		if scene == Drained {
			continue
		}
		var kinds [siteKinds]site
		for kind := range siteKinds {
			s := newSite(t, dir)
			require.False(t, taken[s.url], "two sites have one port")
			taken[s.url] = true
			kinds[kind] = s
			blocks.WriteString(s.block(scene, kind, app))
			one = s.url
		}
		sites[scene] = kinds
	}
	harness.StartCaddySites(t, one, globalOptions, blocks.String())
	return sites
}

// requests returns when those of the token to that path began that are over. Caddy
// logs no duration of a response that was cut: the line has a field of our own.
func (a access) requests(t *testing.T, token, path string) []time.Time {
	t.Helper()
	content, err := os.ReadFile(a.path)
	require.NoError(t, err)
	var began []time.Time
	for text := range strings.Lines(string(content)) {
		if !strings.Contains(text, token) || !strings.HasSuffix(text, "\n") {
			continue
		}
		var line struct {
			Began   json.Number
			Request struct{ URI string }
		}
		require.NoError(t, json.Unmarshal([]byte(text), &line), text)
		if strings.HasPrefix(line.Request.URI, path) {
			ms, err := line.Began.Int64()
			require.NoError(t, err, text)
			began = append(began, time.UnixMilli(ms))
		}
	}
	return began
}
