package harness

import (
	"errors"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// Main runs the tests of a package that uses this one, for its TestMain. It stops
// what the tests have shared, fails if a goroutine is left, and ends the process
// with the exit code. Goroutines that a library leaves do not count, by functions that
// they are in.
func Main(m *testing.M, leaking ...string) {
	leaking = append(leaking,
		// Caddy's file storage refreshes a lock's file once more after it was released,
		// five seconds later.
		"github.com/caddyserver/certmagic.keepLockfileFresh",
		// The client of a Redis Cluster closes a connection that it no longer needs five
		// seconds later, and asks for its servers once more a second after it was closed.
		"github.com/redis/rueidis.(*clusterClient)._refresh.func2",
		"github.com/redis/rueidis.(*clusterClient).redirectOrNew.func1",
		"github.com/redis/rueidis.(*call).DelayDo.func1",
		// toxiproxy goes on to pass what it has read to the other side of a connection that
		// was cut, if that is more than one chunk.
		"github.com/Shopify/toxiproxy/v2/stream.(*ChanWriter).Write",
	)
	var options []goleak.Option
	for _, function := range leaking {
		options = append(options, goleak.IgnoreAnyFunction(function))
	}
	goleak.VerifyTestMain(suite{m}, options...)
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
