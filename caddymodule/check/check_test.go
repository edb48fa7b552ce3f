package check

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// site is a server that a test plays. It counts what was asked.
type site struct {
	*httptest.Server

	requests atomic.Int32
	open     atomic.Int32

	// mu guards the field below. Nothing is called with it held.
	mu    sync.Mutex
	older chan struct{} // closed when a newer stream comes
}

// visit is one request to a site.
type visit struct {
	*http.Request

	w      http.ResponseWriter
	site   *site
	number int // from 1, over all requests
}

// play starts a site, over TLS if it is to be.
func play(t *testing.T, secure bool, script func(v *visit)) *site {
	t.Helper()
	s := &site{older: make(chan struct{})}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		script(&visit{w: w, Request: r, site: s, number: int(s.requests.Add(1))})
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	if secure {
		s.EnableHTTP2 = true
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s
}

// isTwoTokens reports whether the request is that which looks for a guard.
func (v *visit) isTwoTokens() bool {
	return v.Header.Get("Authorization") != "" && v.URL.Query().Get("access_token") != ""
}

// stream begins an event stream.
func (v *visit) stream(text ...string) {
	v.w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	v.w.WriteHeader(http.StatusOK)
	v.send(strings.Join(text, ""))
}

func (v *visit) send(text string) {
	_, _ = io.WriteString(v.w, text)
	_ = http.NewResponseController(v.w).Flush()
}

// stay keeps the stream open until its client leaves.
func (v *visit) stay() {
	v.site.open.Add(1)
	defer v.site.open.Add(-1)
	<-v.Context().Done()
}

// newest ends the wait of whoever called it before, and returns what the next caller closes.
func (v *visit) newest() <-chan struct{} {
	v.site.mu.Lock()
	defer v.site.mu.Unlock()
	close(v.site.older)
	v.site.older = make(chan struct{})
	return v.site.older
}

const tombstoneID = "sse-guard.1.AAAA"

func notice(event, reason string) string {
	return fmt.Sprintf("event: %s\ndata: {\"type\":\"error\",\"code\":%q,\"reason\":%q,\"message\":\"Words.\",\"error\":{\"type\":\"sse_guard\"}}\n\n", event, event, reason)
}

func problem(v *visit, status int, detail, reason string) {
	v.w.Header().Set("Content-Type", "application/problem+json")
	v.w.WriteHeader(status)
	fmt.Fprintf(v.w, `{"title":"T","detail":%q,"reason":%q,"error":{"type":"sse_guard","message":"T"}}`, detail, reason)
}

// guarded is how a guard ends the older stream, and sends it away.
func guarded(v *visit, retry string) {
	if v.Header.Get("Last-Event-ID") != "" {
		v.w.WriteHeader(http.StatusNoContent)
		return
	}
	newer := v.newest()
	v.stream("data: hello\n\n")
	select {
	case <-newer:
		v.send("id: " + tombstoneID + "\nretry: " + retry + "\n" + notice("DUPLICATED_CONNECTION", "superseded"))
	case <-v.Context().Done():
	}
}

// TestRun says for each thing that a site may do what the check makes of it.
func TestRun(t *testing.T) {
	for name, test := range map[string]struct {
		script  func(v *visit)
		config  Config
		verdict Verdict
		code    Code
		says    []string // in the summary
		hints   []string // one hint each
	}{
		"a guard, and the newest wins": {
			script:  func(v *visit) { guarded(v, "10") },
			verdict: Guarded, code: CodeSuperseded,
			says: []string{"the older stream got DUPLICATED_CONNECTION", "after the newer one had asked", "204", "the newer one stays"},
		},
		"three streams, two ended": {
			script:  func(v *visit) { guarded(v, "10") },
			config:  Config{Streams: 3},
			verdict: Guarded, code: CodeSuperseded,
			says: []string{"of 3 streams", "the 2 oldest got DUPLICATED_CONNECTION"},
		},
		"told to come back too late to wait for": {
			script:  func(v *visit) { guarded(v, "60000") },
			verdict: Guarded, code: CodeSuperseded,
			hints: []string{"tombstone counts was not tried: it is told to come back after 1m0s"},
		},
		"a POST, whose clients do not come back": {
			script: func(v *visit) {
				body, _ := io.ReadAll(v.Body)
				if v.Method != http.MethodPost || string(body) != "{}" || v.Header.Get("Content-Type") != "application/json" {
					v.w.WriteHeader(http.StatusTeapot)
					return
				}
				guarded(v, "10")
			},
			config:  Config{Method: http.MethodPost, Body: "{}"},
			verdict: Guarded, code: CodeSuperseded,
		},
		"the tombstone is not looked at": {
			script: func(v *visit) {
				if v.Header.Get("Last-Event-ID") != "" {
					v.stream("data: again\n\n")
					v.stay()
					return
				}
				guarded(v, "10")
			},
			verdict: NotGuarded, code: CodeTombstoneIgnored,
			says:  []string{"200 OK, text/event-stream", "not with 204", "again and again"},
			hints: []string{"Last-Event-ID"},
		},
		"the ids of events are taken out": {
			script: func(v *visit) {
				newer := v.newest()
				v.stream()
				select {
				case <-newer:
					v.send(notice("DUPLICATED_CONNECTION", "superseded"))
				case <-v.Context().Done():
				}
			},
			verdict: Guarded, code: CodeSuperseded,
			hints: []string{"It got no tombstone. Does something between change the ids", "No event of the application came meanwhile"},
		},
		"the same tab": {
			script: func(v *visit) {
				newer := v.newest()
				v.stream("data: x\n\n")
				select {
				case <-newer:
					v.send(notice("DUPLICATED_CONNECTION", "replaced"))
				case <-v.Context().Done():
				}
			},
			verdict: Guarded, code: CodeSuperseded,
			hints: []string{"both streams for the same tab"},
		},
		"the first one stays": {
			script: func(v *visit) {
				v.stream("data: x\n\n")
				if v.number == 2 {
					v.send("retry: 5000\n" + notice("DUPLICATE_SESSION", "rejected"))
					panic(http.ErrAbortHandler)
				}
				v.stay()
			},
			verdict: Guarded, code: CodeRejected,
			says: []string{"policy reject: stream 2 was rejected with DUPLICATE_SESSION", "come back after 5s", "The older one stays."},
		},
		"the first one stays, the others wait": {
			script: func(v *visit) {
				v.stream("data: x\n\n")
				if v.number == 3 {
					v.send(notice("DUPLICATE_SESSION", "rejected"))
				}
				v.stay()
			},
			config:  Config{Streams: 3},
			verdict: Guarded, code: CodeRejected,
			says: []string{"stream 3 was rejected", "waits until the key is free", "The 2 older ones stay."},
		},
		"the first one stays, the others get a status": {
			script: func(v *visit) {
				if v.number == 2 {
					problem(v, http.StatusConflict, "", "rejected")
					return
				}
				v.stream("data: x\n\n")
				v.stay()
			},
			verdict: Guarded, code: CodeRejected,
			says: []string{"rejected with status 409", "on_reject status"},
		},
		"somebody else has the key": {
			script: func(v *visit) {
				v.stream("retry: 5000\n" + notice("DUPLICATE_SESSION", "rejected"))
				panic(http.ErrAbortHandler)
			},
			verdict: Guarded, code: CodeRejected,
			says: []string{"the first stream was rejected", "Somebody else holds the key already"},
		},
		"damped": {
			script: func(v *visit) {
				v.stream(notice("DUPLICATED_CONNECTION", "parked"))
				v.stay()
			},
			verdict: Guarded, code: CodeParked,
			says: []string{"parked"}, hints: []string{"flap damping"},
		},
		"the token is at its end": {
			script: func(v *visit) {
				v.stream("data: x\n\n")
				v.send(notice("TOKEN_EXPIRED", "expired"))
			},
			verdict: Unknown, code: CodeEnded,
			says: []string{"TOKEN_EXPIRED", "Words."},
		},
		"no guard at all": {
			script:  func(v *visit) { v.stream("data: x\n\n"); v.stay() },
			config:  Config{Header: http.Header{"Authorization": {"Bearer alice"}}},
			verdict: NotGuarded, code: CodeBothOpen,
			says:  []string{"both streams stay open: no guard counts them"},
			hints: []string{"has no sse_guard, or its matcher", "does not say that it comes through Caddy", "elsewhere than in the header field Authorization (option token)", "--streams 3"},
		},
		"no guard, through Caddy": {
			script: func(v *visit) {
				v.w.Header().Set("Via", "1.1 Caddy")
				v.stream("data: x\n\n")
				v.stay()
			},
			config:  Config{Header: http.Header{"Cookie": {"a=b"}}, Streams: 3},
			verdict: NotGuarded, code: CodeBothOpen,
			says:  []string{"all 3 streams stay open"},
			hints: []string{"has no sse_guard", "a cookie", "--streams 4"},
		},
		"no guard, and nothing flows": {
			script:  func(v *visit) { v.stream(); v.stay() },
			verdict: NotGuarded, code: CodeBothOpen,
			hints: []string{"nothing after it: the application is quiet, or something between holds its events back"},
		},
		"a guard that counts otherwise": {
			script: func(v *visit) {
				if v.isTwoTokens() {
					problem(v, http.StatusBadRequest, "", "")
					return
				}
				v.stream("data: x\n\n")
				v.stay()
			},
			config:  Config{Header: http.Header{"Cookie": {"access_token=alice"}}},
			verdict: NotGuarded, code: CodeBothOpen,
			says:  []string{"although a guard stands before this path, and sees the token"},
			hints: []string{"limit is 2 or more", "key is empty", "methods leaves GET out"},
		},
		"a guard, but no token": {
			script: func(v *visit) {
				if v.isTwoTokens() {
					problem(v, http.StatusBadRequest, "", "")
					return
				}
				v.stream("data: x\n\n")
				v.stay()
			},
			verdict: NotGuarded, code: CodeBothOpen,
			says:  []string{"the check sends no token"},
			hints: []string{"--token, --cookie", "require_token"},
		},
		"a backend that refuses two tokens itself": {
			script: func(v *visit) {
				if v.isTwoTokens() {
					http.Error(v.w, "two tokens", http.StatusBadRequest)
					return
				}
				v.stream("data: x\n\n")
				v.stay()
			},
			verdict: NotGuarded, code: CodeBothOpen,
			says: []string{"no guard has answered. The check sends no token"},
		},
		"the older one ends without a word": {
			script: func(v *visit) {
				newer := v.newest()
				v.stream("data: x\n\n")
				select {
				case <-newer:
				case <-v.Context().Done():
				}
			},
			verdict: NotGuarded, code: CodeEndedUntold,
			says: []string{"was not told why"}, hints: []string{"compresses"},
		},
		"the backend refuses the newer one": {
			script: func(v *visit) {
				if v.number > 1 {
					http.Error(v.w, "too many", http.StatusTooManyRequests)
					return
				}
				v.stream("data: x\n\n")
				v.stay()
			},
			verdict: NotGuarded, code: CodeRefusedByBackend,
			says: []string{"429 Too Many Requests, text/plain; charset=utf-8 to stream 2"},
		},
		"no token": {
			script:  func(v *visit) { problem(v, http.StatusUnauthorized, "The request carries no token.", "") },
			verdict: Unknown, code: CodeUnauthorized,
			says:  []string{"the guard answers 401 Unauthorized", `"The request carries no token."`},
			hints: []string{"Give the check a good token"},
		},
		"a token that is not good, for the backend": {
			script:  func(v *visit) { http.Error(v.w, "", http.StatusUnauthorized) },
			config:  Config{Header: http.Header{"X-Api-Key": {"s3cr3t"}, "Cookie": {"a=b"}}},
			verdict: Unknown, code: CodeUnauthorized,
			says:  []string{"the backend, or something before it, answers 401"},
			hints: []string{"a cookie and a header field of its own"},
		},
		"two tokens": {
			script:  func(v *visit) { problem(v, http.StatusBadRequest, "Send the token in one place only.", "") },
			verdict: Unknown, code: CodeTwoTokens,
			says: []string{"two different tokens", "Send the token in one place only."},
		},
		"a key that lacks a part": {
			script:  func(v *visit) { problem(v, http.StatusForbidden, "The part {query.store} is empty.", "") },
			verdict: Unknown, code: CodeForbidden,
			says: []string{"403", "{query.store}"},
		},
		"the backend is down": {
			script:  func(v *visit) { v.w.WriteHeader(http.StatusBadGateway) },
			verdict: Unknown, code: CodeUnavailable,
			says: []string{"502 Bad Gateway"}, hints: []string{"Does the backend run?"},
		},
		"a redirect to a login page": {
			script: func(v *visit) {
				if v.URL.Path == "/login" {
					v.w.Header().Set("Content-Type", "text/html")
					v.send("<form>")
					return
				}
				http.Redirect(v.w, v.Request, "/login?next=s3cr3t", http.StatusFound)
			},
			verdict: Unknown, code: CodeRedirect,
			says: []string{"/login, which is no event stream"}, hints: []string{"login pages"},
		},
		"a redirect to another server": {
			script: func(v *visit) {
				http.Redirect(v.w, v.Request, "http://login.invalid/in?s3cr3t", http.StatusFound)
			},
			verdict: Unknown, code: CodeRedirect,
			says: []string{"http://login.invalid/in, which is no event stream"},
		},
		"a redirect to the stream": {
			script: func(v *visit) {
				if v.URL.Path != "/moved" {
					http.Redirect(v.w, v.Request, "/moved", http.StatusTemporaryRedirect)
					return
				}
				guarded(v, "10")
			},
			verdict: Guarded, code: CodeSuperseded,
		},
		"a login page in the stream's place": {
			script: func(v *visit) {
				v.w.Header().Set("Content-Type", "text/html")
				v.send("<!doctype html><FORM method=post>")
			},
			verdict: Unknown, code: CodeNoStream,
			says: []string{"200 OK, text/html"}, hints: []string{"the path of the stream", "login page"},
		},
		"a stream with another status": {
			script: func(v *visit) {
				v.w.Header().Set("Content-Type", "text/event-stream")
				v.w.WriteHeader(http.StatusCreated)
			},
			verdict: Unknown, code: CodeNoStream,
			hints: []string{"no other status than 200"},
		},
		"no answer": {
			script:  func(v *visit) { v.stay() },
			config:  Config{AnswerTimeout: 2 * time.Second},
			verdict: Unknown, code: CodeNoAnswer,
			says: []string{"stream 1 got no answer within 2s"}, hints: []string{"holds the answer back"},
		},
		"no answer to the second": {
			script: func(v *visit) {
				if v.number == 1 {
					v.stream("data: x\n\n")
				}
				v.stay()
			},
			config:  Config{AnswerTimeout: 2 * time.Second},
			verdict: Unknown, code: CodeNoAnswer,
			hints: []string{"one stream at a time"},
		},
		"a short stream": {
			script:  func(v *visit) { v.stream("retry: 1\ndata: x\n\n") },
			verdict: Unknown, code: CodeShort,
			says: []string{"ended by itself"},
		},
		"a short stream, and nothing when it comes back": {
			script: func(v *visit) {
				if v.Header.Get("Last-Event-ID") != "" {
					v.stay()
					return
				}
				v.stream("retry: 1\nid: 1\ndata: x\n\n")
			},
			verdict: Unknown, code: CodeShort,
			says: []string{"ended by itself"},
		},
		"a guard that is not ready yet": {
			script: func(v *visit) {
				if v.number < 3 {
					v.stream("retry: 1\n")
					panic(http.ErrAbortHandler)
				}
				guarded(v, "10")
			},
			verdict: Guarded, code: CodeSuperseded,
		},
		"the connection is closed": {
			script:  func(*visit) { panic(http.ErrAbortHandler) },
			verdict: Unknown, code: CodeUnreachable,
			says: []string{"closed the connection without an answer"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := play(t, false, test.script)
			config := test.config
			config.URL = s.URL + "/events"
			config.Watch = 500 * time.Millisecond
			if test.verdict == Guarded {
				config.Watch = time.Minute // it ends with the first notice
			}
			r, err := Run(t.Context(), config)
			require.NoError(t, err)
			text := printed(r)
			assert.Equal(t, test.verdict, r.Verdict, text)
			assert.Equal(t, test.code, r.Code, text)
			for _, part := range test.says {
				assert.Contains(t, r.Summary, part)
			}
			for _, part := range test.hints {
				assert.Contains(t, strings.Join(r.Hints, "\n"), part)
			}
			assert.NotContains(t, text, "s3cr3t")
			require.Eventually(t, func() bool { return s.open.Load() == 0 }, 10*time.Second, time.Millisecond,
				"the check ends its streams")
		})
	}
}

// printed is all that a person gets to read.
func printed(r *Report) string {
	var out bytes.Buffer
	for _, s := range r.Steps {
		s.Print(&out)
	}
	r.Print(&out)
	return out.String()
}

// TestRun_AsksAsAnEventSourceDoes, of a page of the same site.
func TestRun_AsksAsAnEventSourceDoes(t *testing.T) {
	var mu sync.Mutex
	var asked []http.Header
	var connections []string
	s := play(t, false, func(v *visit) {
		mu.Lock()
		asked, connections = append(asked, v.Header), append(connections, v.RemoteAddr)
		mu.Unlock()
		guarded(v, "10")
	})
	_, err := Run(t.Context(), Config{URL: s.URL + "/events", Header: http.Header{"x-client-id": {"phone"}, "User-Agent": {"mine"}, "Host": {"shop.example"}}})
	require.NoError(t, err)
	require.Len(t, asked, 3)
	for i, h := range asked {
		assert.Equal(t, "text/event-stream", h.Get("Accept"))
		assert.Equal(t, "no-cache", h.Get("Cache-Control"))
		assert.Equal(t, "same-origin", h.Get("Sec-Fetch-Site"))
		assert.Equal(t, "phone", h.Get("X-Client-Id"))
		assert.Equal(t, "mine", h.Get("User-Agent"))
		assert.Equal(t, i == 2, h.Get("Last-Event-ID") == tombstoneID, "only who comes back shows a tombstone")
	}
	assert.NotEqual(t, connections[0], connections[1], "each tab has a connection of its own")
}

// TestRun_ShowsTokensToNobodyElse: a redirect to another server is not followed.
func TestRun_ShowsTokensToNobodyElse(t *testing.T) {
	other := play(t, false, func(v *visit) { v.stream() })
	s := play(t, false, func(v *visit) {
		http.Redirect(v.w, v.Request, other.URL, http.StatusFound)
	})
	r, err := Run(t.Context(), Config{URL: s.URL, Header: http.Header{"X-Api-Key": {"s3cr3t"}}})
	require.NoError(t, err)
	assert.Equal(t, CodeRedirect, r.Code)
	assert.Zero(t, other.requests.Load())
}

func TestRun_TLS(t *testing.T) {
	s := play(t, true, func(v *visit) { guarded(v, "10") })
	plain := play(t, false, func(v *visit) { guarded(v, "10") })
	for name, test := range map[string]struct {
		url      string
		insecure bool
		code     Code
		says     string
	}{
		"unknown authority": {s.URL, false, CodeTLS, "an authority that this machine does not know"},
		"any certificate":   {s.URL, true, CodeSuperseded, "DUPLICATED_CONNECTION"},
		"plain HTTP there":  {strings.Replace(plain.URL, "http:", "https:", 1), true, CodeTLS, "the server speaks plain HTTP there"},
		"HTTPS there":       {strings.Replace(s.URL, "https:", "http:", 1), true, CodeTLS, "the URL should begin with https://"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := Run(t.Context(), Config{URL: test.url + "/events", Insecure: test.insecure})
			require.NoError(t, err)
			assert.Equal(t, test.code, r.Code, printed(r))
			assert.Contains(t, r.Summary, test.says)
		})
	}
}

func TestRun_NobodyThere(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := listener.Addr().String()
	require.NoError(t, listener.Close())
	for url, says := range map[string]string{
		"http://" + address + "/events?token=s3cr3t": address + ": connection refused",
		"http://no-such-host.invalid/?token=s3cr3t":  "there is no host no-such-host.invalid",
	} {
		r, err := Run(t.Context(), Config{URL: url})
		require.NoError(t, err)
		assert.Equal(t, Unknown, r.Verdict)
		assert.Equal(t, CodeUnreachable, r.Code)
		assert.Contains(t, r.Summary, says)
		assert.NotContains(t, printed(r), "s3cr3t")
	}
}

func TestRun_Stopped(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	s := play(t, false, func(v *visit) {
		v.stream("data: x\n\n")
		if v.number == 2 {
			stop()
		}
		v.stay()
	})
	r, err := Run(ctx, Config{URL: s.URL, Watch: time.Hour})
	require.NoError(t, err)
	assert.Equal(t, CodeStopped, r.Code)
	assert.Equal(t, 2, r.ExitCode())
}

func TestRun_RefusesWhatCannotBeMeant(t *testing.T) {
	for want, config := range map[string]Config{
		`"localhost:8080/event…"`: {URL: "localhost:8080/events/of/alice"},
		`"ftp://x"`:               {URL: "ftp://x"},
		`"http:///x"`:             {URL: "http:///x?token=s3cr3t"},
		"cannot be read":          {URL: "http://a b?s3cr3t"},
		"from 2 to 100":           {URL: "http://x", Streams: 1},
		"streams is 101":          {URL: "http://x", Streams: 101},
		"negative":                {URL: "http://x", Watch: -1},
	} {
		_, err := Run(t.Context(), config)
		require.ErrorContains(t, err, want)
		assert.NotContains(t, err.Error(), "s3cr3t")
	}
}

// TestAttack_Server_WritesToTheTerminal by what it answers, and fails.
func TestAttack_Server_WritesToTheTerminal(t *testing.T) {
	const escape = "\x1b]0;owned\a\u202e"
	s := play(t, false, func(v *visit) {
		if v.number > 1 {
			v.w.WriteHeader(http.StatusNoContent)
			return
		}
		v.stream("event: A" + escape + "\nretry: 10\ndata: {\"reason\":\"rejected\",\"message\":\"\\u001b[2J\",\"error\":{\"type\":\"sse_guard\"}}\n\n")
	})
	r, err := Run(t.Context(), Config{URL: s.URL})
	require.NoError(t, err)
	text := printed(r)
	assert.Contains(t, text, "rejected")
	assert.NotContains(t, text, "\x1b")
	assert.NotContains(t, text, "\a")
	assert.NotContains(t, text, "\u202e")
}

func TestReport_JSON(t *testing.T) {
	s := play(t, false, func(v *visit) { guarded(v, "10") })
	r, err := Run(t.Context(), Config{URL: s.URL})
	require.NoError(t, err)
	text, err := json.Marshal(r)
	require.NoError(t, err)
	var got struct {
		Verdict, Code, Summary string
		Hints                  []string
		Takeover               float64 `json:"takeover_ms"`
		Streams                []struct {
			Number, Requests, Status, Events int
			Open                             bool
			Notice                           *struct {
				Event, Reason, Message string
				Tombstone              bool
				Retry                  float64 `json:"retry_ms"`
			}
		}
		Steps []struct {
			At     *float64 `json:"at_ms"`
			Stream int
			Text   string
		}
	}
	require.NoError(t, json.Unmarshal(text, &got))
	assert.Equal(t, "guarded", got.Verdict)
	assert.Equal(t, "superseded", got.Code)
	assert.NotNil(t, got.Hints)
	assert.Positive(t, got.Takeover)
	require.Len(t, got.Streams, 2)
	assert.Equal(t, 2, got.Streams[0].Requests)
	assert.False(t, got.Streams[0].Open)
	require.NotNil(t, got.Streams[0].Notice)
	assert.Equal(t, "DUPLICATED_CONNECTION", got.Streams[0].Notice.Event)
	assert.True(t, got.Streams[0].Notice.Tombstone)
	assert.InDelta(t, 10, got.Streams[0].Notice.Retry, 0)
	assert.True(t, got.Streams[1].Open)
	assert.Nil(t, got.Streams[1].Notice)
	require.NotEmpty(t, got.Steps)
	assert.NotNil(t, got.Steps[0].At)
	assert.Equal(t, 1, got.Steps[0].Stream)
}

func TestReport_ExitCode(t *testing.T) {
	for verdict, code := range map[Verdict]int{Guarded: 0, NotGuarded: 1, Unknown: 2} {
		assert.Equal(t, code, (&Report{Verdict: verdict}).ExitCode())
	}
}

func TestWrap(t *testing.T) {
	words := strings.Repeat("word ", 40)
	for line := range strings.Lines(wrap(words, "  - ", "    ")) {
		assert.LessOrEqual(t, len(strings.TrimSuffix(line, "\n")), 79)
		assert.True(t, strings.HasPrefix(line, "  - word") || strings.HasPrefix(line, "    word"), line)
	}
}
