package stream

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// serve runs handler behind a Response and returns what the client gets.
func serve(t require.TestingT, gate *fakeGate, cfg Config, handler func(s *Response, w http.ResponseWriter, r *http.Request)) (*httptest.ResponseRecorder, Summary) {
	rec := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "/events", nil)
	s := newResponse(rec, r, gate, &cfg)
	sum, err := s.Relay(r.Context(), func(w http.ResponseWriter, r *http.Request) error {
		handler(s, w, r)
		return nil
	})
	require.NoError(t, err)
	return rec, sum
}

// sse writes chunks as an event stream.
func sse(w http.ResponseWriter, chunks ...string) {
	w.Header().Set("Content-Type", "text/event-stream")
	for _, c := range chunks {
		_, _ = io.WriteString(w, c)
		w.(http.Flusher).Flush()
	}
}

func TestRelay_HoldsBackAnUnfinishedEvent(t *testing.T) {
	serve(t, newGate(), testConfig, func(s *Response, w http.ResponseWriter, _ *http.Request) {
		rec := s.w.(*httptest.ResponseRecorder)
		for _, step := range []struct{ chunk, client string }{
			{"data: a\n", ""},
			{"\ndata: b", "data: a\n\n"},
			{"b\n\n: beat\n", "data: a\n\ndata: bb\n\n: beat\n"},
			{"\r\nda", "data: a\n\ndata: bb\n\n: beat\n\r\n"},
		} {
			sse(w, step.chunk)
			assert.Equal(t, step.client, rec.Body.String(), "after %q", step.chunk)
		}
	})
}

func TestRelay_PassesWhatIsHeldWhenTheUpstreamEnds(t *testing.T) {
	rec, sum := serve(t, newGate(), testConfig, func(_ *Response, w http.ResponseWriter, _ *http.Request) {
		sse(w, "data: a\n\ndata: unfinished")
	})
	assert.Equal(t, "data: a\n\ndata: unfinished", rec.Body.String())
	assert.Nil(t, sum.Ending)
	assert.EqualValues(t, 1, sum.Events)
	assert.EqualValues(t, rec.Body.Len(), sum.Bytes)
}

func TestRelay_PassesWhatIsHeldWhenTheUpstreamFails(t *testing.T) {
	rec := httptest.NewRecorder()
	s := newResponse(rec, httptest.NewRequest(http.MethodGet, "/", nil), newGate(), &testConfig)
	assert.PanicsWithValue(t, http.ErrAbortHandler, func() {
		_, _ = s.Relay(context.Background(), func(w http.ResponseWriter, _ *http.Request) error {
			sse(w, "data: a\n\ndata: torn")
			panic(http.ErrAbortHandler)
		})
	})
	assert.Equal(t, "data: a\n\ndata: torn", rec.Body.String())
	assert.True(t, rec.Flushed)
}

func TestRelay_PassesEventsThatAreTooLargeToHold(t *testing.T) {
	big := "data: " + strings.Repeat("x", 3000) + "\n\n"
	rec, _ := serve(t, newGate(), testConfig, func(s *Response, w http.ResponseWriter, _ *http.Request) {
		rec := s.w.(*httptest.ResponseRecorder)
		w.Header().Set("Content-Type", "text/event-stream")
		for _, c := range []byte(big) {
			_, _ = w.Write([]byte{c})
		}
		assert.Equal(t, len(big), rec.Body.Len())
		sse(w, "data: next")
		assert.Equal(t, len(big), rec.Body.Len(), "holding back goes on after the boundary")
	})
	assert.Equal(t, big+"data: next", rec.Body.String())
}

func TestRelay_CorrectsTheHeaderForStreaming(t *testing.T) {
	rec, _ := serve(t, newGate(), testConfig, func(_ *Response, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "9")
		w.Header().Set("Cache-Control", "private")
		sse(w, "data: a\n\n")
	})
	assert.Empty(t, rec.Header().Get("Content-Length"))
	assert.Equal(t, "private", rec.Header().Get("Cache-Control"))
	assert.Equal(t, "no", rec.Header().Get("X-Accel-Buffering"))
}

