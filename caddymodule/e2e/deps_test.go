package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// TestDeps_TheWrongGoIsToldBeforeAllElse, in a copy whose go.mod wants one that nobody
// has, and where there is none: then nothing is installed, or made.
func TestDeps_TheWrongGoIsToldBeforeAllElse(t *testing.T) {
	for name, test := range map[string]struct {
		needs []string // the commands in PATH; nil: as it is
		told  string
	}{
		"too old": {nil, "go.mod wants Go 99.0 or newer"},
		"none":    {[]string{"bash", "dirname", "basename", "awk"}, "there is no Go here"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.Mkdir(filepath.Join(dir, ".ci"), 0o700))
			for _, script := range []string{"deps.sh", "install.sh"} {
				content, err := os.ReadFile(filepath.Join(harness.Root(t), ".ci", script))
				require.NoError(t, err)
				require.NoError(t, os.WriteFile(filepath.Join(dir, ".ci", script), content, 0o600))
			}
			require.NoError(t, os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module copy\n\ngo 99.0\n"), 0o600))
			cmd := exec.CommandContext(t.Context(), "bash", ".ci/deps.sh")
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "GOTOOLCHAIN=local", "GOWORK=off", "GOFLAGS=")
			if test.needs != nil {
				bin := t.TempDir()
				for _, command := range test.needs {
					path, err := exec.LookPath(command)
					require.NoError(t, err)
					require.NoError(t, os.Symlink(path, filepath.Join(bin, command)))
				}
				cmd.Env = append(cmd.Env, "PATH="+bin)
			}
			output, err := cmd.CombinedOutput()
			require.Error(t, err)
			assert.Contains(t, string(output), test.told)
			assert.Contains(t, string(output), "https://go.dev/dl/")
			assert.NoDirExists(t, filepath.Join(dir, ".cache"))
		})
	}
}
