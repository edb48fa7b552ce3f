package stream

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/sse-guard/sse-guard/caddymodule/internal/wheel"
	"github.com/sse-guard/sse-guard/caddymodule/reason"
)

func TestOpenRetry_GoesBeforeTheFirstBlockThatHasData(t *testing.T) {
	cfg := testConfig
	cfg.OpenRetry = 3 * time.Second
	for name, test := range map[string]struct {
		chunks []string
		want   string
	}{
		"nothing comes":                  {nil, ""},
		"comments only":                  {[]string{": connected\n\n", ": beat\n"}, ": connected\n\n: beat\n"},
		"blocks without data":            {[]string{"retry: 1\n\nid: 7\n\nevent: x\n\n"}, "retry: 1\n\nid: 7\n\nevent: x\n\n"},
		"comments first":                 {[]string{": connected\n\n", "data: a\n\ndata: b\n\n"}, ": connected\n\nretry: 3000\ndata: a\n\ndata: b\n\n"},
		"all in one":                     {[]string{": connected\n\nid: 1\nevent: x\ndata: a\n\n"}, ": connected\n\nretry: 3000\nid: 1\nevent: x\ndata: a\n\n"},
		"the last line of the block":     {[]string{"\nevent: x\n", "id: 1\nda", "ta\n", "\n"}, "\nretry: 3000\nevent: x\nid: 1\ndata\n\n"},
		"unfinished when the stream is":  {[]string{": c\n", "data: a"}, ": c\nretry: 3000\ndata: a"},
		"CRLF":                           {[]string{": c\r\n\r", "\ndata: a\r\n\r\n"}, ": c\r\n\r\nretry: 3000\ndata: a\r\n\r\n"},
		"CR that LF follows behind it":   {[]string{"data: a\r\n\r", "\ndata: b\r\n\r\n"}, "retry: 3000\ndata: a\r\n\r\ndata: b\r\n\r\n"},
		"behind a block without data":    {[]string{"event: x\n\ndata: a\n\n"}, "event: x\n\nretry: 3000\ndata: a\n\n"},
		"what only looks like data":      {[]string{"datum: 1\n\n"}, "datum: 1\n\n"},
		"too large to hold":              {[]string{"data: " + strings.Repeat("x", 2000), "\n\n"}, "retry: 3000\ndata: " + strings.Repeat("x", 2000) + "\n\n"},
		"partly sent before it has data": {[]string{"x: " + strings.Repeat("x", 2000), "\ndata: a\n\n", "data: b\n\n"}, "x: " + strings.Repeat("x", 2000) + "\ndata: a\n\nretry: 3000\ndata: b\n\n"},
	} {
		t.Run(name, func(t *testing.T) {
			rec, sum := serve(t, newGate(), cfg, func(_ *Response, w http.ResponseWriter, _ *http.Request) { sse(w, test.chunks...) })
			assert.Equal(t, test.want, rec.Body.String())
			assert.EqualValues(t, len(strings.Join(test.chunks, "")), sum.Bytes, "of the upstream's")
		})
	}
}

