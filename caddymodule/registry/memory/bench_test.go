package memory_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/registry/memory"
)

// deaf is a node that does nothing, so that only the registry is measured.
type deaf struct{ registry.Node }

func (deaf) End(registry.StreamID, registry.Ending) {}

var newestWins = registry.Rule{Policy: registry.Supersede, Limit: 1, Unit: registry.Streams}

const benchHeld = 100_000

// manyStreams returns n streams, each with a key and a token of its own.
func manyStreams(n int) []*registry.Holder {
	rnd := rand.NewChaCha8([32]byte{1})
	streams := make([]*registry.Holder, n)
	for i := range streams {
		streams[i] = &registry.Holder{ID: registry.NewStreamID(), Key: randomID(rnd), Token: randomID(rnd)}
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

// rename makes h another stream, of a key and a token that were never seen before.
func rename(h *registry.Holder, rnd *rand.ChaCha8) {
	h.Key, h.Token = randomID(rnd), randomID(rnd)
	copy(h.ID[:], h.Key[:])
}

// fullRegistry returns a registry in which the streams hold their keys.
func fullRegistry(b *testing.B, streams []*registry.Holder) *memory.Registry {
	r := memory.New(deaf{})
	b.Cleanup(func() { _ = r.Close() })
	for _, h := range streams {
		admit(r, h)
	}
	return r
}

func admit(r *memory.Registry, h *registry.Holder) registry.Place {
	return admitAll(r, []registry.Ask{{Holder: h, Rule: newestWins}})
}

func admitAll(r *memory.Registry, asks []registry.Ask) registry.Place {
	as, _ := r.Admit(context.Background(), registry.Header, registry.Consent{}, asks, nil)
	return as[0].Place
}

// openAndClose admits a stream that was never seen before, and has it leave.
func openAndClose(r *memory.Registry, rnd *rand.ChaCha8, asks []registry.Ask) {
	rename(asks[0].Holder, rnd)
	p := admitAll(r, asks)
	p.Leave(registry.Keep{})
	p.Departed()
}

// oneAsk returns the question of a stream that is yet to be named.
func oneAsk() []registry.Ask { return []registry.Ask{{Holder: new(registry.Holder), Rule: newestWins}} }

// BenchmarkAdmitLeave_100kKeys opens and closes streams beside 100,000 held
// ones, each on a key that was never seen before.
func BenchmarkAdmitLeave_100kKeys(b *testing.B) {
	r := fullRegistry(b, manyStreams(benchHeld))
	rnd, asks := rand.NewChaCha8([32]byte{2}), oneAsk()
	b.ReportAllocs()
	for b.Loop() {
		openAndClose(r, rnd, asks)
	}
}

// BenchmarkAdmitLeave_100kKeysParallel does the same on all cores.
func BenchmarkAdmitLeave_100kKeysParallel(b *testing.B) {
	r := fullRegistry(b, manyStreams(benchHeld))
	var seeds atomic.Uint32
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		rnd := rand.NewChaCha8([32]byte{3, byte(seeds.Add(1))})
		asks := oneAsk()
		for pb.Next() {
			openAndClose(r, rnd, asks)
		}
	})
}

// BenchmarkEarly_100kKeys asks before the upstream is, for a key that nobody holds.
func BenchmarkEarly_100kKeys(b *testing.B) {
	r := fullRegistry(b, manyStreams(benchHeld))
	rnd, asks := rand.NewChaCha8([32]byte{2}), oneAsk()
	b.ReportAllocs()
	for b.Loop() {
		rename(asks[0].Holder, rnd)
		_, _ = r.Admit(context.Background(), registry.Early, registry.Consent{SameToken: true}, asks, nil)
	}
}

// BenchmarkTakeover ends one of 100,000 holders by a newcomer.
func BenchmarkTakeover(b *testing.B) {
	streams := manyStreams(benchHeld)
	r := fullRegistry(b, nil)
	places := make([]registry.Place, len(streams))
	for i, h := range streams {
		places[i] = admit(r, h)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		old := places[i%benchHeld]
		places[i%benchHeld] = admit(r, streams[i%benchHeld])
		old.Leave(registry.Keep{})
		old.Departed()
		i++
	}
}

// BenchmarkKeepAndComeBack has one of 100,000 clients leave and come back.
func BenchmarkKeepAndComeBack(b *testing.B) {
	rnd := rand.NewChaCha8([32]byte{8})
	streams := manyStreams(benchHeld)
	for _, h := range streams {
		h.Fingerprint = randomID(rnd)
	}
	r := fullRegistry(b, nil)
	places := make([]registry.Place, len(streams))
	for i, h := range streams {
		places[i] = admit(r, h)
		if i%2 == 0 {
			places[i].Leave(registry.Keep{For: time.Hour})
			places[i].Departed()
		}
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		p := admit(r, streams[i])
		p.Leave(registry.Keep{For: time.Hour})
		p.Departed()
		i = (i + 2) % benchHeld
	}
}

// BenchmarkEndByToken_100kHeld logs one of 50,000 tokens out, two streams each,
// and lets its streams in again off the clock.
func BenchmarkEndByToken_100kHeld(b *testing.B) {
	streams := manyStreams(benchHeld)
	for i := 0; i < benchHeld; i += 2 {
		streams[i+1].Token = streams[i].Token
	}
	benchEnd(b, streams, 2, func(h *registry.Holder) registry.Selector { return registry.Selector{Token: h.Token} })
}

