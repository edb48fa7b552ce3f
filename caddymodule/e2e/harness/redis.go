package harness

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
)

// Redis is a running redis-server with a directory and a port of its own, which keeps
// nothing on disk.
type Redis struct {
	// Addr is where it listens.
	Addr string

	dir string
	// arguments are those of redis-server beside the ones that all have.
	arguments []string
	// options are for connections of the harness's own.
	options rueidis.ClientOption
	printed *lockedBuffer
	cmd     *exec.Cmd
	exited  chan struct{} // closed once the process has ended
}

// StartRedis runs a redis-server until the test ends.
func StartRedis(t testing.TB) *Redis {
	t.Helper()
	port := FreePort(t)
	return startRedis(t, port, rueidis.ClientOption{}, "--port", fmt.Sprint(port))
}

// startRedis runs a redis-server with those arguments, one of which has it listen on the
// port.
func startRedis(t testing.TB, port int, options rueidis.ClientOption, arguments ...string) *Redis {
	t.Helper()
	s := &Redis{
		Addr: fmt.Sprintf("127.0.0.1:%d", port), dir: t.TempDir(), arguments: arguments, options: options, printed: new(lockedBuffer),
	}
	s.options.InitAddress = []string{s.Addr}
	s.options.ForceSingleClient, s.options.DisableCache, s.options.PipelineMultiplex = true, true, -1
	s.Start(t)
	t.Cleanup(func() {
		s.Kill()
		if t.Failed() {
			t.Logf("redis-server printed:\n%s", s.printed)
		}
	})
	return s
}

// Start runs the server again, without what it had, after Kill. It returns once the
// server answers.
func (s *Redis) Start(t testing.TB) {
	t.Helper()
	arguments := append(slices.Clone(s.arguments), "--bind", "127.0.0.1", "--dir", s.dir, "--loglevel", "notice")
	if !slices.Contains(s.arguments, "--sentinel") {
		arguments = append(arguments, "--save", "", "--appendonly", "no")
	}
	s.cmd = exec.Command("redis-server", arguments...)
	s.cmd.Stdout, s.cmd.Stderr = s.printed, s.printed
	dieWithParent(s.cmd)
	require.NoError(t, s.cmd.Start(), "redis-server: apt-get install redis-server, or make deps")
	exited, cmd := make(chan struct{}), s.cmd
	s.exited = exited
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	require.Eventually(t, func() bool {
		client, err := s.connect()
		if err == nil {
			client.Close()
		}
		return err == nil
	}, Patience, 10*time.Millisecond, "redis-server does not answer: %s", s.printed)
}

func (s *Redis) connect() (rueidis.Client, error) {
	return rueidis.NewClient(s.options)
}

// Kill ends the server at once, and with it what it had.
func (s *Redis) Kill() {
	_ = s.cmd.Process.Kill()
	<-s.exited
}

// Pause stops the server in the middle of whatever it does, until Resume.
func (s *Redis) Pause(t testing.TB) {
	t.Helper()
	pause(t, s.cmd.Process)
}

// Resume lets a paused server go on.
func (s *Redis) Resume(t testing.TB) {
	t.Helper()
	require.NoError(t, s.cmd.Process.Signal(syscall.SIGCONT))
}

// Do runs one command and returns its answer.
func (s *Redis) Do(t testing.TB, command ...string) rueidis.RedisMessage {
	t.Helper()
	client, err := s.connect()
	require.NoError(t, err)
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	answer, err := client.Do(ctx, client.B().Arbitrary(command...).Build()).ToMessage()
	if err != nil && !rueidis.IsRedisNil(err) {
		require.NoError(t, err, "%v", command)
	}
	return answer
}
