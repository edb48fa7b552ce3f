package caddymodule

import (
	"context"
	"net/http"
	"net/http/httptest"
	"runtime"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/event"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/registry/memory"
	"github.com/sse-guard/sse-guard/caddymodule/stream"
	"github.com/sse-guard/sse-guard/caddymodule/zone"
)

// crowd is live streams of one zone.
type crowd struct {
	*zone.Zone
	cfg     *stream.Config
	metrics event.Metrics
}

func newCrowd(b *testing.B, metrics event.Metrics) *crowd {
	b.Helper()
	z, err := zone.New("crowd", func(n registry.Node) (registry.Registry, error) { return memory.New(n), nil }, metrics)
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, z.Close()) })
	return &crowd{z, &stream.Config{EndTimeout: time.Second, MaxEventSize: 1 << 20, Wheel: z.Wheel}, metrics}
}

// fill opens n streams, which live until the returned function is called.
func (c *crowd) fill(n int) (empty func()) {
	ctx, leave := context.WithCancel(context.Background())
	open, over := make(chan struct{}), make(chan struct{})
	for range n {
		go func() {
			c.serve(ctx, new(nowhere), func(r *http.Request, _ http.ResponseWriter) {
				open <- struct{}{}
				<-r.Context().Done()
			})
			over <- struct{}{}
		}()
	}
	for range n {
		<-open
	}
	return func() {
		leave()
		for range n {
			<-over
		}
	}
}

// nowhere is a response that goes to nobody.
type nowhere struct{ header http.Header }

func (n *nowhere) Header() http.Header {
	if n.header == nil {
		n.header = make(http.Header)
	}
	return n.header
}
func (*nowhere) WriteHeader(int)             {}
func (*nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (*nowhere) Flush()                      {}

// guest is the Gate of a stream of the crowd. It asks and tells what a guard does.
type guest struct {
	*crowd
	ctx      context.Context
	holder   registry.Holder
	response stream.Response
}

func (g *guest) Judge(int, http.Header) stream.Verdict {
	g.holder = registry.Holder{ID: registry.NewStreamID(), Since: time.Now()}
	copy(g.holder.Key[:], g.holder.ID[:])
	s := g.response.NewStream(stream.Terms{Holder: &g.holder, Gone: g.Forget})
	g.Enter(s)
	a, err := g.Registry.Admit(g.ctx, registry.Header, registry.Consent{}, []registry.Ask{{Holder: &g.holder}}, nil)
	if err != nil || a[0].Outcome != registry.Admitted {
		return stream.Refuse
	}
	s.Hold(a[0].Place)
	return stream.Admit
}

func (g *guest) Opened() { g.metrics.Observe(event.Admitted{Stream: event.Who{Holder: &g.holder}}) }

// serve relays a stream that gets one event before relayed is called.
func (c *crowd) serve(ctx context.Context, w http.ResponseWriter, relayed func(*http.Request, http.ResponseWriter)) {
	m := &guest{crowd: c, ctx: ctx}
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
	m.response.Init(w, r, m, c.cfg)
	_, _ = m.response.Relay(ctx, func(w http.ResponseWriter, r *http.Request) error {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = w.Write(oneEvent)
		relayed(r, w)
		return nil
	})
}

var oneEvent = []byte("id: 41\nevent: price\ndata: {\"symbol\":\"ABC\",\"bid\":101.25,\"ask\":101.27,\"time\":\"2026-01-02T03:04:05.678Z\",\"venue\":\"XETR\"}\n\n")

// A scrape of 5,000 streams is to cost 20 ms at most.
func BenchmarkScrape_5000Streams(b *testing.B) {
	c := newCrowd(b, newZoneMetrics("crowd"))
	defer c.fill(5000)()
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(collector{map[string][]*zone.Zone{"crowd": {c.Zone}}})
	require.EqualValues(b, 5000, valueOf(shown(b, r)[metricStreams.name], "live", "crowd"))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Gather(); err != nil {
			b.Fatal(err)
		}
	}
}

// withAndWithout runs a benchmark without metrics and with them.
func withAndWithout(b *testing.B, run func(*testing.B, *crowd)) {
	for _, test := range []struct {
		name    string
		metrics event.Metrics
	}{{"without", event.NoMetrics{}}, {"with", newZoneMetrics("crowd")}} {
		b.Run(test.name, func(b *testing.B) {
			b.ReportAllocs()
			run(b, newCrowd(b, test.metrics))
		})
	}
}

// BenchmarkMetrics_Event relays an event.
func BenchmarkMetrics_Event(b *testing.B) {
	withAndWithout(b, func(b *testing.B, c *crowd) {
		c.serve(b.Context(), new(nowhere), func(_ *http.Request, w http.ResponseWriter) {
			f := w.(http.Flusher)
			for b.Loop() {
				_, _ = w.Write(oneEvent)
				f.Flush()
			}
		})
	})
}

// BenchmarkMetrics_Stream opens a stream, relays one event, and ends it.
func BenchmarkMetrics_Stream(b *testing.B) {
	withAndWithout(b, func(b *testing.B, c *crowd) {
		for b.Loop() {
			c.serve(b.Context(), new(nowhere), func(*http.Request, http.ResponseWriter) {})
		}
	})
}

// BenchmarkMetrics_Held tells what a stream that is open keeps on the heap.
func BenchmarkMetrics_Held(b *testing.B) {
	withAndWithout(b, func(b *testing.B, c *crowd) {
		const streams = 5000
		heap := func() uint64 {
			var m runtime.MemStats
			runtime.GC()
			runtime.GC()
			runtime.ReadMemStats(&m)
			return m.HeapAlloc
		}
		for b.Loop() {
			before := heap()
			empty := c.fill(streams)
			b.ReportMetric(float64(heap()-before)/streams, "held-B/stream")
			empty()
		}
	})
}
