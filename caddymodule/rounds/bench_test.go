package rounds_test

import (
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/rounds"
)

const (
	benchEntries = 100_000
	benchPeriod  = 15 * time.Second
)

// idle is a visitor that has nothing to do.
type idle struct{ visits int }

func (v *idle) Visit(rounds.Tick) time.Duration {
	v.visits++
	return benchPeriod
}

// crowd is Rounds that 100,000 have entered, spread over the period. The timer is
// held.
func crowd(b *testing.B, in func() time.Duration) *rounds.Rounds {
	r := rounds.New()
	b.Cleanup(r.Close)
	for range benchEntries {
		r.Enter(new(idle), in())
	}
	r.Hold()
	return r
}

func spread() time.Duration { return rand.N(benchPeriod) }

// BenchmarkEnterLeave_100kEntered opens and closes a stream.
func BenchmarkEnterLeave_100kEntered(b *testing.B) {
	r, v := crowd(b, spread), new(idle)
	b.ReportAllocs()
	for b.Loop() {
		r.Enter(v, benchPeriod).Leave()
	}
}

// BenchmarkNow_100kEntered is what a relayed event pays.
func BenchmarkNow_100kEntered(b *testing.B) {
	r := crowd(b, spread)
	for b.Loop() {
		r.Now()
	}
}

// BenchmarkPeriod_100kEntered visits each of 100,000 once.
func BenchmarkPeriod_100kEntered(b *testing.B) {
	r := crowd(b, spread)
	r.Age(benchPeriod)
	for r.Step(benchPeriod) > 0 {
		continue
	}
	b.ReportAllocs()
	for b.Loop() {
		visits := 0
		for range benchPeriod / rounds.Precision {
			r.Age(rounds.Precision)
			for n := -1; n != 0; visits += n {
				n = r.Step(benchPeriod)
			}
		}
		if visits < benchEntries*99/100 {
			b.Fatalf("%d visits", visits)
		}
	}
}

// BenchmarkStep_100kDueAtOnce is how long the lock is held at most by a round.
func BenchmarkStep_100kDueAtOnce(b *testing.B) {
	r := crowd(b, func() time.Duration { return time.Second })
	b.ReportAllocs()
	for b.Loop() {
		if n := r.Step(rounds.Precision); n == 0 {
			r.Age(rounds.Precision)
		}
	}
}

// BenchmarkEach_100kEntered lists them, and holds the lock meanwhile.
func BenchmarkEach_100kEntered(b *testing.B) {
	r := crowd(b, spread)
	b.ReportAllocs()
	for b.Loop() {
		r.Each(func(rounds.Visitor) bool { return true })
	}
}

// BenchmarkEntry_Memory reports what an entry occupies, without its visitor.
func BenchmarkEntry_Memory(b *testing.B) {
	r, v := rounds.New(), new(idle)
	defer r.Close()
	before := heap()
	for b.Loop() {
		for range benchEntries {
			r.Enter(v, spread())
		}
	}
	b.ReportMetric(float64(heap()-before)/float64(r.Len()), "B/entry")
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
