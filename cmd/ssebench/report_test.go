package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRow_JudgesItsGoal(t *testing.T) {
	p := &pairs{plain: []float64{10, 10, 10}, guarded: []float64{10, 10.5, 11}}
	for name, test := range map[string]struct {
		row    row
		goal   string
		result string
	}{
		"ratio met":         {ratioRow("x", "µs", p).atMost(1.05), "<= 1.05x", "met"},
		"ratio missed":      {ratioRow("x", "µs", p).atMost(1.02), "<= 1.02x", "missed"},
		"difference met":    {differenceRow("x", "KB", p).atMost(2), "<= +2 KB", "met"},
		"difference missed": {differenceRow("x", "KB", p).atMost(0.4), "<= +0.4 KB", "missed"},
		"value met":         {guardedRow("x", "ms", 5).atMost(5), "<= 5 ms", "met"},
		"value missed":      {guardedRow("x", "ms", 5.01).atMost(5), "<= 5 ms", "missed"},
		"nothing known":     {ratioRow("x", "µs", &pairs{}).atMost(1.05), "<= 1.05x", "missed"},
		"no goal":           {ratioRow("x", "µs", p), "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, test.goal, test.row.goal())
			assert.Equal(t, test.result, test.row.result())
		})
	}
}

func TestRow_Cells(t *testing.T) {
	p := &pairs{plain: []float64{80, 100}, guarded: []float64{81, 103}}
	assert.Equal(t, []string{"m", "90.0 KB", "92.0 KB", "+2.00 KB (+1.50 to +2.50)", "<= +2 KB", "met"},
		differenceRow("m", "KB", p).atMost(2).cells())
	assert.Equal(t, []string{"r", "90.0/s", "92.0/s", "1.021x (1.017 to 1.026)", "", ""},
		ratioRow("r", "/s", p).cells())
	assert.Equal(t, []string{"g", "-", "0.25", "-", "", ""}, guardedRow("g", "", 0.25).cells())
}

func TestNumber_ShowsThreeDigits(t *testing.T) {
	for v, want := range map[float64]string{0: "0.00", 0.254: "0.25", -3.456: "-3.46", 16.24: "16.2", 355.4: "355", 10842: "10842"} {
		assert.Equal(t, want, number(v))
	}
}

// sampleResults has one measurement of everything.
func sampleResults() *results {
	one := pairs{plain: []float64{100}, guarded: []float64{101}}
	lat := latencies{p50: []float64{1}, p99: []float64{2}, highest: []float64{3}}
	return &results{
		relayCPU: one, requestCPU: one, requestRate: one, rss: one, rssAsIs: one, heap: one, stacks: one,
		goroutines: one, openCPU: one, openTime: one, takeover: lat, firstByte: [2]latencies{lat, lat},
	}
}

func TestReport_TableIsMarkdownInColumns(t *testing.T) {
	opts, err := parseOptions(nil, discard{})
	require.NoError(t, err)
	var b strings.Builder
	rep := report{Environment: environment{System: "linux/amd64", Caddy: "v2"}, Options: opts.summary(), Rows: sampleResults().rows(opts)}
	require.NoError(t, rep.writeTable(&b))

	var table []string
	for line := range strings.Lines(b.String()) {
		if strings.HasPrefix(line, "|") {
			table = append(table, line)
		}
	}
	require.Len(t, table, 2+len(rep.Rows))
	for _, line := range table {
		assert.Equal(t, 7, strings.Count(line, "|"), line)
		assert.Len(t, []rune(line), len([]rune(table[0])), line)
	}
	assert.Equal(t, 4, strings.Count(b.String(), " met |"))
	assert.Contains(t, b.String(), "go test -run - -bench AdmitLeave ./caddymodule/registry/memory")
	assert.Contains(t, b.String(), "go test -run - -bench Relay -benchmem ./caddymodule/stream")
}

func TestReport_QuickRunJudgesNothing(t *testing.T) {
	opts, err := parseOptions([]string{"-quick"}, discard{})
	require.NoError(t, err)
	rows := sampleResults().rows(opts)
	goals := 0
	for _, r := range rows {
		if r.Goal != nil {
			goals++
			assert.Nil(t, r.Goal.Met, r.What)
			assert.Equal(t, "not judged", r.result())
		}
	}
	assert.Equal(t, 4, goals)
}

func TestReport_JSON(t *testing.T) {
	opts, err := parseOptions(nil, discard{})
	require.NoError(t, err)
	var b strings.Builder
	require.NoError(t, report{Options: opts.summary(), Rows: sampleResults().rows(opts)}.writeJSON(&b))
	var back report
	require.NoError(t, json.Unmarshal([]byte(b.String()), &back))
	require.NotEmpty(t, back.Rows)
	assert.Equal(t, "CPU per relayed event", back.Rows[0].What)
	assert.InDelta(t, 1.01, back.Rows[0].Against.Median, 1e-9)
	assert.True(t, *back.Rows[0].Goal.Met)
	assert.Equal(t, 5000, back.Options.Streams)
}
