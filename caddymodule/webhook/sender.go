package webhook

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Headers of a post, besides those of any JSON.
const (
	// SignatureHeader has "sha256=" and the hexadecimal HMAC-SHA-256 of the body.
	SignatureHeader = "X-SSE-Guard-Signature-256"
	// DeliveryHeader is the body's delivery. It is the same when a post is tried again.
	DeliveryHeader = "X-SSE-Guard-Delivery"
)

// longestTry is for how long the receiver of an event is tried. README says so.
const longestTry = 5 * time.Minute

// limits are what a Sender keeps to.
type limits struct {
	// queue is how many events may wait to be posted, and departures how many streams
	// for their clients to come back, or for who holds the key to be found.
	queue, departures int
	// gather is how long a first event waits for others.
	gather time.Duration
	// timeout is how long a receiver may take to answer.
	timeout time.Duration
	// firstRetry is how long after a failure the next try comes; that doubles until it
	// is lastRetry. A receiver that
	// asks for it is waited for, for mostRetryAfter at most.
	firstRetry, lastRetry, mostRetryAfter time.Duration
	// giveUp is how old an event is that is posted no more.
	giveUp time.Duration
	// lookup is how long a registry may take to say who holds a key.
	lookup time.Duration
}

var usual = limits{
	queue:          1 << 16,
	departures:     1 << 16,
	gather:         100 * time.Millisecond,
	timeout:        10 * time.Second,
	firstRetry:     500 * time.Millisecond,
	lastRetry:      30 * time.Second,
	mostRetryAfter: time.Minute,
	giveUp:         longestTry,
	lookup:         2 * time.Second,
}

// Sender posts what Observers tell it to one URL. All methods may be called
// concurrently.
type Sender struct {
	limits
	url        string
	secret     []byte
	client     *http.Client
	logger     *zap.Logger
	departures departures
	drops      drops
	// failing says that the receiver was not reached last time. It belongs to the
	// goroutine that posts.
	failing bool

	// open is done once the Sender is closed, and hurried once it is not to wait for
	// more to post.
	open    context.Context //nolint:containedctx // the Sender's own, for its goroutines
	close   context.CancelFunc
	hurry   sync.Once // closes hurried
	hurried chan struct{}

	// mu guards the fields below. Nothing is called with it held.
	mu    sync.Mutex
	queue []*Record // the oldest first
	// posting is closed when the goroutine ends that posts; nil: there is none.
	posting chan struct{}
	closed  bool
}

// New returns a Sender that posts to address, and signs with secret.
func New(address *url.URL, secret []byte, logger *zap.Logger) *Sender {
	return newSender(address, secret, logger, usual)
}

func newSender(address *url.URL, secret []byte, logger *zap.Logger, l limits) *Sender {
	s := &Sender{
		limits:  l,
		url:     address.String(),
		secret:  secret,
		client:  newClient(),
		logger:  logger.With(zap.String("webhook", Origin(address))),
		hurried: make(chan struct{}),
	}
	s.open, s.close = context.WithCancel(context.Background())
	s.drops.logger = s.logger
	s.departures.init(s)
	return s
}

// Origin is as much of a URL as may be logged: without what may be secret in its path
// and query, and without its user.
func Origin(u *url.URL) string { return u.Scheme + "://" + u.Host }

func newClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: usual.timeout}).DialContext,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2:      true,
			MaxIdleConnsPerHost:    1,
			IdleConnTimeout:        time.Minute,
			MaxResponseHeaderBytes: 64 << 10,
		},
		// A signed body is for the one receiver that has the secret.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// enqueue has r posted. If there is no room, the oldest event makes it: it would be the
// first to be given up.
func (s *Sender) enqueue(r *Record) {
	r.queued = time.Now()
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		s.drops.add(causeClosed, 1)
		return
	}
	full := len(s.queue) >= s.limits.queue
	if full {
		s.queue[0] = nil
		s.queue = s.queue[1:]
	}
	s.queue = append(s.queue, r)
	if s.posting == nil {
		s.posting = make(chan struct{})
		go s.post()
	}
	s.mu.Unlock()
	if full {
		s.drops.add(causeFull, 1)
	}
}