// A client that shows an id of ours would show it for as long as the application sends
// none.
func TestForgetID_TheFirstBlockThatHasDataTakesTheClientsIDAway(t *testing.T) {
	for name, test := range map[string]struct {
		chunks []string
		retry  time.Duration
		want   string
	}{
		"nothing comes":    {nil, 0, ""},
		"an event":         {[]string{"data: a\n\n", "data: b\n\n"}, 0, "id:\ndata: a\n\ndata: b\n\n"},
		"one with an id":   {[]string{"id: 1\ndata: a\n\n"}, 0, "id: 1\ndata: a\n\n"},
		"an id before it":  {[]string{"id: 1\n\ndata: a\n\n"}, 0, "id: 1\n\ndata: a\n\n"},
		"a torn one":       {[]string{"id: 1\nx: " + strings.Repeat("x", 2000), "\ndata: a\n\n", "data: b\n\n"}, 0, "id: 1\nx: " + strings.Repeat("x", 2000) + "\ndata: a\n\ndata: b\n\n"},
		"no data yet":      {[]string{": c\n\nretry: 1\n\n", "data\n\n"}, 0, ": c\n\nretry: 1\n\nid:\ndata\n\n"},
		"a retry besides":  {[]string{": c\n\n", "data: a\n\n"}, 3 * time.Second, ": c\n\nid:\nretry: 3000\ndata: a\n\n"},
		"behind a BOM":     {[]string{"\ufeff", "data: a\n\n"}, 0, "id:\ndata: a\n\n"},
		"no event at all":  {[]string{"words"}, 0, "words"},
		"a part at a time": {[]string{"da", "ta: a", "\n\ndata: b\n\n"}, 0, "id:\ndata: a\n\ndata: b\n\n"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, gate := testConfig, newGate()
			cfg.OpenRetry = test.retry
			gate.terms.ForgetID = true
			rec, sum := serve(t, gate, cfg, func(_ *Response, w http.ResponseWriter, _ *http.Request) { sse(w, test.chunks...) })
			assert.Equal(t, test.want, rec.Body.String())
			assert.Zero(t, sum.Ending)
		})
	}
}

// Behind something of ours a byte order mark would spoil the first field, and the
// event would be lost.
func TestByteOrderMark_IsDroppedBehindOurs_WhereverItIsCut(t *testing.T) {
	const stream = "\ufeffdata: a\n\n"
	for name, ours := range map[string]struct {
		retry time.Duration
		beat  int // after so many bytes; -1: never
		want  string
	}{
		"a retry":                        {3 * time.Second, -1, "retry: 3000\ndata: a\n\n"},
		"a heartbeat first":              {0, 0, beatText + "data: a\n\n"},
		"a heartbeat after one byte":     {0, 1, beatText + "data: a\n\n"},
		"a heartbeat after two bytes":    {0, 2, beatText + "data: a\n\n"},
		"a heartbeat after the mark":     {0, 3, beatText + "data: a\n\n"},
		"a heartbeat in the first event": {0, 8, beatText + "data: a\n\n"},
		"a heartbeat behind the event":   {0, len(stream), stream + beatText},
		"both":                           {3 * time.Second, 2, beatText + "retry: 3000\ndata: a\n\n"},
		"nothing":                        {0, -1, stream},
	} {
		for first := 1; first <= 4; first++ {
			for second := first; second <= 5; second++ {
				cfg := testConfig
				cfg.OpenRetry = ours.retry
				rec, _ := serve(t, newGate(), cfg, func(p *Response, w http.ResponseWriter, _ *http.Request) {
					sse(w, "")
					sent, beat := 0, ours.beat
					for _, chunk := range []string{stream[:first], stream[first:second], stream[second:]} {
						if beat >= sent && beat < sent+len(chunk) {
							sse(w, chunk[:beat-sent])
							p.Stream().relay.beat()
							chunk, sent, beat = chunk[beat-sent:], beat, -1
						}
						sse(w, chunk)
						sent += len(chunk)
					}
					if beat == sent {
						p.Stream().relay.beat()
					}
				})
				assert.Equal(t, ours.want, rec.Body.String(), "%s, cut at %d and %d", name, first, second)
			}
		}
	}
}

// Clients that know no CR alone would read our line as the rest of the upstream's.
func TestHeartbeat_BetweenTheTwoBytesOfACRLF(t *testing.T) {
	for rest, want := range map[string]string{
		"\ndata: b\r\n\r\n": "data: a\r\n\r\n" + beatText + beatText + "data: b\r\n\r\n",
		"data: b\r\n\r\n":   "data: a\r\n\r\n" + beatText + beatText + "data: b\r\n\r\n",
		"":                  "data: a\r\n\r\n" + beatText + beatText,
	} {
		rec, _ := serve(t, newGate(), testConfig, func(p *Response, w http.ResponseWriter, _ *http.Request) {
			sse(w, "data: a\r\n\r")
			p.Stream().relay.beat()
			p.Stream().relay.beat()
			sse(w, rest)
		})
		assert.Equal(t, want, rec.Body.String())
	}
}

