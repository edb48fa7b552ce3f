package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"
)

// bench is one run of the benchmark.
type bench struct {
	opts   options
	stderr io.Writer
	res    *results
	round  int // from 1
}

// measure runs all rounds. In each, the sides take turns, so that what drifts
// on the machine meanwhile meets both.
func measure(ctx context.Context, opts options, stderr io.Writer) (*results, error) {
	for flag, dir := range map[string]string{"cpuprofile": opts.cpuProfile, "memprofile": opts.memProfile} {
		if dir == "" {
			continue
		}
		if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // profiles are no secret
			return nil, fmt.Errorf("-%s: %w", flag, err)
		}
	}
	b := &bench{opts: opts, stderr: stderr, res: new(results)}
	began := time.Now()
	for b.round = 1; b.round <= opts.rounds; b.round++ {
		for _, s := range inTurn {
			b.progress("%s holds %d streams", s, opts.streams)
			if err := b.hold(ctx, s); err != nil {
				return nil, fmt.Errorf("holding streams, %s: %w", s, err)
			}
		}
		b.progress("relaying events")
		if err := b.relay(ctx); err != nil {
			return nil, fmt.Errorf("relaying events: %w", err)
		}
		b.progress("answering requests for JSON")
		if err := b.answer(ctx); err != nil {
			return nil, fmt.Errorf("answering requests for JSON: %w", err)
		}
	}
	fmt.Fprintf(stderr, "done in %s\n", time.Since(began).Round(time.Second))
	return b.res, nil
}

func (b *bench) progress(format string, args ...any) {
	fmt.Fprintf(b.stderr, "round %d/%d: %s\n", b.round, b.opts.rounds, fmt.Sprintf(format, args...))
}

// cpuOf measures the CPU time that c spends while act runs.
func cpuOf(c *child, act func() error) (time.Duration, error) {
	before, err := c.usage()
	if err != nil {
		return 0, err
	}
	if err := act(); err != nil {
		return 0, err
	}
	after, err := c.usage()
	return after.CPU - before.CPU, err
}

// pause waits for d.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
