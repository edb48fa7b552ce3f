package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/demo"
)

// run starts everything, says where it is, and ends it with the context.
func run(ctx context.Context, o options) (err error) {
	redis, err := findRedis()
	if err != nil {
		return err
	}
	if err := o.requireFree(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "sse-guard-cluster-")
	if err != nil {
		return fmt.Errorf("making a directory for what the processes write: %w", err)
	}
	c := &cluster{ctx: ctx, o: o, dir: dir, redis: redis, ended: make(chan *process, nodeCount+2)}
	defer func() { err = errors.Join(err, c.stop(), os.RemoveAll(dir)) }()
	err = c.start()
	switch {
	case ctx.Err() != nil:
		return nil // it was told to stop
	case err != nil:
		return err
	}
	c.said.print(c.introduction())
	return c.watch()
}

// watch waits until it is told to stop. What was killed to see what comes of it is told;
// without the front, or a node, there is nothing to see.
func (c *cluster) watch() error {
	for nodes := nodeCount; nodes > 0; {
		select {
		case <-c.ctx.Done():
			return nil
		case p := <-c.ended:
			switch {
			case c.ctx.Err() != nil:
				return nil //nolint:nilerr // the terminal's Ctrl-C is for all of them
			case p.name == "front":
				return p.unexpected()
			case p.name != "redis":
				nodes--
			}
			c.said.line("%s has ended (%v)", p.name, p.err)
		}
	}
	return errors.New("all nodes have ended")
}

// findRedis finds the Redis, or the Valkey, of this machine.
func findRedis() (string, error) {
	for _, name := range []string{"redis-server", "valkey-server"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New(`there is no redis-server here, and no valkey-server; install one of them:
    Debian, Ubuntu   sudo apt-get install redis-server
    Fedora           sudo dnf install valkey
    macOS            brew install redis`)
}

// requireFree reports a port that somebody listens on. Two Caddys would share it.
func (o *options) requireFree() error {
	for _, port := range append([]int{o.front, o.redis}, o.nodes[:]...) {
		ln, err := net.Listen("tcp", fmt.Sprintf(":%d", port)) //nolint:noctx // it does not wait
		if err != nil {
			return fmt.Errorf("port %d cannot be listened on (%w); end the program that does, or choose other ports: make cluster-demo ARGS=\"-ports 9080,9081,9082,9083,9084\"", port, err)
		}
		ln.Close()
	}
	return nil
}

// cluster is all that runs.
type cluster struct {
	ctx   context.Context // ends with a signal
	o     options
	dir   string
	redis string // the program
	app   *http.Server
	said  said
	// processes are in the order in which they were started.
	processes []*process
	ended     chan *process
}

// ready bounds how long a process may take until it answers.
const ready = time.Minute

func (c *cluster) start() error {
	app, err := c.startApp()
	if err != nil {
		return err
	}
	redisAddr := local(c.o.redis)
	redisDir, err := c.makeDir("redis")
	if err != nil {
		return err
	}
	redis := c.command(c.redis, "--port", fmt.Sprint(c.o.redis), "--bind", "127.0.0.1", "--dir", redisDir,
		"--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction")
	if err := c.run("redis", redis, func() bool { return c.answersPing(redisAddr) }); err != nil {
		return err
	}
	upstreams := ""
	for i, port := range c.o.nodes {
		name := fmt.Sprintf("node %d", i+1)
		err := c.startCaddy(name, "node.Caddyfile", port,
			"BIND=127.0.0.1", "NODE="+name, "REDIS="+redisAddr, "APP="+app)
		if err != nil {
			return err
		}
		// round_robin begins with the second one: that is to be node 1.
		if i == nodeCount-1 {
			upstreams = local(port) + upstreams
		} else {
			upstreams += " " + local(port)
		}
	}
	return c.startCaddy("front", "front.Caddyfile", c.o.front, "NODES="+upstreams)
}

// startCaddy starts one that has nothing of the user's, and finds nothing of another's.
func (c *cluster) startCaddy(name, caddyfile string, port int, env ...string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program to start a Caddy: %w", err)
	}
	home, err := c.makeDir(name)
	if err != nil {
		return err
	}
	cmd := c.command(self, roleCaddy, "run", "--config", filepath.Join(c.o.caddyfiles, caddyfile), "--adapter", "caddyfile")
	cmd.Env = append(os.Environ(), "HOME="+home, "XDG_DATA_HOME="+home, "XDG_CONFIG_HOME="+home, fmt.Sprintf("PORT=%d", port))
	cmd.Env = append(cmd.Env, env...)
	url := "http://" + local(port)
	return c.run(name, cmd, func() bool { return c.answersHTTP(url) })
}

