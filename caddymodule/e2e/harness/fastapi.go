package harness

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// FastAPI is the running application of testdata/fastapi, as a test sees it.
// The methods talk to the application directly, never through a proxy.
type FastAPI struct {
	// URL is where it listens, without a final slash.
	URL string

	// Client is what the methods ask with.
	Client *http.Client

	process *uvicorn
}

// StartFastAPI gives the test the application that all tests of this binary
// share, with its counters at zero, until the test ends; Main stops it. Tests that want it at
// the same time wait for each other; one that needs two, or wants to stop it,
// uses StartOwnFastAPI.
func StartFastAPI(t testing.TB) *FastAPI {
	t.Helper()
	process := sharedFastAPI.lease(t)
	f := newFastAPI(t, process)
	f.WaitOpen(t, 0) // the streams of the test before may still be ending
	f.Reset(t)
	return f
}

// StartOwnFastAPI starts an application for this test alone, until it ends.
func StartOwnFastAPI(t testing.TB) *FastAPI {
	t.Helper()
	process, err := launchUvicorn()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, process.stop()) })
	return newFastAPI(t, process)
}

func newFastAPI(t testing.TB, process *uvicorn) *FastAPI {
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	before := process.log.len()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of the FastAPI application:\n%s", process.log.from(before))
		}
	})
	return &FastAPI{
		URL:     process.url,
		process: process,
		Client:  &http.Client{Transport: transport, Timeout: Patience},
	}
}

// Stop ends the application with SIGTERM and waits for it. It is an error if it has
// to be killed or ends badly. It is for an application of StartOwnFastAPI only.
func (f *FastAPI) Stop() error { return f.process.stop() }

// Log returns what the application has printed.
func (f *FastAPI) Log() string { return f.process.log.String() }

// Stats returns what the application counts.
func (f *FastAPI) Stats(t testing.TB) AppStats {
	t.Helper()
	var s AppStats
	f.ask(t, http.MethodGet, "/stats", nil, &s)
	return s
}

// WaitStats waits until what the application counts is as the test wants it, and
// returns that.
func (f *FastAPI) WaitStats(t testing.TB, want func(AppStats) bool) AppStats {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	timeout := time.NewTimer(Patience)
	defer timeout.Stop()
	for {
		s := f.Stats(t)
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

// WaitOpen waits until the application has exactly n streams open.
func (f *FastAPI) WaitOpen(t testing.TB, n int) AppStats {
	t.Helper()
	return f.WaitStats(t, func(s AppStats) bool { return len(s.Open) == n })
}

// Requests returns what reached the application since the last reset, but the
// calls of these methods.
func (f *FastAPI) Requests(t testing.TB) []AppRequest {
	t.Helper()
	var requests []AppRequest
	f.ask(t, http.MethodGet, "/requests", nil, &requests)
	return requests
}

// Reset forgets the requests, the ended streams and the key of VerifyWith.
func (f *FastAPI) Reset(t testing.TB) {
	t.Helper()
	f.ask(t, http.MethodPost, "/reset", nil, &AppStats{})
}

// Emit sends data to the user's emitter and reports whether there was one.
func (f *FastAPI) Emit(t testing.TB, user, data string) bool {
	t.Helper()
	var answer struct{ Delivered bool }
	f.ask(t, http.MethodPost, "/emit?"+url.Values{"user": {user}, "data": {data}}.Encode(), nil, &answer)
	return answer.Delivered
}

// VerifyWith has the application accept the JWTs of that issuer, and no others.
func (f *FastAPI) VerifyWith(t testing.TB, i *Issuer) {
	t.Helper()
	key := map[string]string{"algorithm": i.Alg, "key": i.verificationKey(t)}
	f.ask(t, http.MethodPost, "/jwt/key", key, &struct{}{})
}

// ask sends a question, as JSON unless it is nil, and takes the answer.
func (f *FastAPI) ask(t testing.TB, method, path string, question, answer any) {
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
	response, err := f.Client.Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, response.StatusCode, "%s %s: %s", method, path, body)
	require.NoError(t, json.Unmarshal(body, answer))
}

// Rooms is what the application makes of a webhook.
type Rooms struct{ Present, Log []string }

// Rooms returns who is in the application's rooms.
func (f *FastAPI) Rooms(t testing.TB) (r Rooms) {
	t.Helper()
	f.ask(t, http.MethodGet, "/rooms", nil, &r)
	return r
}

// WaitRooms waits until the rooms are as the test wants them, and returns that.
func (f *FastAPI) WaitRooms(t testing.TB, want func(Rooms) bool) (r Rooms) {
	t.Helper()
	require.Eventually(t, func() bool { r = f.Rooms(t); return want(r) }, 2*Patience, 10*time.Millisecond)
	return r
}
