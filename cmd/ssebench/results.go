package main

import (
	"fmt"
	"slices"
)

// results are all measurements of a run, in the units of their rows.
type results struct {
	relayCPU                 pairs // per slice
	requestCPU               pairs
	requestRate              pairs
	rss, rssAsIs             pairs // per round
	heap, stacks, goroutines pairs
	openCPU, openTime        pairs
	takeover                 latencies
	firstByte                [2]latencies // by side
}

// rows are the lines of the report.
func (r *results) rows(o options) []row {
	held := fmt.Sprintf("%d streams held", o.streams)
	told := "event at the superseded client"
	first := "newcomer's first byte"
	rows := []row{
		ratioRow("CPU per relayed event", "µs", &r.relayCPU).atMost(1.05),
		differenceRow("RSS per idle stream", "KB", &r.rss).atMost(2),
		differenceRow("RSS per idle stream, garbage included", "KB", &r.rssAsIs),
		differenceRow("heap per idle stream", "KB", &r.heap),
		differenceRow("goroutine stacks per idle stream", "KB", &r.stacks),
		differenceRow("goroutines per idle stream", "", &r.goroutines),
		ratioRow("CPU per opened stream", "µs", &r.openCPU),
		ratioRow(fmt.Sprintf("time to open %d streams", o.streams), "s", &r.openTime),
		guardedRow(fmt.Sprintf("%s, p50, %s", told, held), "ms", median(r.takeover.p50)),
		guardedRow(fmt.Sprintf("%s, p99, %s", told, held), "ms", median(r.takeover.p99)).atMost(5),
		guardedRow(fmt.Sprintf("%s, highest, %s", told, held), "ms", slices.Max(r.takeover.highest)),
		differenceRow(fmt.Sprintf("%s, p50, %s", first, held), "ms", &pairs{r.firstByte[plain].p50, r.firstByte[guarded].p50}),
		differenceRow(fmt.Sprintf("%s, p99, %s", first, held), "ms", &pairs{r.firstByte[plain].p99, r.firstByte[guarded].p99}),
		ratioRow("CPU per non-SSE request", "µs", &r.requestCPU).atMost(1.02),
		ratioRow("non-SSE requests per second", "/s", &r.requestRate),
	}
	for _, row := range rows {
		if o.quick && row.Goal != nil {
			row.Goal.Met = nil
		}
	}
	return rows
}
