package webhook

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/sse-guard/sse-guard/caddymodule/event"
	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

const testSecret = "0123456789abcdef"

// received is one post, as a receiver reads it.
type received struct {
	header http.Header
	body   []byte
	Batch  []Record
}

// receiver is a backend that is told. It answers by answer; nil: 204.
type receiver struct {
	t      *testing.T
	answer func(w http.ResponseWriter, r *http.Request)

	mu    sync.Mutex
	posts []received
}

func (rc *receiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	p := received{header: r.Header, body: text}
	if err := json.Unmarshal(text, &p); err != nil {
		rc.t.Errorf("%s: %v", text, err)
	}
	rc.mu.Lock()
	rc.posts = append(rc.posts, p)
	rc.mu.Unlock()
	if rc.answer != nil {
		rc.answer(w, r)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (rc *receiver) all() []received {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	return slices.Clone(rc.posts)
}

// told is what the receiver was told, each delivery once.
func (rc *receiver) told() (records []Record) {
	seen := make(map[string]bool)
	for _, p := range rc.all() {
		if id := p.header.Get(DeliveryHeader); !seen[id] {
			seen[id] = true
			records = append(records, p.Batch...)
		}
	}
	return records
}

// wait waits until the receiver was told of n.
func (rc *receiver) wait(n int) []Record {
	rc.t.Helper()
	require.Eventually(rc.t, func() bool { return len(rc.told()) >= n }, time.Minute, 5*time.Millisecond)
	records := rc.told()
	require.Len(rc.t, records, n)
	return records
}

// quick are limits with which tests are soon over.
func quick() limits {
	l := usual
	l.gather = 10 * time.Millisecond
	l.firstRetry, l.lastRetry = 10*time.Millisecond, 50*time.Millisecond
	return l
}

func serve(t *testing.T, rc *receiver) *url.URL {
	t.Helper()
	server := httptest.NewServer(rc)
	t.Cleanup(server.Close)
	return parse(t, server.URL+"/hook")
}

func parse(t *testing.T, address string) *url.URL {
	t.Helper()
	u, err := url.Parse(address)
	require.NoError(t, err)
	return u
}

func start(t *testing.T, address *url.URL, l limits) (*Sender, *observer.ObservedLogs) {
	t.Helper()
	core, logs := observer.New(zapcore.DebugLevel)
	s := newSender(address, []byte(testSecret), zap.New(core), l)
	t.Cleanup(s.Close)
	return s, logs
}

// keys is who holds what. It implements Finder.
type keys struct {
	mu      sync.Mutex
	holders []*registry.Holder
	err     error
	asked   int
}

func (k *keys) hold(h *registry.Holder) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.holders = append(k.holders, h)
}

func (k *keys) leave(h *registry.Holder) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.holders = slices.DeleteFunc(k.holders, func(other *registry.Holder) bool { return other.ID == h.ID })
}

func (k *keys) fail(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.err = err
}

func (k *keys) Find(_ context.Context, sel registry.Selector, _ string, limit int) (found []*registry.Holder, next string, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked++
	for _, h := range k.holders {
		if !sel.Matches(h) {
			continue
		}
		if len(found) == limit {
			return found, "more", k.err
		}
		found = append(found, h)
	}
	return found, "", k.err
}

// everything is a guard whose receiver is told all.
func everything(k *keys) Source {
	return Source{Zone: "shop", Holders: k, Kinds: Kinds(), Reserve: 3 * time.Second}
}

func id(b byte) registry.ID { return registry.ID{b, 1} }

// holder is a stream of a client, both named by a letter.
func holder(key, client byte) *registry.Holder {
	return &registry.Holder{ID: registry.NewStreamID(), Key: id(key), Token: id('t'), Client: id(client), Since: time.Now()}
}

func admitted(h *registry.Holder) event.Event {
	return event.Admitted{Stream: event.Who{Holder: h, Sub: "ann"}}
}

func closed(h *registry.Holder, why reason.Reason) event.Event {
	return event.Ended{Stream: event.Who{Holder: h, Sub: "ann"}, Held: true, Reason: why, Age: 90 * time.Second, Events: 12, Bytes: 3456, LastEventID: "41"}
}
