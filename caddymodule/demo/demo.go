// Package demo is the small application that "caddy sse-proxy" serves when it
// is given no upstream: an event stream that ticks, and a page that shows what
// the guard does with it. It is written as an application that knows nothing
// of the guard, and it uses nothing but the standard library.
package demo

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// tokenCookie names the cookie that stands for a login. It is one of the
// places where the guard looks for a token by default.
const tokenCookie = "access_token"

// nodeHeader names the header field in which a proxy may say what it is called. Where
// there are several, the page then shows which of them a stream came through.
const nodeHeader = "X-Node"

// backend answers the demo's requests.
type backend struct {
	interval time.Duration
	visitors *visitors
}

// Option changes how the demo behaves.
type Option func(*backend)

// WithInterval sets the time from one tick to the next. The default is one
// second; a duration that is not positive leaves it so.
func WithInterval(d time.Duration) Option {
	return func(b *backend) {
		if d > 0 {
			b.interval = d
		}
	}
}

// New returns the demo. A stream ends when its request's context does, so a
// server that is to stop promptly has to cancel the contexts of its requests.
func New(opts ...Option) http.Handler {
	b := &backend{interval: time.Second, visitors: newVisitors()}
	for _, opt := range opts {
		opt(b)
	}
	mux := http.NewServeMux()
	for name, asset := range assets() {
		mux.Handle("GET /"+name, asset)
	}
	mux.HandleFunc("GET /{$}", b.page)
	mux.HandleFunc("GET /events", b.events)
	mux.HandleFunc("GET /state", b.state)
	return mux
}

// page serves the page, and gives a browser that has none a token. The tabs of
// one browser share it; two visitors never do.
func (b *backend) page(w http.ResponseWriter, r *http.Request) {
	if _, ok := token(r); !ok {
		http.SetCookie(w, &http.Cookie{ //nolint:gosec // the demo is served over clear text
			Name:     tokenCookie,
			Value:    rand.Text(),
			Path:     "/",
			HttpOnly: true,
			SameSite: http.SameSiteLaxMode,
		})
	}
	servePage(w, r)
}

// tick is the data of one event.
type tick struct {
	N      uint64 `json:"n"`      // the event's id
	Stream string `json:"stream"` // names the stream, until it ends
	Open   int    `json:"open"`   // streams open for the same token now
	Time   string `json:"time"`   // RFC 3339, UTC, with milliseconds
}

// events streams one tick at once and then one per interval, until the
// request's context ends.
func (b *backend) events(w http.ResponseWriter, r *http.Request) {
	token, ok := token(r)
	if !ok {
		refuse(w)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-cache")
	if r.Method == http.MethodHead {
		return
	}
	stream := newStreamID()
	if node := r.Header.Get(nodeHeader); node != "" {
		stream += " on " + node
	}
	b.visitors.open(token, stream)
	defer b.visitors.close(token, stream)

	out := http.NewResponseController(w)
	clock := time.NewTicker(b.interval)
	defer clock.Stop()
	for n := lastEventID(r) + 1; ; n++ {
		err := writeTick(w, tick{
			N:      n,
			Stream: stream,
			Open:   b.visitors.state(token).Open,
			Time:   time.Now().UTC().Format("2006-01-02T15:04:05.000Z07:00"),
		})
		if err != nil || out.Flush() != nil {
			return
		}
		select {
		case <-clock.C:
		case <-r.Context().Done():
			return
		}
	}
}

// state tells what this backend holds for the token: the page shows with it
// that the stream of a tab that was taken over is gone from here too.
func (b *backend) state(w http.ResponseWriter, r *http.Request) {
	token, ok := token(r)
	if !ok {
		refuse(w)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	json.NewEncoder(w).Encode(b.visitors.state(token)) //nolint:errcheck // the client has left
}

// token returns the token of the request's cookie.
func token(r *http.Request) (string, bool) {
	cookie, err := r.Cookie(tokenCookie)
	if err != nil || cookie.Value == "" {
		return "", false
	}
	return cookie.Value, true
}

// refuse answers a request that carries no token.
func refuse(w http.ResponseWriter) {
	w.Header().Set("Cache-Control", "no-store")
	http.Error(w, "no "+tokenCookie+" cookie: open / first, it sets one", http.StatusUnauthorized)
}

// lastEventID returns the number a reconnecting EventSource received last, or
// 0 where there is none, or none of ours.
func lastEventID(r *http.Request) uint64 {
	// 53 bits: a page reads the number as a double.
	n, err := strconv.ParseUint(r.Header.Get("Last-Event-ID"), 10, 53)
	if err != nil {
		return 0
	}
	return n
}

// newStreamID returns a name short enough to be read aloud.
func newStreamID() string {
	return strings.ToLower(rand.Text()[:6])
}

func writeTick(w http.ResponseWriter, t tick) error {
	data, err := json.Marshal(t)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "id: %d\nevent: tick\ndata: %s\n\n", t.N, data)
	return err
}
