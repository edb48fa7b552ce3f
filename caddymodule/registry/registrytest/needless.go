package registrytest

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// testNeedless has a request with several guards come to keys that others hold some of,
// and checks that whoever ends has to: with one of them back, a key would be held too
// often.
func testNeedless(t *testing.T, open Open) {
	keys := []string{"site", "store", "user"}
	rapid.Check(t, func(rt *rapid.T) {
		s := open.unclosed(t)
		defer s.close(rt)
		holds := make(map[string][]string) // by response, the keys it holds
		for _, name := range []string{"a", "b", "c", "d"} {
			r := newResponse(name)
			for _, key := range keys {
				if rapid.Bool().Draw(rt, name+" holds "+key) {
					r.of(key, Track)
					holds[name] = append(holds[name], key)
				}
			}
			if len(r.asks) > 0 {
				s.askAll(rt, registry.Header, r)
			}
		}
		newcomer, limits := newResponse("n"), make(map[string]int)
		for _, key := range rapid.Permutation(keys).Draw(rt, "guards, the innermost first")[:rapid.IntRange(2, 3).Draw(rt, "how many")] {
			limits[key] = rapid.IntRange(1, 3).Draw(rt, "limit of "+key)
			newcomer.of(key, Supersede(limits[key], registry.Streams))
		}
		phase := rapid.SampledFrom([]registry.Phase{registry.Early, registry.Header, registry.Reserve}).Draw(rt, "phase")
		var ended []string
		for _, a := range s.askAll(rt, phase, newcomer) {
			for _, v := range a.Ends {
				name := v.Holder.Addr[:1]
				require.NotContains(rt, ended, name, "it ends once")
				ended = append(ended, name)
			}
		}
		fits := func(ended []string) bool {
			for key, limit := range limits {
				n := 1
				for name, held := range holds {
					if slices.Contains(held, key) && !slices.Contains(ended, name) {
						n++
					}
				}
				if n > limit {
					return false
				}
			}
			return true
		}
		require.True(rt, fits(ended), "%v hold, %v end, the limits are %v", holds, ended, limits)
		for i, name := range ended {
			require.False(rt, fits(slices.Delete(slices.Clone(ended), i, i+1)),
				"%v hold, %v end, the limits are %v: %s could have stayed", holds, ended, limits, name)
		}
	})
}
