package caddymodule_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const modulePath = "github.com/sse-guard/sse-guard/"

// floors has the packages of this module from the top of the house to its ground.
// A package imports only from floors below its own. Those that belong to one
// floor know nothing of each other.
var floors = [][]string{
	{"cmd/caddy", "cmd/clusterdemo", "cmd/ssebench"},
	{"caddymodule"},
	{"caddymodule/livepage"},
	{"caddymodule/guard", "caddymodule/steer"},
	{"caddymodule/zone"},
	{"caddymodule/stream", "caddymodule/conflict", "caddymodule/webhook", "caddymodule/presence"},
	{"caddymodule/registry/redis"},
	{"caddymodule/event", "caddymodule/registry/memory", "caddymodule/registry/registrytest"},
	{"caddymodule/registry", "caddymodule/check", "caddymodule/console"},
	{"caddymodule/reason", "caddymodule/identity/verify", "caddymodule/demo", "caddymodule/tcp"},
	{"caddymodule/identity", "caddymodule/tombstone", "caddymodule/eventstream", "caddymodule/internal/wheel", "caddymodule/internal/due", "caddymodule/internal/printable"},
}

// apart are packages of tests and for tests, which may import anything.
var apart = []string{"caddymodule/e2e", "caddymodule/e2e/attack", "caddymodule/e2e/campaign", "caddymodule/e2e/checker", "caddymodule/e2e/compat", "caddymodule/e2e/harness", "caddymodule/e2e/nodes", "caddymodule/e2e/operate"}

// goPackage is what go list tells of one.
type goPackage struct {
	ImportPath string
	Imports    []string
}

func TestHouse_ArrowsPointDown(t *testing.T) {
	floorOf := make(map[string]int)
	for i, names := range floors {
		for _, name := range names {
			floorOf[name] = i
		}
	}
	var picture strings.Builder
	listed := 0
	for _, p := range packages(t) {
		from := strings.TrimPrefix(p.ImportPath, modulePath)
		if slices.Contains(apart, from) {
			continue
		}
		floor, known := floorOf[from]
		if !known {
			t.Errorf("%s has no floor: give it one in the table above, below all that import it", from)
			continue
		}
		listed++
		var to []string
		for _, path := range p.Imports {
			name, ours := strings.CutPrefix(path, modulePath)
			if !ours {
				continue
			}
			to = append(to, name)
			if below, known := floorOf[name]; !known || below <= floor {
				t.Errorf("%s imports %s, which is no floor below it", from, name)
			}
		}
		fmt.Fprintf(&picture, "%d %s -> %s\n", floor, from, strings.Join(to, ", "))
	}
	t.Logf("floor, package -> what it imports:\n%s", picture.String())
	require.Equal(t, len(floorOf), listed, "packages in the table that are not there any more")
}

// packages lists the packages of this module, without their tests.
func packages(t *testing.T) (list []goPackage) {
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", "../...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return list
		} else if err != nil {
			require.NoError(t, err)
		}
		list = append(list, p)
	}
}
