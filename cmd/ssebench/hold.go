package main

import (
	"context"
	"fmt"
	"runtime"
	"time"
)

const (
	// warmUpStreams are opened and closed before anything is measured.
	warmUpStreams = 20
	// takeoverPace is the pause between two takeovers.
	takeoverPace = 2 * time.Millisecond
)

// memory is what a process holds: as it happens to be, and once garbage is
// collected and free memory given back, which an idle Go process comes to by
// itself within some minutes.
type memory struct{ asIs, settled usage }

// hold opens many streams, weighs them, and takes some of them over.
func (b *bench) hold(ctx context.Context, s side) error {
	return b.onStage(ctx, "hold", []side{s}, func(stage *stage) error {
		caddy := stage.caddys[s]
		if err := warmUp(ctx, caddy.address, s); err != nil {
			return err
		}
		before, err := b.weigh(ctx, caddy)
		if err != nil {
			return err
		}
		crowd := newCrowd(ctx, caddy.address, "idle")
		defer crowd.close()
		if err := b.openAll(ctx, crowd, caddy, s); err != nil {
			return err
		}
		after, err := b.weigh(ctx, caddy)
		if err != nil {
			return err
		}
		b.recordMemory(s, before, after)
		if b.opts.memProfile != "" {
			if err := caddy.writeHeap(b.profile(b.opts.memProfile, "heap", s)); err != nil {
				return err
			}
		}
		if err := b.takeOver(ctx, crowd, s); err != nil {
			return err
		}
		return crowd.failure()
	})
}

// warmUp lets a Caddy do once what it will do often: open a stream, take one
// over, answer.
func warmUp(ctx context.Context, address string, s side) error {
	crowd := newCrowd(ctx, address, "warm-up")
	defer crowd.close()
	if err := crowd.open(ctx, warmUpStreams); err != nil {
		return err
	}
	_, err := crowd.takeOver(ctx, crowd.streams[0], s)
	return err
}

func (b *bench) openAll(ctx context.Context, crowd *crowd, caddy *child, s side) error {
	var took time.Duration
	cpu, err := cpuOf(caddy, func() error {
		began := time.Now()
		err := crowd.open(ctx, b.opts.streams)
		took = time.Since(began)
		return err
	})
	if err != nil {
		return err
	}
	b.res.openTime.add(s, took.Seconds())
	b.res.openCPU.add(s, micros(cpu)/float64(b.opts.streams))
	return nil
}

func (b *bench) recordMemory(s side, before, after memory) {
	perStream := func(after, before int64) float64 {
		return float64(after-before) / float64(b.opts.streams)
	}
	b.res.rss.add(s, perStream(after.settled.RSS, before.settled.RSS)/1024)
	b.res.rssAsIs.add(s, perStream(after.asIs.RSS, before.asIs.RSS)/1024)
	b.res.heap.add(s, perStream(after.settled.Heap, before.settled.Heap)/1024)
	b.res.stacks.add(s, perStream(after.settled.Stacks, before.settled.Stacks)/1024)
	b.res.goroutines.add(s, perStream(int64(after.settled.Goroutines), int64(before.settled.Goroutines)))
}

func (b *bench) weigh(ctx context.Context, c *child) (m memory, err error) {
	if m.asIs, err = b.stable(ctx, c.usage); err != nil {
		return m, err
	}
	m.settled, err = b.stable(ctx, c.settle)
	return m, err
}

// stable reads until the resident memory has moved by less than 1% for the
// time of -settle.
func (b *bench) stable(ctx context.Context, read func() (usage, error)) (usage, error) {
	deadline := time.Now().Add(patience)
	reference, err := read()
	if err != nil {
		return usage{}, err
	}
	since := time.Now()
	for {
		if err := pause(ctx, b.opts.settle/8); err != nil {
			return usage{}, err
		}
		u, err := read()
		switch {
		case err != nil:
			return usage{}, err
		case !within(u.RSS, reference.RSS, 0.01):
			reference, since = u, time.Now()
		case time.Since(since) >= b.opts.settle:
			return u, nil
		}
		if time.Now().After(deadline) {
			return usage{}, fmt.Errorf("memory still moves by more than 1%% after %s", patience)
		}
	}
}

// within reports whether a is as far from b as the share of b, or nearer.
func within(a, b int64, share float64) bool {
	diff := float64(a - b)
	return max(diff, -diff) <= share*float64(b)
}

// takeOver lets newcomers come for keys that are held, one after the other.
func (b *bench) takeOver(ctx context.Context, crowd *crowd, s side) error {
	runtime.GC() // of this process, which measures the time
	held := crowd.streams[:b.opts.streams:b.opts.streams]
	var told, answered []float64
	for i := range b.opts.takeovers {
		old := held[i*len(held)/b.opts.takeovers]
		t, err := crowd.takeOver(ctx, old, s)
		if err != nil {
			return fmt.Errorf("takeover %d: %w", i+1, err)
		}
		told = append(told, millis(t.told))
		answered = append(answered, millis(t.answered))
		if err := pause(ctx, takeoverPace); err != nil {
			return err
		}
	}
	if s == guarded {
		b.res.takeover.add(told)
	}
	b.res.firstByte[s].add(answered)
	return nil
}

// takeover is how long it took, from just before the newcomer's request was
// written, until the older client had been told and until the newcomer had
// the first byte of its response.
type takeover struct {
	told, answered time.Duration
	newer          *stream
}

// takeOver opens a second stream for the token of old. Without the guard the
// older client is told nothing.
func (c *crowd) takeOver(ctx context.Context, old *stream, s side) (t takeover, err error) {
	newer, o, err := c.join(ctx, old.token)
	if err != nil {
		return t, err
	}
	t.answered, t.newer = o.answered.Sub(o.asked), newer
	if s == plain {
		return t, nil
	}
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case at := <-old.superseded:
		t.told = at.Sub(o.asked)
		return t, nil
	case err := <-c.failed:
		return t, err
	case <-timeout.C:
		return t, fmt.Errorf("the older stream of %s got no %s for %s", old.token, duplicated, patience)
	case <-ctx.Done():
		return t, context.Cause(ctx)
	}
}
