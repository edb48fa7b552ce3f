package main

import (
	"math"
	"slices"
	"time"
)

// pairs are measurements of both sides that were taken in turn: the i-th of
// one belongs to the i-th of the other.
type pairs struct{ plain, guarded []float64 }

func (p *pairs) add(s side, value float64) {
	if s == guarded {
		p.guarded = append(p.guarded, value)
	} else {
		p.plain = append(p.plain, value)
	}
}

// compare applies f to each pair. What drifted between two pairs cancels.
func (p *pairs) compare(f func(plain, guarded float64) float64) spread {
	n := min(len(p.plain), len(p.guarded))
	values := make([]float64, n)
	for i := range n {
		values[i] = f(p.plain[i], p.guarded[i])
	}
	return spreadOf(values)
}

func ratio(plain, guarded float64) float64      { return guarded / plain }
func difference(plain, guarded float64) float64 { return guarded - plain }

// spread is a median and the quartiles around it: half of all values lie
// between Low and High.
type spread struct {
	Median float64 `json:"median"`
	Low    float64 `json:"low"`
	High   float64 `json:"high"`
}

func spreadOf(values []float64) spread {
	return spread{Median: median(values), Low: quantile(values, 0.25), High: quantile(values, 0.75)}
}

func median(values []float64) float64 { return quantile(values, 0.5) }

// quantile is the value that the share q of values does not exceed, linearly
// between the two nearest ones; NaN if there are none.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	at := q * float64(len(sorted)-1)
	below := int(at)
	above := min(below+1, len(sorted)-1)
	return sorted[below] + (at-float64(below))*(sorted[above]-sorted[below])
}

// latencies are those of each round.
type latencies struct{ p50, p99, highest []float64 }

// add adds a round's.
func (l *latencies) add(values []float64) {
	l.p50 = append(l.p50, median(values))
	l.p99 = append(l.p99, quantile(values, 0.99))
	l.highest = append(l.highest, quantile(values, 1))
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
