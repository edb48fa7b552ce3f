package verify

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

const (
	// DefaultRefresh is how old a JWK set gets before it is fetched again.
	DefaultRefresh = time.Hour
	// demandInterval is the least time between two fetches that tokens cause:
	// anybody can make up a key id.
	demandInterval = 10 * time.Second
	// minRetry and maxRetry bound the time to the next fetch after failed ones.
	minRetry = time.Second
	maxRetry = time.Minute
)

var errClosed = errors.New("the JWKS is closed")

// JWKS is a set of public keys that is published at a URL (RFC 7517 section 5).
// It is fetched in the background: at once, then from time to time, and when
// there is a token with a key that is not known. What was fetched last stays
// good until something better comes. It may be shared by several Verifiers.
type JWKS struct {
	url     string
	name    string // the URL without its password
	refresh time.Duration
	client  *http.Client
	logger  *zap.Logger
	cancel  context.CancelFunc
	ended   chan struct{}

	current atomic.Pointer[publishedSet]
	// wanted has an element if last is a fetch that was demanded and has not begun.
	wanted chan struct{}

	mu     sync.Mutex
	last   *fetch
	closed bool
}

// NewJWKS begins to fetch the JWK set at address, an http or https URL, and
// again each time it is as old as refresh (zero: DefaultRefresh). It does not
// wait. logger gets one line when fetching begins to fail, and one when it works
// again. Close ends it.
func NewJWKS(address string, refresh time.Duration, logger *zap.Logger) (*JWKS, error) {
	return newJWKS(address, refresh, logger, newClient())
}

func newJWKS(address string, refresh time.Duration, logger *zap.Logger, client *http.Client) (*JWKS, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("JWKS URL: %w", withoutURL(err))
	}
	if u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return nil, errors.New("JWKS URL: expected one like https://issuer.example/jwks.json")
	}
	switch {
	case refresh < 0:
		return nil, fmt.Errorf("JWKS refresh %v is negative", refresh)
	case refresh == 0:
		refresh = DefaultRefresh
	}
	if logger == nil {
		logger = zap.NewNop()
	}
	ctx, cancel := context.WithCancel(context.Background())
	j := &JWKS{
		url:     address,
		name:    u.Redacted(),
		refresh: refresh,
		client:  client,
		logger:  logger,
		cancel:  cancel,
		ended:   make(chan struct{}),
		wanted:  make(chan struct{}, 1),
		last:    newFetch(),
	}
	go j.run(ctx)
	return j, nil
}

// Close ends the fetching, and waits for that. Keys that are known go on to
// count. It may be called more than once.
func (j *JWKS) Close() {
	j.cancel()
	<-j.ended
}

// keys returns the keys that were fetched last, nil if none ever were.
func (j *JWKS) keys() *keySet {
	if set := j.current.Load(); set != nil {
		return &set.keySet
	}
	return nil
}

// generation changes when the keys do.
func (j *JWKS) generation() uint64 {
	if set := j.current.Load(); set != nil {
		return set.generation
	}
	return 0
}

// demand returns a fetch that is not over or began recently: a new one, if it is
// not too early for that.
func (j *JWKS) demand() *fetch {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.closed && j.last.isOver() && time.Since(j.last.began) >= demandInterval {
		j.last = newFetch()
		j.wanted <- struct{}{}
	}
	return j.last
}

// next returns the fetch to be made now: the one that is wanted, or a new one.
func (j *JWKS) next() *fetch {
	j.mu.Lock()
	defer j.mu.Unlock()
	select {
	case <-j.wanted: // it became so together with the timer
	default:
	}
	if j.last.isOver() {
		j.last = newFetch()
	}
	return j.last
}

// run is the goroutine of j.
func (j *JWKS) run(ctx context.Context) {
	defer close(j.ended)
	defer j.retire()
	for failures := 0; ; {
		err := j.fetch(ctx)
		if ctx.Err() != nil {
			return
		}
		pause := j.refresh
		switch {
		case err != nil:
			if failures == 0 {
				j.logger.Warn("the JWKS cannot be fetched: trying again, and the keys known so far stay good",
					zap.String("url", j.name), zap.Error(err))
			}
			pause = min(pause, retryPause(failures))
			failures++
		case failures > 0:
			j.logger.Info("the JWKS could be fetched again", zap.String("url", j.name), zap.Int("failures", failures))
			failures = 0
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-j.wanted:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// retire frees those who wait, now and later.
func (j *JWKS) retire() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.closed = true
	if j.last.isOver() {
		j.last = newFetch()
	}
	j.last.end(errClosed)
}

// fetch makes one fetch.
func (j *JWKS) fetch(ctx context.Context) error {
	f := j.next()
	text, err := download(ctx, j.client, j.url)
	if err == nil {
		err = j.adopt(text)
	}
	f.end(err)
	return err
}

// adopt makes the JWK set in text the current one, unless it is none.
func (j *JWKS) adopt(text []byte) error {
	set := publishedSet{text: sha256.Sum256(text), generation: 1}
	if old := j.current.Load(); old != nil {
		if old.text == set.text {
			return nil
		}
		set.generation = old.generation + 1
	}
	keys, unused, err := parseSet(text)
	if err != nil {
		return err
	}
	for _, why := range unused {
		j.logger.Debug("a key of the JWKS is not used", zap.String("url", j.name), zap.Error(why))
	}
	set.keySet = *newKeySet(keys)
	j.current.Store(&set)
	return nil
}

// retryPause doubles with each failure. Half of it is left to chance: proxies
// that lost the issuer at the same time shall not come back at the same time.
func retryPause(failures int) time.Duration {
	pause := min(minRetry<<min(failures, 10), maxRetry)
	return pause/2 + rand.N(pause/2) //nolint:gosec // nobody gains by guessing it
}
