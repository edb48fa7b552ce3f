package harness

import (
	"errors"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// Main runs the tests of a package that uses this one, for its TestMain. It stops
// what the tests have shared, fails if a goroutine is left, and ends the process
// with the exit code.
func Main(m *testing.M) {
	goleak.VerifyTestMain(suite{m},
		// Caddy's file storage refreshes a lock's file once more after it was
		// released, five seconds later.
		goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.keepLockfileFresh"),
		// A client of a Redis Cluster asks for its servers once more, a second after it was
		// closed.
		goleak.IgnoreAnyFunction("github.com/redis/rueidis.(*call).DelayDo.func1"),
		// The client of a Redis Cluster closes a connection that it no longer needs five
		// seconds later.
		goleak.IgnoreAnyFunction("github.com/redis/rueidis.(*clusterClient)._refresh.func2"),
		goleak.IgnoreAnyFunction("github.com/redis/rueidis.(*clusterClient).redirectOrNew.func1"),
	)
}

// suite runs the tests, then stops what they shared.
type suite struct{ *testing.M }

// Run returns the exit code; goleak calls it.
func (s suite) Run() int {
	code := s.M.Run()
	if err := errors.Join(sharedFastAPI.shutDown(), builtCaddy.remove(), ports.release()); err != nil {
		os.Stderr.WriteString("stopping what the tests shared: " + err.Error() + "\n")
		return max(code, 1)
	}
	return code
}
