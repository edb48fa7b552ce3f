package operate

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// TestWebhook_TellsFastAPIWhoIsInTheRoom: README's code, before the application's own
// streams. A second device of the user keeps it in the room, a reload does too, and
// whoever is gone for good leaves once.
func TestWebhook_TellsFastAPIWhoIsInTheRoom(t *testing.T) {
	app := harness.StartFastAPI(t)
	site := harness.NewIssuer(t, "ES256")
	app.VerifyWith(t, site)
	server := harness.StartCaddy(t, harness.VerifyingSite(app, site.KeyOption(t), harness.ByUser, "limit 2", "reserve 5s", harness.Webhook(app.URL+"/hooks/streams", "")))
	token := harness.WithBearer(site.Token(t, harness.WithSub("ann")))

	first := harness.NewClient(t, harness.HTTP1).Open(t, server.URL+"/raw", token, harness.WithClient("laptop"))
	first.Next(t)
	second := harness.NewClient(t, harness.HTTP1).Open(t, server.URL+"/raw", token, harness.WithClient("phone"))
	second.Next(t)
	app.WaitRooms(t, func(r harness.Rooms) bool { return len(r.Log) == 2 })
	first.Close()
	again := harness.NewClient(t, harness.HTTP1).Open(t, server.URL+"/raw", token, harness.WithClient("laptop"))
	again.Next(t)
	app.WaitRooms(t, func(r harness.Rooms) bool { return len(r.Log) == 3 })
	again.Close()
	second.Close()
	rooms := app.WaitRooms(t, func(r harness.Rooms) bool { return len(r.Present) == 0 })
	assert.Equal(t, []string{"ann enters", "ann enters", "ann enters", "ann leaves: left"}, rooms.Log)
}

// TestWebhook_AnUnsignedPostIsNotBelieved by README's code.
func TestWebhook_AnUnsignedPostIsNotBelieved(t *testing.T) {
	app := harness.StartFastAPI(t)
	for _, signature := range []string{"", "sha256=", "sha256=0000", "sha256=é"} {
		answer, _ := harness.Get(t, app.URL+"/hooks/streams", harness.WithPost(`{"delivery":"1","batch":[{"event":"admitted","key":"ann"}]}`),
			harness.WithHeader("X-SSE-Guard-Signature-256", signature))
		assert.Equal(t, http.StatusUnauthorized, answer.StatusCode, signature)
	}
	assert.Empty(t, app.Rooms(t).Log)
}

// TestWebhook_APageThatReloadsHasNotLeft, in a real browser; once it is closed, it has,
// and that is posted once.
func TestWebhook_APageThatReloadsHasNotLeft(t *testing.T) {
	receiver := harness.NewHookReceiver(t)
	var opened atomic.Int32
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/events" {
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprint(w, `<!doctype html><title>p</title><body><script>new EventSource("/events?token=ann").onmessage = () => document.body.dataset.state = "live"</script>`)
			return
		}
		opened.Add(1)
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "id: 7\ndata: hello\n\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	t.Cleanup(backend.Close)
	server := harness.StartCaddy(t, "sse_guard {\nreserve 15s\n"+harness.Webhook(receiver.URL, "events ended returned")+"\n}\nreverse_proxy "+backend.URL)
	tab := harness.StartBrowser(t).NewTab(t, server.URL+"/")
	tab.WaitState(t, "live")
	for n := range 2 {
		tab.Eval(t, "location.reload()")
		require.Eventually(t, func() bool { return int(opened.Load()) == n+2 }, harness.Patience, 10*time.Millisecond)
		tab.WaitState(t, "live")
	}
	returned := receiver.Wait(t, 2)
	tab.Close()
	events := receiver.Wait(t, 3)
	for _, e := range returned {
		assert.Contains(t, []string{"returned", "superseded"}, e.Event+e.Reason, "the new request may be there before the old one is gone")
	}
	last := events[2]
	assert.Equal(t, "ended", last.Event)
	assert.Equal(t, "left", last.Reason)
	assert.Equal(t, "7", last.LastEventID)
	require.NotNil(t, last.Holders)
	assert.Zero(t, *last.Holders)
}

