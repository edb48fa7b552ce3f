package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// Root returns the path of the top of the repository that the test is in.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := findRoot()
	require.NoError(t, err)
	return dir
}

// findRoot looks for the module's go.mod in the working directory, which go test
// sets to the package's, and in the directories above.
var findRoot = sync.OnceValues(func() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		content, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(content), "module github.com/sse-guard/sse-guard\n") {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("%s is not in a checkout of sse-guard", start)
		}
	}
})
