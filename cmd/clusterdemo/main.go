// Command clusterdemo shows one user's stream on several nodes: three of this Caddy, a
// Redis that they share, and a Caddy in front that gives each stream to the next node,
// all as local processes.
//
//	make cluster-demo
//
// It runs the Caddyfiles in testdata/cluster. The application behind the nodes is the
// demo of "caddy sse-proxy": open its page in two tabs. All of it ends with Ctrl-C, and
// nothing is left behind.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/sse-guard/sse-guard/caddymodule"
)

// roleCaddy has this program be a Caddy: the nodes and the front are started so.
const roleCaddy = "caddy"

func main() {
	if len(os.Args) > 1 && os.Args[1] == roleCaddy {
		os.Args = append(os.Args[:1:1], os.Args[2:]...)
		caddycmd.Main()
		return
	}
	if err := demonstrate(os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "cluster-demo:", err)
		os.Exit(1)
	}
}

func demonstrate(args []string) error {
	o, err := parseOptions(args)
	if err != nil {
		return err
	}
	endWithParent()
	// It listens for signals until the end: a second Ctrl-C is not to leave anything
	// behind.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	return run(ctx, o)
}

// nodeCount is how many nodes there are. The Caddyfile in front names as many.
const nodeCount = 3

// options say where the processes listen, and what they run.
type options struct {
	// Ports on this machine.
	front, redis int
	nodes        [nodeCount]int
	caddyfiles   string // the directory of the Caddyfiles
	verbose      bool
}

func parseOptions(args []string) (o options, err error) {
	fs := flag.NewFlagSet("cluster-demo", flag.ContinueOnError)
	ports := fs.String("ports", "8080,8081,8082,8083,8084", "where to listen: the front, the three nodes, Redis")
	fs.StringVar(&o.caddyfiles, "caddyfiles", "testdata/cluster", "the `directory` with node.Caddyfile and front.Caddyfile")
	fs.BoolVar(&o.verbose, "v", false, "show what the processes print")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if fs.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q: there are only flags", fs.Arg(0))
	}
	into := []*int{&o.front}
	for i := range o.nodes {
		into = append(into, &o.nodes[i])
	}
	into = append(into, &o.redis)
	given := strings.Split(*ports, ",")
	if len(given) != len(into) {
		return o, fmt.Errorf("-ports %s: write %d ports, with commas between them", *ports, len(into))
	}
	seen := make(map[int]bool)
	for i, s := range given {
		port, err := strconv.Atoi(strings.TrimSpace(s))
		if err != nil || port < 1 || port > 65535 || seen[port] {
			return o, fmt.Errorf("-ports %s: %q is not allowed; a port is a number from 1 to 65535, and each is another", *ports, s)
		}
		seen[port] = true
		*into[i] = port
	}
	return o, nil
}
