package redis_test

import (
	"slices"
	"testing"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/registry/memory"
	"github.com/sse-guard/sse-guard/caddymodule/registry/registrytest"
)

// BenchmarkTakeover is from the newcomer's question until the older stream's node is
// told, on one node, on one with Redis, and across two.
func BenchmarkTakeover(b *testing.B) {
	server := harness.StartRedis(b)
	b.Run("memory", func(b *testing.B) {
		node := new(registrytest.FakeNode)
		r := memory.New(node)
		defer r.Close()
		takeovers(b, [2]registry.Registry{r, r}, [2]*registrytest.FakeNode{node, node})
	})
	b.Run("redis/one node", func(b *testing.B) {
		s := openSite(b, options(b, server.Addr))
		takeovers(b, [2]registry.Registry{s, s}, [2]*registrytest.FakeNode{s.node, s.node})
	})
	b.Run("redis/two nodes", func(b *testing.B) {
		s := sites(b, options(b, server.Addr), 2)
		takeovers(b, [2]registry.Registry{s[0], s[1]}, [2]*registrytest.FakeNode{s[0].node, s[1].node})
	})
}

// takeovers has the key go to and fro.
func takeovers(b *testing.B, registries [2]registry.Registry, nodes [2]*registrytest.FakeNode) {
	ended := make(chan struct{}, 1)
	for _, n := range nodes {
		n.OnEnd = func(registry.StreamID, registry.Ending) { ended <- struct{}{} }
	}
	var took []time.Duration
	var last registry.Place
	for i := range b.N + 1 {
		began := time.Now()
		as, err := registries[i%2].Admit(b.Context(), registry.Header, registry.Consent{}, []registry.Ask{{Holder: anon("h"), Rule: one}}, nil)
		if err != nil || as[0].Outcome != registry.Admitted {
			b.Fatal(as, err)
		}
		if last != nil {
			<-ended
			took = append(took, time.Since(began))
			leaveAndDepart(last)
		}
		last = as[0].Place
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
}
