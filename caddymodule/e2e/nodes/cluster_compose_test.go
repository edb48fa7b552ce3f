package nodes

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// composeService is what compose.yaml says of one container.
type composeService struct {
	Image string
	Build struct {
		Context    string
		Dockerfile string `yaml:"dockerfile_inline"`
	}
	Command     []string
	Environment map[string]string
	Volumes     []string
	DependsOn   []string `yaml:"depends_on"`
	Ports       []string
}

func readCompose(t testing.TB) (dir, text string, services map[string]composeService) {
	t.Helper()
	dir = filepath.Join(harness.Root(t), "testdata", "cluster")
	b, err := os.ReadFile(filepath.Join(dir, "compose.yaml"))
	require.NoError(t, err)
	var compose struct{ Services map[string]composeService }
	require.NoError(t, yaml.Unmarshal(b, &compose))
	return dir, string(b), compose.Services
}

// TestCluster_ComposeFile is as far as a compose.yaml can be tested without a container
// engine.
func TestCluster_ComposeFile(t *testing.T) {
	dir, text, services := readCompose(t)
	require.Len(t, services, 6)
	assert.Contains(t, text, "This file was never run", "it must not look tested")
	for name, service := range services {
		for _, other := range service.DependsOn {
			assert.Contains(t, services, other, "%s depends on it", name)
		}
		if name == "redis" {
			assert.Regexp(t, `^redis:\d+$`, service.Image)
			assert.Equal(t, "redis-server", service.Command[0])
			continue
		}
		assert.FileExists(t, filepath.Join(dir, service.Build.Context, "go.mod"), "%s is built from the top", name)
		for line := range strings.Lines(service.Build.Dockerfile) {
			if words := strings.Fields(line); len(words) > 2 && words[0] == "COPY" && !strings.HasPrefix(words[1], "--") {
				for _, source := range words[1 : len(words)-1] {
					_, err := os.Stat(filepath.Join(dir, service.Build.Context, source))
					assert.NoError(t, err, line)
				}
			}
		}
		for _, volume := range service.Volumes {
			source, target, ok := strings.Cut(strings.TrimSuffix(volume, ":ro"), ":")
			require.True(t, ok, volume)
			assert.FileExists(t, filepath.Join(dir, source))
			assert.Contains(t, service.Command, target, "what is mounted is what Caddy reads")
		}
	}
	mod, err := os.ReadFile(filepath.Join(harness.Root(t), "go.mod"))
	require.NoError(t, err)
	version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindSubmatch(mod)
	require.NotNil(t, version)
	assert.Contains(t, services["app"].Build.Dockerfile, "FROM golang:"+string(version[1])+" ")
	assert.Equal(t, []string{"8080:8080"}, services["front"].Ports)
}

// TestCluster_Caddyfiles are valid with the defaults, which are the compose file's
// services, and formatted.
func TestCluster_Caddyfiles(t *testing.T) {
	dir, _, services := readCompose(t)
	defaults := regexp.MustCompile(`\{\$([A-Z]+)(?::([^}]*))?\}`)
	for _, name := range []string{"node.Caddyfile", "front.Caddyfile"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		var known []string
		for service := range services {
			known = append(known, service)
		}
		for _, found := range defaults.FindAllStringSubmatch(string(text), -1) {
			for address := range strings.FieldsSeq(found[2]) {
				if host, port, ok := strings.Cut(address, ":"); ok {
					assert.True(t, slices.Contains(known, host), "%s names %s, which is no service", name, address)
					assert.Equal(t, map[bool]string{false: "8080", true: "6379"}[host == "redis"], port, address)
				}
			}
		}
		validate := exec.CommandContext(t.Context(), harness.CaddyBinary(t), "validate", "--config", name, "--adapter", "caddyfile")
		data := t.TempDir()
		validate.Dir, validate.Env = dir, append(os.Environ(), "XDG_DATA_HOME="+data, "XDG_CONFIG_HOME="+data)
		output, err := validate.CombinedOutput()
		require.NoError(t, err, string(output))
		assert.Contains(t, string(output), "Valid configuration")
		formatted := exec.CommandContext(t.Context(), harness.CaddyBinary(t), "fmt", name)
		formatted.Dir = dir
		want, err := formatted.Output()
		require.NoError(t, err)
		assert.Equal(t, string(want), string(text), "caddy fmt --overwrite")
	}
	for i := range 3 {
		node := services[fmt.Sprintf("node%d", i+1)]
		assert.Equal(t, fmt.Sprintf("node %d", i+1), node.Environment["NODE"])
	}
}
