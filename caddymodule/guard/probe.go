package guard

import (
	"context"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// probe has the suspects' clients prove that they live; who does not is ended by
// the node that has it. It reports whether one of them gave way, so that it is worth
// asking the registry again.
func (g *Guard) probe(ctx context.Context, suspects []registry.StreamID) bool {
	if g.Probe == 0 || len(suspects) == 0 {
		return false
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan bool, len(suspects))
	for _, id := range suspects {
		go func() { answers <- g.lives(ctx, id) }()
	}
	for range suspects {
		select {
		case lives := <-answers:
			if !lives {
				return true
			}
		case <-ctx.Done():
			return false
		}
	}
	return false
}

// lives asks all nodes about a stream. Where not all can be asked, it is taken to
// live.
func (g *Guard) lives(ctx context.Context, id registry.StreamID) (lives bool) {
	err := g.Zone.Registry.Each(ctx, func(n registry.Node) {
		lives = lives || n.Probe(ctx, id, g.Probe)
	})
	return lives || err != nil
}
