package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// stage is an upstream and the Caddys in front of it, all freshly started.
type stage struct {
	upstream *child
	caddys   map[side]*child
	dir      string
}

// onStage runs act on a stage with a Caddy for each of sides, and clears it.
func (b *bench) onStage(ctx context.Context, scene string, sides []side, act func(*stage) error) (err error) {
	dir, err := os.MkdirTemp("", "ssebench-")
	if err != nil {
		return fmt.Errorf("making a directory for configurations: %w", err)
	}
	s := &stage{caddys: map[side]*child{}, dir: dir}
	defer func() { err = errors.Join(err, s.clear()) }()

	if s.upstream, err = startChild(ctx, b.stderr, nil, roleUpstream); err != nil {
		return err
	}
	for _, side := range sides {
		if err := b.startCaddy(ctx, s, scene, side); err != nil {
			return err
		}
	}
	return act(s)
}

func (b *bench) startCaddy(ctx context.Context, s *stage, scene string, side side) error {
	storage := filepath.Join(s.dir, side.String())
	config, err := caddyConfig(side, s.upstream.address, storage)
	if err != nil {
		return fmt.Errorf("configuration of the %s Caddy: %w", side, err)
	}
	file := storage + ".json"
	if err := os.WriteFile(file, config, 0o600); err != nil {
		return err
	}
	args := []string{file}
	if dir := b.opts.cpuProfile; dir != "" {
		args = append(args, b.profile(dir, scene, side))
	}
	// It finds nothing of the user's.
	env := []string{"HOME=" + s.dir, "XDG_DATA_HOME=" + s.dir, "XDG_CONFIG_HOME=" + s.dir}
	if b.opts.memProfile != "" {
		env = append(env, "GODEBUG=memprofilerate=1") // each allocation, not a sample
	}
	c, err := startChild(ctx, b.stderr, env, roleCaddy, args...)
	if err != nil {
		return fmt.Errorf("%s: %w", side, err)
	}
	s.caddys[side] = c
	return nil
}

// profile names a profile's file.
func (b *bench) profile(dir, what string, s side) string {
	return filepath.Join(dir, fmt.Sprintf("%s-%s-%d.pprof", what, s, b.round))
}

// clear stops all processes and removes their files.
func (s *stage) clear() error {
	var errs []error
	for _, c := range s.caddys {
		errs = append(errs, c.stop())
	}
	if s.upstream != nil {
		errs = append(errs, s.upstream.stop())
	}
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}
