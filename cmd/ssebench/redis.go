package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/redis/rueidis"
)

// redisServer is a redis-server that keeps nothing on disk.
type redisServer struct {
	address string
	cmd     *exec.Cmd
	exited  chan struct{} // closed once it has ended
	client  rueidis.Client
}

// redisUse is what a redis-server has used up to now.
type redisUse struct {
	cpu time.Duration
	// scripts were asked for by the nodes; commands counts also those inside of scripts.
	scripts, commands int64
	memory            int64 // bytes, of the data alone
}

func startRedis(ctx context.Context, dir string) (*redisServer, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it does not wait
	if err != nil {
		return nil, fmt.Errorf("finding a port for redis-server: %w", err)
	}
	s := &redisServer{address: ln.Addr().String(), exited: make(chan struct{})}
	_, port, _ := net.SplitHostPort(s.address)
	ln.Close()
	data := filepath.Join(dir, "redis")
	if err := os.Mkdir(data, 0o700); err != nil {
		return nil, err
	}
	s.cmd = exec.CommandContext(ctx, "redis-server", "--port", port, "--bind", "127.0.0.1", "--dir", data,
		"--save", "", "--appendonly", "no", "--loglevel", "warning")
	apart(s.cmd)
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting redis-server (install it with: apt-get install redis-server): %w", err)
	}
	go func() {
		_ = s.cmd.Wait()
		close(s.exited)
	}()
	deadline := time.Now().Add(patience)
	for {
		s.client, err = rueidis.NewClient(rueidis.ClientOption{
			InitAddress: []string{s.address}, ForceSingleClient: true, DisableCache: true, PipelineMultiplex: -1,
		})
		if err == nil {
			return s, nil
		}
		if pauseErr := pause(ctx, 20*time.Millisecond); pauseErr != nil || time.Now().After(deadline) {
			return nil, errors.Join(fmt.Errorf("redis-server does not answer: %w", err), s.stop())
		}
	}
}

func (s *redisServer) stop() error {
	if s.client != nil {
		s.client.Close()
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may be gone
	stuck := time.AfterFunc(childGrace, func() { _ = s.cmd.Process.Kill() })
	defer stuck.Stop()
	<-s.exited
	return nil
}

// use asks what the server has used.
func (s *redisServer) use() (u redisUse, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, section := range []string{"cpu", "memory", "commandstats"} {
		info, err := s.client.Do(ctx, s.client.B().Info().Section(section).Build()).ToString()
		if err != nil {
			return u, fmt.Errorf("asking Redis what it uses: %w", err)
		}
		if err := u.read(info); err != nil {
			return u, err
		}
	}
	return u, nil
}

// read adds what INFO says.
func (u *redisUse) read(info string) error {
	var errs []error
	number := func(s string) float64 {
		f, err := strconv.ParseFloat(s, 64)
		errs = append(errs, err)
		return f
	}
	for line := range strings.SplitSeq(info, "\r\n") {
		name, value, _ := strings.Cut(line, ":")
		switch {
		case name == "used_cpu_sys" || name == "used_cpu_user":
			u.cpu += time.Duration(number(value) * float64(time.Second))
		case name == "used_memory_dataset":
			u.memory = int64(number(value))
		case strings.HasPrefix(name, "cmdstat_"):
			calls, _, _ := strings.Cut(strings.TrimPrefix(value, "calls="), ",")
			n := int64(number(calls))
			u.commands += n
			if strings.HasPrefix(name, "cmdstat_eval") {
				u.scripts += n
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("reading what Redis says it uses: %w", err)
	}
	return nil
}
