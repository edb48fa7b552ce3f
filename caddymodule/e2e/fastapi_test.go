package e2e

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// patience bounds every wait for something that should happen at once. It is
// long because the race detector and a busy machine are slow, and it costs
// nothing where the thing does happen.
const patience = 20 * time.Second

// fastAPI is the running application of testdata/fastapi, as a test sees it.
// The methods talk to the application directly, never through a proxy.
type fastAPI struct {
	// URL is where it listens, without a final slash.
	URL string

	process *uvicorn
	control *http.Client
}

// startFastAPI gives the test the application that all tests of this binary
// share, with its counters at zero, until the test ends. Tests that want it at
// the same time wait for each other; one that needs two, or wants to stop it,
// uses startOwnFastAPI.
func startFastAPI(t testing.TB) *fastAPI {
	t.Helper()
	process := sharedFastAPI.lease(t)
	f := newFastAPI(t, process)
	f.waitOpen(t, 0) // the streams of the test before may still be ending
	f.reset(t)
	return f
}

// startOwnFastAPI starts an application for this test alone.
func startOwnFastAPI(t testing.TB) *fastAPI {
	t.Helper()
	process, err := launchUvicorn()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, process.stop()) })
	return newFastAPI(t, process)
}

func newFastAPI(t testing.TB, process *uvicorn) *fastAPI {
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	before := process.log.len()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of the FastAPI application:\n%s", process.log.from(before))
		}
	})
	return &fastAPI{
		URL:     process.url,
		process: process,
		control: &http.Client{Transport: transport, Timeout: patience},
	}
}

// appStats is what GET /stats answers: the streams since the last reset, and
// those that were open at that time.
type appStats struct {
	Open    []openStream   `json:"open"`
	Opened  int            `json:"opened"`
	Closed  int            `json:"closed"`
	Streams []streamRecord `json:"streams"`
}

// openStream is a stream that the application is sending now. Age is in seconds.
type openStream struct {
	Stream int     `json:"stream"`
	Path   string  `json:"path"`
	User   string  `json:"user"`
	Age    float64 `json:"age"`
}

// streamRecord is one stream's life, in seconds since the epoch; ClosedAt is
// nil while it is open. EndedBy is "app" or "client".
type streamRecord struct {
	Stream   int      `json:"stream"`
	Path     string   `json:"path"`
	User     string   `json:"user"`
	OpenedAt float64  `json:"opened_at"`
	ClosedAt *float64 `json:"closed_at"`
	EndedBy  string   `json:"ended_by"`
}

func (f *fastAPI) stats(t testing.TB) appStats {
	t.Helper()
	var s appStats
	f.ask(t, http.MethodGet, "/stats", nil, &s)
	return s
}

// waitStats waits until what the application counts is as the test wants it.
func (f *fastAPI) waitStats(t testing.TB, want func(appStats) bool) appStats {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		s := f.stats(t)
		if want(s) {
			return s
		}
		select {
		case <-tick.C:
		case <-timeout.C:
			require.FailNow(t, "the application does not count what is expected", "its last count: %+v", s)
		}
	}
}

// waitOpen waits until the application sends exactly n streams.
func (f *fastAPI) waitOpen(t testing.TB, n int) appStats {
	t.Helper()
	return f.waitStats(t, func(s appStats) bool { return len(s.Open) == n })
}

// appRequest is a request as it reached the application. Status is nil until
// it answered; Done says that the exchange is over.
type appRequest struct {
	Method  string      `json:"method"`
	Path    string      `json:"path"`
	Query   string      `json:"query"`
	Headers [][2]string `json:"headers"` // names in lower case
	Status  *int        `json:"status"`
	Done    bool        `json:"done"`
}

// header returns the values of a header in the order they came; name is in lower case.
func (r appRequest) header(name string) []string {
	var values []string
	for _, h := range r.Headers {
		if h[0] == name {
			values = append(values, h[1])
		}
	}
	return values
}

// requests returns what reached the application since the last reset, but the
// calls of these methods.
func (f *fastAPI) requests(t testing.TB) []appRequest {
	t.Helper()
	var requests []appRequest
	f.ask(t, http.MethodGet, "/requests", nil, &requests)
	return requests
}

// reset forgets the requests, the ended streams and the key of verifyWith.
func (f *fastAPI) reset(t testing.TB) {
	t.Helper()
	f.ask(t, http.MethodPost, "/reset", nil, &appStats{})
}

// emit sends data to the user's emitter and reports whether there was one.
func (f *fastAPI) emit(t testing.TB, user, data string) bool {
	t.Helper()
	var answer struct{ Delivered bool }
	f.ask(t, http.MethodPost, "/emit?"+url.Values{"user": {user}, "data": {data}}.Encode(), nil, &answer)
	return answer.Delivered
}

// verifyWith has the application accept the JWTs of that issuer, and no others.
func (f *fastAPI) verifyWith(t testing.TB, i *issuer) {
	t.Helper()
	key := map[string]string{"algorithm": i.alg, "key": i.verificationKey(t)}
	f.ask(t, http.MethodPost, "/jwt/key", key, &struct{}{})
}

// ask sends a question, as JSON unless it is nil, and takes the answer.
func (f *fastAPI) ask(t testing.TB, method, path string, question, answer any) {
	t.Helper()
	var asked bytes.Buffer
	if question != nil {
		require.NoError(t, json.NewEncoder(&asked).Encode(question))
	}
	request, err := http.NewRequest(method, f.URL+path, &asked)
	require.NoError(t, err)
	if question != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := f.control.Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, response.StatusCode, "%s %s: %s", method, path, body)
	require.NoError(t, json.Unmarshal(body, answer))
}

// sharedFastAPI is the application that startFastAPI hands from test to test.
// It starts with the first test that wants it; TestMain stops it.
var sharedFastAPI = &fastAPILease{free: make(chan struct{}, 1)}

type fastAPILease struct {
	free chan struct{} // full while a test has the application

	mu      sync.Mutex
	holder  string // the name of the test that has it
	process *uvicorn
}

func (l *fastAPILease) lease(t testing.TB) *uvicorn {
	t.Helper()
	require.False(t, l.heldAbove(t.Name()), "this test has the application already and would wait for itself: use startOwnFastAPI")
	l.free <- struct{}{}
	t.Cleanup(func() {
		l.setHolder("")
		<-l.free
	})
	l.setHolder(t.Name())

	// Only the holder comes here, so that process needs no lock.
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

func (l *fastAPILease) shutDown() error {
	if l.process == nil {
		return nil
	}
	return l.process.stop()
}
