package memory_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/registry/memory"
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
	benchEndAll(b, streams, registry.ByToken, func(s *registry.Stream) registry.ID { return s.Token })
}

// BenchmarkEndBySubject_100kHeld does the same with one of 50,000 subjects.
func BenchmarkEndBySubject_100kHeld(b *testing.B) {
	streams := manyStreams(benchHeld)
	rnd := rand.NewChaCha8([32]byte{4})
	for i := 0; i < benchHeld; i += 2 {
		streams[i].Subject = randomID(rnd)
		streams[i+1].Subject = streams[i].Subject
	}
	benchEndAll(b, streams, registry.BySubject, func(s *registry.Stream) registry.ID { return s.Subject })
}

// benchEndAll ends pairs of streams which have the same id.
func benchEndAll(b *testing.B, streams []*registry.Stream, index registry.Index, id func(*registry.Stream) registry.ID) {
	r := fullRegistry(b, streams)
	logout := registry.Ending{Reason: registry.Logout}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		ended, _ := r.EndAll(context.Background(), index, id(streams[i]), logout)
		b.StopTimer()
		if len(ended) != 2 {
			b.Fatalf("ended %d streams, not 2", len(ended))
		}
		admit(r, streams[i])
		admit(r, streams[i+1])
		i = (i + 2) % len(streams)
		b.StartTimer()
	}
}

const benchDenials = 100_000

// denyMany puts denials in force, a third of each kind.
func denyMany(b *testing.B, r *memory.Registry, n int) {
	rnd := rand.NewChaCha8([32]byte{5})
	until := time.Now().Add(time.Hour)
	ds := make([]registry.Denial, n)
	for i := range ds {
		ds[i] = registry.Denial{Until: until.Add(time.Duration(rnd.Uint64() % uint64(time.Hour)))}
		switch i % 3 {
		case 0:
			ds[i].Token = randomID(rnd)
		case 1:
			ds[i].Token, ds[i].Client = randomID(rnd), randomID(rnd)
		default:
			ds[i].Subject, ds[i].IssuedBefore = randomID(rnd), until
		}
	}
	deny(b, r, ds...)
}

// BenchmarkAdmitRelease_100kKeys100kDenials opens and closes streams that are
// not denied, though many are.
func BenchmarkAdmitRelease_100kKeys100kDenials(b *testing.B) {
	r := fullRegistry(b, manyStreams(benchHeld))
	denyMany(b, r, benchDenials)
	rnd, s := rand.NewChaCha8([32]byte{2}), &registry.Stream{Handle: deaf{}}
	b.ReportAllocs()
	for b.Loop() {
		s.Key, s.Token = randomID(rnd), randomID(rnd)
		admit(r, s).Release()
	}
}

// BenchmarkDenied asks about streams with everything that could be denied.
func BenchmarkDenied(b *testing.B) {
	for _, n := range []int{0, 1, benchDenials} {
		b.Run(fmt.Sprintf("%dDenials", n), func(b *testing.B) {
			r := memory.New()
			denyMany(b, r, n)
			streams := strangers(1 << 12)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if found, _ := r.Denied(context.Background(), streams[i%len(streams)]); found {
					b.Fatal("a stranger is denied")
				}
				i++
			}
		})
	}
}

// BenchmarkDenied_100kDenialsParallel does the same on all cores.
func BenchmarkDenied_100kDenialsParallel(b *testing.B) {
	r := memory.New()
	denyMany(b, r, benchDenials)
	streams := strangers(1 << 12)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			_, _ = r.Denied(context.Background(), streams[i%len(streams)])
		}
	})
}

// strangers returns n streams that have everything that could be denied.
func strangers(n int) []*registry.Stream {
	rnd := rand.NewChaCha8([32]byte{6})
	streams := manyStreams(n)
	for _, s := range streams {
		s.Client, s.Subject, s.IssuedAt = randomID(rnd), randomID(rnd), time.Now()
	}
	return streams
}

// BenchmarkDeny_100kDenials denies one token after the other. There are soon too
// many, so that each makes another go.
func BenchmarkDeny_100kDenials(b *testing.B) {
	r := memory.New()
	denyMany(b, r, benchDenials)
	rnd := rand.NewChaCha8([32]byte{7})
	until := time.Now().Add(time.Hour)
	b.ReportAllocs()
	for b.Loop() {
		until = until.Add(time.Millisecond)
		_ = r.Deny(context.Background(), registry.Denial{Token: randomID(rnd), Until: until})
	}
}
