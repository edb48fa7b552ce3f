package contest_test

import (
	"encoding/binary"
	"strconv"
	"testing"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/contest"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// BenchmarkRejected_SameKey counts refusals of one key among as many as are
// known at most.
func BenchmarkRejected_SameKey(b *testing.B) {
	l, key := full(b), id("key")
	b.ReportAllocs()
	for b.Loop() {
		l.Rejected(key, ignore)
	}
}

// BenchmarkRejected_NewKeys has each refusal forget the oldest key.
func BenchmarkRejected_NewKeys(b *testing.B) {
	l := full(b)
	b.ReportAllocs()
	for i := contest.MaxKeys; b.Loop(); i++ {
		l.Rejected(numbered(i), ignore)
	}
}

// BenchmarkTakenOver has five clients fight for one key among as many as are
// known at most.
func BenchmarkTakenOver(b *testing.B) {
	l, key := full(b), id("key")
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		l.TakenOver(key, strconv.Itoa(i%5), 5, time.Minute)
	}
}

func full(b *testing.B) *contest.Log {
	l := contest.New()
	b.Cleanup(l.Close)
	for i := range contest.MaxKeys {
		l.Rejected(numbered(i), ignore)
		l.TakenOver(numbered(i), "addr", 5, time.Minute)
	}
	return l
}

func ignore(int) {}

func numbered(i int) registry.ID {
	var id registry.ID
	binary.LittleEndian.PutUint64(id[:], uint64(i))
	return id
}
