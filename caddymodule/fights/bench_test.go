package fights_test

import (
	"encoding/binary"
	"testing"

	"github.com/sse-guard/sse-guard/caddymodule/fights"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

const userAgent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36"

func numbered(i int) registry.ID {
	var id registry.ID
	binary.LittleEndian.PutUint64(id[:], uint64(i))
	return id
}

func loss(key registry.ID, party string) fights.Loss {
	return fights.Loss{Stream: &registry.Stream{Key: key}, By: &registry.Stream{Key: key}, Party: id(party), Gone: func() bool { return false }}
}

// full knows as many keys as can be, numbered from 0, with a loss each.
func full() *fights.Fights {
	f := fights.New()
	for i := range fights.MaxKeys {
		f.Superseded(loss(numbered(i), "a"))
	}
	return f
}

func nobody(*registry.Stream) bool { return false }

// BenchmarkFlaps_Uncontested is what a newcomer pays whose key nobody lost.
func BenchmarkFlaps_Uncontested(b *testing.B) {
	f, s, party := full(), &registry.Stream{Key: id("key")}, id("a")
	b.ReportAllocs()
	for b.Loop() {
		f.Flaps(s, party, nobody, usual)
	}
}

// BenchmarkFlaps_UncontestedParallel has all cores ask so.
func BenchmarkFlaps_UncontestedParallel(b *testing.B) {
	f, party := full(), id("a")
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		s := &registry.Stream{Key: id("key")}
		for pb.Next() {
			f.Flaps(s, party, nobody, usual)
		}
	})
}

// BenchmarkFlaps_AnotherParty asks about a key that others lost.
func BenchmarkFlaps_AnotherParty(b *testing.B) {
	f, s, party := full(), &registry.Stream{Key: numbered(1)}, id("b")
	b.ReportAllocs()
	for b.Loop() {
		f.Flaps(s, party, nobody, usual)
	}
}

// BenchmarkFlaps_Contested asks about a key that went to and fro as often as is
// remembered.
func BenchmarkFlaps_Contested(b *testing.B) {
	f, last := full(), &registry.Stream{Key: id("key")}
	for range fights.MaxLosses {
		l := loss(last.Key, "a")
		l.Stream, last = last, l.By
		f.Superseded(l)
	}
	s, party, holder := &registry.Stream{Key: last.Key}, id("a"), last
	b.ReportAllocs()
	for b.Loop() {
		f.Flaps(s, party, func(s *registry.Stream) bool { return s == holder }, usual)
	}
}

// BenchmarkSuperseded_NewKeys has each loss forget another key.
func BenchmarkSuperseded_NewKeys(b *testing.B) {
	f, party := full(), id("a")
	b.ReportAllocs()
	for i := fights.MaxKeys; b.Loop(); i++ {
		key := numbered(i)
		f.Superseded(fights.Loss{Stream: &registry.Stream{Key: key}, By: &registry.Stream{Key: key}, Party: party})
	}
}

// BenchmarkParty is what every newcomer pays.
func BenchmarkParty(b *testing.B) {
	s := &registry.Stream{Token: id("token"), Addr: "192.0.2.123"}
	b.ReportAllocs()
	for b.Loop() {
		fights.Party(s, userAgent)
	}
}
