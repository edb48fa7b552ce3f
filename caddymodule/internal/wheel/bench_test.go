package wheel_test

import (
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/internal/wheel"
)

const (
	benchEntries = 100_000
	benchPeriod  = 15 * time.Second
)

// idle is a visitor that has nothing to do.
type idle struct{ visits int }

func (v *idle) Visit(wheel.Tick) time.Duration {
	v.visits++
	return benchPeriod
}

// crowd is a Wheel that 100,000 have entered, spread over the period. Its
// timer does nothing.
func crowd(b *testing.B, in func() time.Duration) *wheel.Wheel {
	w := wheel.NewHeld()
	b.Cleanup(w.Close)
	for range benchEntries {
		w.Enter(new(idle), in())
	}
	return w
}

func spread() time.Duration { return rand.N(benchPeriod) }

// BenchmarkEnterLeave_100kEntered opens and closes a stream.
func BenchmarkEnterLeave_100kEntered(b *testing.B) {
	w, v := crowd(b, spread), new(idle)
	b.ReportAllocs()
	for b.Loop() {
		w.Enter(v, benchPeriod).Leave()
	}
}

// BenchmarkNow_100kEntered is what a relayed event pays.
func BenchmarkNow_100kEntered(b *testing.B) {
	w := crowd(b, spread)
	for b.Loop() {
		w.Now()
	}
}

// BenchmarkPeriod_100kEntered visits each of 100,000 once.
func BenchmarkPeriod_100kEntered(b *testing.B) {
	w := crowd(b, spread)
	w.Age(benchPeriod)
	for w.Step(benchPeriod) > 0 {
		continue
	}
	b.ReportAllocs()
	for b.Loop() {
		visits := 0
		for range benchPeriod / wheel.Precision {
			w.Age(wheel.Precision)
			for n := -1; n != 0; visits += n {
				n = w.Step(benchPeriod)
			}
		}
		if visits < benchEntries*99/100 {
			b.Fatalf("%d visits", visits)
		}
	}
}

// BenchmarkStep_100kDueAtOnce is how long the lock is held at most by a turn.
func BenchmarkStep_100kDueAtOnce(b *testing.B) {
	w := crowd(b, func() time.Duration { return time.Second })
	b.ReportAllocs()
	for b.Loop() {
		if n := w.Step(wheel.Precision); n == 0 {
			w.Age(wheel.Precision)
		}
	}
}

// BenchmarkEntry_Memory reports what an entry occupies, without its visitor.
func BenchmarkEntry_Memory(b *testing.B) {
	w, v := wheel.New(), new(idle)
	defer w.Close()
	before := heap()
	for b.Loop() {
		for range benchEntries {
			w.Enter(v, spread())
		}
	}
	b.ReportMetric(float64(heap()-before)/float64(w.Len()), "B/entry")
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
