package livepage

import (
	"context"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/sse-guard/sse-guard/caddymodule/event"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/registry/memory"
	"github.com/sse-guard/sse-guard/caddymodule/steer"
	"github.com/sse-guard/sse-guard/caddymodule/zone"
)

// shared is a registry of two nodes, which counts what this one asks of the other.
type shared struct {
	registry.Registry
	listening, asked atomic.Int32
	hear             func(at time.Time, b []byte, missed int)
}

func (s *shared) Each(ctx context.Context, f func(registry.Node)) error {
	err := s.Registry.Each(ctx, f)
	f(other{s})
	return err
}

func (s *shared) Hear(hear func(at time.Time, b []byte, missed int)) { s.hear = hear }
func (s *shared) Listen(more int)                                    { s.listening.Add(int32(more)) }
func (*shared) Heard() bool                                          { return false }
func (*shared) Tell(time.Time, []byte)                               {}

// other is the other node.
type other struct{ of *shared }

func (other) End(registry.StreamID, registry.Ending)                                   {}
func (other) EndAll(context.Context, []registry.StreamID, registry.Ending) error       { return nil }
func (other) Probe(context.Context, registry.StreamID, time.Duration) bool             { return true }
func (other) Notify(context.Context, registry.Filter, string, string) (n int, _ error) { return 0, nil }

func (o other) List(context.Context, registry.Filter, string, int) ([]registry.Row, string, error) {
	o.of.asked.Add(1)
	return nil, "", nil
}

func (o other) Count(context.Context) (registry.Counts, error) {
	o.of.asked.Add(1)
	return registry.Counts{Node: "other", States: map[registry.State]int{registry.StateLive: 7}}, nil
}

// TestBoard_AsksOtherNodesOnlyForReaders: without a page, it is quiet between the nodes,
// and the chart has the streams of this one.
func TestBoard_AsksOtherNodesOnlyForReaders(t *testing.T) {
	var s *shared
	z, err := zone.New("default", func(n registry.Node) (registry.Registry, error) {
		s = &shared{Registry: memory.New(n)}
		return s, nil
	}, event.NoMetrics{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, z.Close()) })
	b := newBoard(&steer.API{Zones: func() []*zone.Zone { return []*zone.Zone{z} }, Logger: zap.NewNop()}, 100*time.Millisecond, time.Millisecond)
	t.Cleanup(b.Close)
	b.Join()
	sampled := func(n int, here bool) func() bool {
		return func() bool {
			b.mu.Lock()
			defer b.mu.Unlock()
			return len(b.samples.entries) >= n && b.samples.entries[len(b.samples.entries)-1].Here == here
		}
	}
	z.Feed.Observe(event.Admitted{Stream: event.Who{Holder: &registry.Holder{}}})
	require.Eventually(t, sampled(1, true), patience, time.Millisecond)
	b.mu.Lock()
	first := b.samples.entries[0]
	b.mu.Unlock()
	require.Equal(t, 1, first.Admitted, "what happens here is counted")
	require.Zero(t, first.Streams.Live)
	require.Zero(t, s.listening.Load())
	require.Zero(t, s.asked.Load())

	require.True(t, b.enter())
	b.Join()
	require.EqualValues(t, 1, s.listening.Load())
	require.Eventually(t, sampled(3, false), patience, time.Millisecond)
	b.mu.Lock()
	last := b.samples.entries[len(b.samples.entries)-1]
	b.mu.Unlock()
	require.Equal(t, 7, last.Streams.Live)

	b.leave()
	require.Eventually(t, func() bool { return s.listening.Load() == 0 }, patience, time.Millisecond, "it goes on listening")
	require.Eventually(t, sampled(4, true), patience, time.Millisecond)
	asked := s.asked.Load()
	require.Eventually(t, sampled(5, true), patience, time.Millisecond)
	require.Equal(t, asked, s.asked.Load())
}

// TestFeed_TellsStatsOnceTheyHaveChanged, and not too often: they have all labels.
func TestFeed_TellsStatsOnceTheyHaveChanged(t *testing.T) {
	answer := httptest.NewRecorder()
	f := &feed{out: steer.NewFeedWriter(answer, time.Minute)}
	told := func(n news, want int) {
		t.Helper()
		require.NoError(t, f.write(n))
		require.Equal(t, want, strings.Count(answer.Body.String(), "event: stats"))
	}
	stats := steer.Stats{Zones: []steer.ZoneStats{{Zone: "default"}}}
	told(news{}, 0)
	told(news{stats: stats, counted: 1}, 1)
	f.told = f.told.Add(-statsPause)
	told(news{stats: stats, counted: 1}, 1)
	told(news{stats: stats, counted: 2}, 2)
	told(news{stats: stats, counted: 3}, 2)
	f.told = f.told.Add(-statsPause)
	told(news{stats: stats, counted: 3}, 3)
}
