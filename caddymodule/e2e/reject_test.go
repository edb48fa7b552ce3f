package e2e

import (
	"encoding/json"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const duplicateSession = "DUPLICATE_SESSION"

// TestReject is problem P3: the holder is protected and notices nothing; early,
// where its token is the newcomer's, and at the header.
func TestReject(t *testing.T) {
	for name, options := range map[string]string{"early": "", "at the header": "takeover response"} {
		t.Run(name, func(t *testing.T) {
			app := startFastAPI(t)
			server := startCaddy(t, "sse_guard {\npolicy reject\nretry 2s\n"+options+"\n}\nreverse_proxy "+app.URL)
			client := newSSEClient(t, http1)
			holder := client.open(t, server.URL+"/raw", withBearer("alice"))
			holder.next(t)

			newcomer := client.open(t, server.URL+"/raw", withBearer("alice"))
			assert.Equal(t, 200, newcomer.Status)
			assert.Equal(t, "text/event-stream", newcomer.Header.Get("Content-Type"))
			notice := requireEnded(t, newcomer, duplicateSession, "rejected")
			assert.Empty(t, notice.ID, "it may come back")
			assert.Equal(t, 2*time.Second, *newcomer.retry())

			plain, body := get(t, server.URL+"/raw", withBearer("alice"))
			assert.Equal(t, 409, plain.StatusCode)
			assert.Equal(t, "application/problem+json", plain.Header.Get("Content-Type"))
			assert.Equal(t, "2", plain.Header.Get("Retry-After"))
			var problem struct {
				Status int
				Code   string
			}
			require.NoError(t, json.Unmarshal([]byte(body), &problem))
			assert.Equal(t, 409, problem.Status)
			assert.Equal(t, duplicateSession, problem.Code)

			holder.next(t)
			app.waitOpen(t, 1)
			if options == "" {
				assert.Equal(t, 2, app.stats(t).Opened, "holder, and the plain request, which is judged at the header")
			}
			for _, line := range server.waitLogs(t, 1) { // the second one is counted for a later line
				assert.Equal(t, securityLogger, line.Logger)
				assert.Equal(t, []string{"127.0.0.1"}, line.HolderIPs)
				assert.NotEmpty(t, line.NewcomerIP)
			}

			holder.close()
			require.Eventually(t, func() bool {
				s := client.open(t, server.URL+"/raw", withBearer("alice"))
				return s.next(t).Type == "message"
			}, patience, 20*time.Millisecond, "the key is not free after its holder left")
		})
	}
}

// TestReject_OnRejectStatus is final for an EventSource.
func TestReject_OnRejectStatus(t *testing.T) {
	app := startFastAPI(t)
	server := startCaddy(t, "sse_guard {\npolicy reject\non_reject status\n}\nreverse_proxy "+app.URL)
	client := newSSEClient(t, http1)
	client.open(t, server.URL+"/raw", withBearer("alice")).next(t)
	source := newEventSource(t, client, server.URL+"/raw", withBearer("alice"))
	assert.Equal(t, []int{409}, source.waitClosed(t))
}

// TestReject_ParkedNewcomerComesInWhenTheHolderLeaves keeps the newcomer's
// response open until then.
func TestReject_ParkedNewcomerComesInWhenTheHolderLeaves(t *testing.T) {
	for _, protocol := range []protocol{http1, http2} {
		t.Run(string(protocol), func(t *testing.T) {
			app := startFastAPI(t)
			server := startCaddyTLS(t, "sse_guard {\npolicy reject\non_reject park\n}\nreverse_proxy "+app.URL)
			client := newSSEClient(t, protocol)
			holder := client.open(t, server.URL+"/raw", withBearer("alice"))
			holder.next(t)
			parked := newEventSource(t, newSSEClient(t, protocol), server.URL+"/raw", withBearer("alice"))
			assert.Equal(t, duplicateSession, parked.next(t).Type)
			holder.next(t)
			assert.Equal(t, "OPEN", parked.readyState())
			assert.Equal(t, 1, parked.count())
			assert.Equal(t, 1, app.stats(t).Opened)

			holder.close()
			assert.Equal(t, "message", parked.next(t).Type)
			assert.Equal(t, []int{200, 200}, parked.answers())
		})
	}
}

// TestReject_ThirtyNewcomersAtOnce admits exactly one.
func TestReject_ThirtyNewcomersAtOnce(t *testing.T) {
	for _, takeover := range []string{"auto", "response"} {
		t.Run(takeover, func(t *testing.T) {
			app := startFastAPI(t)
			server := startCaddy(t, "sse_guard {\npolicy reject\ntakeover "+takeover+"\n}\nreverse_proxy "+app.URL)
			streams := openAtOnce(t, 30, server.URL+"/sse")
			var admitted []*sseStream
			for _, s := range streams {
				if e := s.next(t); e.Type == "message" {
					admitted = append(admitted, s)
				} else {
					assert.Equal(t, duplicateSession, e.Type)
				}
			}
			require.Len(t, admitted, 1)
			app.waitOpen(t, 1)
			admitted[0].next(t)
		})
	}
}

// openAtOnce opens n streams of one token at the same time.
func openAtOnce(t testing.TB, n int, url string) []*sseStream {
	t.Helper()
	streams := make([]*sseStream, n)
	errs := make([]error, n)
	var opening sync.WaitGroup
	for i := range n {
		client := newSSEClient(t, http1)
		opening.Go(func() { streams[i], errs[i] = client.connect(t.Context(), url, "", withBearer("alice")) })
	}
	opening.Wait()
	for i := range n {
		require.NoError(t, errs[i])
		t.Cleanup(streams[i].close)
	}
	return streams
}

// TestCORS_ARefusalCanBeReadByItsPage keeps what the upstream allows a page of
// another origin.
func TestCORS_ARefusalCanBeReadByItsPage(t *testing.T) {
	const origin = "https://app.example"
	for _, takeover := range []string{"auto", "response"} {
		t.Run(takeover, func(t *testing.T) {
			app := startFastAPI(t)
			server := startCaddy(t, "sse_guard {\npolicy reject\ntakeover "+takeover+"\n}\nreverse_proxy "+app.URL)
			client := newSSEClient(t, http1)
			holder := client.open(t, server.URL+"/cors", withBearer("alice"), withHeader("Origin", origin))
			holder.next(t)
			assert.Equal(t, origin, holder.Header.Get("Access-Control-Allow-Origin"))

			for _, other := range []string{origin, "https://other.example"} {
				refused := client.open(t, server.URL+"/cors", withBearer("alice"), withHeader("Origin", other))
				requireEnded(t, refused, duplicateSession, "rejected")
				assert.Equal(t, other, refused.Header.Get("Access-Control-Allow-Origin"))
				assert.Equal(t, "true", refused.Header.Get("Access-Control-Allow-Credentials"))
				assert.Contains(t, refused.Header.Values("Vary"), "Origin")
			}
			holder.next(t)
		})
	}
}

// TestNavigation_NeverSupersedes: a link or an image on another site sends the
// user's cookies too.
func TestNavigation_NeverSupersedes(t *testing.T) {
	app := startFastAPI(t)
	server := startCaddy(t, "sse_guard\nreverse_proxy "+app.URL)
	holder := newSSEClient(t, http1).open(t, server.URL+"/raw", withHeader("Cookie", "access_token=alice"))
	holder.next(t)
	for _, dest := range []string{"document", "image"} {
		response, _ := get(t, server.URL+"/raw", withHeader("Cookie", "access_token=alice"), withHeader("Sec-Fetch-Dest", dest))
		assert.Equal(t, http.StatusConflict, response.StatusCode)
	}
	holder.next(t)
	newSSEClient(t, http1).open(t, server.URL+"/raw", withHeader("Cookie", "access_token=alice"), withHeader("Sec-Fetch-Dest", "empty")).next(t)
	requireEnded(t, holder, duplicated, "superseded")
}

// TestRequireToken is problem P6.
func TestRequireToken(t *testing.T) {
	app := startFastAPI(t)
	server := startCaddy(t, "sse_guard {\nrequire_token\n}\nreverse_proxy "+app.URL)
	client := newSSEClient(t, http1)
	source := newEventSource(t, client, server.URL+"/raw")
	assert.Equal(t, []int{401}, source.waitClosed(t))
	assert.Empty(t, app.requests(t), "the upstream is not asked")

	answer, _ := get(t, server.URL+"/raw")
	assert.Equal(t, 401, answer.StatusCode, "judged at the header")
	assert.Contains(t, answer.Header.Get("WWW-Authenticate"), "Bearer")

	twice := client.open(t, server.URL+"/raw?token=bob", withBearer("alice"))
	assert.Equal(t, 400, twice.Status)
	same := client.open(t, server.URL+"/raw?token=alice", withBearer("alice"))
	assert.Equal(t, 200, same.Status)
}
