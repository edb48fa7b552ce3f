package memory_test

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/registry/memory/zzexp"
)

// deaf is a handle that does nothing, so that only the registry is measured.
type deaf struct{}

func (deaf) End(registry.Ending)   {}
func (deaf) Gone() <-chan struct{} { return nil }

var newestWins = registry.Rule{Policy: registry.Supersede, Limit: 1, Unit: registry.Streams}

const benchHeld = 100_000

// manyStreams returns n streams, each with a key and a token of its own.
func manyStreams(n int) []*registry.Stream {
	rnd := rand.NewChaCha8([32]byte{1})
	streams := make([]*registry.Stream, n)
	for i := range streams {
		streams[i] = &registry.Stream{Key: randomID(rnd), Token: randomID(rnd), Handle: deaf{}}
	}
	return streams
}

func randomID(rnd *rand.ChaCha8) registry.ID {
	var id registry.ID
	for i := 0; i < len(id); i += 8 {
		binary.LittleEndian.PutUint64(id[i:], rnd.Uint64())
	}
	return id
}

// fullRegistry returns a registry in which the streams hold their keys.
func fullRegistry(b *testing.B, streams []*registry.Stream) *memory.Registry {
	r := memory.New()
	for _, s := range streams {
		hold(b, r, s, newestWins)
	}
	return r
}

func admit(r *memory.Registry, s *registry.Stream) registry.Place {
	p, _, _ := r.Reserve(context.Background(), s, newestWins)
	_, _ = p.Commit(context.Background())
	return p
}

// BenchmarkAdmitRelease_100kKeys opens and closes streams beside 100,000 held
// ones, each on a key that was never seen before.
func BenchmarkAdmitRelease_100kKeys(b *testing.B) {
	r := fullRegistry(b, manyStreams(benchHeld))
	rnd, s := rand.NewChaCha8([32]byte{2}), &registry.Stream{Handle: deaf{}}
	b.ReportAllocs()
	for b.Loop() {
		s.Key, s.Token = randomID(rnd), randomID(rnd)
		admit(r, s).Release()
	}
}

// BenchmarkAdmitRelease_100kKeysParallel does the same on all cores.
func BenchmarkAdmitRelease_100kKeysParallel(b *testing.B) {
	r := fullRegistry(b, manyStreams(benchHeld))
	var seeds atomic.Uint32
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		rnd := rand.NewChaCha8([32]byte{3, byte(seeds.Add(1))})
		s := &registry.Stream{Handle: deaf{}}
		for pb.Next() {
			s.Key, s.Token = randomID(rnd), randomID(rnd)
			admit(r, s).Release()
		}
	})
}

// BenchmarkTakeover ends one of 100,000 holders by a newcomer.
func BenchmarkTakeover(b *testing.B) {
	streams := manyStreams(benchHeld)
	r := fullRegistry(b, streams)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		admit(r, streams[i%benchHeld])
		i++
	}
}

// BenchmarkEndByToken_100kHeld logs one of 50,000 tokens out, two streams each,
// and lets its streams in again off the clock.
func BenchmarkEndByToken_100kHeld(b *testing.B) {
	streams := manyStreams(benchHeld)
	for i := 0; i < benchHeld; i += 2 {
		streams[i+1].Token = streams[i].Token
	}
	r := fullRegistry(b, streams)
	logout := registry.Ending{Reason: "logout"}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		n, _ := r.EndAll(context.Background(), registry.ByToken, streams[i].Token, logout)
		b.StopTimer()
		if n != 2 {
			b.Fatalf("ended %d streams, not 2", n)
		}
		admit(r, streams[i])
		admit(r, streams[i+1])
		i = (i + 2) % benchHeld
		b.StartTimer()
	}
}
