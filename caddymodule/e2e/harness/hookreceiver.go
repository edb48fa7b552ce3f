package harness

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// WebhookSecret is what the FastAPI application, and a HookReceiver, verify posts with.
const WebhookSecret = "the secret of the webhook"

// Webhook is the option webhook, in a guard's block, with the lines in more.
func Webhook(url, more string) string {
	return fmt.Sprintf("webhook %s {\nsecret %q\n%s\n}", url, WebhookSecret, more)
}

// HookEvent is one event of a webhook.
type HookEvent struct {
	Event, Reason, Zone, Stream, Key, Token, Client, Sub, As string
	LastEventID                                              string `json:"last_event_id"`
	Holders                                                  *int
	Labels                                                   map[string]string
}

// HookReceiver is a backend that a webhook posts to. It counts each delivery once, and
// fails the test if one is not signed.
type HookReceiver struct {
	// URL is where to post to.
	URL string

	t      testing.TB
	mu     sync.Mutex // guards the fields below; nothing is called with it held
	seen   map[string]bool
	events []HookEvent
	posts  int
	answer func(w http.ResponseWriter, r *http.Request) bool
}

// NewHookReceiver starts a receiver, which ends with the test.
func NewHookReceiver(t testing.TB) *HookReceiver {
	t.Helper()
	h := &HookReceiver{t: t, seen: make(map[string]bool)}
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	h.URL = server.URL + "/hook"
	return h
}

// Answer has posts answered by f, and counted only where that returns true.
func (h *HookReceiver) Answer(f func(w http.ResponseWriter, r *http.Request) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.answer = f
}

// FailWhile has posts refused, and their events not kept, while down is true.
func (h *HookReceiver) FailWhile(down *atomic.Bool) {
	h.Answer(func(w http.ResponseWriter, _ *http.Request) bool {
		if down.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		return !down.Load()
	})
}

// ServeHTTP implements http.Handler.
func (h *HookReceiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return // the sender is gone
	}
	mac := hmac.New(sha256.New, []byte(WebhookSecret))
	mac.Write(text)
	if "sha256="+hex.EncodeToString(mac.Sum(nil)) != r.Header.Get("X-SSE-Guard-Signature-256") {
		h.t.Errorf("a post of the webhook has a wrong signature: %s", text)
	}
	var post struct {
		Delivery string
		Batch    []HookEvent
	}
	if err := json.Unmarshal(text, &post); err != nil || post.Delivery != r.Header.Get("X-SSE-Guard-Delivery") {
		h.t.Errorf("a post of the webhook is not what it should be: %s", text)
	}
	h.mu.Lock()
	h.posts++
	answer := h.answer
	h.mu.Unlock()
	if answer != nil && !answer(w, r) {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.seen[post.Delivery] {
		h.seen[post.Delivery] = true
		h.events = append(h.events, post.Batch...)
	}
}

// Events returns what was posted, each delivery once.
func (h *HookReceiver) Events() []HookEvent {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.events)
}

// Posts counts the posts, also those that are posted again.
func (h *HookReceiver) Posts() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.posts
}

// Wait waits until n events were posted, and returns them.
func (h *HookReceiver) Wait(t testing.TB, n int) []HookEvent {
	t.Helper()
	require.Eventually(t, func() bool { return len(h.Events()) >= n }, 2*Patience, 10*time.Millisecond, "%d events", n)
	events := h.Events()
	require.Len(t, events, n)
	return events
}
