package caddymodule

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/event"
	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/webhook"
)

const hookSecret = "0123456789abcdef"

func hooked(url, more string) string {
	return fmt.Sprintf(`{"webhooks": [{"url": %q, "secret": %q}%s]}`, url, hookSecret, more)
}

// users counts those that keep a sender in the pool.
func users(key hookKey) int {
	n, _ := hooks.References(key)
	return n
}

// Over a reload, the new configuration goes on with the sender of the old one, and with
// what it has yet to post.
func TestWebhooks_ShareASenderByURLAndSecret(t *testing.T) {
	t.Setenv("SSE_GUARD_HOOK", "http://a.example/hook")
	t.Setenv("SSE_GUARD_OTHER", "another secret of sixteen bytes")
	old, next := newConfiguration(t, storageIn(t.TempDir())), newConfiguration(t, storageIn(t.TempDir()))
	a := old.handler(t, hooked("http://a.example/hook", ""))
	b := next.handler(t, hooked("{env.SSE_GUARD_HOOK}", `, {"url": "http://b.example/", "secret": "{env.SSE_GUARD_OTHER}"}`))
	rotated := next.handler(t, `{"webhooks": [{"url": "http://a.example/hook", "secret": "{env.SSE_GUARD_OTHER}", "events": ["ended"]}]}`)
	require.Same(t, a.hooks[0].Sender, b.hooks[0].Sender)
	require.NotSame(t, a.hooks[0].Sender, b.hooks[1].Sender)
	require.NotSame(t, a.hooks[0].Sender, rotated.hooks[0].Sender)
	require.Equal(t, 2, users(a.hooks[0].key))
	key := a.hooks[0].key
	old.unload()
	require.Equal(t, 1, users(key))
	next.unload()
	require.Zero(t, users(key))
}

// Streams of a configuration that was replaced tell what it says, also when nothing else
// uses the webhook any more.
func TestWebhooks_StreamsKeepTheirSender(t *testing.T) {
	posted := make(chan struct{}, 10)
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { posted <- struct{}{} }))
	t.Cleanup(server.Close)
	c := newConfiguration(t, storageIn(t.TempDir()))
	h := c.handler(t, hooked(server.URL, ""))
	key, observers := h.hooks[0].key, h.guard.Observers
	stream := event.Who{Holder: &registry.Holder{ID: registry.NewStreamID(), Key: registry.ID{1}}}
	observers.Tell(event.Admitted{Stream: stream})
	<-posted
	c.unload()
	require.Equal(t, 1, users(key), "the stream's")
	observers.Tell(event.Ended{Stream: stream, Held: true, Reason: reason.Dead})
	<-posted
	require.Zero(t, users(key))
}

func TestWebhooks_AreGivenBackWhereTheConfigurationIsRefused(t *testing.T) {
	c := newConfiguration(t, storageIn(t.TempDir()))
	kept := c.handler(t, hooked("http://a.example", "")).hooks[0].key
	_, err := c.handlerOrErr(hooked("http://a.example", `, {"url": "{env.SSE_GUARD_HOOK}", "secret": "too short"}`))
	require.Error(t, err)
	require.Equal(t, 1, users(kept))
}

func TestWebhooks_HaveTheDefaultEventsAndReserve(t *testing.T) {
	require.Equal(t, []webhook.Kind{webhook.Admitted, webhook.Ended, webhook.Rejected}, defaultKinds)
	c := newConfiguration(t, storageIn(t.TempDir()))
	h := c.handler(t, hooked("http://a.example", ""))
	require.Zero(t, h.guard.Reserve, "no place is kept under supersede")
	require.Equal(t, 3*time.Second, time.Duration(*h.Reserve), "the client is waited for all the same")
}

// TestWebhooks_StopTogether: however many URLs there are, Caddy waits for their last posts
// once.
func TestWebhooks_StopTogether(t *testing.T) {
	posted := make(chan struct{}, 10)
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { posted <- struct{}{} }))
	t.Cleanup(server.Close)
	c := newConfiguration(t, storageIn(t.TempDir()))
	h := c.handler(t, hooked("http://a.example", fmt.Sprintf(`, {"url": %q, "secret": %q, "events": ["ended"]}`, server.URL, hookSecret)))
	other := c.handler(t, hooked("http://b.example", ""))
	stream := event.Who{Holder: &registry.Holder{ID: registry.NewStreamID(), Key: registry.ID{1}, Client: registry.ID{1}}}
	h.hooks[1].Observe(webhook.Source{Holders: h.zone.Registry, Kinds: []webhook.Kind{webhook.Ended}, Reserve: time.Hour}).
		Observe(event.Ended{Stream: stream, Held: true, Reason: event.Left})
	flushHooks()
	require.Len(t, posted, 1)
	for _, hook := range []openedHook{h.hooks[1], other.hooks[0]} {
		hook.flush()
		require.Equal(t, h.hooks[0].until.Load(), hook.until.Load(), "one time for all")
	}
}
