package main

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestQuantile_LiesBetweenTheNearestValues(t *testing.T) {
	for name, test := range map[string]struct {
		values []float64
		q      float64
		want   float64
	}{
		"one value is every quantile": {[]float64{7}, 0.99, 7},
		"median of an odd number":     {[]float64{9, 1, 5}, 0.5, 5},
		"median of an even number":    {[]float64{4, 1, 2, 3}, 0.5, 2.5},
		"a quarter of the way":        {[]float64{10, 20, 30, 40, 50}, 0.25, 20},
		"between two values":          {[]float64{0, 10}, 0.99, 9.9},
		"all of them":                 {[]float64{3, 8, 1}, 1, 8},
		"repeated values are as good": {[]float64{2, 2, 2, 9}, 0.5, 2},
	} {
		t.Run(name, func(t *testing.T) {
			assert.InDelta(t, test.want, quantile(test.values, test.q), 1e-9)
		})
	}
	assert.True(t, math.IsNaN(quantile(nil, 0.5)), "of nothing")
}

func TestQuantile_LeavesTheOrderOfMeasurements(t *testing.T) {
	values := []float64{3, 1, 2}
	quantile(values, 0.5)
	assert.Equal(t, []float64{3, 1, 2}, values)
}

func TestCompare_CancelsWhatDriftsBetweenPairs(t *testing.T) {
	var p pairs
	for _, drift := range []float64{1, 5, 2, 40} { // the machine gets slower and faster
		p.add(plain, 10*drift)
		p.add(guarded, 11*drift)
	}
	s := p.compare(ratio)
	assert.InDelta(t, 1.1, s.Median, 1e-9)
	assert.InDelta(t, 1.1, s.Low, 1e-9)
	assert.InDelta(t, 1.1, s.High, 1e-9)
}

func TestCompare_Difference(t *testing.T) {
	p := pairs{plain: []float64{80, 81, 90}, guarded: []float64{82, 82, 93}}
	assert.Equal(t, spread{Median: 2, Low: 1.5, High: 2.5}, p.compare(difference))
}

func TestLatencies_AreKeptByRound(t *testing.T) {
	var l latencies
	l.add([]float64{1, 2, 3})
	l.add([]float64{5, 5, 50})
	assert.Equal(t, []float64{2, 5}, l.p50)
	assert.InDeltaSlice(t, []float64{2.98, 49.1}, l.p99, 1e-9)
	assert.Equal(t, []float64{3, 50}, l.highest)
}

func TestUnitsOfTime(t *testing.T) {
	assert.InDelta(t, 1500, micros(1500*time.Microsecond), 0)
	assert.InDelta(t, 1.5, millis(1500*time.Microsecond), 0)
}

func TestShare_AddsUp(t *testing.T) {
	for _, test := range []struct{ total, n int }{{50, 2}, {1000, 16}, {7, 3}, {5, 5}} {
		sum := 0
		for i := range test.n {
			part := share(test.total, test.n, i)
			assert.GreaterOrEqual(t, part, test.total/test.n)
			sum += part
		}
		assert.Equal(t, test.total, sum)
	}
}

func TestWithin(t *testing.T) {
	assert.True(t, within(101, 100, 0.01))
	assert.True(t, within(99, 100, 0.01))
	assert.False(t, within(102, 100, 0.01))
	assert.False(t, within(98, 100, 0.01))
}
