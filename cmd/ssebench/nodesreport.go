package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// nodesReport is what a run with -nodes prints.
type nodesReport struct {
	Environment environment `json:"environment"`
	Quick       bool        `json:"quick"`
	Rows        []nodesRow  `json:"rows"`

	opts options
}

// nodesRow is one line of it. What a side does not have is nil.
type nodesRow struct {
	What  string   `json:"what"`
	Unit  string   `json:"unit,omitempty"`
	One   *float64 `json:"one_node_memory,omitempty"`
	Nodes *float64 `json:"nodes_redis,omitempty"`
	// Goal is what the value of the nodes is to be at most; nil: there is no budget.
	Goal *goal `json:"goal,omitempty"`
}

func nodesRows(o options, one, nodes nodesRun) []nodesRow {
	both := func(what, unit string, value func(*nodesRun) float64) nodesRow {
		return nodesRow{What: what, Unit: unit, One: new(value(&one)), Nodes: new(value(&nodes))}
	}
	shared := func(what, unit string, value float64) nodesRow {
		return nodesRow{What: what, Unit: unit, Nodes: &value}
	}
	atMost := func(limit float64, r nodesRow) nodesRow {
		r.Goal = &goal{AtMost: limit}
		if !o.quick {
			r.Goal.Met = new(*r.Nodes <= limit)
		}
		return r
	}
	told := func(q float64) func(*nodesRun) float64 {
		return func(r *nodesRun) float64 { return quantile(r.told, q) }
	}
	answered := func(q float64) func(*nodesRun) float64 {
		return func(r *nodesRun) float64 { return quantile(r.answered, q) }
	}
	takeovers := func(perSecond float64) float64 { return perSecond / nodes.done }
	const percent = 100
	rows := []nodesRow{
		both("event at the superseded client, p50", "ms", told(0.5)),
		atMost(5, both("event at the superseded client, p99", "ms", told(0.99))),
		both("event at the superseded client, highest", "ms", told(1)),
		both("newcomer's first byte, p50", "ms", answered(0.5)),
		both("newcomer's first byte, p99", "ms", answered(0.99)),
		both("takeovers a second", "/s", func(r *nodesRun) float64 { return r.done }),
		both("CPU of all nodes per takeover", "µs", func(r *nodesRun) float64 { return micros(r.nodesCPU) }),
		shared("CPU of Redis per takeover", "µs", takeovers(nodes.redis.cores)*1e6),
		shared("CPU of Redis, share of a core", "%", percent*nodes.redis.cores),
		shared("scripts that Redis runs, per takeover", "", takeovers(nodes.redis.scripts-nodes.redisIdle.scripts)),
		shared("commands of Redis, those in scripts included", "/s", nodes.redis.commands),
		atMost(float64(50*o.nodes), shared("nothing happens: scripts that Redis runs", "/s", nodes.redisIdle.scripts)),
		shared("nothing happens: CPU of Redis, share of a core", "%", percent*nodes.redisIdle.cores),
		both("nothing happens: CPU of all nodes, share of a core", "%", func(r *nodesRun) float64 { return percent * r.nodesIdleCPU }),
		atMost(300, shared("memory of Redis per stream", "bytes", nodes.redisMemory)),
		both("RSS of the nodes per stream", "KB", func(r *nodesRun) float64 { return r.rssPerStream / 1024 }),
	}
	if o.rampTime > 0 {
		rows = append(rows,
			both("most takeovers a second that this machine carries", "/s", func(r *nodesRun) float64 { return r.most.done }),
			both("at that rate: event at the superseded client, p99", "ms", func(r *nodesRun) float64 { return quantile(r.most.told, 0.99) }),
			both("at that rate: CPU of all nodes per takeover", "µs", func(r *nodesRun) float64 { return micros(r.most.nodesCPU) }),
			shared("at that rate: CPU of Redis per takeover", "µs", nodes.most.redis.cores/nodes.most.done*1e6),
		)
	}
	return rows
}

func (r nodesReport) writeJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "\t")
	return enc.Encode(r)
}

const nodesPreface = `%d nodes with %d streams each, and one node with as many as all of them; %d takeovers a second for %s, each key in
its turn, the newcomer always on another node than the stream that it supersedes. Times are from just before the newcomer's
request is written. Clients, application, nodes and Redis share the machine: %s, %d CPUs, load before %s, %s, Caddy %s.

`

// writeTable writes the report as Markdown that also reads as plain text.
func (r nodesReport) writeTable(w io.Writer) error {
	o, env := r.opts, r.Environment
	var b strings.Builder
	if r.Quick {
		b.WriteString("A quick run: it shows that everything works, its numbers mean nothing.\n\n")
	}
	fmt.Fprintf(&b, nodesPreface, o.nodes, o.nodeStreams, o.takeoverRate, o.takeoverTime,
		env.System, env.CPUs, env.Load, env.Go, env.Caddy)
	lines := [][]string{{"what", "one node, memory", fmt.Sprintf("%d nodes, Redis", o.nodes), "goal", "result"}}
	for _, one := range r.Rows {
		cell := row{Unit: one.Unit, Goal: one.Goal}
		lines = append(lines, []string{one.What, cell.value(one.One), cell.value(one.Nodes), cell.goal(), cell.result()})
	}
	writeAligned(&b, lines)
	_, err := io.WriteString(w, b.String())
	return err
}