// TestWebhook_TellsLabels of who opens, is refused and has gone.
func TestWebhook_TellsLabels(t *testing.T) {
	app := harness.StartFastAPI(t)
	receiver := harness.NewHookReceiver(t)
	server := harness.StartCaddy(t, "sse_guard {\npolicy reject\nreserve off\nlabel room {query.room}\nlabel seat {query.seat}\n"+
		harness.Webhook(receiver.URL, "")+"\n}\nreverse_proxy "+app.URL)
	open := func(room string) *harness.Stream {
		return harness.NewClient(t, harness.HTTP1).Open(t, server.URL+"/raw?room="+room, harness.WithBearer("ann"))
	}
	holder := open("one")
	holder.Next(t)
	open("two").Next(t)
	receiver.Wait(t, 2)
	holder.Close()
	var got []string
	for _, e := range receiver.Wait(t, 3) {
		got = append(got, fmt.Sprint(e.Event, " ", e.Labels))
	}
	assert.ElementsMatch(t, []string{"admitted map[room:one]", "rejected map[room:two]", "ended map[room:one]"}, got)
}

// TestWebhook_AReloadOfTheConfigurationLosesNothing, nor posts it twice, whether the
// receiver is there or not, and whatever becomes of the webhook.
func TestWebhook_AReloadOfTheConfigurationLosesNothing(t *testing.T) {
	app := harness.StartFastAPI(t)
	receiver, other := harness.NewHookReceiver(t), harness.NewHookReceiver(t)
	var down atomic.Bool
	receiver.FailWhile(&down)
	site := func(options string) string {
		return "sse_guard {\nreserve 1s\n" + options + "\n}\nreverse_proxy " + app.URL
	}
	server := harness.StartCaddy(t, site(harness.Webhook(receiver.URL, "")))
	open := func(user string) *harness.Stream {
		s := harness.NewClient(t, harness.HTTP1).Open(t, server.URL+"/raw", harness.WithBearer(user))
		s.Next(t)
		return s
	}
	ann, bob, cid := open("ann"), open("bob"), open("cid")
	receiver.Wait(t, 3)
	down.Store(true)
	ann.Close() // it has left, and its time is not over, or the receiver does not hear of it
	app.WaitOpen(t, 2)
	server.Reload(t, site(harness.Webhook(receiver.URL, "")+"\nretry 7s"))
	require.Eventually(t, func() bool { return receiver.Posts() > 3 }, harness.Patience, 10*time.Millisecond)
	server.Reload(t, site(harness.Webhook(receiver.URL, "")+"\nretry 8s"))
	down.Store(false)
	events := receiver.Wait(t, 4)
	assert.Equal(t, "left", events[3].Reason)

	// A stream tells what its own configuration says.
	server.Reload(t, site(harness.Webhook(other.URL, "")))
	bob.Close()
	assert.Equal(t, "left", receiver.Wait(t, 5)[4].Reason)
	open("bob")
	other.Wait(t, 1)
	server.Reload(t, "sse_guard\nreverse_proxy "+app.URL)
	cid.Close()
	assert.Equal(t, "left", receiver.Wait(t, 6)[5].Reason)
	streams := make(map[string]int)
	for _, e := range receiver.Events() {
		streams[e.Stream]++
	}
	require.Len(t, streams, 3)
	for stream, n := range streams {
		assert.Equal(t, 2, n, "%s: admitted, and ended", stream)
	}
}

// TestWebhook_IsToldBeforeCaddyStops of all streams that end with it, though it is slow.
func TestWebhook_IsToldBeforeCaddyStops(t *testing.T) {
	app := harness.StartFastAPI(t)
	receiver := harness.NewHookReceiver(t)
	receiver.Answer(func(_ http.ResponseWriter, r *http.Request) bool {
		select {
		case <-time.After(1500 * time.Millisecond):
			return true
		case <-r.Context().Done():
			return false // Caddy did not wait
		}
	})
	p, url := harness.StartSite(t, "", "sse_guard {\ndrain 1s\n"+harness.Webhook(receiver.URL, "events ended")+"\n}\nreverse_proxy "+app.URL)
	for n := range 50 {
		harness.NewClient(t, harness.HTTP1).Open(t, url+"/raw", harness.WithBearer(fmt.Sprint("user", n))).Next(t)
	}
	p.Stop(t)
	events := receiver.Events()
	require.Len(t, events, 50)
	for _, e := range events {
		assert.Equal(t, "shutdown", e.Reason)
	}
}

