package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestMain lets the test binary be the benchmark's own sub-processes.
func TestMain(m *testing.M) {
	if isRole(os.Args[1:]) {
		exit(runRole(os.Args[1:], os.Stdin, os.Stdout))
	}
	os.Exit(m.Run())
}

func TestControl_AnswersUntilItsInputEnds(t *testing.T) {
	profile := filepath.Join(t.TempDir(), "heap")
	in := strings.NewReader("usage\nsettle\nheap " + profile + "\n")
	var out strings.Builder
	require.NoError(t, serveControl("127.0.0.1:1", in, &out))

	dec := json.NewDecoder(strings.NewReader(out.String()))
	var r ready
	require.NoError(t, dec.Decode(&r))
	assert.Equal(t, "127.0.0.1:1", r.Address)
	for range 3 {
		var u usage
		require.NoError(t, dec.Decode(&u))
		assert.Positive(t, u.CPU)
		assert.Positive(t, u.RSS)
		assert.Positive(t, u.Heap)
		assert.Positive(t, u.Stacks)
		assert.Positive(t, u.Goroutines)
	}
	assert.ErrorIs(t, dec.Decode(new(usage)), io.EOF)
	assert.FileExists(t, profile)
}

func TestControl_RefusesOtherCommands(t *testing.T) {
	require.ErrorContains(t, serveControl("", strings.NewReader("dance\n"), io.Discard), `unknown command "dance"`)
}

func TestChild_EndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c, err := startChild(ctx, t.Output(), nil, roleUpstream)
	require.NoError(t, err)
	_, err = c.usage()
	require.NoError(t, err)
	cancel()
	_ = c.cmd.Wait() // returns: the process is gone
	assert.NotNil(t, c.cmd.ProcessState)
}

func TestChild_ThatCannotStartSaysSo(t *testing.T) {
	_, err := startChild(t.Context(), io.Discard, nil, roleCaddy, filepath.Join(t.TempDir(), "missing.json"))
	require.ErrorContains(t, err, "the caddy gave no answer")
	require.ErrorContains(t, err, "exit status 1")
}

func TestCaddyConfig_DiffersByTheGuardOnly(t *testing.T) {
	handlers := map[side][]any{}
	for _, s := range inTurn {
		config, err := caddyConfig(s.guard(), "127.0.0.1:9", t.TempDir())
		require.NoError(t, err)
		var parsed struct {
			Apps struct {
				HTTP struct {
					Servers map[string]struct {
						Routes []struct {
							Handle []any `json:"handle"`
						} `json:"routes"`
					} `json:"servers"`
				} `json:"http"`
			} `json:"apps"`
		}
		require.NoError(t, json.Unmarshal(config, &parsed))
		handlers[s] = parsed.Apps.HTTP.Servers[serverName].Routes[0].Handle
	}
	require.Len(t, handlers[plain], 1)
	assert.Equal(t, append([]any{object{"handler": "sse_guard"}}, handlers[plain]...), handlers[guarded])
}

func TestRun_StopsWhenInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	interrupted := errors.New("interrupted")
	// Once something is under way.
	progress := writerFunc(func([]byte) { cancel(interrupted) })
	err := run(ctx, []string{"-quick"}, io.Discard, progress)
	require.ErrorIs(t, err, interrupted)
}

func TestRun_GivesUpAtItsTimeout(t *testing.T) {
	err := run(t.Context(), []string{"-quick", "-timeout", "1ms"}, io.Discard, io.Discard)
	require.ErrorContains(t, err, "not done within -timeout 1ms")
}

func TestMachine_RefusesMoreStreamsThanFiles(t *testing.T) {
	err := run(t.Context(), []string{"-streams", "100000000"}, io.Discard, io.Discard)
	require.ErrorContains(t, err, "open files")
}

type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) {
	f(p)
	return len(p), nil
}
