package e2e

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// TestReject is problem P3: the holder is protected and notices nothing; early,
// where its token is the newcomer's, and at the header.
func TestReject(t *testing.T) {
	for name, options := range map[string]string{"early": "", "at the header": "takeover response"} {
		t.Run(name, func(t *testing.T) {
			app := harness.StartFastAPI(t)
			server := harness.StartCaddy(t, "sse_guard {\npolicy reject\nretry 2s\n"+options+"\n}\nreverse_proxy "+app.URL)
			client := harness.NewClient(t, harness.HTTP1)
			holder := client.Open(t, server.URL+"/raw", harness.WithBearer("alice"))
			holder.Next(t)

			newcomer := client.Open(t, server.URL+"/raw", harness.WithBearer("alice"))
			assert.Equal(t, 200, newcomer.Status)
			assert.Equal(t, "text/event-stream", newcomer.Header.Get("Content-Type"))
			notice := harness.RequireRejected(t, newcomer)
			assert.Empty(t, notice.ID, "it may come back")
			assert.Equal(t, 2*time.Second, *newcomer.Retry())

			plain, body := harness.Get(t, server.URL+"/raw", harness.WithBearer("alice"))
			assert.Equal(t, 409, plain.StatusCode)
			assert.Equal(t, "application/problem+json", plain.Header.Get("Content-Type"))
			assert.Equal(t, "2", plain.Header.Get("Retry-After"))
			var problem struct {
				Status int
				Code   string
			}
			require.NoError(t, json.Unmarshal([]byte(body), &problem))
			assert.Equal(t, 409, problem.Status)
			assert.Equal(t, harness.DuplicateSession, problem.Code)

			holder.Next(t)
			app.WaitOpen(t, 1)
			if options == "" {
				assert.Equal(t, 2, app.Stats(t).Opened, "holder, and the plain request, which is judged at the header")
			}
			for _, line := range server.WaitLogs(t, 1) { // the second one is counted for a later line
				assert.Equal(t, harness.SecurityLogger, line.Logger)
				assert.Equal(t, []string{"127.0.0.1"}, line.HolderIPs)
				assert.NotEmpty(t, line.NewcomerIP)
			}

			holder.Close()
			require.Eventually(t, func() bool {
				s := client.Open(t, server.URL+"/raw", harness.WithBearer("alice"))
				return s.Next(t).Type == "message"
			}, harness.Patience, 20*time.Millisecond, "the key is not free after its holder left")
		})
	}
}

// TestReject_OnRejectStatus is final for an EventSource.
func TestReject_OnRejectStatus(t *testing.T) {
	app := harness.StartFastAPI(t)
	server := harness.StartCaddy(t, "sse_guard {\npolicy reject\non_reject status\n}\nreverse_proxy "+app.URL)
	client := harness.NewClient(t, harness.HTTP1)
	client.Open(t, server.URL+"/raw", harness.WithBearer("alice")).Next(t)
	source := harness.NewEventSource(t, client, server.URL+"/raw", harness.WithBearer("alice"))
	assert.Equal(t, []int{409}, source.WaitClosed(t))
}

// TestReject_ParkedNewcomerComesInWhenTheHolderLeaves keeps the newcomer's
// response open until then.
func TestReject_ParkedNewcomerComesInWhenTheHolderLeaves(t *testing.T) {
	for _, protocol := range []harness.Protocol{harness.HTTP1, harness.HTTP2} {
		t.Run(string(protocol), func(t *testing.T) {
			app := harness.StartFastAPI(t)
			server := harness.StartCaddyTLS(t, "sse_guard {\npolicy reject\non_reject park\n}\nreverse_proxy "+app.URL)
			client := harness.NewClient(t, protocol)
			holder := client.Open(t, server.URL+"/raw", harness.WithBearer("alice"))
			holder.Next(t)
			parked := harness.NewEventSource(t, harness.NewClient(t, protocol), server.URL+"/raw", harness.WithBearer("alice"))
			assert.Equal(t, harness.DuplicateSession, parked.Next(t).Type)
			holder.Next(t)
			assert.Equal(t, "OPEN", parked.ReadyState())
			assert.Equal(t, 1, parked.Count())
			assert.Equal(t, 1, app.Stats(t).Opened)

			holder.Close()
			assert.Equal(t, "message", parked.Next(t).Type)
			assert.Equal(t, []int{200, 200}, parked.Answers())
		})
	}
}

