package stream

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(bounded{m}) }

// bounded runs the tests, and bounds how long each response may take.
type bounded struct{ *testing.M }

func (b bounded) Run() int {
	stop := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() { inTests.watch(stop) })
	defer watching.Wait()
	defer close(stop)
	return b.M.Run()
}

// longest is how long a response may take in a test, however busy the machine is.
// Nothing in these tests takes more than a few seconds.
const longest = time.Minute

// inTests are the responses of all tests. A wrong row in the table of moves makes
// responses wait for ever, and with them the handlers of a test. The process then ends
// with the names of both, instead of at the timeout of all tests.
var inTests responses

type responses struct {
	mu  sync.Mutex // guards all, and since in it; nothing is called with it held
	all []*inTest  // those that may not be gone yet
}

// inTest is the response of a test.
type inTest struct {
	test     string
	response *Response
	// since is when watch has seen it first. The test may be in a bubble, which has a
	// time of its own.
	since time.Time
}

func (r *responses) add(test string, p *Response) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, &inTest{test: test, response: p})
}

func (r *responses) watch(stop <-chan struct{}) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
			if late := r.late(time.Now()); late != nil {
				panic(fmt.Sprintf("%s: a response hangs: it is %q for %s", late.test, late.response.life.now(), longest))
			}
		}
	}
}

// late returns one that is not gone longest after it was seen first; nil: none.
func (r *responses) late(now time.Time) *inTest {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = slices.DeleteFunc(r.all, func(i *inTest) bool { return i.response.life.now() == stateGone })
	for _, i := range r.all {
		switch {
		case i.since.IsZero():
			i.since = now
		case now.Sub(i.since) > longest:
			return i
		}
	}
	return nil
}

// runningTest is the test function that calls this, however deep.
func runningTest() string {
	var callers [64]uintptr
	frames := runtime.CallersFrames(callers[:runtime.Callers(1, callers[:])])
	for {
		frame, more := frames.Next()
		name := frame.Function[strings.LastIndexByte(frame.Function, '/')+1:]
		if test, found := strings.CutPrefix(name, "stream.Test"); found {
			return "Test" + test
		}
		if !more {
			return "a test"
		}
	}
}
