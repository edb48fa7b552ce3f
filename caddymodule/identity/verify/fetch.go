package verify

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

const (
	// fetchTimeout bounds one fetch, body and redirects included.
	fetchTimeout = 10 * time.Second
	// maxRedirects is the number of them that one fetch follows.
	maxRedirects = 3
	// maxSet is the number of bytes in the largest JWK set. Those of the large
	// providers have about 10 KB.
	maxSet = 1 << 20
	// maxResponseHeader is the number of bytes in the largest header that may
	// come with it.
	maxResponseHeader = 64 << 10
)

// fetch is one fetch of a JWK set, from being wanted to its end.
type fetch struct {
	// began is before the request is sent.
	began time.Time
	over  chan struct{}
	err   error // of a fetch that is over
}

func newFetch() *fetch { return &fetch{began: time.Now(), over: make(chan struct{})} }

func (f *fetch) end(err error) {
	f.err = err
	close(f.over)
}

func (f *fetch) isOver() bool {
	select {
	case <-f.over:
		return true
	default:
		return false
	}
}

// wait returns when f is over, or ctx done.
func (f *fetch) wait(ctx context.Context) {
	select {
	case <-f.over:
	case <-ctx.Done():
	}
}

// settles reports whether a key that f did not find does not exist, for a token
// that has arrived at a time and was issued before another, zero if that is not
// known.
func (f *fetch) settles(arrived, issuedBefore time.Time) bool {
	switch {
	case !f.isOver(), f.err != nil:
		return false
	case !f.began.Before(arrived):
		return true
	}
	return !issuedBefore.IsZero() && issuedBefore.Before(f.began)
}

// newClient returns a client for one small answer per hour or so: it keeps no
// connection open.
func newClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: fetchTimeout}).DialContext,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2:      true,
			DisableKeepAlives:      true,
			MaxResponseHeaderBytes: maxResponseHeader,
		},
		CheckRedirect: checkRedirect,
	}
}

func checkRedirect(r *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return fmt.Errorf("more than %d redirects", maxRedirects)
	}
	if r.URL.Scheme != "https" && via[len(via)-1].URL.Scheme == "https" {
		// Whoever is on the way could answer with keys of his own.
		return errors.New("redirected from https to " + r.URL.Scheme)
	}
	return nil
}

// download returns the text of the JWK set at address.
func download(ctx context.Context, client *http.Client, address string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return nil, withoutURL(err)
	}
	r.Header.Set("Accept", "application/jwk-set+json, application/json")
	response, err := client.Do(r)
	if err != nil {
		return nil, withoutURL(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the answer has status %d, expected 200", response.StatusCode)
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, maxSet+1))
	if err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	if len(text) > maxSet {
		return nil, fmt.Errorf("the answer has more than %d bytes", maxSet)
	}
	return text, nil
}

// withoutURL strips the URL from an error, which may hold a password.
func withoutURL(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}