// post posts until there is nothing left to post.
func (s *Sender) post() {
	var batch []*Record
	for {
		if len(batch) == 0 && !s.isHurried() {
			s.pause(s.gather)
		}
		if batch = s.take(batch); len(batch) == 0 {
			return
		}
		d := &delivery{id: newDeliveryID(), end: batch[0].queued.Add(s.giveUp)}
		var err error
		d.body, d.n, err = encode(d.id, batch)
		batch = batch[d.n:]
		if err != nil {
			s.logger.Error("webhook: events could not be written", zap.Error(err))
			s.drops.add(causeInvalid, d.n)
			continue
		}
		s.deliver(d)
	}
}

// delivery is what is posted at once, as often as it takes.
type delivery struct {
	id   string
	body []byte
	n    int       // events
	end  time.Time // of the tries
}

func newDeliveryID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails: it ends the process instead
	return hex.EncodeToString(id[:])
}

// take fills a batch with what waits longest. If it returns nothing, the goroutine that
// posts is over.
func (s *Sender) take(batch []*Record) []*Record {
	s.mu.Lock()
	n := min(len(s.queue), mostRecords-len(batch))
	batch = append(slices.Clip(batch), s.queue[:n]...)
	clear(s.queue[:n])
	s.queue = s.queue[n:]
	dropped, why := 0, causeLate
	if s.closed {
		dropped, why = len(batch)+len(s.queue), causeClosed
		batch, s.queue = nil, nil
	}
	for deadline := time.Now().Add(-s.giveUp); len(batch) > 0 && batch[0].queued.Before(deadline); dropped++ {
		batch = batch[1:]
	}
	over := len(batch) == 0 && len(s.queue) == 0
	if over {
		s.queue = nil // an emptied slice keeps its memory
		close(s.posting)
		s.posting = nil
	}
	s.mu.Unlock()

	s.drops.add(why, dropped)
	if len(batch) == 0 && !over {
		return s.take(nil) // all of it was too late
	}
	return batch
}

// deliver posts d until the receiver has it, or refuses it, or it is too late.
func (s *Sender) deliver(d *delivery) {
	for try := 0; ; try++ {
		answer := s.try(d)
		if answer.err == nil {
			if s.failing {
				s.failing = false
				s.logger.Info("webhook: the receiver answers again")
			}
			return
		}
		if s.open.Err() != nil {
			s.drops.add(causeClosed, d.n)
			return
		}
		if answer.final {
			s.tellFailing("webhook: the receiver refuses events, which are not tried again", answer.err)
			s.drops.add(causeRefused, d.n)
			return
		}
		s.tellFailing("webhook: the receiver cannot be reached, or fails; events are tried again", answer.err)
		pause := max(s.backoff(try), min(answer.after, s.mostRetryAfter))
		if time.Now().Add(pause).After(d.end) {
			s.drops.add(causeLate, d.n)
			return
		}
		if !s.pause(pause) {
			s.drops.add(causeClosed, d.n)
			return
		}
	}
}

// tellFailing says what is wrong when it begins.
func (s *Sender) tellFailing(what string, err error) {
	if !s.failing {
		s.logger.Warn(what, zap.Error(err))
	}
	s.failing = true
}

// backoff is how long after a try the next one comes, up to a half less so that
// receivers of many nodes are not asked by all of them at once.
func (s *Sender) backoff(try int) time.Duration {
	pause := s.firstRetry
	for range try {
		if pause = min(2*pause, s.lastRetry); pause == s.lastRetry {
			break
		}
	}
	return pause/2 + mathrand.N(pause/2+1) //nolint:gosec // to spread, not to hide
}

// answer is what a receiver makes of a post.
type answer struct {
	err error
	// final says that another try would be refused too.
	final bool
	// after is when the receiver wants to be asked again; 0: it does not say.
	after time.Duration
}