func TestRelay_LeavesOtherResponsesAlone(t *testing.T) {
	gate := newGate()
	rec, _ := serve(t, gate, testConfig, func(_ *Response, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "3")
		w.Header().Set("Content-Type", "text/plain")
		n, err := w.(io.ReaderFrom).ReadFrom(iotest.OneByteReader(strings.NewReader("abc")))
		assert.NoError(t, err)
		assert.EqualValues(t, 3, n)
	})
	assert.Equal(t, "abc", rec.Body.String())
	assert.Equal(t, "3", rec.Header().Get("Content-Length"))
	assert.EqualValues(t, 1, gate.judged.Load())
}

func TestRelay_ReadFromKeepsTheGuardInBetween(t *testing.T) {
	rec, sum := serve(t, newGate(), testConfig, func(_ *Response, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, err := io.Copy(w, strings.NewReader("data: a\n\ndata: b\n\n"))
		assert.NoError(t, err)
	})
	assert.Equal(t, "data: a\n\ndata: b\n\n", rec.Body.String())
	assert.EqualValues(t, 2, sum.Events)
}

func TestOpenRetry_ComesFirstAndSwallowsTheByteOrderMark(t *testing.T) {
	cfg := testConfig
	cfg.OpenRetry = 3 * time.Second
	for _, chunks := range [][]string{{"\ufeffdata: a\n\n"}, {"\xef", "\xbb\xbfdata: a\n", "\n"}} {
		rec, _ := serve(t, newGate(), cfg, func(_ *Response, w http.ResponseWriter, _ *http.Request) { sse(w, chunks...) })
		assert.Equal(t, "retry: 3000\ndata: a\n\n", rec.Body.String())
	}
}

func TestRefused_DiscardsAndWritesNothing(t *testing.T) {
	for name, gate := range map[string]*fakeGate{"by the gate": {refuse: true, isGone: make(chan struct{})}} {
		t.Run(name, func(t *testing.T) {
			rec, sum := serve(t, gate, testConfig, func(_ *Response, w http.ResponseWriter, r *http.Request) {
				sse(w, "data: a\n\n")
				<-r.Context().Done()
				assert.Equal(t, io.EOF, r.Context().Err())
			})
			assert.True(t, sum.Refused)
			assert.Empty(t, rec.Body.String())
			assert.False(t, rec.Flushed)
		})
	}
}

// ended runs a stream whose handler sends before, is ended, and sends after.
func ended(t require.TestingT, cfg Config, gate *fakeGate, before, after []string) (string, Summary) {
	rec, sum := serve(t, gate, cfg, func(s *Response, w http.ResponseWriter, r *http.Request) {
		sse(w, append([]string{""}, before...)...) // the header goes out in any case
		s.Stream().End(superseded)
		if len(after) > 0 {
			sse(w, after...)
		}
		select {
		case <-r.Context().Done():
		case <-time.After(10 * time.Second):
			require.Fail(t, "the upstream was not released")
		}
		sse(w, "data: too late\n\n")
	})
	return rec.Body.String(), sum
}

func TestSuperseded_EndsBetweenEvents(t *testing.T) {
	got, sum := ended(t, testConfig, newGate(), []string{"id: 7\ndata: a\n\ndata: half"}, nil)
	assert.Equal(t, "id: 7\ndata: a\n\n"+notice(reason.Superseded, "7"), got)
	assert.True(t, sum.Delivered)
	assert.Equal(t, reason.Superseded, sum.Ending.Reason)
}

func TestSuperseded_WaitsForAnEventThatIsPartlySent(t *testing.T) {
	big := "data: " + strings.Repeat("x", 2000)
	got, sum := ended(t, testConfig, newGate(), []string{big}, []string{"y", "\n\ndata: b\n\n"})
	assert.Equal(t, big+"y\n\ndata: b\n\n"+notice(reason.Superseded, ""), got, "whole events that came with its end go out too")
	assert.True(t, sum.Delivered)
}

func TestSuperseded_GivesUpOnAnEventThatIsNeverFinished(t *testing.T) {
	big := "data: " + strings.Repeat("x", 2000)
	gate := newGate()
	got, sum := ended(t, testConfig, gate, []string{big}, nil)
	assert.Equal(t, big, got)
	assert.False(t, sum.Delivered)
	<-gate.place.isLeft
}

