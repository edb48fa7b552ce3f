package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
)

// relay lets both Caddys relay events at a fixed rate, in turn, while both
// hold all their streams.
func (b *bench) relay(ctx context.Context) error {
	return b.onStage(ctx, "relay", inTurn, func(stage *stage) error {
		crowds := map[side]*crowd{}
		for _, s := range inTurn {
			crowds[s] = newCrowd(ctx, stage.caddys[s].address, s.String())
			defer crowds[s].close() //nolint:gocritic // two sides, both until the end
			if err := crowds[s].open(ctx, b.opts.relayStreams); err != nil {
				return err
			}
			// Buffers grow, the garbage of the opening goes.
			if err := b.emit(ctx, stage, s, crowds[s], b.opts.events/10+1); err != nil {
				return err
			}
			if _, err := stage.caddys[s].settle(); err != nil {
				return err
			}
		}
		for range b.opts.slices {
			for _, s := range inTurn {
				cpu, err := cpuOf(stage.caddys[s], func() error {
					return b.emit(ctx, stage, s, crowds[s], b.opts.events)
				})
				if err != nil {
					return err
				}
				b.res.relayCPU.add(s, micros(cpu)/float64(b.opts.events*b.opts.relayStreams))
			}
		}
		return nil
	})
}

// emit lets the upstream send count events on each stream of a side and waits
// until the clients have them all.
func (b *bench) emit(ctx context.Context, stage *stage, s side, crowd *crowd, count int) error {
	all := crowd.expect(count * b.opts.relayStreams)
	url := fmt.Sprintf("http://%s%s?group=%s&count=%d&every=%s", stage.upstream.address, pathEmit, s, count, b.opts.every())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("telling the upstream to send events: %w", err)
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if told, _ := strconv.Atoi(string(body)); err != nil || resp.StatusCode != http.StatusOK || told != b.opts.relayStreams {
		return fmt.Errorf("telling the upstream to send events: expected it to tell %d streams, got %s: %q (%w)", b.opts.relayStreams, resp.Status, body, err)
	}
	return crowd.wait(ctx, all)
}