// TestWebhook_OfAConfigurationBeforeIsToldBeforeCaddyStops, though the receiver was down,
// and whatever Caddy runs by then.
func TestWebhook_OfAConfigurationBeforeIsToldBeforeCaddyStops(t *testing.T) {
	app := harness.StartFastAPI(t)
	for name, last := range map[string]string{"another guard": "sse_guard\n", "no guard": ""} {
		t.Run(name, func(t *testing.T) {
			receiver := harness.NewHookReceiver(t)
			var down atomic.Bool
			receiver.FailWhile(&down)
			down.Store(true)
			server := harness.StartAdminCaddy(t, "sse_guard {\nreserve off\n"+harness.Webhook(receiver.URL, "events ended")+"\n}\nreverse_proxy "+app.URL)
			stream := harness.NewClient(t, harness.HTTP1).Open(t, server.URL+"/raw", harness.WithBearer("ann"))
			stream.Next(t)
			stream.Close()
			require.Eventually(t, func() bool { return receiver.Posts() >= 3 }, harness.Patience, 10*time.Millisecond)
			server.Reload(t, last+"reverse_proxy "+app.URL)
			down.Store(false)
			server.Stop(t)
			events := receiver.Events()
			require.Len(t, events, 1)
			assert.Equal(t, "left", events[0].Reason)
		})
	}
}

// TestWebhook_IsToldOfStreamsThatOutlivedTheirServer, of those too that end only seconds
// after the server that Caddy stops with.
func TestWebhook_IsToldOfStreamsThatOutlivedTheirServer(t *testing.T) {
	app := harness.StartFastAPI(t)
	site := func(options string) string {
		return "sse_guard {\n" + options + "\n}\nreverse_proxy " + app.URL
	}
	for name, test := range map[string]struct {
		streams       int
		grace, answer time.Duration // of the receiver
	}{
		"one":  {1, time.Second, 200 * time.Millisecond},
		"many": {120, 12 * time.Second, 500 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			receiver := harness.NewHookReceiver(t)
			receiver.Answer(func(http.ResponseWriter, *http.Request) bool {
				<-time.After(test.answer) // it takes its time
				return true
			})
			server := harness.StartAdminCaddy(t, site(harness.Webhook(receiver.URL, "events ended")+"\ndrain 12s"), fmt.Sprintf("grace_period %s", test.grace))
			for n := range test.streams {
				harness.NewClient(t, harness.HTTP1).Open(t, server.URL+"/raw", harness.WithBearer(fmt.Sprint("user", n))).Next(t)
			}
			server.Reload(t, site("retry 7s\ndrain 12s"))
			if test.grace == time.Second {
				harness.Rest(t, 2*time.Second) // the grace period of the first server is over
			}
			server.Stop(t)
			events := receiver.Events()
			require.Len(t, events, test.streams)
			for _, e := range events {
				assert.Equal(t, "shutdown", e.Reason)
			}
		})
	}
}

// TestWebhook_AReceiverThatHangsHoldsUpNoStream, nor Caddy's end for long.
func TestWebhook_AReceiverThatHangsHoldsUpNoStream(t *testing.T) {
	app := harness.StartFastAPI(t)
	receiver := harness.NewHookReceiver(t)
	free := make(chan struct{})
	t.Cleanup(func() { close(free) })
	receiver.Answer(func(http.ResponseWriter, *http.Request) bool { <-free; return true })
	p, url := harness.StartSite(t, "", "sse_guard {\ndrain 1s\n"+harness.Webhook(receiver.URL, "")+"\n}\nreverse_proxy "+app.URL)
	for range 20 {
		older := harness.NewClient(t, harness.HTTP1).Open(t, url+"/raw", harness.WithBearer("ann"))
		older.Next(t)
		newer := harness.NewClient(t, harness.HTTP1).Open(t, url+"/raw", harness.WithBearer("ann"))
		newer.Next(t)
		harness.RequireEnded(t, older, harness.Duplicated, "superseded")
		newer.Close()
	}
	require.Eventually(t, func() bool { return receiver.Posts() > 0 }, harness.Patience, 10*time.Millisecond)
	assert.Empty(t, receiver.Events(), "none was answered")
	app.WaitOpen(t, 0)
	assert.Less(t, p.Stop(t), harness.Patience)
}