// receiver is a client that notes when it has got what.
type receiver struct {
	*httptest.ResponseRecorder
	began time.Time
	got   []arrival
}

type arrival struct {
	bytes string
	after time.Duration
}

func (c *receiver) Write(p []byte) (int, error) {
	c.got = append(c.got, arrival{string(p), time.Since(c.began)})
	return len(p), nil
}

// holding serves a stream in a bubble, and returns what the client got.
func holding(t *testing.T, cfg Config, handler func(p *Response, w http.ResponseWriter)) (got []arrival) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cfg.Wheel = wheel.New()
		defer cfg.Wheel.Close()
		c := &receiver{ResponseRecorder: httptest.NewRecorder(), began: time.Now()}
		p := newResponse(c, httptest.NewRequest(http.MethodGet, "/", nil), newGate(), &cfg)
		_, err := p.Relay(t.Context(), func(w http.ResponseWriter, _ *http.Request) error {
			handler(p, w)
			return nil
		})
		assert.NoError(t, err)
		synctest.Wait()
		got = c.got
	})
	return got
}

const holdTime = 250 * time.Millisecond

func heldConfig() Config {
	return Config{EndTimeout: time.Second, MaxEventSize: 1 << 10, Hold: holdTime}
}

func TestHold_WhatIsUnfinishedPassesInTime(t *testing.T) {
	for _, after := range []time.Duration{0, 1, 30 * time.Millisecond, 99 * time.Millisecond, 12345 * time.Millisecond} {
		got := holding(t, heldConfig(), func(_ *Response, w http.ResponseWriter) {
			<-time.After(after)
			sse(w, "data: half")
			<-time.After(10 * time.Second)
			sse(w, " of it")
			<-time.After(10 * time.Second)
			sse(w, "\n\ndata: b\n\n")
		})
		if assert.Len(t, got, 3) {
			assert.Equal(t, "data: half", got[0].bytes)
			assert.LessOrEqual(t, got[0].after-after, holdTime)
			assert.GreaterOrEqual(t, got[0].after-after, holdTime-2*wheel.Precision)
			assert.Equal(t, arrival{" of it", after + 10*time.Second}, got[1], "the rest passes as it comes")
			assert.Equal(t, arrival{"\n\ndata: b\n\n", after + 20*time.Second}, got[2])
		}
	}
}

func TestHold_EndsWithTheEvent(t *testing.T) {
	got := holding(t, heldConfig(), func(_ *Response, w http.ResponseWriter) {
		for range 20 { // more than hold, all in all
			sse(w, "data: a")
			<-time.After(40 * time.Millisecond)
			sse(w, "\n\n")
		}
	})
	if assert.Len(t, got, 40) {
		for i := 0; i < 40; i += 2 {
			assert.Equal(t, "data: a", got[i].bytes)
			assert.Equal(t, arrival{"\n\n", got[i].after}, got[i+1], "held until the event is whole")
		}
	}
}

func TestHold_IsVisitedOnlyWhileSomethingIsHeld(t *testing.T) {
	holding(t, heldConfig(), func(p *Response, w http.ResponseWriter) {
		sse(w, "data: a\n\n")
		wheel := p.cfg.Wheel
		assert.Equal(t, 1, wheel.Len(), "the stream itself")
		for range 3 {
			sse(w, "data: half")
			assert.Equal(t, 2, wheel.Len())
			sse(w, "\n\n", "data: half", "\n\n")
			assert.Equal(t, 2, wheel.Len(), "once, however often")
			<-time.After(time.Second)
			assert.Equal(t, 1, wheel.Len())
		}
	})
}

