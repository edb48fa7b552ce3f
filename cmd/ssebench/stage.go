package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// stage is an upstream and the Caddys in front of it, all freshly started.
type stage struct {
	upstream *child
	caddys   map[side]*child
	dir      string
}

// newStage starts the upstream.
func newStage(ctx context.Context, stderr io.Writer) (*stage, error) {
	dir, err := os.MkdirTemp("", "ssebench-")
	if err != nil {
		return nil, fmt.Errorf("making a directory for configurations: %w", err)
	}
	s := &stage{caddys: map[side]*child{}, dir: dir}
	if s.upstream, err = startChild(ctx, stderr, nil, roleUpstream); err != nil {
		return nil, errors.Join(err, s.clear())
	}
	return s, nil
}

// onStage runs act on a stage with a Caddy for each of sides, and clears it.
func (b *bench) onStage(ctx context.Context, scene string, sides []side, act func(*stage) error) (err error) {
	s, err := newStage(ctx, b.stderr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.clear()) }()
	for _, side := range sides {
		if err := b.startCaddy(ctx, s, scene, side); err != nil {
			return err
		}
	}
	return act(s)
}

func (b *bench) startCaddy(ctx context.Context, s *stage, scene string, side side) error {
	var args, env []string
	if dir := b.opts.cpuProfile; dir != "" {
		args = append(args, b.profile(dir, scene, side))
	}
	if b.opts.memProfile != "" {
		env = append(env, "GODEBUG=memprofilerate=1") // each allocation, not a sample
	}
	c, err := s.startCaddy(ctx, b.stderr, side.String(), side.guard(), env, args...)
	if err != nil {
		return err
	}
	s.caddys[side] = c
	return nil
}

// startCaddy starts a Caddy with that guard, or none, before the upstream. The caller
// stops it.
func (s *stage) startCaddy(ctx context.Context, stderr io.Writer, name string, guard object, env []string, args ...string) (*child, error) {
	storage := filepath.Join(s.dir, name)
	config, err := caddyConfig(guard, s.upstream.address, storage)
	if err != nil {
		return nil, fmt.Errorf("configuration of the %s Caddy: %w", name, err)
	}
	file := storage + ".json"
	if err := os.WriteFile(file, config, 0o600); err != nil {
		return nil, err
	}
	// It finds nothing of the user's.
	env = append(env, "HOME="+s.dir, "XDG_DATA_HOME="+s.dir, "XDG_CONFIG_HOME="+s.dir)
	c, err := startChild(ctx, stderr, env, roleCaddy, append([]string{file}, args...)...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return c, nil
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
