// Package e2e tests the guard end to end: a real Caddy, real sockets, and the
// real FastAPI application of testdata/fastapi behind it.
package e2e

import (
	"testing"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }
