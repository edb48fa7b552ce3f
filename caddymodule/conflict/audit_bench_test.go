package conflict_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/conflict"
)

// BenchmarkRejected_SameKey counts refusals of one key among as many as are
// known at most.
func BenchmarkRejected_SameKey(b *testing.B) {
	l, key := fullAudit(b), id("key")
	b.ReportAllocs()
	for b.Loop() {
		l.Rejected(key, ignore)
	}
}

// BenchmarkRejected_NewKeys has each refusal forget the oldest key.
func BenchmarkRejected_NewKeys(b *testing.B) {
	l := fullAudit(b)
	b.ReportAllocs()
	for i := conflict.MaxKeys; b.Loop(); i++ {
		l.Rejected(numbered(i), ignore)
	}
}

// BenchmarkTakenOver has five clients take one key over in turn among as many as are
// known at most.
func BenchmarkTakenOver(b *testing.B) {
	l, key := fullAudit(b), id("key")
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		l.TakenOver(key, strconv.Itoa(i%5), 5, time.Minute)
	}
}

func fullAudit(b *testing.B) *conflict.Audit {
	l := conflict.NewAudit()
	b.Cleanup(l.Close)
	for i := range conflict.MaxKeys {
		l.Rejected(numbered(i), ignore)
		l.TakenOver(numbered(i), "addr", 5, time.Minute)
	}
	return l
}

func ignore(int) {}
