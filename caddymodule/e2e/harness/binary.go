package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// caddyBuild is a directory of its own with the binary in it. Its fields are set
// within once.
type caddyBuild struct {
	once sync.Once
	dir  string // empty until then
	err  error
}

// builtCaddy is cmd/caddy, built with the first test that runs it as a user does.
var builtCaddy caddyBuild

// CaddyBinary returns the path of cmd/caddy's binary, which it builds on first use.
func CaddyBinary(t testing.TB) string {
	t.Helper()
	top := Root(t)
	builtCaddy.once.Do(func() { builtCaddy.make(top) })
	require.NoError(t, builtCaddy.err)
	return builtCaddy.path()
}

func (b *caddyBuild) path() string { return filepath.Join(b.dir, "caddy") }

// make builds the binary. What fails is kept for every test that wants it.
func (b *caddyBuild) make(root string) {
	if b.dir, b.err = os.MkdirTemp("", "sse-guard-caddy"); b.err != nil {
		return
	}
	build := exec.Command("go", "build", "-o", b.path(), "./cmd/caddy")
	build.Dir = root
	if output, err := build.CombinedOutput(); err != nil {
		b.err = fmt.Errorf("building cmd/caddy: %w\n%s", err, output)
	}
}

// remove is for when no test runs any more.
func (b *caddyBuild) remove() error {
	if b.dir == "" {
		return nil
	}
	return os.RemoveAll(b.dir)
}
