package harness

import (
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// fastAPILease hands one application from test to test.
type fastAPILease struct {
	free    chan struct{} // full while a test has the application
	process *uvicorn      // only the test that has it may use this field, and Main at the end

	mu     sync.Mutex // guards holder; nothing is called with it held
	holder string     // the name of the test that has it
}

// sharedFastAPI is the application that StartFastAPI hands from test to test.
// It starts with the first test that wants it; Main stops it.
var sharedFastAPI = &fastAPILease{free: make(chan struct{}, 1)}

// lease waits until no other test has the application, and starts it if need be.
func (l *fastAPILease) lease(t testing.TB) *uvicorn {
	t.Helper()
	require.False(t, l.heldAbove(t.Name()), "this test has the application already and would wait for itself: use StartOwnFastAPI")
	l.free <- struct{}{}
	t.Cleanup(func() {
		l.setHolder("")
		<-l.free
	})
	l.setHolder(t.Name())

	if l.process == nil {
		process, err := launchUvicorn()
		require.NoError(t, err)
		l.process = process
	}
	require.True(t, l.process.running(), "the FastAPI application has ended; its log:\n%s", l.process.log)
	return l.process
}

func (l *fastAPILease) setHolder(test string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holder = test
}

// heldAbove reports whether the test, or one that it is a part of, has the application.
func (l *fastAPILease) heldAbove(test string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.holder != "" && strings.HasPrefix(test+"/", l.holder+"/")
}

// shutDown stops the application, if it ever ran. No test runs any more.
func (l *fastAPILease) shutDown() error {
	if l.process == nil {
		return nil
	}
	return l.process.stop()
}
