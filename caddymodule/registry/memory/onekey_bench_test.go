package memory_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/registry/memory"
)

// BenchmarkOneKey does things to one holder of a key, or to a newcomer, beside so many
// other holders of that key, half of which have one token. It is to cost the same.
func BenchmarkOneKey(b *testing.B) {
	for _, n := range []int{10, 40_000} {
		for _, op := range oneKeyOps {
			b.Run(fmt.Sprintf("%s/%dHolders", op.name, n), func(b *testing.B) {
				k := newOneKey(b, n)
				b.ReportAllocs()
				for b.Loop() {
					op.do(b, k)
				}
			})
		}
	}
}

var oneKeyOps = []struct {
	name string
	do   func(*testing.B, *oneKey)
}{
	{"LeaveAndAdmit", func(_ *testing.B, k *oneKey) {
		i := k.next()
		k.leave(i)
		k.admit(i)
	}},
	{"EndByID", func(b *testing.B, k *oneKey) {
		i := k.next()
		k.end(b, registry.Selector{ID: k.streams[i].ID})
		k.places[i].Departed()
		k.admit(i)
	}},
	{"EndByKeyAndToken", func(b *testing.B, k *oneKey) {
		i := k.next() | 1 // its token is its own
		k.end(b, registry.Selector{Key: k.streams[i].Key, Token: k.streams[i].Token})
		k.places[i].Departed()
		k.admit(i)
	}},
	{"Takeover", func(_ *testing.B, k *oneKey) { // of the oldest
		k.ask(registry.Header, registry.Supersede, k.n, k.spare())
	}},
	{"EarlyTakeover", func(_ *testing.B, k *oneKey) {
		k.ask(registry.Early, registry.Supersede, k.n, k.spare())
	}},
	{"TwoGuards", func(_ *testing.B, k *oneKey) { // another guard ends one of these
		h := k.spare()
		asks := []registry.Ask{{Holder: h, Rule: k.rule(registry.Supersede, k.n), Prefer: []registry.StreamID{k.streams[k.next()].ID.Nth(3)}}}
		_, _ = k.Admit(context.Background(), registry.Early, registry.Consent{}, asks, []registry.StreamID{k.streams[k.next()].ID.Nth(4)})
	}},
	{"Rejected", func(_ *testing.B, k *oneKey) {
		k.ask(registry.Header, registry.Reject, k.n, k.spare())
	}},
}

// oneKey is n streams that hold one key.
type oneKey struct {
	*memory.Registry
	n       int
	streams []*registry.Holder
	places  []registry.Place
	rnd     *rand.ChaCha8
	i       int
}

func newOneKey(b *testing.B, n int) *oneKey {
	k := &oneKey{Registry: fullRegistry(b, nil), n: n, streams: manyStreams(n), places: make([]registry.Place, n), rnd: rand.NewChaCha8([32]byte{9})}
	for i, h := range k.streams {
		h.Key = k.streams[0].Key
		if i%2 == 0 {
			h.Token = k.streams[0].Token
		}
		k.admit(i)
	}
	return k
}

// next returns the index of one that is neither young nor old.
func (k *oneKey) next() int {
	k.i++
	return (k.n/2 + k.i*7) % k.n
}

func (k *oneKey) spare() *registry.Holder {
	h := &registry.Holder{ID: registry.NewStreamID(), Key: k.streams[0].Key, Token: randomID(k.rnd), Asked: time.Now()}
	return h
}

func (k *oneKey) rule(p registry.Policy, limit int) registry.Rule {
	return registry.Rule{Policy: p, Limit: limit, Unit: registry.Streams}
}

func (k *oneKey) admit(i int) {
	k.streams[i].Asked = time.Now()
	k.places[i] = k.ask(registry.Header, registry.Supersede, 0, k.streams[i]).Place
}

func (k *oneKey) leave(i int) {
	k.places[i].Leave(registry.Keep{})
	k.places[i].Departed()
}

func (k *oneKey) ask(phase registry.Phase, p registry.Policy, limit int, h *registry.Holder) registry.Admission {
	as, _ := k.Admit(context.Background(), phase, registry.Consent{}, []registry.Ask{{Holder: h, Rule: k.rule(p, limit)}}, nil)
	return as[0]
}

func (k *oneKey) end(b *testing.B, sel registry.Selector) {
	ended, _ := k.End(context.Background(), sel, registry.Ending{Reason: reason.Logout})
	if len(ended.Holders) != 1 {
		b.Fatalf("ended %d streams, not one", len(ended.Holders))
	}
}