// try posts d once.
func (s *Sender) try(d *delivery) answer {
	ctx, cancel := context.WithCancel(s.open)
	defer cancel()
	timer := time.AfterFunc(s.timeout, cancel)
	defer timer.Stop()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(d.body))
	if err != nil {
		return answer{err: withoutURL(err), final: true}
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "sse_guard")
	r.Header.Set(DeliveryHeader, d.id)
	r.Header.Set(SignatureHeader, Sign(s.secret, d.body))
	response, err := s.client.Do(r)
	if err != nil {
		if errors.Is(err, context.Canceled) && s.open.Err() == nil {
			err = fmt.Errorf("no answer within %s", s.timeout)
		}
		return answer{err: withoutURL(err)}
	}
	defer response.Body.Close()
	timer.Reset(bodyTimeout)
	_, _ = io.CopyN(io.Discard, response.Body, mostAnswer) // so that the connection can be used again
	return judge(response)
}

const (
	// mostAnswer is how much of an answer's body is read, and bodyTimeout for how long.
	mostAnswer  = 16 << 10
	bodyTimeout = time.Second
)

func judge(response *http.Response) answer {
	status := response.StatusCode
	err := fmt.Errorf("the answer has status %d, expected 2xx", status)
	switch {
	case status >= 200 && status < 300:
		return answer{}
	case status >= 300 && status < 400:
		return answer{err: fmt.Errorf("%w: redirects are not followed; give the webhook the URL that it is to have", err), final: true}
	case status >= 500, status == http.StatusTooManyRequests, status == http.StatusRequestTimeout, status == http.StatusTooEarly:
		return answer{err: err, after: retryAfter(response.Header.Get("Retry-After"), time.Now())}
	default:
		return answer{err: err, final: true}
	}
}

// retryAfter reads the field of that name: seconds, or a date.
func retryAfter(field string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseInt(field, 10, 32); err == nil {
		return max(time.Duration(seconds)*time.Second, 0)
	}
	if at, err := http.ParseTime(field); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}

// withoutURL removes from an error what may be secret in the URL.
func withoutURL(err error) error {
	if of, ok := errors.AsType[*url.Error](err); ok {
		return of.Err
	}
	return err
}

// hurriedPause is how long a Sender pauses at most that is to be done soon.
const hurriedPause = 500 * time.Millisecond

// pause lets time pass, less if the Sender is to be done soon. It reports false if it
// was closed.
func (s *Sender) pause(d time.Duration) bool {
	hurried := s.hurried
	if s.isHurried() {
		d, hurried = min(d, hurriedPause), nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-hurried:
	case <-s.open.Done():
	}
	return s.open.Err() == nil
}

func (s *Sender) isHurried() bool {
	select {
	case <-s.hurried:
		return true
	default:
		return false
	}
}

// Dropped is how many events were not, and will not be, posted.
func (s *Sender) Dropped() uint64 { return s.drops.count() }

// Hurry has everything posted that waits, for a process that is about to end. Clients
// that have left, and could still come back, are not waited for: their streams end with
// reason.Shutdown, for nobody will know.
func (s *Sender) Hurry() { s.hurry.Do(func() { close(s.hurried) }) }

// Flush is Hurry, and returns when all is posted, or ctx is done.
func (s *Sender) Flush(ctx context.Context) {
	s.Hurry()
	s.finish(ctx)
}

// Finish returns when all that the Sender was told is posted, or given up, which is logged.
// It keeps no connection then.
func (s *Sender) Finish() {
	s.finish(context.Background())
	s.drops.flush()
	s.client.CloseIdleConnections()
}

func (s *Sender) finish(ctx context.Context) {
	for {
		busy := s.departures.busy() // they are posted once they are known
		if busy == nil {
			busy = s.busy()
		}
		if busy == nil {
			return
		}
		select {
		case <-busy:
		case <-ctx.Done():
			return
		}
	}
}

// busy is closed when the goroutine ends that posts; nil: there is none.
func (s *Sender) busy() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.posting
}

// Close drops what is not posted, ends the goroutines and waits for that. What it is
// told from then on is dropped.
func (s *Sender) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.close()
	for busy := s.departures.busy(); busy != nil; busy = s.departures.busy() {
		<-busy
	}
	for busy := s.busy(); busy != nil; busy = s.busy() {
		<-busy
	}
	s.drops.flush()
	s.client.CloseIdleConnections()
}
