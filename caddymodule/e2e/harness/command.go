package harness

import (
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

// Run runs a command at the top of the repository to its end, and returns what it
// printed.
func Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = Root(t)
	output, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s %v:\n%s", name, args, output)
	return string(output)
}
