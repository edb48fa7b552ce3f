// Package nodes tests several Caddy processes that share a Redis.
package nodes

import (
	"testing"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }
