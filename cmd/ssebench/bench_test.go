package main

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestBench_QuickRun runs the whole benchmark, small. It asserts that there is
// something in every row, and nothing of how fast it was.
func TestBench_QuickRun(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "ssebench")
	output, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, ".").CombinedOutput()
	require.NoError(t, err, string(output))

	text, err := exec.CommandContext(t.Context(), binary, "-quick").Output()
	require.NoError(t, err)
	for _, row := range []string{
		"CPU per relayed event", "RSS per idle stream", "CPU per opened stream",
		"event at the superseded client, p99", "CPU per non-SSE request",
	} {
		assert.Contains(t, string(text), "| "+row)
	}

	answer, err := exec.CommandContext(t.Context(), binary, "-quick", "-json").Output()
	require.NoError(t, err)
	assert.True(t, json.Valid(answer), string(answer))
}

// TestBench_QuickRunOfNodes is the same for several nodes.
func TestBench_QuickRunOfNodes(t *testing.T) {
	var text, progress strings.Builder
	require.NoError(t, run(t.Context(), []string{"-quick", "-nodes", "3", "-ramp-time", "200ms"}, &text, &progress), &progress)
	for _, row := range []string{
		"event at the superseded client, p99", "CPU of Redis per takeover", "nothing happens: scripts that Redis runs",
		"memory of Redis per stream", "RSS of the nodes per stream", "most takeovers a second that this machine carries",
	} {
		assert.Contains(t, text.String(), "| "+row)
	}
	assert.Contains(t, text.String(), "not judged")
	assert.NotContains(t, text.String(), "NaN")

	var answer strings.Builder
	require.NoError(t, run(t.Context(), []string{"-quick", "-nodes", "2", "-json"}, &answer, &progress), &progress)
	assert.True(t, json.Valid([]byte(answer.String())), answer.String())
}

func TestOptions_RefuseWhatCannotBeMeasured(t *testing.T) {
	for _, args := range [][]string{{"-rounds", "0"}, {"-streams", "-1"}, {"-events", "0"}, {"extra"}} {
		_, err := parseOptions(args, discard{})
		assert.Error(t, err, args)
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
