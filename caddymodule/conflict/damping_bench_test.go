package conflict_test

import (
	"encoding/binary"
	"testing"

	"github.com/sse-guard/sse-guard/caddymodule/conflict"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

const userAgent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36"

func numbered(i int) registry.ID {
	var id registry.ID
	binary.LittleEndian.PutUint64(id[:], uint64(i))
	return id
}

func loss(key registry.ID, name string) conflict.Loss {
	return lost(newcomer(key, name), newcomer(key, "by"), func() bool { return false })
}

// fullDamping knows as many keys as can be, numbered from 0, with a loss each.
func fullDamping() *conflict.Damping {
	d := conflict.NewDamping()
	for i := range conflict.MaxKeys {
		d.Lost(loss(numbered(i), "a"))
	}
	return d
}

func nobody(registry.StreamID) bool { return false }

// BenchmarkFlaps_Uncontested is what a newcomer pays whose key nobody lost.
func BenchmarkFlaps_Uncontested(b *testing.B) {
	d, h := fullDamping(), newcomer(id("key"), "a")
	b.ReportAllocs()
	for b.Loop() {
		d.Flaps(h, false, nobody, usual)
	}
}

// BenchmarkFlaps_UncontestedParallel has all cores ask so.
func BenchmarkFlaps_UncontestedParallel(b *testing.B) {
	d := fullDamping()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		h := newcomer(id("key"), "a")
		for pb.Next() {
			d.Flaps(h, false, nobody, usual)
		}
	})
}

// BenchmarkFlaps_AnotherClient asks about a key that others lost.
func BenchmarkFlaps_AnotherClient(b *testing.B) {
	d, h := fullDamping(), newcomer(numbered(1), "b")
	b.ReportAllocs()
	for b.Loop() {
		d.Flaps(h, false, nobody, usual)
	}
}

// BenchmarkFlaps_Contested asks about a key that went to and fro as often as is
// remembered.
func BenchmarkFlaps_Contested(b *testing.B) {
	d, last := fullDamping(), newcomer(id("key"), "a")
	for range conflict.MaxLosses {
		next := newcomer(last.Key, "a")
		d.Lost(lost(last, next, func() bool { return false }))
		last = next
	}
	h, holder := newcomer(last.Key, "a"), last.ID
	b.ReportAllocs()
	for b.Loop() {
		d.Flaps(h, false, func(s registry.StreamID) bool { return s == holder }, usual)
	}
}

// BenchmarkLost_NewKeys has each loss forget another key.
func BenchmarkLost_NewKeys(b *testing.B) {
	d, loser, by := fullDamping(), newcomer(id("key"), "a"), newcomer(id("key"), "b")
	b.ReportAllocs()
	for i := conflict.MaxKeys; b.Loop(); i++ {
		loser.Key = numbered(i)
		d.Lost(lost(loser, by, nil))
	}
}

// BenchmarkFingerprint is what every newcomer pays.
func BenchmarkFingerprint(b *testing.B) {
	h := &registry.Holder{Token: id("token"), Addr: "192.0.2.123"}
	b.ReportAllocs()
	for b.Loop() {
		conflict.Fingerprint(h, userAgent)
	}
}
