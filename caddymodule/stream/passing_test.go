package stream

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// passingGate lets everything pass.
type passingGate struct{}

func (passingGate) Judge(int, http.Header) Verdict { return Pass }
func (passingGate) Opened()                        {}

// What is no stream pays for none: all that is made is the copy of the request that
// has the context.
func TestRelay_WhatPassesAllocatesOnce(t *testing.T) {
	w, r := discardWriter{http.Header{}}, httptest.NewRequest(http.MethodGet, "/", nil)
	body := []byte("{}")
	next := func(w http.ResponseWriter, _ *http.Request) error {
		w.WriteHeader(http.StatusOK)
		_, err := w.Write(body)
		return err
	}
	var p Response
	allocs := testing.AllocsPerRun(1000, func() {
		p = Response{}
		p.Init(w, r, passingGate{}, &testConfig)
		_, _ = p.Relay(r.Context(), next)
	})
	assert.LessOrEqual(t, allocs, 1.0)
	assert.Nil(t, p.upstream.made.Load())
	assert.Nil(t, p.Stream())
}

// Whoever asks for the context's error without waiting for it hears of a client
// that left, as if the context were the client's.
func TestRelay_WhatPassesHearsOfAClientThatLeft(t *testing.T) {
	ctx, leave := context.WithCancel(t.Context())
	p := newResponse(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil).WithContext(ctx), newGate(), &testConfig)
	_, err := p.Relay(ctx, func(w http.ResponseWriter, r *http.Request) error {
		w.WriteHeader(http.StatusOK)
		require.NoError(t, r.Context().Err())
		leave()
		require.Equal(t, context.Canceled, r.Context().Err())
		<-r.Context().Done()
		return r.Context().Err()
	})
	assert.Equal(t, context.Canceled, err)
}

func TestRelay_InformationalHeadersPass(t *testing.T) {
	gate := newGate()
	var codes []int
	w := codesWriter{httptest.NewRecorder(), &codes}
	p := newResponse(w, httptest.NewRequest(http.MethodGet, "/", nil), gate, &testConfig)
	_, err := p.Relay(t.Context(), func(w http.ResponseWriter, _ *http.Request) error {
		w.WriteHeader(http.StatusEarlyHints)
		assert.Zero(t, gate.judged.Load())
		w.WriteHeader(http.StatusSwitchingProtocols)
		return nil
	})
	require.NoError(t, err)
	assert.Equal(t, []int{http.StatusEarlyHints, http.StatusSwitchingProtocols}, codes)
	assert.EqualValues(t, 1, gate.judged.Load())
}

// codesWriter notes the status codes.
type codesWriter struct {
	*httptest.ResponseRecorder
	codes *[]int
}

func (w codesWriter) WriteHeader(status int) { *w.codes = append(*w.codes, status) }

func BenchmarkRelay_WhatPasses(b *testing.B) {
	w, r := discardWriter{http.Header{}}, httptest.NewRequest(http.MethodGet, "/", nil)
	body := []byte("{}")
	next := func(w http.ResponseWriter, _ *http.Request) error {
		w.WriteHeader(http.StatusOK)
		_, err := w.Write(body)
		return err
	}
	b.ReportAllocs()
	for b.Loop() {
		var p Response
		p.Init(w, r, passingGate{}, &testConfig)
		_, _ = p.Relay(r.Context(), next)
	}
}
