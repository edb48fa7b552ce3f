package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// child is a sub-process in a role. It ends when its standard input does, and
// so also when this process is killed.
type child struct {
	role    string
	address string // where it listens

	cmd     *exec.Cmd
	stdin   io.WriteCloser
	replies *json.Decoder
}

// childGrace is how long a child may take to end by itself.
const childGrace = 5 * time.Second

// startChild starts this program again as a role and waits until it listens.
// Its environment is this process's and env.
func startChild(ctx context.Context, stderr io.Writer, env []string, role string, args ...string) (*child, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding this program to start the %s: %w", role, err)
	}
	cmd := exec.CommandContext(ctx, exe, append([]string{role}, args...)...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("starting the %s: %w", role, err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("starting the %s: %w", role, err)
	}
	cmd.Cancel = stdin.Close
	cmd.WaitDelay = childGrace
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the %s: %w", role, err)
	}

	c := &child{role: role, cmd: cmd, stdin: stdin, replies: json.NewDecoder(stdout)}
	var r ready
	if err := c.reply(&r); err != nil {
		return nil, errors.Join(err, c.stop())
	}
	c.address = r.Address
	return c, nil
}

func (c *child) reply(v any) error {
	if err := c.replies.Decode(v); err != nil {
		return fmt.Errorf("the %s gave no answer: %w", c.role, err)
	}
	return nil
}

// usage asks what the child has used up to now.
func (c *child) usage() (usage, error) { return c.ask(commandUsage) }

// settle lets the child give its free memory back and asks what it uses then.
func (c *child) settle() (usage, error) { return c.ask(commandSettle) }

// writeHeap lets the child write a heap profile.
func (c *child) writeHeap(file string) error {
	_, err := c.ask(commandHeap + " " + file)
	return err
}

func (c *child) ask(command string) (u usage, err error) {
	if _, err := io.WriteString(c.stdin, command+"\n"); err != nil {
		return u, fmt.Errorf("asking the %s for its %s: %w", c.role, command, err)
	}
	err = c.reply(&u)
	return u, err
}

// stop ends the child and waits until it is gone.
func (c *child) stop() error {
	_ = c.stdin.Close() // already closed if the context is done
	stuck := time.AfterFunc(childGrace, func() { _ = c.cmd.Process.Kill() })
	defer stuck.Stop()
	if err := c.cmd.Wait(); err != nil {
		return fmt.Errorf("the %s ended badly: %w", c.role, err)
	}
	return nil
}
