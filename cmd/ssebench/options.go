package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"time"
)

// options say how much to measure.
type options struct {
	rounds int
	slices int // pairs of measurements in a round, where both Caddys stay up

	streams   int
	takeovers int
	settle    time.Duration

	relayStreams int
	events       int // per stream and slice
	rate         int // events per second and stream

	connections int
	requests    int // per slice

	nodes        int // 0: the comparison with plain Caddy is measured
	nodeStreams  int // on each
	takeoverRate int // a second
	takeoverTime time.Duration
	idle         time.Duration
	rampTime     time.Duration // at each rate; 0: no ramp

	quick      bool
	json       bool
	cpuProfile string
	memProfile string
	timeout    time.Duration
}

// quickValues are what -quick sets, unless the flag is given too.
var quickValues = map[string]string{
	"rounds": "1", "slices": "1",
	"streams": "40", "takeovers": "10", "settle": "200ms",
	"relay-streams": "8", "events": "20",
	"connections": "2", "requests": "50",
	"node-streams": "20", "takeover-rate": "50", "takeover-time": "1s", "idle": "500ms", "ramp-time": "0s",
	"timeout": "2m",
}

func parseOptions(args []string, stderr io.Writer) (options, error) {
	var o options
	fs := flag.NewFlagSet("ssebench", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.IntVar(&o.rounds, "rounds", 5, "how often everything is measured, each time in fresh processes")
	fs.IntVar(&o.slices, "slices", 20, "per round, how often plain and guarded take turns at relaying events and at answering requests")
	fs.IntVar(&o.streams, "streams", 5000, "streams held idle")
	fs.IntVar(&o.takeovers, "takeovers", 500, "newcomers for keys that are held, one after the other")
	fs.DurationVar(&o.settle, "settle", 2*time.Second, "memory counts once it has moved by less than 1% for this `time`")
	fs.IntVar(&o.relayStreams, "relay-streams", 200, "streams that events are relayed on")
	fs.IntVar(&o.events, "events", 20, "events relayed per stream and slice")
	fs.IntVar(&o.rate, "rate", 50, "events per second and stream")
	fs.IntVar(&o.connections, "connections", 16, "keep-alive connections that ask for JSON")
	fs.IntVar(&o.requests, "requests", 1000, "JSON requests per slice")
	fs.IntVar(&o.nodes, "nodes", 0, "measure takeovers across so many nodes that share a Redis, beside one node, instead of what the guard costs")
	fs.IntVar(&o.nodeStreams, "node-streams", 3000, "with -nodes: streams on each")
	fs.IntVar(&o.takeoverRate, "takeover-rate", 100, "with -nodes: takeovers a second")
	fs.DurationVar(&o.takeoverTime, "takeover-time", time.Minute, "with -nodes: for how long")
	fs.DurationVar(&o.idle, "idle", 20*time.Second, "with -nodes: for how long nothing happens first")
	fs.DurationVar(&o.rampTime, "ramp-time", 10*time.Second, "with -nodes: how long each higher rate is tried, to see how many takeovers a second are carried; 0: not")
	fs.BoolVar(&o.quick, "quick", false, "a short run that shows that everything works; its numbers mean nothing")
	fs.BoolVar(&o.json, "json", false, "print JSON instead of a table")
	fs.StringVar(&o.cpuProfile, "cpuprofile", "", "write CPU profiles of the Caddys that relay and answer to this `directory` (and measure slower)")
	fs.StringVar(&o.memProfile, "memprofile", "", "write exact heap profiles of the Caddys that hold streams to this `directory` (and measure slower)")
	fs.DurationVar(&o.timeout, "timeout", 20*time.Minute, "give up after this `time`")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if fs.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q: there are only flags", fs.Arg(0))
	}
	if o.quick {
		if err := setQuick(fs); err != nil {
			return o, err
		}
	}
	return o, o.validate()
}

func setQuick(fs *flag.FlagSet) error {
	given := map[string]bool{}
	fs.Visit(func(f *flag.Flag) { given[f.Name] = true })
	for name, value := range quickValues {
		if given[name] {
			continue
		}
		if err := fs.Set(name, value); err != nil {
			return fmt.Errorf("-quick: -%s: %w", name, err)
		}
	}
	return nil
}

func (o options) validate() error {
	for _, f := range []struct {
		name  string
		value int
	}{
		{"rounds", o.rounds}, {"slices", o.slices}, {"streams", o.streams}, {"takeovers", o.takeovers},
		{"relay-streams", o.relayStreams}, {"events", o.events}, {"rate", o.rate},
		{"connections", o.connections}, {"requests", o.requests},
		{"node-streams", o.nodeStreams}, {"takeover-rate", o.takeoverRate},
	} {
		if f.value < 1 {
			return fmt.Errorf("-%s %d: must be 1 or more", f.name, f.value)
		}
	}
	switch {
	case o.takeovers > o.streams:
		return fmt.Errorf("-takeovers %d: must not be more than -streams %d, each key is taken over once", o.takeovers, o.streams)
	case o.requests < o.connections:
		return fmt.Errorf("-requests %d: must not be less than -connections %d", o.requests, o.connections)
	case o.nodes != 0 && (o.nodes < 2 || o.nodes > mostNodes):
		return fmt.Errorf("-nodes %d: must be 2 to %d, or 0 for the comparison with plain Caddy", o.nodes, mostNodes)
	case o.takeoverTime <= 0:
		return errors.New("-takeover-time: must be more than 0")
	case o.idle <= 0:
		return errors.New("-idle: must be more than 0")
	case o.rampTime < 0:
		return errors.New("-ramp-time: must be more than 0, or 0 for no ramp")
	case o.settle <= 0:
		return errors.New("-settle: must be more than 0")
	case o.timeout <= 0:
		return errors.New("-timeout: must be more than 0")
	}
	return nil
}

const (
	mostNodes = 16
	// mostTaken is how many newcomers there may be beside those whom they supersede.
	mostTaken = 1500
)

// every is the time between two events of a stream.
func (o options) every() time.Duration { return time.Second / time.Duration(o.rate) }

// files is how many file descriptors a Caddy needs: two per proxied stream,
// and some.
func (o options) files() int {
	const others = 200
	if o.nodes > 0 { // the one node has all streams, and those that are taken over
		return 2*(o.nodes*o.nodeStreams+warmUpStreams) + mostTaken + others
	}
	return 2*(max(o.streams+o.takeovers, o.relayStreams)+warmUpStreams+o.connections) + others
}

// summary says what was measured, for the report.
func (o options) summary() summary {
	return summary{
		Rounds: o.rounds, Slices: o.slices, Streams: o.streams, Takeovers: o.takeovers,
		RelayStreams: o.relayStreams, EventsPerSlice: o.relayStreams * o.events, EventSize: eventSize,
		EventsPerSecond: o.relayStreams * o.rate, RequestsPerSlice: o.requests, Quick: o.quick,
	}
}