// Whoever sends what is overdue may find the beginning of another event in its place,
// which is to be visited too.
func TestHold_IsVisitedUntilNothingIsHeld(t *testing.T) {
	cfg := heldConfig()
	cfg.Wheel = wheel.New()
	defer cfg.Wheel.Close()
	serve(t, newGate(), cfg, func(p *Response, w http.ResponseWriter, _ *http.Request) {
		sse(w, "data: a")
		h := &p.Stream().relay.held
		assert.Equal(t, wheel.Precision, h.Visit(tick(100)))
		assert.Equal(t, wheel.Precision, h.Visit(tick(100)), "whether that is on its way or not")
		sse(w, "\n\n")
		assert.Zero(t, h.Visit(tick(100)))
	})
}

func TestHold_NothingWholeIsDelayed(t *testing.T) {
	got := holding(t, heldConfig(), func(_ *Response, w http.ResponseWriter) {
		for _, whole := range []string{"data: a\n\n", ": comment\n", "data: b\r\r", "data: c\r\n\r\n", ":\r\n"} {
			sse(w, whole)
			<-time.After(time.Second)
		}
	})
	for i, a := range got {
		assert.Equal(t, time.Duration(i)*time.Second, a.after)
	}
	assert.Len(t, got, 5)
}

// A body that is no framed event stream arrives as it comes.
func TestHold_UnframedBodiesPass(t *testing.T) {
	got := holding(t, heldConfig(), func(_ *Response, w http.ResponseWriter) {
		for range 5 {
			sse(w, `{"token":"x"}`+"\n")
			<-time.After(time.Second)
		}
	})
	if assert.Len(t, got, 5) {
		assert.LessOrEqual(t, got[0].after, holdTime)
		for i, a := range got[1:] {
			assert.Equal(t, time.Duration(i+1)*time.Second, a.after)
		}
	}
}

// A client that does not wait for whole events has shown, or would have, what was
// sent before its stream is ended. There is no place for a notice.
func TestHold_AnEndLosesNothingOfAnUnframedBody(t *testing.T) {
	for _, body := range []string{"words", "data: a\n", "data: a\ndata: b\n", "{}\n{}\n", "\ufeffword", ": comment\n\nwor"} {
		for _, wait := range []time.Duration{0, time.Second} {
			var ended time.Duration
			got := holding(t, heldConfig(), func(p *Response, w http.ResponseWriter) {
				sse(w, body)
				<-time.After(wait)
				began := time.Now()
				p.Stream().End(superseded)
				<-p.upstream.Done()
				ended = time.Since(began)
			})
			assert.Equal(t, time.Second, ended, "the boundary is waited for")
			var all strings.Builder
			for _, a := range got {
				all.WriteString(a.bytes)
			}
			assert.Equal(t, body, all.String())
		}
	}
}

func TestHold_AnEndOfBothSidesLosesNothingOfAnUnframedBody(t *testing.T) {
	for range 100 {
		rec, _ := serve(t, newGate(), testConfig, func(p *Response, w http.ResponseWriter, _ *http.Request) {
			sse(w, "words")
			p.Stream().End(superseded)
		})
		assert.Equal(t, "words", rec.Body.String())
	}
}

// Some backends send the byte order mark long before the first event.
func TestHold_AByteOrderMarkAloneTearsNothing(t *testing.T) {
	const mark = "\ufeff"
	end := func(p *Response, _ http.ResponseWriter) {
		p.Stream().End(superseded)
		<-p.upstream.Done()
	}
	for name, test := range map[string]struct {
		then func(p *Response, w http.ResponseWriter)
		want string
	}{
		"a heartbeat":         {func(p *Response, w http.ResponseWriter) { p.Stream().relay.beat() }, beatText},
		"an end":              {end, notice(reason.Superseded, "")},
		"an event":            {func(_ *Response, w http.ResponseWriter) { sse(w, "data: a\n\n") }, mark + "data: a\n\n"},
		"nothing":             {func(*Response, http.ResponseWriter) {}, mark},
		"an unfinished event": {func(p *Response, w http.ResponseWriter) { sse(w, "data: a"); end(p, w) }, mark + "data: a"},
	} {
		t.Run(name, func(t *testing.T) {
			for cut := range 3 {
				var all strings.Builder
				for _, a := range holding(t, heldConfig(), func(p *Response, w http.ResponseWriter) {
					sse(w, mark[:cut], mark[cut:])
					<-time.After(time.Minute)
					test.then(p, w)
				}) {
					all.WriteString(a.bytes)
				}
				assert.Equal(t, test.want, all.String())
			}
		})
	}
}

// Both guards of a route hold an event back, but not one after the other.
func TestHold_OfNestedGuardsIsNoLonger(t *testing.T) {
	for name, between := range map[string]func(http.ResponseWriter) http.ResponseWriter{
		"one in the other":       func(w http.ResponseWriter) http.ResponseWriter { return w },
		"with a handler between": func(w http.ResponseWriter) http.ResponseWriter { return wrapper{w} },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := heldConfig()
				cfg.Wheel = wheel.New()
				defer cfg.Wheel.Close()
				c := &receiver{ResponseRecorder: httptest.NewRecorder(), began: time.Now()}
				outer := newResponse(c, httptest.NewRequest(http.MethodGet, "/", nil), newGate(), &cfg)
				_, err := outer.Relay(t.Context(), func(w http.ResponseWriter, r *http.Request) error {
					inner := newResponse(between(w), r, newGate(), &cfg)
					_, err := inner.Relay(t.Context(), func(w http.ResponseWriter, _ *http.Request) error {
						sse(w, "data: half")
						<-time.After(time.Second)
						sse(w, " of it")
						<-time.After(time.Second)
						return nil
					})
					return err
				})
				assert.NoError(t, err)
				if assert.Len(t, c.got, 2) {
					assert.Equal(t, "data: half", c.got[0].bytes)
					assert.LessOrEqual(t, c.got[0].after, holdTime)
					assert.Equal(t, arrival{" of it", time.Second}, c.got[1])
				}
			})
		})
	}
}

// wrapper is the writer of a handler between two guards.
type wrapper struct{ http.ResponseWriter }

func (w wrapper) Unwrap() http.ResponseWriter { return w.ResponseWriter }
func (w wrapper) Flush()                      { w.ResponseWriter.(http.Flusher).Flush() }

func TestBudget_WhatDoesNotFitPassesAtOnce(t *testing.T) {
	cfg := testConfig
	cfg.Held = NewBudget(10)
	rec, _ := serve(t, newGate(), cfg, func(p *Response, w http.ResponseWriter, _ *http.Request) {
		body := p.w.(*httptest.ResponseRecorder).Body
		sse(w, "data: 678\n\n", "data: 67")
		assert.Equal(t, "data: 678\n\n", body.String())
		serve(t, newGate(), cfg, func(p *Response, w http.ResponseWriter, _ *http.Request) {
			body := p.w.(*httptest.ResponseRecorder).Body
			sse(w, "data")
			assert.Equal(t, "data", body.String(), "there is no room for it")
			sse(w, ": a\n\nda")
			assert.Equal(t, "data: a\n\n", body.String(), "2 bytes fit")
			p.Stream().End(superseded)
		})
		assert.EqualValues(t, 8, cfg.Held.used.Load(), "an ended stream has given its part back")
		sse(w, "890")
		assert.Equal(t, "data: 678\n\ndata: 67890", body.String())
		assert.Zero(t, cfg.Held.used.Load())
		sse(w, "\n\n")
		_, _ = io.WriteString(w, "data: b") // flushed at the end
	})
	assert.Equal(t, "data: 678\n\ndata: 67890\n\ndata: b", rec.Body.String())
	assert.Zero(t, cfg.Held.used.Load())
}