// BenchmarkEndBySubject_100kHeld does the same with one of 50,000 subjects.
func BenchmarkEndBySubject_100kHeld(b *testing.B) {
	streams := manyStreams(benchHeld)
	rnd := rand.NewChaCha8([32]byte{4})
	for i := 0; i < benchHeld; i += 2 {
		streams[i].Subject = randomID(rnd)
		streams[i+1].Subject = streams[i].Subject
	}
	benchEnd(b, streams, 2, func(h *registry.Holder) registry.Selector { return registry.Selector{Subject: h.Subject} })
}

// BenchmarkEndByID_100kHeld ends one stream of 100,000.
func BenchmarkEndByID_100kHeld(b *testing.B) {
	benchEnd(b, manyStreams(benchHeld), 1, func(h *registry.Holder) registry.Selector { return registry.Selector{ID: h.ID} })
}

// benchEnd ends so many streams at once, all of which the selector of the first
// names.
func benchEnd(b *testing.B, streams []*registry.Holder, n int, selector func(*registry.Holder) registry.Selector) {
	r := fullRegistry(b, nil)
	places := make([]registry.Place, len(streams))
	for i, h := range streams {
		places[i] = admit(r, h)
	}
	logout := registry.Ending{Reason: reason.Logout}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		ended, _ := r.End(context.Background(), selector(streams[i]), logout)
		b.StopTimer()
		if len(ended.Holders) != n {
			b.Fatalf("ended %d streams, not %d", len(ended.Holders), n)
		}
		for j := i; j < i+n; j++ {
			places[j].Departed()
			places[j] = admit(r, streams[j])
		}
		i = (i + n) % len(streams)
		b.StartTimer()
	}
}

// BenchmarkFindPage_100kHeld lists a page of a hundred, of all streams there are.
func BenchmarkFindPage_100kHeld(b *testing.B) {
	streams := manyStreams(benchHeld)
	for _, h := range streams {
		h.Token = streams[0].Token
	}
	r := fullRegistry(b, streams)
	for name, sel := range map[string]registry.Selector{"All": {All: true}, "OneToken": {Token: streams[0].Token}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			cursor := ""
			for b.Loop() {
				_, cursor, _ = r.Find(context.Background(), sel, cursor, 100)
			}
		})
	}
}

// BenchmarkRejected_2000Holders refuses a newcomer of a key with 2,000 holders.
func BenchmarkRejected_2000Holders(b *testing.B) {
	r := fullRegistry(b, nil)
	streams := manyStreams(2001)
	asks := []registry.Ask{{Rule: registry.Rule{Policy: registry.Reject, Limit: 2000, Unit: registry.Streams}}}
	for _, h := range streams {
		h.Key = streams[0].Key
		asks[0].Holder = h
		_, _ = r.Admit(context.Background(), registry.Header, registry.Consent{}, asks, nil)
	}
	b.ReportAllocs()
	for b.Loop() {
		_, _ = r.Admit(context.Background(), registry.Header, registry.Consent{}, asks, nil)
	}
}

// List lists nothing: what a node's list costs is the node's.
func (deaf) List(context.Context, registry.Filter, string, int) ([]registry.Row, string, error) {
	return nil, "", nil
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
	if err := r.Deny(context.Background(), ds...); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkAdmitLeave_100kKeys100kDenials opens and closes streams that are
// not denied, though many are.
func BenchmarkAdmitLeave_100kKeys100kDenials(b *testing.B) {
	r := fullRegistry(b, manyStreams(benchHeld))
	denyMany(b, r, benchDenials)
	rnd, asks := rand.NewChaCha8([32]byte{2}), oneAsk()
	b.ReportAllocs()
	for b.Loop() {
		openAndClose(r, rnd, asks)
	}
}

// BenchmarkDenied asks about streams with everything that could be denied.
func BenchmarkDenied(b *testing.B) {
	for _, n := range []int{0, 1, benchDenials} {
		b.Run(fmt.Sprintf("%dDenials", n), func(b *testing.B) {
			r := fullRegistry(b, nil)
			denyMany(b, r, n)
			streams := strangers(1 << 12)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if r.Denied(streams[i%len(streams)]) {
					b.Fatal("a stranger is denied")
				}
				i++
			}
		})
	}
}

// BenchmarkDenied_100kDenialsParallel does the same on all cores.
func BenchmarkDenied_100kDenialsParallel(b *testing.B) {
	r := fullRegistry(b, nil)
	denyMany(b, r, benchDenials)
	streams := strangers(1 << 12)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			_ = r.Denied(streams[i%len(streams)])
		}
	})
}

// strangers returns n streams that have everything that could be denied.
func strangers(n int) []*registry.Holder {
	rnd := rand.NewChaCha8([32]byte{6})
	streams := manyStreams(n)
	for _, h := range streams {
		h.Client, h.Subject, h.IssuedAt = randomID(rnd), randomID(rnd), time.Now()
	}
	return streams
}

// BenchmarkDeny_100kDenials denies one token after the other. There are soon too
// many, so that each makes another go.
func BenchmarkDeny_100kDenials(b *testing.B) {
	r := fullRegistry(b, nil)
	denyMany(b, r, benchDenials)
	rnd := rand.NewChaCha8([32]byte{7})
	until := time.Now().Add(time.Hour)
	b.ReportAllocs()
	for b.Loop() {
		until = until.Add(time.Millisecond)
		_ = r.Deny(context.Background(), registry.Denial{Token: randomID(rnd), Until: until})
	}
}
