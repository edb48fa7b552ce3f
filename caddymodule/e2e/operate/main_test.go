// Package operate tests what an operator sees and uses: the commands, metrics, the admin
// API, the live page, webhooks and the access log.
package operate

import (
	"testing"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }
