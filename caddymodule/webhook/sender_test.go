package webhook

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap/zaptest/observer"

	"github.com/sse-guard/sse-guard/caddymodule/event"
	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

func TestPost_IsSignedAndSaysWhatHappened(t *testing.T) {
	rc := &receiver{t: t}
	s, _ := start(t, serve(t, rc), quick())
	o := s.Observe(everything(new(keys)))
	h := holder('k', 'c')
	ended := closed(h, reason.Superseded).(event.Ended)
	ended.Stream.Labels = registry.Labels{Names: []string{"room", "seat"}, Values: []string{"one", ""}}
	o.Observe(ended)
	rc.wait(1)

	post := rc.all()[0]
	mac := hmac.New(sha256.New, []byte(testSecret))
	mac.Write(post.body)
	require.Equal(t, "sha256="+hex.EncodeToString(mac.Sum(nil)), post.header.Get("X-SSE-Guard-Signature-256"))
	require.Equal(t, "application/json", post.header.Get("Content-Type"))

	var document map[string]any
	require.NoError(t, json.Unmarshal(post.body, &document))
	require.Equal(t, post.header.Get("X-SSE-Guard-Delivery"), document["delivery"])
	require.Len(t, document["delivery"], 32)
	record := document["batch"].([]any)[0].(map[string]any)
	when, err := time.Parse(time.RFC3339, record["time"].(string))
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), when, time.Minute)
	_, err = time.Parse(time.RFC3339, record["since"].(string))
	require.NoError(t, err)
	delete(record, "time")
	delete(record, "since")
	require.Equal(t, map[string]any{
		"event": "ended", "reason": "superseded", "zone": "shop", "stream": h.ID.String(),
		"key": "6b01000000000000", "token": "7401000000000000", "client": "6301000000000000", "sub": "ann", "labels": map[string]any{"room": "one"},
		"age_seconds": 90.0, "events": 12.0, "bytes": 3456.0, "last_event_id": "41", "holders": 0.0,
	}, record)
}

func TestPost_EachKindHasItsReason(t *testing.T) {
	rc := &receiver{t: t}
	s, _ := start(t, serve(t, rc), quick())
	o := s.Observe(everything(new(keys)))
	who := event.Who{Holder: holder('k', 'c')}
	o.Observe(event.Admitted{Stream: who})
	o.Observe(event.Rejected{Newcomer: who})
	o.Observe(event.Damped{Newcomer: who})
	o.Observe(event.Ended{Stream: who, Reason: reason.Logout}) // it held no key
	var got [][2]string
	for _, r := range rc.wait(3) {
		require.Nil(t, r.Life)
		got = append(got, [2]string{string(r.Event), string(r.Reason)})
	}
	require.Equal(t, [][2]string{{"admitted", ""}, {"rejected", "rejected"}, {"rejected", "parked"}}, got)
}

func TestPost_OnlyWhatTheReceiverWants(t *testing.T) {
	rc := &receiver{t: t}
	s, _ := start(t, serve(t, rc), quick())
	source := everything(new(keys))
	source.Kinds = []Kind{Rejected}
	o := s.Observe(source)
	h := holder('k', 'c')
	o.Observe(admitted(h))
	o.Observe(closed(h, reason.Dead))
	o.Observe(event.Rejected{Newcomer: event.Who{Holder: h}})
	require.Equal(t, Rejected, rc.wait(1)[0].Event)
	require.Nil(t, s.departures.busy(), "nobody is looked for")
}

// Any site can have a browser ask for such a stream, in its user's name.
func TestPost_NothingOfStreamsThatYield(t *testing.T) {
	rc := &receiver{t: t}
	k := new(keys)
	s, _ := start(t, serve(t, rc), quick())
	o := s.Observe(everything(k))
	yielding := holder('k', 'c')
	yielding.Yields = true
	k.hold(yielding)
	o.Observe(admitted(yielding))
	o.Observe(event.Rejected{Newcomer: event.Who{Holder: yielding}})
	o.Observe(closed(yielding, event.Finished))
	o.Observe(closed(holder('k', 'c'), event.Finished))
	r := rc.wait(1)[0]
	require.Equal(t, event.Finished, r.Reason)
	require.Equal(t, 0, *r.Holders)
}

func TestPost_ManyAtOnceAreOneBody(t *testing.T) {
	rc := &receiver{t: t}
	l := quick()
	l.gather = 100 * time.Millisecond
	s, _ := start(t, serve(t, rc), l)
	o := s.Observe(everything(new(keys)))
	for range 100 {
		o.Observe(admitted(holder('k', 'c')))
	}
	rc.wait(100)
	require.Less(t, len(rc.all()), 10)
}

func TestPost_ThatFailsIsTriedAgainUnchanged(t *testing.T) {
	for name, fail := range map[string]func(w http.ResponseWriter){
		"500":       func(w http.ResponseWriter) { w.WriteHeader(http.StatusInternalServerError) },
		"503":       func(w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) },
		"429":       func(w http.ResponseWriter) { w.WriteHeader(http.StatusTooManyRequests) },
		"no answer": func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int32
			rc := &receiver{t: t, answer: func(w http.ResponseWriter, _ *http.Request) {
				if asked.Add(1) <= 3 {
					fail(w)
				}
			}}
			s, logs := start(t, serve(t, rc), quick())
			s.Observe(everything(new(keys))).Observe(admitted(holder('k', 'c')))
			require.Eventually(t, func() bool { return len(rc.all()) == 4 && s.busy() == nil }, time.Minute, 5*time.Millisecond)
			posts := rc.all()
			for _, p := range posts {
				require.Equal(t, posts[0].body, p.body)
				require.Equal(t, posts[0].header.Get(DeliveryHeader), p.header.Get(DeliveryHeader))
				require.Equal(t, posts[0].header.Get(SignatureHeader), p.header.Get(SignatureHeader))
			}
			require.Zero(t, s.Dropped())
			require.Len(t, logs.FilterMessageSnippet("tried again").All(), 1, "one line for one outage")
			require.Len(t, logs.FilterMessageSnippet("answers again").All(), 1)
		})
	}
}

func TestPost_WaitsUntilAReceiverThatIsDownIsUp(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := listener.Addr().String()
	require.NoError(t, listener.Close())
	s, logs := start(t, parse(t, "http://"+address), quick())
	s.Observe(everything(new(keys))).Observe(admitted(holder('k', 'c')))
	require.Eventually(t, func() bool { return logs.FilterMessageSnippet("tried again").Len() == 1 }, time.Minute, 5*time.Millisecond)

	rc := &receiver{t: t}
	var up net.Listener
	require.Eventually(t, func() bool { up, err = net.Listen("tcp", address); return err == nil }, time.Minute, 50*time.Millisecond)
	server := &httptest.Server{Listener: up, Config: &http.Server{Handler: rc}}
	server.Start()
	t.Cleanup(server.Close)
	rc.wait(1)
}

func TestPost_ThatIsRefusedIsNotTriedAgain(t *testing.T) {
	for _, status := range []int{400, 401, 404, 410, 413} {
		rc := &receiver{t: t, answer: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }}
		s, logs := start(t, serve(t, rc), quick())
		o := s.Observe(everything(new(keys)))
		o.Observe(admitted(holder('k', 'c')))
		require.Eventually(t, func() bool { return s.Dropped() == 1 }, time.Minute, 5*time.Millisecond)
		require.Len(t, rc.all(), 1)
		require.Len(t, logs.FilterMessageSnippet("dropped").All(), 1)
		require.Equal(t, "refused", logs.FilterMessageSnippet("dropped").All()[0].ContextMap()["cause"])
	}
}

func TestPost_FollowsNoRedirect(t *testing.T) {
	other := &receiver{t: t}
	elsewhere := serve(t, other).String()
	for _, status := range []int{301, 302, 303, 307, 308} {
		rc := &receiver{t: t, answer: func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere, status) }}
		s, logs := start(t, serve(t, rc), quick())
		s.Observe(everything(new(keys))).Observe(admitted(holder('k', 'c')))
		require.Eventually(t, func() bool { return s.Dropped() == 1 }, time.Minute, 5*time.Millisecond)
		require.Len(t, rc.all(), 1)
		require.Contains(t, errorsOf(logs), "redirects are not followed")
	}
	require.Empty(t, other.all())
}

func errorsOf(logs *observer.ObservedLogs) (text string) {
	for _, line := range logs.All() {
		if err, ok := line.ContextMap()["error"].(string); ok {
			text += err + "\n"
		}
	}
	return text
}

// A receiver that never answers holds up nobody who observes, and only so much is kept
// for it.
func TestPost_AReceiverThatHangsCostsNothingButItsEvents(t *testing.T) {
	free := make(chan struct{})
	rc := &receiver{t: t, answer: func(http.ResponseWriter, *http.Request) { <-free }}
	address := serve(t, rc)
	t.Cleanup(func() { close(free) })
	l := quick()
	l.queue = 100
	s, logs := start(t, address, l)
	o := s.Observe(everything(new(keys)))
	o.Observe(admitted(holder('k', 'c')))
	require.Eventually(t, func() bool { return len(rc.all()) == 1 }, time.Minute, 5*time.Millisecond)
	for range 1000 {
		o.Observe(admitted(holder('k', 'c'))) // returns, or the test does not end
	}
	require.Equal(t, uint64(900), s.Dropped())
	dropped := logs.FilterMessageSnippet("dropped").All()
	require.Len(t, dropped, 1, "once a minute")
	require.Equal(t, "queue_full", dropped[0].ContextMap()["cause"])
	s.Close()
	require.Equal(t, uint64(1001), s.Dropped(), "all that was not answered")
}

func TestPost_AReceiverThatIsTooSlowIsAskedAgain(t *testing.T) {
	free := make(chan struct{})
	var asked atomic.Int32
	rc := &receiver{t: t, answer: func(http.ResponseWriter, *http.Request) {
		if asked.Add(1) == 1 {
			<-free
		}
	}}
	address := serve(t, rc)
	t.Cleanup(func() { close(free) })
	l := quick()
	l.timeout = 50 * time.Millisecond
	s, logs := start(t, address, l)
	s.Observe(everything(new(keys))).Observe(admitted(holder('k', 'c')))
	require.Eventually(t, func() bool { return len(rc.all()) >= 2 }, time.Minute, 5*time.Millisecond)
	require.Contains(t, errorsOf(logs), "no answer within 50ms")
}

func TestPost_ASlowReceiverGetsAll(t *testing.T) {
	rc := &receiver{t: t, answer: func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-r.Context().Done():
		}
		w.WriteHeader(http.StatusAccepted)
	}}
	s, _ := start(t, serve(t, rc), quick())
	o := s.Observe(everything(new(keys)))
	for range 3000 {
		o.Observe(admitted(holder('k', 'c')))
	}
	rc.wait(3000)
	require.Zero(t, s.Dropped())
	for _, p := range rc.all() {
		require.LessOrEqual(t, len(p.body), mostBody+100)
	}
}

func TestPost_IsGivenUpInTime(t *testing.T) {
	var up atomic.Bool
	rc := &receiver{t: t, answer: func(w http.ResponseWriter, _ *http.Request) {
		if !up.Load() {
			w.WriteHeader(http.StatusBadGateway)
		}
	}}
	l := quick()
	l.giveUp = 200 * time.Millisecond
	s, logs := start(t, serve(t, rc), l)
	o := s.Observe(everything(new(keys)))
	o.Observe(admitted(holder('k', 'c')))
	require.Eventually(t, func() bool { return s.Dropped() == 1 }, time.Minute, 5*time.Millisecond)
	require.Equal(t, "too_late", logs.FilterMessageSnippet("dropped").All()[0].ContextMap()["cause"])
	require.Greater(t, len(rc.all()), 1, "it was tried again before")
	up.Store(true)
	later := holder('k', 'c')
	o.Observe(admitted(later))
	require.Eventually(t, func() bool {
		told := rc.told()
		return told[len(told)-1].Stream == later.ID.String()
	}, time.Minute, 5*time.Millisecond)
}

func TestJudge_HonoursRetryAfter(t *testing.T) {
	now := time.Now()
	require.Equal(t, 7*time.Second, retryAfter("7", now))
	require.Equal(t, time.Duration(0), retryAfter("-7", now))
	require.Equal(t, time.Duration(0), retryAfter("soon", now))
	require.InDelta(t, time.Minute, retryAfter(now.Add(time.Minute).UTC().Format(http.TimeFormat), now), float64(time.Second))

	rc := &receiver{t: t, answer: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(http.StatusTooManyRequests)
	}}
	l := quick()
	l.giveUp = 30 * time.Second
	s, _ := start(t, serve(t, rc), l)
	s.Observe(everything(new(keys))).Observe(admitted(holder('k', 'c')))
	require.Eventually(t, func() bool { return s.Dropped() == 1 }, time.Minute, 5*time.Millisecond, "it would be too late by then")
	require.Len(t, rc.all(), 1)
}

func TestBackoff_DoublesAndSpreads(t *testing.T) {
	s := &Sender{limits: usual}
	for try, most := range []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 30 * time.Second, 30 * time.Second} {
		for range 20 {
			require.LessOrEqual(t, s.backoff(try), most)
			require.GreaterOrEqual(t, s.backoff(try), most/2)
		}
	}
	require.LessOrEqual(t, s.backoff(1<<30), usual.lastRetry)
}

// What is secret in the URL, and the secret, are in no line, whatever goes wrong.
func TestLog_HasNothingSecret(t *testing.T) {
	var authorization atomic.Value
	rc := &receiver{t: t, answer: func(_ http.ResponseWriter, r *http.Request) {
		authorization.Store(r.Header.Get("Authorization"))
		panic(http.ErrAbortHandler)
	}}
	address := serve(t, rc).String()
	for _, url := range []string{
		"http://usernameX:passwordX@" + address[len("http://"):] + "X?queryX=valueX",
		"http://usernameX:passwordX@127.0.0.1:1/pathX?queryX=valueX",
		"http://usernameX:passwordX@nohost.invalid/pathX?queryX=valueX",
	} {
		l := quick()
		l.giveUp = 100 * time.Millisecond
		s, logs := start(t, parse(t, url), l)
		s.Observe(everything(new(keys))).Observe(admitted(holder('k', 'c')))
		require.Eventually(t, func() bool { return s.Dropped() == 1 }, time.Minute, 5*time.Millisecond)
		require.NotEmpty(t, errorsOf(logs))
		for _, line := range logs.All() {
			text, err := json.Marshal(line.ContextMap())
			require.NoError(t, err)
			for _, secret := range []string{"usernameX", "passwordX", "pathX", "hookX", "queryX", "valueX", testSecret} {
				require.NotContains(t, string(text)+line.Message, secret)
			}
		}
	}
	require.Equal(t, "Basic dXNlcm5hbWVYOnBhc3N3b3JkWA==", authorization.Load(), "the receiver has the user")
}

func TestFlush_PostsAllAndIsBounded(t *testing.T) {
	free := make(chan struct{})
	rc := &receiver{t: t}
	address := serve(t, rc)
	l := quick()
	l.gather = time.Hour
	s, _ := start(t, address, l)
	s.Observe(everything(new(keys))).Observe(admitted(holder('k', 'c')))
	s.Flush(t.Context())
	require.Len(t, rc.told(), 1)

	hanging := &receiver{t: t, answer: func(http.ResponseWriter, *http.Request) { <-free }}
	address = serve(t, hanging)
	t.Cleanup(func() { close(free) })
	s, _ = start(t, address, quick())
	s.Observe(everything(new(keys))).Observe(admitted(holder('k', 'c')))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	s.Flush(ctx)
	require.Error(t, ctx.Err())
}

func TestFinish_WaitsUntilAllIsPosted(t *testing.T) {
	rc := &receiver{t: t}
	s, _ := start(t, serve(t, rc), quick())
	o := s.Observe(everything(new(keys)))
	o.Observe(closed(holder('k', 'c'), reason.MaxAge))
	s.Finish()
	require.Len(t, rc.told(), 1)
	o.Observe(closed(holder('k', 'd'), reason.MaxAge)) // it is of use after that
	s.Finish()
	require.Len(t, rc.told(), 2)
}

func TestClose_DropsWhatComesLater(t *testing.T) {
	rc := &receiver{t: t}
	s, _ := start(t, serve(t, rc), quick())
	o := s.Observe(everything(new(keys)))
	s.Close()
	o.Observe(admitted(holder('k', 'c')))
	require.Equal(t, uint64(1), s.Dropped())
	s.Close()
}