// TestReject_ThirtyNewcomersAtOnce admits exactly one.
func TestReject_ThirtyNewcomersAtOnce(t *testing.T) {
	for _, takeover := range []string{"auto", "response"} {
		t.Run(takeover, func(t *testing.T) {
			app := harness.StartFastAPI(t)
			server := harness.StartCaddy(t, "sse_guard {\npolicy reject\ntakeover "+takeover+"\n}\nreverse_proxy "+app.URL)
			streams := harness.OpenAtOnce(t, 30, server.URL+"/sse", harness.WithBearer("alice"))
			var admitted []*harness.Stream
			for _, s := range streams {
				if e := s.Next(t); e.Type == "message" {
					admitted = append(admitted, s)
				} else {
					assert.Equal(t, harness.DuplicateSession, e.Type)
				}
			}
			require.Len(t, admitted, 1)
			app.WaitOpen(t, 1)
			admitted[0].Next(t)
		})
	}
}

// TestCORS_ARefusalCanBeReadByItsPage keeps what the upstream allows a page of
// another origin.
func TestCORS_ARefusalCanBeReadByItsPage(t *testing.T) {
	const origin = "https://app.example"
	for _, takeover := range []string{"auto", "response"} {
		t.Run(takeover, func(t *testing.T) {
			app := harness.StartFastAPI(t)
			server := harness.StartCaddy(t, "sse_guard {\npolicy reject\ntakeover "+takeover+"\n}\nreverse_proxy "+app.URL)
			client := harness.NewClient(t, harness.HTTP1)
			holder := client.Open(t, server.URL+"/cors", harness.WithBearer("alice"), harness.WithHeader("Origin", origin))
			holder.Next(t)
			assert.Equal(t, origin, holder.Header.Get("Access-Control-Allow-Origin"))

			for _, other := range []string{origin, "https://other.example"} {
				refused := client.Open(t, server.URL+"/cors", harness.WithBearer("alice"), harness.WithHeader("Origin", other))
				harness.RequireRejected(t, refused)
				assert.Equal(t, other, refused.Header.Get("Access-Control-Allow-Origin"))
				assert.Equal(t, "true", refused.Header.Get("Access-Control-Allow-Credentials"))
				assert.Contains(t, refused.Header.Values("Vary"), "Origin")
			}
			holder.Next(t)
		})
	}
}

// TestNavigation_NeverSupersedes: a link or an image on another site sends the
// user's cookies too.
func TestNavigation_NeverSupersedes(t *testing.T) {
	app := harness.StartFastAPI(t)
	server := harness.StartCaddy(t, "sse_guard\nreverse_proxy "+app.URL)
	holder := harness.NewClient(t, harness.HTTP1).Open(t, server.URL+"/raw", harness.WithHeader("Cookie", "access_token=alice"))
	holder.Next(t)
	for _, dest := range []string{"document", "image"} {
		response, _ := harness.Get(t, server.URL+"/raw", harness.WithHeader("Cookie", "access_token=alice"), harness.WithHeader("Sec-Fetch-Dest", dest))
		assert.Equal(t, http.StatusConflict, response.StatusCode)
	}
	holder.Next(t)
	harness.NewClient(t, harness.HTTP1).Open(t, server.URL+"/raw", harness.WithHeader("Cookie", "access_token=alice"), harness.WithHeader("Sec-Fetch-Dest", "empty")).Next(t)
	harness.RequireEnded(t, holder, harness.Duplicated, "superseded")
}

// TestRequireToken is problem P6.
func TestRequireToken(t *testing.T) {
	app := harness.StartFastAPI(t)
	server := harness.StartCaddy(t, "sse_guard {\nrequire_token\n}\nreverse_proxy "+app.URL)
	client := harness.NewClient(t, harness.HTTP1)
	source := harness.NewEventSource(t, client, server.URL+"/raw")
	assert.Equal(t, []int{401}, source.WaitClosed(t))
	assert.Empty(t, app.Requests(t), "the upstream is not asked")

	answer, _ := harness.Get(t, server.URL+"/raw")
	assert.Equal(t, 401, answer.StatusCode, "judged at the header")
	assert.Contains(t, answer.Header.Get("WWW-Authenticate"), "Bearer")

	twice := client.Open(t, server.URL+"/raw?token=bob", harness.WithBearer("alice"))
	assert.Equal(t, 400, twice.Status)
	same := client.Open(t, server.URL+"/raw?token=alice", harness.WithBearer("alice"))
	assert.Equal(t, 200, same.Status)
}