func TestSuperseded_EncodedStreamEndsWithoutEvent(t *testing.T) {
	rec, sum := serve(t, newGate(), testConfig, func(s *Response, w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		sse(w, "not\n\nreally gzip")
		s.Stream().End(superseded)
		<-r.Context().Done()
	})
	assert.Equal(t, "not\n\nreally gzip", rec.Body.String())
	assert.NotNil(t, sum.Ending)
	assert.False(t, sum.Delivered)
}

func TestSuperseded_SwallowsOnlyTheAbortOfAnEndedStream(t *testing.T) {
	rec := httptest.NewRecorder()
	s := newResponse(rec, httptest.NewRequest(http.MethodGet, "/", nil), newGate(), &testConfig)
	handler := func(p any) func() {
		return func() {
			_, _ = s.Relay(context.Background(), func(w http.ResponseWriter, r *http.Request) error {
				sse(w, "data: a\n\n")
				s.Stream().End(superseded)
				<-r.Context().Done()
				panic(p)
			})
		}
	}
	assert.NotPanics(t, handler(http.ErrAbortHandler))
	s = newResponse(rec, httptest.NewRequest(http.MethodGet, "/", nil), newGate(), &testConfig)
	assert.PanicsWithValue(t, "bug", handler("bug"))
}

func TestClientLeft_BeforeTheHeaderCancelsLikeAClient(t *testing.T) {
	ctx, leave := context.WithCancel(t.Context())
	rec := httptest.NewRecorder()
	s := newResponse(rec, httptest.NewRequest(http.MethodGet, "/", nil).WithContext(ctx), newGate(), &testConfig)
	_, err := s.Relay(context.Background(), func(w http.ResponseWriter, r *http.Request) error {
		leave()
		<-r.Context().Done()
		assert.ErrorIs(t, r.Context().Err(), context.Canceled)
		assert.ErrorIs(t, context.Cause(r.Context()), context.Canceled)
		sse(w, "data: a\n\n") // the answer crosses the departure
		assert.Fail(t, "a stream for nobody was opened")
		return nil
	})
	require.NoError(t, err)
	assert.Equal(t, 499, rec.Code)
}

func TestClientLeft_AfterAdmissionEndsTheUpstreamQuietly(t *testing.T) {
	ctx, leave := context.WithCancel(t.Context())
	gate := newGate()
	s := newResponse(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil).WithContext(ctx), gate, &testConfig)
	sum, err := s.Relay(context.Background(), func(w http.ResponseWriter, r *http.Request) error {
		sse(w, "data: a\n\n")
		leave()
		<-r.Context().Done()
		assert.Equal(t, io.EOF, r.Context().Err())
		<-gate.place.isLeft
		n, err := w.Write([]byte("data: b\n\n"))
		assert.NoError(t, err)
		assert.Equal(t, 9, n)
		return nil
	})
	require.NoError(t, err)
	assert.Nil(t, sum.Ending)
}

// failingWriter fails like a connection whose client is gone.
type failingWriter struct{ *httptest.ResponseRecorder }

func (failingWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestClientGone_AWriteErrorEndsTheStreamQuietly(t *testing.T) {
	gate := newGate()
	s := newResponse(failingWriter{httptest.NewRecorder()}, httptest.NewRequest(http.MethodGet, "/", nil), gate, &testConfig)
	_, err := s.Relay(context.Background(), func(w http.ResponseWriter, r *http.Request) error {
		w.Header().Set("Content-Type", "text/event-stream")
		n, err := io.WriteString(w, "data: a\n\n")
		assert.NoError(t, err)
		assert.Equal(t, 9, n)
		<-r.Context().Done()
		<-gate.place.isLeft
		return nil
	})
	require.NoError(t, err)
}

// TestRelay_BytesSurviveAnyCut sends any bytes in any cuts, ends the stream
// anywhere, and expects a prefix of the bytes up to a boundary plus one notice.
func TestRelay_BytesSurviveAnyCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // end_timeout takes no time
		rapid.Check(bubbled{t}, bytesSurviveAnyCut)
	})
}

