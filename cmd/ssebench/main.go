// Command ssebench measures what sse_guard costs. It runs an upstream, this
// Caddy without the guard and this Caddy with it, in turn and in one run, and
// prints both beside each other and beside the goals.
//
//	go run ./cmd/ssebench          # some minutes
//	go run ./cmd/ssebench -quick   # some seconds: shows that it works, measures nothing
//
// With -nodes 3 it measures takeovers across three nodes that share a Redis, beside one
// node that keeps its holders in memory.
//
// Everything runs on this machine and talks over the loopback interface only.
// The load comes from this process; the upstream and each Caddy are processes
// of their own, started from the same program.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// Roles of the program's own sub-processes.
const (
	roleUpstream = "upstream"
	roleCaddy    = "caddy"
)

func main() {
	if isRole(os.Args[1:]) {
		exit(runRole(os.Args[1:], os.Stdin, os.Stdout))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	exit(err)
}

func exit(err error) {
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		os.Exit(0)
	default:
		fmt.Fprintln(os.Stderr, "ssebench:", err)
		os.Exit(1)
	}
}

// isRole reports whether the arguments are those of a sub-process.
func isRole(args []string) bool {
	return len(args) > 0 && (args[0] == roleUpstream || args[0] == roleCaddy)
}

// runRole is a sub-process until in ends, which it does when the parent closes
// it or is gone, however that came about.
func runRole(args []string, in io.Reader, out io.Writer) error {
	signal.Ignore(os.Interrupt) // a terminal's Ctrl-C is the parent's to handle
	switch {
	case args[0] == roleUpstream && len(args) == 1:
		return runUpstream(in, out)
	case args[0] == roleCaddy && len(args) == 2:
		return runCaddy(args[1], "", in, out)
	case args[0] == roleCaddy && len(args) == 3:
		return runCaddy(args[1], args[2], in, out)
	default:
		return fmt.Errorf("%s: unexpected arguments %q", args[0], args[1:])
	}
}

// run is the program proper: the table goes to stdout, progress to stderr.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	opts, err := parseOptions(args, stderr)
	if err != nil {
		return err
	}
	if err := checkMachine(opts); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, opts.timeout,
		fmt.Errorf("not done within -timeout %s", opts.timeout))
	defer cancel()

	env := describeEnvironment()
	if opts.nodes > 0 {
		runs, err := measureNodes(ctx, opts, stderr)
		if err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return err
		}
		rep := nodesReport{Environment: env, opts: opts, Quick: opts.quick, Rows: nodesRows(opts, runs[0], runs[1])}
		if opts.json {
			return rep.writeJSON(stdout)
		}
		return rep.writeTable(stdout)
	}
	res, err := measure(ctx, opts, stderr)
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	rep := report{Environment: env, Options: opts.summary(), Rows: res.rows(opts)}
	if opts.json {
		return rep.writeJSON(stdout)
	}
	return rep.writeTable(stdout)
}
