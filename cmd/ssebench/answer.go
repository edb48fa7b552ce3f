package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// answer lets both Caddys answer requests that are no streams, in turn.
func (b *bench) answer(ctx context.Context) error {
	return b.onStage(ctx, "answer", inTurn, func(stage *stage) error {
		for _, s := range inTurn {
			if err := b.askAll(ctx, stage.caddys[s].address, max(b.opts.requests/5, b.opts.connections)); err != nil {
				return err
			}
		}
		for range b.opts.slices {
			for _, s := range inTurn {
				var took time.Duration
				cpu, err := cpuOf(stage.caddys[s], func() error {
					began := time.Now()
					err := b.askAll(ctx, stage.caddys[s].address, b.opts.requests)
					took = time.Since(began)
					return err
				})
				if err != nil {
					return err
				}
				requests := float64(b.opts.requests)
				b.res.requestCPU.add(s, micros(cpu)/requests)
				b.res.requestRate.add(s, requests/took.Seconds())
			}
		}
		return nil
	})
}

// askAll sends requests over keep-alive connections, each as soon as the one
// before it is answered.
func (b *bench) askAll(ctx context.Context, address string, requests int) error {
	var (
		clients = make([]error, b.opts.connections)
		wg      sync.WaitGroup
	)
	for i := range clients {
		wg.Go(func() {
			clients[i] = ask(ctx, address, token(i), share(requests, b.opts.connections, i))
		})
	}
	wg.Wait()
	return errors.Join(clients...)
}

// share is how much of total the i-th of n has to do.
func share(total, n, i int) int { return (i+1)*total/n - i*total/n }

func ask(ctx context.Context, address, token string, requests int) error {
	conn, err := dial(ctx, address)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	_ = conn.SetDeadline(time.Now().Add(patience + time.Duration(requests)*time.Second/10))
	req := request(pathAPI, "application/json", token)
	for i := range requests {
		if err := conn.exchange(req); err != nil {
			return fmt.Errorf("request %d of %d: %w", i+1, requests, err)
		}
	}
	return nil
}