// bubbled has no Deadline, which must not be asked in a bubble.
type bubbled struct{ testing.TB }

func bytesSurviveAnyCut(t *rapid.T) {
	piece := rapid.SampledFrom([]string{"data: a\n", "\n", "\r", "\r\n", ": c\n", "id: 1\n", "x", "\ufeff"})
	body := strings.Join(rapid.SliceOfN(piece, 0, 30).Draw(t, "body"), "")
	var chunks []string
	for rest := body; rest != ""; {
		n := rapid.IntRange(1, len(rest)).Draw(t, "cut")
		chunks, rest = append(chunks, rest[:n]), rest[n:]
	}
	endAt := rapid.IntRange(0, len(chunks)).Draw(t, "end after chunk")
	rec, _ := serve(t, newGate(), testConfig, func(_ *Response, w http.ResponseWriter, _ *http.Request) { sse(w, chunks...) })
	require.Equal(t, body, rec.Body.String())

	all := strings.Join(chunks[:endAt], "")
	got, _ := ended(t, testConfig, newGate(), chunks[:endAt], nil)
	sent, rest, found := strings.Cut(got, "id: T\n")
	if !found { // no event has come, and what has come may be no event stream
		require.Equal(t, all, got)
		require.False(t, strings.HasPrefix(got, "data: a\n\n"))
		return
	}
	if before, completed := strings.CutSuffix(sent, "\r\n"); completed && all == before+"\r" {
		sent = all // the guard has completed the upstream's CRLF
	}
	require.True(t, strings.HasPrefix(all, sent))
	require.Contains(t, rest, "event: END\n")
}

func TestEnd_IsIdempotentAndHarmlessAfterwards(t *testing.T) {
	var s *Response
	gate := newGate()
	rec, _ := serve(t, gate, testConfig, func(response *Response, w http.ResponseWriter, r *http.Request) {
		s = response
		sse(w, "data: a\n\n")
		for range 10 {
			go s.Stream().End(superseded)
		}
		s.Stream().End(registry.Ending{Reason: reason.Replaced})
		<-r.Context().Done()
	})
	s.Stream().End(superseded)
	<-gate.isGone
	assert.Equal(t, 1, strings.Count(rec.Body.String(), "event: END"))
}

// discardWriter is a client that reads everything at no cost.
type discardWriter struct{ header http.Header }

func (w discardWriter) Header() http.Header       { return w.header }
func (discardWriter) WriteHeader(int)             {}
func (discardWriter) Write(p []byte) (int, error) { return len(p), nil }
func (discardWriter) FlushError() error           { return nil }

func TestRelay_AllocatesNothingPerWrite(t *testing.T) {
	allocs := relayAllocs(t)
	assert.Zero(t, allocs)
}

func relayAllocs(t *testing.T) (allocs float64) {
	event := []byte(fmt.Sprintf("id: 12345\nevent: tick\ndata: %s\n\n", strings.Repeat("x", 100)))
	half := len(event) / 2
	s := newResponse(discardWriter{http.Header{}}, httptest.NewRequest(http.MethodGet, "/", nil), newGate(), &testConfig)
	_, err := s.Relay(context.Background(), func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("Content-Type", "text/event-stream")
		allocs = testing.AllocsPerRun(1000, func() {
			_, _ = w.Write(event)
			_ = s.FlushError()
			_, _ = w.Write(event[:half])
			_, _ = w.Write(event[half:])
			_ = s.FlushError()
		})
		return nil
	})
	require.NoError(t, err)
	return allocs
}

func BenchmarkRelay(b *testing.B) {
	event := bytes.Repeat([]byte("x"), 130)
	copy(event, "id: 12345\nevent: tick\ndata: ")
	copy(event[128:], "\n\n")
	s := newResponse(discardWriter{http.Header{}}, httptest.NewRequest(http.MethodGet, "/", nil), newGate(), &testConfig)
	b.ReportAllocs()
	b.SetBytes(int64(len(event)))
	_, _ = s.Relay(context.Background(), func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("Content-Type", "text/event-stream")
		for b.Loop() {
			_, _ = w.Write(event)
			_ = s.FlushError()
		}
		return nil
	})
}
