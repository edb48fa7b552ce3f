package harness

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// StartTickingBackend starts a backend whose streams have an event every 20 milliseconds.
func StartTickingBackend(t *testing.T) (url string) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/events") {
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			_, _ = w.Write([]byte("data: tick\n\n"))
			_ = http.NewResponseController(w).Flush()
			select {
			case <-tick.C:
			case <-r.Context().Done():
				return
			}
		}
	}))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return server.URL
}

// Listed is what GET streams shows of a stream, as its documentation says.
type Listed struct {
	ID, Zone, State, Key, Token, Client, Subject string
	Since                                        time.Time
	AgeSeconds                                   float64 `json:"age_seconds"`
	Events, Bytes                                int64
	LastEventAt                                  time.Time `json:"last_event_at"`
	LastAckAt                                    time.Time `json:"last_ack_at"`
	RemoteIP                                     string    `json:"remote_ip"`
	Node, Protocol, Path                         string
	Labels                                       map[string]string
}

// Ask asks the admin API, whose answer is good.
func (c *AdminCaddy) Ask(t testing.TB, method, path, body string, to any) {
	t.Helper()
	options := []RequestOption{}
	if body != "" {
		options = append(options, WithPost(body), WithHeader("Content-Type", "application/json"))
	}
	response, answer := Send(t, method, c.Admin+"/sse_guard/"+path, options...)
	require.Equal(t, http.StatusOK, response.StatusCode, answer)
	d := json.NewDecoder(strings.NewReader(answer))
	d.DisallowUnknownFields()
	require.NoError(t, d.Decode(to), answer)
}

// Streams lists those that the query selects, on one page.
func (c *AdminCaddy) Streams(t testing.TB, query string) []Listed {
	t.Helper()
	var page struct {
		Streams []Listed
		Next    string
	}
	c.Ask(t, http.MethodGet, "streams?"+query, "", &page)
	require.Empty(t, page.Next)
	return page.Streams
}

// End posts the body, and returns how many streams ended.
func (c *AdminCaddy) End(t testing.TB, body string) int {
	t.Helper()
	var answer struct{ Ended int }
	c.Ask(t, http.MethodPost, "end", body, &answer)
	return answer.Ended
}

// Notify posts the body, and returns how many streams were notified.
func (c *AdminCaddy) Notify(t testing.TB, body string) int {
	t.Helper()
	var answer struct{ Notified int }
	c.Ask(t, http.MethodPost, "notify", body, &answer)
	return answer.Notified
}

// Counted is what GET stats answers, as its documentation says.
type Counted struct {
	Streams States
	Zones   []struct {
		Zone    string
		Streams States
		Nodes   []struct {
			Node    string
			Streams States
		}
		Labels map[string]struct {
			Values map[string]int
			Others int
		}
		Incomplete string
	}
}

// States has numbers of streams.
type States struct{ Live, Parked, Untracked, Ending int }

// Stats counts the streams.
func (c *AdminCaddy) Stats(t testing.TB) (answer Counted) {
	t.Helper()
	c.Ask(t, http.MethodGet, "stats", "", &answer)
	return answer
}

// Refused returns the problem document that a POST is answered with.
func (c *AdminCaddy) Refused(t testing.TB, status int, path, body string) (problem struct {
	Detail          string
	Ended, Notified *int
},
) {
	t.Helper()
	response, answer := Send(t, http.MethodPost, c.Admin+"/sse_guard/"+path,
		WithPost(body), WithHeader("Content-Type", "application/json"))
	require.Equal(t, status, response.StatusCode, answer)
	require.NoError(t, json.Unmarshal([]byte(answer), &problem), answer)
	return problem
}

// RoomSite is a site with a key and a label, for lines of the guard's and the URL of a
// backend.
func RoomSite(lines, backend string) string {
	return fmt.Sprintf("sse_guard {\nkey {query.user}\nlabel room {query.room}\n%s\n}\nreverse_proxy %s", lines, backend)
}
