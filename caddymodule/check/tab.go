package check

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/reason"
)

const (
	// defaultRetry is when an EventSource comes back that has not been told.
	defaultRetry = 3 * time.Second
	// leastRetry keeps the check from asking without a pause.
	leastRetry = 100 * time.Millisecond
	// maxConnects is how often a tab asks at most.
	maxConnects = 5
	// maxBody is how much is read of an answer that is no event stream.
	maxBody = 16 << 10
	// maxRedirects is how many redirects an EventSource follows.
	maxRedirects = 20

	eventStream = "text/event-stream"
)

// moment is something that a tab tells. The watch runs it in its own goroutine.
type moment func()

// tab is one EventSource with a connection of its own. Its goroutine tells the watch
// what happens, and ends when it has given up, or the context ends.
type tab struct {
	watch  *watch
	stream *stream
	client *http.Client
	lastID string
	retry  time.Duration
}

// open starts a tab.
func (w *watch) open(ctx context.Context) *stream {
	s := &stream{number: len(w.streams) + 1}
	w.streams = append(w.streams, s)
	t := &tab{watch: w, stream: s, client: w.config.client(), retry: defaultRetry}
	w.tabs.Go(func() {
		defer t.client.CloseIdleConnections()
		t.run(ctx)
		t.tell(ctx, func(time.Duration) { s.closed = true })
	})
	return s
}

// client has connections of its own, as if it were another browser.
func (c *Config) client() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy:             http.ProxyFromEnvironment,
			TLSClientConfig:   &tls.Config{InsecureSkipVerify: c.Insecure}, //nolint:gosec // the user says so
			ForceAttemptHTTP2: true,
		},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if !follows(via[0].Method, via[0].URL, r.URL) || len(via) >= maxRedirects {
				return http.ErrUseLastResponse
			}
			return nil
		},
	}
}

// follows reports whether a redirect is followed. The tokens are for one server: they
// are not shown to another. A change from HTTP to HTTPS is what servers do for safety.
func follows(method string, from, to *url.URL) bool {
	if method != http.MethodGet || from.Hostname() != to.Hostname() {
		return false
	}
	return from.Scheme == to.Scheme && from.Port() == to.Port() || from.Scheme == "http" && to.Scheme == "https"
}

// request is what an EventSource of a page of the same site sends.
func (c *Config) request(ctx context.Context, lastID string) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, c.Method, c.URL, strings.NewReader(c.Body))
	if err != nil {
		return nil, err
	}
	if c.Body == "" {
		r.Body, r.ContentLength = http.NoBody, 0
	} else {
		r.Header.Set("Content-Type", "application/json")
	}
	r.Header.Set("Accept", eventStream)
	r.Header.Set("Cache-Control", "no-cache")
	r.Header.Set("Sec-Fetch-Dest", "empty")
	r.Header.Set("Sec-Fetch-Mode", "cors")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	r.Header.Set("User-Agent", "sse-guard-check")
	for name, values := range c.Header {
		r.Header[http.CanonicalHeaderKey(name)] = values
	}
	if host := r.Header.Get("Host"); host != "" {
		r.Host = host
		r.Header.Del("Host")
	}
	if lastID != "" {
		r.Header.Set("Last-Event-ID", lastID)
	}
	return r, nil
}

// run connects, and connects again as an EventSource does (WHATWG HTML 9.2): after the
// end of a stream, with the last id it saw. Any other answer than an event stream
// closes it for good. One that cannot connect at first gives up, too.
func (t *tab) run(ctx context.Context) {
	for range maxConnects {
		if !t.connect(ctx) || t.watch.config.Method != http.MethodGet {
			return
		}
		wait := time.NewTimer(max(t.retry, leastRetry))
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return
		}
	}
}

// connect sends one request and reads its answer to the end. It reports whether an
// EventSource would come back.
func (t *tab) connect(ctx context.Context) (again bool) {
	c := &connect{tombstone: isTombstone(t.lastID)}
	r, err := t.watch.config.request(ctx, t.lastID)
	if !t.tell(ctx, func(at time.Duration) { t.watch.asks(t.stream, c, at) }) {
		return false
	}
	var response *http.Response
	if err == nil {
		response, err = t.client.Do(r)
	}
	if err != nil {
		t.tell(ctx, func(at time.Duration) { t.watch.fails(t.stream, c, err, at) })
		return false
	}
	defer response.Body.Close()
	a := t.watch.config.answerOf(response)
	if !a.isStream {
		a.body, _ = io.ReadAll(io.LimitReader(response.Body, maxBody)) // what has come is what there is
	}
	if !t.tell(ctx, func(at time.Duration) { t.watch.answers(t.stream, c, a, at) }) {
		return false
	}
	return a.isStream && t.read(ctx, c, response.Body)
}

// read reads an event stream to its end. It reports whether an EventSource would come back.
func (t *tab) read(ctx context.Context, c *connect, body io.Reader) (again bool) {
	var notices []*Notice
	p := &parser{id: t.lastID, lastID: t.lastID}
	p.onEvent = func(e event) {
		if n := noticeIn(e.data); n != nil {
			n.Event, n.Tombstone, n.Retry = clean(e.name), isTombstone(p.lastID), defaultRetry
			if p.retry != nil {
				n.Retry = *p.retry
			}
			notices = append(notices, n)
		} else {
			c.events.Add(1)
		}
	}
	buffer := make([]byte, 32<<10)
	told := false
	for {
		n, err := body.Read(buffer)
		_, _ = p.Write(buffer[:n]) // which never fails
		if n > 0 && !told || len(notices) > 0 {
			batch := notices
			if !t.tell(ctx, func(at time.Duration) { t.watch.reads(t.stream, c, batch, at) }) {
				return false
			}
			told, notices = true, nil
		}
		if err != nil {
			t.lastID = p.lastID
			if p.retry != nil {
				t.retry = *p.retry
			}
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return t.tell(ctx, func(at time.Duration) { t.watch.ends(t.stream, c, err, at) })
		}
	}
}

// tell has the watch note what happened, at this time. It reports whether the check
// still goes on.
func (t *tab) tell(ctx context.Context, happened func(at time.Duration)) bool {
	at := time.Since(t.watch.began)
	select {
	case t.watch.moments <- func() { happened(at) }:
		return true
	case <-ctx.Done():
		return false
	}
}

func (c *Config) answerOf(response *http.Response) *answer {
	a := &answer{
		status:      response.StatusCode,
		contentType: response.Header.Get("Content-Type"),
		header:      response.Header,
	}
	if final := response.Request.URL; final.String() != c.URL {
		a.url = bare(final)
	}
	mediaType, _, err := mime.ParseMediaType(a.contentType)
	a.isStream = a.status == http.StatusOK && err == nil && mediaType == eventStream
	return a
}

// bare is a URL without what may be a secret.
func bare(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// tombstonePrefix begins the ids that the guard gives streams to keep their clients away.
const tombstonePrefix = "sse-guard."

func isTombstone(id string) bool { return strings.HasPrefix(id, tombstonePrefix) }

// told is how the guard speaks, in an event's data and in a problem document alike.
type told struct {
	Reason  reason.Reason
	Message string
	Title   string
	Detail  string
	Error   struct{ Type, Message string }
}

// toldBy reads what the guard says, or returns nil if it was not the guard.
func toldBy(data []byte) *told {
	if !bytes.Contains(data, []byte(`"sse_guard"`)) {
		return nil
	}
	var t told
	if err := json.Unmarshal(data, &t); err != nil || t.Error.Type != "sse_guard" {
		return nil
	}
	return &t
}

// noticeIn reads the notice in an event's data, or returns nil if it is the application's.
func noticeIn(data string) *Notice {
	if t := toldBy([]byte(data)); t != nil && t.Reason != "" {
		return &Notice{Reason: reason.Reason(clean(string(t.Reason))), Message: clean(t.Message)}
	}
	return nil
}
