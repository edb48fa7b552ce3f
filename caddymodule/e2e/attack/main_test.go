// Package attack tests the guard as somebody would who wants around it, or to hurt
// others with it: end to end, each test named for what the attacker wants.
package attack

import (
	"testing"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }
