package guard

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/identity"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// proving is a registry on whose nodes all clients prove that they live.
type proving struct {
	registry.Registry
	probes *atomic.Int32
}

func (p proving) Each(_ context.Context, f func(registry.Node)) error {
	f(provingNode{probes: p.probes})
	return nil
}

type provingNode struct {
	registry.Node
	probes *atomic.Int32
}

func (n provingNode) Probe(context.Context, registry.StreamID, time.Duration) bool {
	n.probes.Add(1)
	return true
}

// A probe costs every holder it is sent to, so a newcomer may not cause many.
func TestProbe_AtMostFourHoldersPerNewcomerWhateverTheLimit(t *testing.T) {
	const many = 2000
	for name, test := range map[string]struct {
		policy   registry.Policy
		admitted bool
		probes   int
		token    string
	}{
		"reject, a stranger":    {registry.Reject, false, 4, "eve"},
		"reject, the same user": {registry.Reject, false, 4, "ann"},
		"supersede":             {registry.Supersede, true, 0, "eve"},
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				var probes atomic.Int32
				z := s.guards[0].Zone
				z.Registry = proving{z.Registry.(byValue).Registry, &probes}
				key, _ := identity.Key("books")
				ann := s.open(token("ann"), field("X-Store", "books"))
				for range many - 1 {
					h := &registry.Holder{ID: registry.NewStreamID(), Key: registry.ID(key)}
					_, err := z.Registry.Admit(t.Context(), registry.Header, registry.Consent{}, []registry.Ask{{Holder: h, Rule: s.guards[0].Rule}}, nil)
					require.NoError(t, err)
				}
				require.False(t, ann.over())
				newcomer := s.open(token(test.token), field("X-Store", "books"))
				require.Equal(t, test.admitted, newcomer.text() == hello)
				require.EqualValues(t, test.probes, probes.Load())
			}, all(keyedBy("{req.X-Store}"), limited(many), func(g *Config) { g.Rule.Policy, g.Probe = test.policy, time.Second }))
		})
	}
}
