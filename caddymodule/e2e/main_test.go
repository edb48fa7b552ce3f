// Package e2e tests the guard end to end: a real Caddy, real sockets, and the
// real FastAPI application of testdata/fastapi behind it.
package e2e

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// suite runs the tests, then stops what they shared.
type suite struct{ *testing.M }

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(suite{m},
		// Caddy's file storage refreshes a lock's file once more after it was
		// released, five seconds later.
		goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.keepLockfileFresh"),
	)
}

func (s suite) Run() int {
	code := s.M.Run()
	if err := sharedFastAPI.shutDown(); err != nil {
		os.Stderr.WriteString("stopping the shared FastAPI application: " + err.Error() + "\n")
		return max(code, 1)
	}
	return code
}