// command is one that a signal does not end: that is for stop, in its turn.
func (c *cluster) command(program string, args ...string) *exec.Cmd {
	return exec.CommandContext(context.WithoutCancel(c.ctx), program, args...)
}

func (c *cluster) makeDir(name string) (string, error) {
	dir := filepath.Join(c.dir, name)
	return dir, os.Mkdir(dir, 0o700)
}

// run starts a process and waits until it answers.
func (c *cluster) run(name string, cmd *exec.Cmd, answers func() bool) error {
	p, err := startProcess(name, cmd, c.o.verbose)
	if err != nil {
		return err
	}
	c.processes = append(c.processes, p)
	deadline := time.NewTimer(ready)
	defer deadline.Stop()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for !answers() {
		select {
		case <-again.C:
		case <-p.exited:
			return p.unexpected()
		case <-deadline.C:
			return fmt.Errorf("%s has not answered for %s; it printed:\n%s", name, ready, p.printed)
		case <-c.ctx.Done():
			return context.Cause(c.ctx)
		}
	}
	go func() {
		<-p.exited
		c.ended <- p // there is room for all
	}()
	return nil
}

// stop ends everything, the front first, so that nobody asks for what is gone.
func (c *cluster) stop() error {
	var errs []error
	for len(c.processes) > 0 {
		last := len(c.processes) - 1
		errs = append(errs, c.processes[last].stop())
		c.processes = c.processes[:last]
	}
	if c.app != nil {
		errs = append(errs, c.app.Close())
	}
	return errors.Join(errs...)
}

func local(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

func (c *cluster) answersHTTP(url string) bool {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: ready}
	r, err := http.NewRequestWithContext(c.ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	response, err := client.Do(r)
	if err != nil {
		return false
	}
	// To the end, or a Caddy would log that its client has left.
	_, err = io.Copy(io.Discard, response.Body)
	return errors.Join(err, response.Body.Close()) == nil && response.StatusCode == http.StatusOK
}

// answersPing asks a Redis.
func (c *cluster) answersPing(addr string) bool {
	d := net.Dialer{Timeout: ready}
	conn, err := d.DialContext(c.ctx, "tcp", addr)
	if err != nil {
		return false
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(ready))
	pong := make([]byte, len("+PONG"))
	_, err = conn.Write([]byte("PING\r\n"))
	if err == nil {
		_, err = conn.Read(pong)
	}
	return err == nil && string(pong) == "+PONG"
}

// startApp serves the application behind the nodes.
func (c *cluster) startApp() (addr string, err error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it does not wait
	if err != nil {
		return "", fmt.Errorf("starting the application: %w", err)
	}
	c.app = &http.Server{Handler: &teller{app: demo.New(), said: &c.said}, ReadHeaderTimeout: time.Minute}
	go func() { _ = c.app.Serve(ln) }() // until stop
	return ln.Addr().String(), nil
}

// teller is the application, and tells which of its streams open and end.
type teller struct {
	app     http.Handler
	said    *said
	streams atomic.Int64
}

func (t *teller) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/events" {
		n, node := t.streams.Add(1), r.Header.Get("X-Node")
		t.said.line("%s: stream %d opens", node, n)
		defer t.said.line("%s: stream %d has ended", node, n)
	}
	t.app.ServeHTTP(w, r)
}

// said is what was said on standard output, a whole at a time.
type said struct{ mu sync.Mutex } // guards standard output

func (s *said) print(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Print(text)
}

func (s *said) line(format string, args ...any) {
	s.print(time.Now().Format(time.TimeOnly) + "  " + fmt.Sprintf(format, args...) + "\n")
}

// introduction says what runs, and what to do with it.
func (c *cluster) introduction() string {
	where := map[string]string{"redis": local(c.o.redis), "front": fmt.Sprintf("http://localhost:%d", c.o.front)}
	for i, port := range c.o.nodes {
		where[fmt.Sprintf("node %d", i+1)] = fmt.Sprintf("http://localhost:%d", port)
	}
	var b strings.Builder
	b.WriteByte('\n')
	for _, p := range c.processes {
		fmt.Fprintf(&b, "  %-8s %-24s process %d\n", p.name, where[p.name], p.cmd.Process.Pid)
	}
	fmt.Fprintf(&b, `
Open http://localhost:%d in two tabs. Each stream goes to the next node: the first tab's to
node 1, the second one's to node 2; and the first tab is told when the second one opens.
Kill a node, or Redis, to see what comes of it (kill -9 <process>). Ctrl-C ends everything.

`, c.o.front)
	return b.String()
}
