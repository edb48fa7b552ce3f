package verify

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// issuer publishes a JWK set, as an http.RoundTripper: a bubble of synctest has
// no sockets.
type issuer struct {
	mu      sync.Mutex
	text    string
	status  int
	err     error
	delay   time.Duration // longer than any timeout: it hangs
	fetches int
}

func newIssuer(keys ...json.RawMessage) *issuer {
	i := new(issuer)
	i.publish(keys...)
	return i
}

func (i *issuer) publish(keys ...json.RawMessage) { i.answer(http.StatusOK, set(keys...)) }

func (i *issuer) answer(status int, text string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.status, i.text, i.err = status, text, nil
}

func (i *issuer) breakDown() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.err = errors.New("connection refused")
}

func (i *issuer) slowDown(delay time.Duration) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.delay = delay
}

// count returns the number of fetches since it was last called.
func (i *issuer) count() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	n := i.fetches
	i.fetches = 0
	return n
}

// RoundTrip answers with what is published as the request comes.
func (i *issuer) RoundTrip(r *http.Request) (*http.Response, error) {
	i.mu.Lock()
	i.fetches++
	status, text, err, delay := i.status, i.text, i.err, i.delay
	i.mu.Unlock()
	select {
	case <-time.After(delay):
	case <-r.Context().Done():
		return nil, context.Cause(r.Context())
	}
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(text)), Request: r}, nil
}

const address = "https://user:password@issuer.example/jwks.json"

// jwks returns the JWKS of i, and its log.
func (i *issuer) jwks(t require.TestingT) (*JWKS, *observer.ObservedLogs) {
	core, logs := observer.New(zapcore.InfoLevel)
	j, err := newJWKS(address, 0, zap.New(core), &http.Client{Transport: i})
	require.NoError(t, err)
	return j, logs
}
